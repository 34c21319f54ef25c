"""The database: transactions, group commit, migrations, the cipher, and that identified columns are ciphertext."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

import sidecar.store
from sidecar.errors import ClaimLost, Misconfigured, NotStored, Rejected, Retryable
from sidecar.inbox import EventBox
from sidecar.records import Event, Reference
from sidecar.store import Cipher, SqliteStore, Statement, Step, Store
from sidecar.store import open_store as store_at
from sidecar.store.engine import HEAD
from sidecar.store.inventory import SEALED
from sidecar.store.schema import metadata
from tests.harness import ENGINES, cipher_in, house, new_database, now, observation_set, open_store

ADD = Statement("add", "INSERT INTO device (model_digest, remote_id) VALUES (:name, :value)")
MOVE = Statement("move", "UPDATE device SET remote_id = :value WHERE model_digest = :name")
TAKE = Statement("take", "DELETE FROM device WHERE model_digest = :name RETURNING remote_id")
ALL = Statement("all", "SELECT model_digest AS name FROM device ORDER BY model_digest")
ROW = b"row-1"


@pytest.fixture(params=ENGINES)
def store(tmp_path, request) -> Iterator[Store]:
    with open_store(tmp_path, request.param) as opened:
        yield opened


@pytest.fixture
def file(tmp_path) -> Iterator[SqliteStore]:
    with open_store(tmp_path) as opened:
        assert isinstance(opened, SqliteStore)
        yield opened


def add(name: str, value: str = "x") -> Step:
    return Step(ADD, [{"name": name, "value": value}])


async def names(store: Store) -> list[str]:
    return [str(r["name"]) for r in await store.read(ALL)]


# --- transactions ----------------------------------------------------------------------------------------------------


async def test_a_step_that_touches_another_number_of_rows_undoes_its_whole_transaction(store):
    with pytest.raises(ClaimLost):
        await store.commit(add("a"), Step(MOVE, [{"name": "nobody", "value": "y"}], expect=1), add("b"))
    assert await names(store) == []


async def test_transactions_that_share_a_commit_stand_or_fall_alone(store):
    lost = Step(MOVE, [{"name": "nobody", "value": "y"}], expect=1)
    broken = Step(Statement("broken", "INSERT INTO device (model_digest) VALUES ('no-remote-id')"))
    jobs = []
    for n in range(60):
        jobs.append(store.commit(add(f"a{n:02}"), add(f"b{n:02}")))
        jobs.append(store.commit(add(f"lost{n}"), lost))
        jobs.append(store.commit(add(f"broken{n}"), broken))
    results = await asyncio.gather(*jobs, return_exceptions=True)
    assert all(isinstance(r, list) for r in results[::3])
    assert all(isinstance(r, ClaimLost) for r in results[1::3])
    assert all(isinstance(r, Retryable) for r in results[2::3])
    assert await names(store) == sorted([f"a{n:02}" for n in range(60)] + [f"b{n:02}" for n in range(60)])


async def test_many_single_statements_at_once_are_all_stored(store):
    await asyncio.gather(*(store.commit(add(f"d{n:04}")) for n in range(1500)))
    assert await names(store) == [f"d{n:04}" for n in range(1500)]


async def test_one_bad_row_among_many_single_statements_fails_alone(store):
    results = await asyncio.gather(
        *(store.commit(add("same" if n in {10, 20} else f"d{n:04}")) for n in range(100)), return_exceptions=True
    )
    assert [n for n, r in enumerate(results) if isinstance(r, Retryable)] == [20]
    assert len(await names(store)) == 99


async def test_rows_come_back_to_the_transaction_that_asked_for_them(store):
    await store.commit(*(add(f"d{n}", f"v{n}") for n in range(50)))
    results = await asyncio.gather(*(store.commit(Step(TAKE, [{"name": f"d{n}"}])) for n in range(50)))
    assert [r[0][0]["remote_id"] for r in results] == [f"v{n}" for n in range(50)]


async def test_a_step_without_rows_does_nothing_also_when_many_share_a_commit(store):
    await asyncio.gather(*(store.commit(Step(ADD, [])) for _ in range(20)), store.commit(add("a")))
    assert await names(store) == ["a"]


async def test_a_commit_is_on_disk_when_it_returns(file):
    await file.commit(add("a"))
    with contextlib.closing(sqlite3.connect(file.path)) as other:
        assert other.execute("SELECT model_digest FROM device").fetchall() == [("a",)]


async def test_every_commit_waits_for_the_disk(file):
    for level in ("synchronous", "journal_mode"):
        (row,) = await file.read(Statement("level", f"SELECT * FROM pragma_{level}"))
        assert str(next(iter(row.values()))) in {"2", "wal"}


async def test_a_value_that_the_driver_cannot_take_fails_its_own_caller_and_the_writer_goes_on(store):
    with pytest.raises(Retryable):
        await store.commit(Step(ADD, [{"name": 10**40, "value": "x"}]))
    with pytest.raises(NotStored):
        await store.commit(Step(ADD, [{"name": "value is missing"}]))
    await asyncio.wait_for(store.commit(add("a")), 5)
    assert await names(store) == ["a"]


async def test_a_cancelled_caller_does_not_undo_its_commit(store):
    task = asyncio.ensure_future(store.commit(add("a")))
    await asyncio.sleep(0)
    task.cancel()
    await store.commit(add("b"))
    assert await names(store) == ["a", "b"]


async def test_what_cannot_be_read_is_an_error_of_our_own_database(store):
    with pytest.raises(NotStored):
        await store.read(Statement("wrong", "SELECT * FROM nothing_of_that_name"))
    assert await names(store) == []


@pytest.mark.parametrize("engine", ENGINES)
async def test_closing_finishes_what_was_handed_in(tmp_path, engine):
    with new_database(tmp_path, engine) as url:
        store = store_at(url)
        jobs = [asyncio.ensure_future(store.commit(add(f"d{n}"))) for n in range(200)]
        await asyncio.sleep(0)
        await asyncio.to_thread(store.close)
        await asyncio.gather(*jobs)
        again = store_at(url)
        assert len(await names(again)) == 200
        await asyncio.to_thread(again.close)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_closed_store_says_so_instead_of_waiting_for_ever(tmp_path, engine):
    with open_store(tmp_path, engine) as store:
        await asyncio.to_thread(store.close)
        with pytest.raises(NotStored):
            await asyncio.wait_for(store.commit(add("late")), 5)
        with pytest.raises(NotStored):
            await asyncio.wait_for(store.read(ALL), 5)


# --- the file --------------------------------------------------------------------------------------------------------


async def test_a_second_store_on_the_same_file_is_refused_with_a_sentence(file):
    with pytest.raises(Misconfigured) as refused:
        SqliteStore(f"sqlite:///{file.path}")
    assert "another server has this database open" in refused.value.problems[0]


async def test_the_lock_ends_with_the_store(tmp_path):
    for _ in range(2):
        with new_database(tmp_path, "sqlite") as url:
            await asyncio.to_thread(SqliteStore(url).close)


def test_database_files_are_readable_by_their_owner_only(tmp_path):
    script = f"import os; os.umask(0); from sidecar.store import SqliteStore; s = SqliteStore('sqlite:///{tmp_path}/a.db'); print(*sorted(f'{{p.name}} {{p.stat().st_mode & 0o777:o}}' for p in s.path.parent.iterdir()), sep=';'); s.close()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "a.db 600;a.db-shm 600;a.db-wal 600;a.db.lock 600"


def test_a_file_that_is_not_a_database_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "a.db").write_bytes(b"not a database, but long enough to be taken for one" * 40)
    with pytest.raises(Misconfigured, match="cannot be used as a database"):
        SqliteStore(f"sqlite:///{tmp_path}/a.db")


def test_a_database_of_a_newer_sidecar_is_refused_with_a_sentence_and_left_as_it_was(tmp_path):
    with open_store(tmp_path) as store:
        path = store.path
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
        other.commit()
    for _ in range(2):
        with pytest.raises(Misconfigured, match="another version of the sidecar"):
            SqliteStore(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


def test_the_migrations_make_exactly_the_tables_that_the_code_declares(tmp_path):
    with open_store(tmp_path) as store:
        path = store.path
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_newest_migration_is_the_one_that_the_engine_expects():
    config = Config()
    config.set_main_option("script_location", str(next(iter(sidecar.store.__path__))) + "/migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


# --- the cipher ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cipher(tmp_path) -> Cipher:
    return cipher_in(tmp_path)


def test_what_was_sealed_opens_as_it_was(cipher):
    for value in (b"", b"Patient/1", bytes(range(256)) * 64):
        assert cipher.open("event.focus", ROW, cipher.seal("event.focus", ROW, value)) == value


def test_the_same_value_never_seals_to_the_same_bytes(cipher):
    assert len({cipher.seal("event.focus", ROW, b"p1") for _ in range(200)}) == 200


def test_a_value_moved_to_another_row_or_column_does_not_open(cipher):
    sealed = cipher.seal("event.focus", ROW, b"p1")
    for place, row in (("event.focus", b"row-2"), ("work.patient", ROW), ("event.focus|", ROW), ("event.focus", b"")):
        with pytest.raises(Rejected):
            cipher.open(place, row, sealed)


def test_a_value_with_any_byte_changed_or_cut_does_not_open(cipher):
    sealed = cipher.seal("event.focus", ROW, b"p1")
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        for broken in (bytes(changed), sealed[:at]):
            with pytest.raises(Rejected):
                cipher.open("event.focus", ROW, broken)


def test_another_key_ring_opens_nothing(cipher, tmp_path):
    sealed = cipher.seal("event.focus", ROW, b"p1")
    (tmp_path / "other").mkdir()
    with pytest.raises(Rejected):
        cipher_in(tmp_path / "other").open("event.focus", ROW, sealed)


def test_tokens_differ_when_any_part_or_the_key_ring_differs(cipher, tmp_path):
    (tmp_path / "other").mkdir()
    other = cipher_in(tmp_path / "other")
    found = {
        cipher.token("a", "b"),
        cipher.token("ab"),
        cipher.token("a", "c"),
        cipher.token("b", "a"),
        cipher.token("a", "b", ""),
        other.token("a", "b"),
    }
    assert len(found) == 6


# --- identity at rest ------------------------------------------------------------------------------------------------

NAME = "Zebedee-Canary"
WHO = "pat-canary-8841"


async def test_after_a_run_no_column_of_any_table_holds_an_id_of_the_ehr(tmp_path):
    async with house(tmp_path) as site:
        await site.admit(WHO, name=[{"family": NAME}], identifier=[{"system": "urn:nhs", "value": "943-canary"}])
        await site.chart(observation_set(WHO, now(1), c9279_1=26))
        await site.settled()
        assert len(site.risk_assessments()) == 1
        secret = {
            NAME,
            "943-canary",
            WHO,
            f"e-{WHO}",
            *(o["id"] for o in site.ehr.all("Observation")),
            *(r["id"] for r in site.risk_assessments()),
        }
        path, filled = site.sidecar.rooms.store.path, set()
        with contextlib.closing(sqlite3.connect(path)) as other:
            for table in metadata.sorted_tables:
                for column in table.columns:
                    for (value,) in other.execute(
                        f"SELECT {column.name} FROM {table.name} WHERE {column.name} IS NOT NULL"
                    ):
                        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
                        assert not [s for s in secret if s in text], (table.name, column.name)
                        filled.add(f"{table.name}.{column.name}")
        assert {c.place for c in SEALED} <= filled | {"work.patient"}
        for file in tmp_path.glob("sidecar.db*"):
            content = file.read_bytes() if file.is_file() else b""
            assert not [s for s in secret if s.encode() in content], file.name


async def test_every_identified_column_opens_only_with_the_key_ring(tmp_path):
    with open_store(tmp_path) as store:
        cipher = cipher_in(tmp_path)
        box = EventBox(store, cipher)
        await box.record(Event("observation", 0.0, Reference("Observation", "o1", "1"), "t"))
        (row,) = await store.read(Statement("sealed", "SELECT focus, focus_key FROM event"))
        assert b"o1" not in row["focus"]
        assert cipher.open("event.focus", row["focus_key"], row["focus"]) == b"o1"
