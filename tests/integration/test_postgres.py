"""PostgreSQL shared by several processes: what is refused, what is raced for, and what an outage costs.

Two stores on one database are two processes here: nothing but the database is shared between them.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import create_async_engine

from sidecar.errors import Misconfigured, NotStored, Retryable, Unavailable
from sidecar.inbox import EventBox, ModelWait, WorkBox
from sidecar.records import Event, PatientId, Reference
from sidecar.store import Statement, Step, Store, durability, open_store
from sidecar.store.durability import problems
from sidecar.store.engine import URGENT_S
from sidecar.store.migrate import ADVISORY_KEY
from sidecar.store.postgres import CLOSE_S, CUT_S
from sidecar.store.schema import metadata
from tests.harness import cipher_in, until
from tests.peers.conftest import skip_without_peer
from tests.postgres import Cluster, Line, cluster, fetch, missing, new_database, wait_for

skip_without_peer(missing())

A, B = ModelWait("a", 0.0, 0.0), ModelWait("b", 0.0, 0.0)
P1 = PatientId("p1")
ADD = Statement("add", "INSERT INTO device (model_digest, remote_id) VALUES (:name, '0')")
COUNT_UP = Statement(
    "count_up", "UPDATE device SET remote_id = CAST(CAST(remote_id AS int) + 1 AS text) WHERE model_digest = :name"
)
ALL = Statement("all", "SELECT model_digest AS name, remote_id AS value FROM device ORDER BY 1")


@pytest.fixture
def url() -> Iterator[str]:
    with new_database() as found:
        yield found


@pytest.fixture
def stores(url) -> Iterator[tuple[Store, Store]]:
    one, two = open_store(url), open_store(url)
    yield one, two
    one.close()
    two.close()


def own_cluster(*settings: str) -> contextlib.AbstractContextManager[Cluster]:
    """A server that a test may break."""
    return contextlib.closing(_Closing(*settings))


class _Closing(Cluster):
    def close(self) -> None:
        self.remove()


def news(focus: str, version: str = "1") -> Event:
    return Event("observation", time.time(), Reference("Observation", focus, version), "t")


def refused(url: str, **options: object) -> list[str]:
    with pytest.raises(Misconfigured) as refusal:
        open_store(url, **options)
    return refusal.value.problems


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_unsafe_server_is_refused_with_every_problem_at_once():
    with own_cluster("fsync = off", "full_page_writes = off", "synchronous_commit = off") as server:
        found = refused(server.database(migrated=False))
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            assert any(p.startswith(f"store.url: {name} is off") for p in found), found
        assert len(found) == 3


@pytest.mark.parametrize("place", ["ROLE sidecar IN DATABASE {}", "DATABASE {}"])
def test_a_commit_that_does_not_wait_for_the_disk_is_refused_wherever_it_is_set(url, place):
    of = place.format(url.rpartition("/")[2])
    cluster().sql(f"ALTER {of} SET synchronous_commit = off")
    (found,) = refused(url)
    assert "synchronous_commit is off" in found
    for level in ("local", "remote_write", "on"):
        cluster().sql(f"ALTER {of} SET synchronous_commit = {level}")
        open_store(url).close()


async def test_a_database_that_becomes_unsafe_takes_nothing_over_a_new_connection(url):
    store = open_store(url)
    cluster().sql(f"ALTER DATABASE {url.rpartition('/')[2]} SET synchronous_commit = off")
    with pytest.raises(NotStored, match="unsafe"):
        await store.commit(Step(ADD, [{"name": "a"}]))
    await asyncio.to_thread(store.close)


def test_a_database_that_takes_no_writes_is_refused(url):
    cluster().sql(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    assert "read-only" in refused(url)[0]
    with own_cluster() as server:
        standby = server.database()
        server.stop()
        server.make_standby()
        server.start()
        assert "standby" in refused(standby)[0]


def test_a_clock_that_differs_from_the_databases_is_refused(url):
    async def seen(ahead_s: float) -> list[str]:
        connection = await asyncpg.connect(url)
        try:
            return await problems(connection, lambda: time.time() + ahead_s)
        finally:
            await connection.close()

    assert wait_for(seen(0.0)) == []
    for ahead_s in (-1.1, 1.1):
        (found,) = wait_for(seen(ahead_s))
        assert "NTP" in found


def test_what_a_slow_round_trip_leaves_unknown_of_a_clock_counts_as_a_difference(url):
    async def seen(*each_took_s: float) -> list[str]:
        start, ticks = time.time(), itertools.accumulate(s for took in (*each_took_s, 9, 9, 9) for s in (0.0, took))
        connection = await asyncpg.connect(url)
        try:
            return await problems(connection, lambda: start + next(ticks))
        finally:
            await connection.close()

    assert len(wait_for(seen(2.5, 2.5))) == 1
    assert wait_for(seen(0.1)) == []


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_database_with_another_isolation_level_is_spoken_to_in_read_committed(url, level):
    cluster().sql(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_isolation = '{level}'")
    store = open_store(url)
    shown = Statement("shown", "SELECT current_setting('transaction_isolation') AS level")
    assert wait_for(store.read(shown)) == [{"level": "read committed"}]
    store.close()


def test_sessions_of_another_isolation_level_are_refused(url, monkeypatch):
    monkeypatch.setitem(durability.SESSION, "default_transaction_isolation", "repeatable read")
    assert "READ COMMITTED" in refused(url)[0]


ELSEWHERE = {
    "PGHOST": "db.example", "PGPORT": "1", "PGUSER": "nobody", "PGDATABASE": "none", "PGPASSWORD": "x" * 20,
    "PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/nowhere", "PGSSLCERT": "/nowhere", "PGSSLNEGOTIATION": "direct",
    "PGTARGETSESSIONATTRS": "standby", "PGPASSFILE": "/nowhere", "PGSERVICE": "none", "PGGSSLIB": "none",
}  # fmt: skip


def test_where_and_how_to_connect_is_said_by_the_url_and_never_by_the_environment(url, monkeypatch):
    for name, value in ELSEWHERE.items():
        monkeypatch.setenv(name, value)
    name, port = url.rpartition("/")[2], cluster().port
    for good in (url, f"postgresql://sidecar@:{port}/{name}?host={cluster().folder}"):
        open_store(good).close()
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", str(port))
    assert "needs a user, a database, and a host" in refused(f"postgresql://sidecar@/{name}")[0]


def test_a_server_without_tls_is_not_spoken_to_when_the_url_asks_for_it(url):
    for mode in ("require", "verify-full"):
        with pytest.raises((Misconfigured, Unavailable)):
            open_store(f"{url}?sslmode={mode}")
    assert "certificates or keys" in refused(f"{url}?sslmode=verify-ca&sslrootcert=/nowhere")[0]


def test_a_schema_of_a_newer_sidecar_is_refused_and_left_as_it_was(url):
    name = url.rpartition("/")[2]
    cluster().sql("UPDATE alembic_version SET version_num = '9999'", name)
    for _ in range(2):
        assert "another version of the sidecar" in refused(url)[0]
    assert cluster().sql("SELECT version_num FROM alembic_version", name)[0][0] == "9999"


def test_the_command_line_makes_no_tables():
    with new_database(migrated=False) as url:
        assert "no tables of this version" in refused(url, migrate=False)[0]
        assert (
            cluster().sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", url.rpartition("/")[2])[0][0]
            == 0
        )


def test_a_role_that_may_not_make_tables_is_refused_with_a_sentence():
    with new_database(migrated=False) as url:
        with contextlib.suppress(asyncpg.DuplicateObjectError):
            cluster().sql("DO $$ BEGIN CREATE ROLE guest LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        (found,) = refused(url.replace("sidecar@", "guest@"))
        assert "cannot make the tables" in found


def test_no_database_and_no_server_are_each_a_sentence_without_the_password(url):
    password = SecretStr("s3cret-canary")
    found = refused(url + "x", password=password)
    assert "no such database" in found[0]
    with pytest.raises(Unavailable) as away:
        open_store(url.replace(f":{cluster().port}/", ":1/"), password)
    assert "does not answer" in away.value.reason
    assert "canary" not in f"{found} {away.value.reason}"


def test_several_first_starts_at_once_make_one_schema():
    with new_database(migrated=False) as url, ThreadPoolExecutor(6) as starts:
        for store in list(starts.map(open_store, [url] * 6)):
            store.close()


def test_a_first_start_waits_for_another_for_as_long_as_that_takes(monkeypatch):
    monkeypatch.setitem(durability.SESSION, "lock_timeout", "100ms")
    with new_database(migrated=False) as url, ThreadPoolExecutor(1) as starts:

        async def beside() -> Store:
            other = await asyncpg.connect(url)
            async with other.transaction():
                await other.execute("SELECT pg_advisory_xact_lock($1)", ADVISORY_KEY)
                start = asyncio.get_running_loop().run_in_executor(starts, open_store, url)
                waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

                async def is_waiting() -> bool:
                    return bool(await other.fetchval(waits))

                await until(is_waiting)
                await asyncio.sleep(0.5)  # five times as long as any other statement would wait
            await other.close()
            return await start

        wait_for(beside()).close()


def test_tables_that_cannot_be_made_for_another_reason_are_not_blamed_on_the_role():
    with new_database(migrated=False) as url:
        cluster().sql("CREATE TABLE seen (id int)", url.rpartition("/")[2])
        with pytest.raises(Unavailable, match="could not be made"):
            open_store(url)


def test_the_migrations_make_exactly_the_tables_that_the_code_declares(url):
    async def differences() -> list[object]:
        engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), poolclass=pool.NullPool)
        async with engine.connect() as connection:
            return await connection.run_sync(lambda c: list(compare_metadata(MigrationContext.configure(c), metadata)))

    assert wait_for(differences()) == []


# --- transactions of several processes -------------------------------------------------------------------------------


async def test_rows_of_one_statement_that_returns_are_stored_all_or_none(stores):
    returning = Statement("adding", "INSERT INTO device (model_digest, remote_id) VALUES (:name, '0') RETURNING 1 AS n")
    with pytest.raises(Retryable):
        await stores[0].commit(Step(returning, [{"name": n} for n in ("a", "b", "a")]))
    assert await stores[0].read(ALL) == []


@pytest.mark.parametrize("name", ["a\0b", 7])
async def test_a_value_that_the_database_cannot_hold_is_the_works_fault_and_not_an_outage(stores, name):
    with pytest.raises(Retryable):
        await stores[0].commit(Step(ADD, [{"name": name}]))


async def test_transactions_that_wait_for_each_other_in_a_circle_all_go_through(stores):
    names = ["d0", "d1"]
    await stores[0].commit(*(Step(ADD, [{"name": n}]) for n in names))
    jobs = [
        store.commit(*(Step(COUNT_UP, [{"name": n}]) for n in order))
        for store, order in zip(stores * 3, itertools.cycle([names, names[::-1]]), strict=False)
    ]
    await asyncio.gather(*jobs)
    assert [r["value"] for r in await stores[0].read(ALL)] == ["6"] * 2


async def test_the_same_events_heard_by_two_processes_in_any_order_are_recorded_once(stores, tmp_path):
    cipher = cipher_in(tmp_path)
    boxes = [EventBox(store, cipher) for store in stores]
    for turn in range(10):
        events = [news(f"o{n}", str(turn)) for n in range(60)]
        await asyncio.gather(boxes[0].record(*events), boxes[1].record(*events[::-1]))
    assert len(await stores[0].read(Statement("ids", "SELECT id FROM event"))) == 600
    deadlocks = Statement("deadlocks", "SELECT deadlocks AS n FROM pg_stat_database WHERE datname = current_database()")
    assert (await stores[0].read(deadlocks))[0]["n"] == 0


async def test_two_processes_never_claim_the_same_event_or_patient(stores, tmp_path):
    cipher = cipher_in(tmp_path)
    boxes = [(EventBox(store, cipher), WorkBox(store, cipher)) for store in stores]
    await boxes[0][0].record(*(news(f"o{n}") for n in range(200)))
    claims = await asyncio.gather(
        *(events.claim(f"e{n}", time.time(), 60, 16) for n, (events, _) in enumerate(boxes * 10))
    )
    owned = [event for claim in claims for event in claim]
    assert len(owned) == len({event.id for event in owned}) == 200
    for n, event in enumerate(owned):
        await stores[0].commit(*boxes[0][0].routed(event, [(PatientId(f"p{n}"), A)], time.time()))
    works = await asyncio.gather(*(work.claim(f"w{n}", time.time(), 60, 16) for n, (_, work) in enumerate(boxes * 10)))
    patients = [item.patient.value for items in works for item in items]
    assert len(patients) == len(set(patients)) == 200


async def test_an_event_ends_when_two_models_answer_it_at_the_same_moment_in_two_processes(stores, tmp_path):
    cipher = cipher_in(tmp_path)
    events, works = EventBox(stores[0], cipher), [WorkBox(store, cipher) for store in stores]
    for turn in range(40):
        await events.record(news("o", str(turn)))
        (event,) = await events.claim(f"e{turn}", time.time(), 60)
        await stores[0].commit(*events.routed(event, [(P1, A), (P1, B)], time.time()))
        items = await works[0].claim(f"w{turn}", time.time(), 60, 16)
        settled = [work.settled(item.claim, "x.1", "scored", 0.0) for work, item in zip(works, items, strict=True)]
        await asyncio.gather(*(store.commit(*steps) for store, steps in zip(stores, settled, strict=True)))
        (row,) = await stores[0].read(Statement("open", "SELECT count(*) AS n FROM event WHERE state <> 'done'"))
        assert row["n"] == 0, turn


async def test_an_event_routed_while_its_patients_work_ends_is_never_left_without_work(stores, tmp_path):
    cipher = cipher_in(tmp_path)
    events, work = EventBox(stores[0], cipher), WorkBox(stores[1], cipher)
    for turn in range(40):
        for n in (0, 1):
            await events.record(news(f"o{n}", str(turn)))
        first, second = await events.claim(f"e{turn}", time.time(), 60)
        await stores[0].commit(*events.routed(first, [(P1, A)], time.time()))
        (item,) = await work.claim(f"w{turn}", time.time(), 60, 16)
        await asyncio.gather(
            stores[0].commit(*events.routed(second, [(P1, A)], time.time())),
            stores[1].commit(*work.settled(item.claim, "x.1", "scored", 0.0)),
        )
        (left,) = await work.claim(f"v{turn}", time.time(), 60, 16)
        await stores[1].commit(*work.settled(left.claim, "x.1", "scored", 0.0))
        states = {r["state"] for r in await stores[0].read(Statement("states", "SELECT state FROM event"))}
        assert states == {"done"}


async def test_an_event_that_is_recorded_while_its_like_is_pruned_is_there_or_was_a_repeat(stores, tmp_path):
    box, other = (EventBox(store, cipher_in(tmp_path)) for store in stores)
    for turn in range(20):
        await box.record(news("o", str(turn)))
        (event,) = await box.claim(f"e{turn}", time.time(), 60)
        await stores[0].commit(box.finished(event, "no_model", 0.0))
        await asyncio.gather(
            box.prune(time.time(), 1, 1e9), other.record(news("o", str(turn)), news("o", f"{1000 + turn}"))
        )
        found = await box.claim(f"f{turn}", time.time(), 60)
        assert f"{1000 + turn}" in {e.focus.version for e in found}
        for event in found:
            await stores[0].commit(box.finished(event, "no_model", time.time()))


async def test_what_one_process_makes_claimable_wakes_the_others_and_not_itself(stores, tmp_path):
    heard: list[set[str]] = [set(), set()]
    for store, names in zip(stores, heard, strict=True):
        store.listen(names.update)
    await until(lambda: all("writes" in names for names in heard))
    for names in heard:
        names.clear()
    await EventBox(stores[0], cipher_in(tmp_path)).record(news("o1"))
    await until(lambda: heard[1] == {"events"})
    assert heard[0] == set()


# --- outages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_what_was_committed_survives_a_restart_of_the_database_and_the_store_goes_on(mode):
    with own_cluster() as server:
        store = open_store(await asyncio.to_thread(server.database))
        stored: set[str] = set()
        stop = asyncio.Event()

        async def load(lane: int) -> None:
            for n in itertools.count():
                if stop.is_set():
                    return
                with contextlib.suppress(NotStored):
                    await store.commit(Step(ADD, [{"name": f"{lane}.{n}"}]))
                    stored.add(f"{lane}.{n}")
                await asyncio.sleep(0)

        lanes = [asyncio.ensure_future(load(lane)) for lane in range(8)]
        await until(lambda: len(stored) > 50)
        await asyncio.to_thread(server.restart, mode)
        before = len(stored)
        await until(lambda: len(stored) > before + 50)
        stop.set()
        await asyncio.gather(*lanes)
        assert stored <= {r["name"] for r in await store.read(ALL)}
        await asyncio.to_thread(store.close)


async def test_a_database_that_vanishes_without_a_word_delays_a_verb_and_a_stop_for_as_long_as_is_said(url):
    line = Line()
    store = await asyncio.to_thread(open_store, await line.open(url, cluster().port))
    usual, urgent = (Statement(f"in {s}", ADD.sql, within_s=s) for s in (URGENT_S + 1, URGENT_S))
    look = Statement("look", "SELECT 1 AS yes", within_s=URGENT_S + 1)
    await asyncio.gather(*(store.commit(Step(ADD, [{"name": f"{n}"}]), Step(ADD, [])) for n in range(8)))
    line.dead = True

    async def took(verb: Awaitable[object]) -> float:
        began = time.monotonic()
        with pytest.raises(NotStored):
            await verb
        return time.monotonic() - began

    verbs = [store.commit(Step(usual, [{"name": "a"}]), Step(usual, [{"name": "b"}])) for _ in range(10)]
    verbs += [store.read(look) for _ in range(3)] + [store.commit(Step(usual, [{"name": "c"}]))]
    assert max(await asyncio.gather(*(took(verb) for verb in verbs))) < URGENT_S + 3
    assert await took(store.commit(Step(urgent, [{"name": "d"}]))) < URGENT_S + 1
    late = asyncio.gather(store.commit(Step(ADD, [{"name": "e"}])), store.read(ALL), return_exceptions=True)
    await asyncio.sleep(0)
    began = time.monotonic()
    await asyncio.to_thread(store.close)
    assert time.monotonic() - began < CLOSE_S + 2 * CUT_S + 1
    assert all(isinstance(failure, NotStored) for failure in await late)
    line.dead = False
    await line.close()


async def test_a_database_that_is_reloaded_into_an_unsafe_one_takes_nothing_until_it_is_safe_again(monkeypatch):
    monkeypatch.setattr(durability, "LOOK_S", 0.1)
    with own_cluster() as server:
        store = open_store(await asyncio.to_thread(server.database))

        async def is_refused() -> bool:
            try:
                await store.commit(Step(ADD, [{"name": str(time.time())}]))
            except NotStored as failure:
                return failure.reason == "store:unsafe"
            return False

        assert not await is_refused()
        for setting, refused_then in (("off", True), ("on", False)):
            server.configure(f"fsync = {setting}")
            await asyncio.to_thread(server.sql, "SELECT pg_reload_conf()")

            async def is_so(expected: bool = refused_then) -> bool:
                return await is_refused() is expected

            await until(is_so)
        await asyncio.to_thread(store.close)


async def test_a_claim_whose_answer_was_lost_is_given_back_and_made_again_at_once(url, tmp_path):
    line = Line()
    store = await asyncio.to_thread(open_store, await line.open(url, cluster().port))
    cipher = cipher_in(tmp_path)
    events, work = EventBox(store, cipher), WorkBox(store, cipher)
    await events.record(news("o1"), news("o2"))
    (first, _) = await events.claim("e0", time.time(), 600)
    await store.commit(*events.routed(first, [(P1, A)], time.time()))
    await events.record(news("o3"))
    line.mute = True
    for claim in (events.claim("lost", time.time(), 600), work.claim("lost", time.time(), 600, 16)):
        with pytest.raises(NotStored):
            await claim
    await until(
        lambda: {r[0] for r in wait_for(fetch(url, "SELECT claim FROM event WHERE state = 'pending'"))} >= {"lost"}
    )
    line.mute = False
    (event,) = await events.claim("again", time.time(), 600)
    (item,) = await work.claim("again", time.time(), 600, 16)
    assert (event.attempts, item.attempts, item.patient) == (1, 1, P1)
    await asyncio.to_thread(store.close)
    await line.close()


async def test_a_commit_whose_answer_was_lost_is_not_known_to_be_stored_and_may_be_repeated(url, tmp_path):
    line = Line()
    store = await asyncio.to_thread(open_store, await line.open(url, cluster().port))
    box = EventBox(store, cipher_in(tmp_path))
    await box.record(news("o1"))
    line.mute = True
    with pytest.raises(NotStored):
        await box.record(news("o2"))
    line.mute = False
    await box.record(news("o2"))
    assert len(await store.read(Statement("ids", "SELECT id FROM event"))) == 2
    await asyncio.to_thread(store.close)
    await line.close()
