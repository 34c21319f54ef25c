"""A patient who is forgotten is in no table any more, and the others are as they were."""

import asyncio
import contextlib
import sqlite3
import time

import asyncpg
import pytest

from sidecar.errors import ClaimLost, NotHere
from sidecar.inbox import EventBox, ModelWait, WorkBox
from sidecar.records import Event, PatientId, Reference
from sidecar.sandbox.ehr import PracticeEhr
from sidecar.store import Rotation, Statement, Step, forget, load_keys, open_store
from sidecar.store.inventory import FINGERPRINT, OPEN, SEALED
from sidecar.store.keyfile import fresh_key, read_keys, replace_keys
from sidecar.store.rotation import QUIET_S
from tests.harness import ENGINES, House, cipher_in, house, new_database, now, observation_set, reading, until

WHO, OTHER = "pat-canary-77", "zed-2"  # what is of both is kept under the first of them


@pytest.fixture(params=ENGINES)
def database(tmp_path, request):
    with new_database(tmp_path, request.param) as url:
        yield f'url = "{url}"'


async def gone(site: House, who: str = WHO) -> dict:
    return await forget(site.sidecar.rooms.store, cipher_in(site.settings.store.key_file.parent), who)


async def everything(site: House) -> dict[str, list[dict]]:
    """Every row of every table that holds something of somebody."""
    tables = {table for table, columns in OPEN.items() if FINGERPRINT in columns.values()}
    return {table: await site.rows(f"SELECT * FROM {table}") for table in sorted(tables)}


async def marks(site: House, who: str) -> set[bytes | str]:
    """All that a row of the patient could be known by: fingerprints of the patient and of all their resources."""
    cipher = cipher_in(site.settings.store.key_file.parent)
    theirs = [r for kind in ("Patient", "Encounter", "Observation") for r in site.ehr.all(kind) if who in r["id"]]
    found: set[bytes | str] = {cipher.token("patient", who)}
    found |= {cipher.token("resource", r["resourceType"], r["id"]) for r in theirs}
    key = cipher.token("patient", who)
    for row in await site.rows("SELECT id, identity, patient_key FROM assessment"):
        if bytes(row["patient_key"]) == key:
            found |= {row["id"], bytes(row["identity"])}
    return found


def holding(tables: dict[str, list[dict]], marked: set[bytes | str]) -> set[str]:
    """The columns in which one of the marks is."""
    return {
        f"{table}.{column}"
        for table, rows in tables.items()
        for row in rows
        for column, value in row.items()
        if (bytes(value) if isinstance(value, bytes | bytearray | memoryview) else value) in marked
    }


async def two(site: House) -> None:
    for who in (WHO, OTHER):
        await site.admit(who)
        await site.chart(observation_set(who, now(1), c9279_1=26))
    await site.settled()
    assert len(site.risk_assessments()) == 2


async def test_no_table_knows_a_patient_who_was_forgotten_and_the_other_is_as_before(tmp_path, database):
    async with house(tmp_path, store=database) as site:
        await two(site)
        marked, others = await marks(site, WHO), await marks(site, OTHER)
        before = await everything(site)
        known_in = {"assessment.patient_key", "basis.resource_key", "cause.patient_key", "delivery.identity",
                    "effect.identity", "event.focus_key", "event.patient_key"}  # fmt: skip
        assert known_in <= holding(before, marked)
        done = await gone(site)
        after = await everything(site)
        assert (done["rows"] > 10, done["keys"]) == (True, [1])
        assert holding(after, marked) == set()
        assert holding(after, others) == holding(before, others)
        assert await site.sidecar.rooms.archive.current(PatientId(OTHER), "news2") is not None
        assert (await gone(site))["rows"] == 0
        assert len(site.risk_assessments()) == 2  # the chart is the EHR's


async def test_what_is_heard_later_begins_anew_and_what_was_heard_before_is_no_news(tmp_path, database):
    async with house(tmp_path, store=database) as site:
        await two(site)
        await gone(site)
        events = await site.rows("SELECT count(*) AS n FROM event WHERE focus_type IS NOT NULL")
        for source in site.sidecar.rooms.sources:  # a search from the beginning: finds all that was heard before
            await site.sidecar.rooms.store.commit(Step(Statement("again", "UPDATE subscription SET watermark = NULL")))
            await site.sidecar.rooms.catch_up.run(source, 0.0)
        await site.settled()
        assert await site.rows("SELECT count(*) AS n FROM event WHERE focus_type IS NOT NULL") == events
        assert await site.sidecar.rooms.archive.current(PatientId(WHO), "news2") is None
        await site.chart(observation_set(WHO, now(0), c9279_1=26))
        await site.settled()
        fresh = await site.sidecar.rooms.archive.current(PatientId(WHO), "news2")
        assert fresh is not None
        assert fresh.revision == 1


async def test_a_reading_that_was_moved_to_another_patient_stays_theirs(tmp_path, database):
    async with house(tmp_path, store=database) as site:
        await two(site)
        moved = next(o for o in site.ehr.all("Observation") if o["id"].startswith(f"o-{WHO}-9279-1"))
        theirs = {"subject": {"reference": f"Patient/{OTHER}"}, "encounter": {"reference": f"Encounter/e-{OTHER}"}}
        await site.ehr.write({**moved, **theirs})
        await site.settled()
        shared = await site.rows("SELECT event_id FROM cause GROUP BY event_id HAVING count(DISTINCT patient_key) > 1")
        assert shared
        await gone(site)
        kept = await site.rows("SELECT id, state, patient_key FROM event WHERE focus_type IS NOT NULL")
        key = cipher_in(tmp_path).token("patient", OTHER)
        assert {r["event_id"] for r in shared} <= {r["id"] for r in kept}
        assert {bytes(r["patient_key"]) for r in kept if r["id"] in {s["event_id"] for s in shared}} == {key}
        assert {r["state"] for r in kept} <= {"done"}


async def test_an_event_that_waited_only_for_the_forgotten_patient_has_ended(tmp_path, database):
    with opened(database) as store:
        events, works = EventBox(store, cipher_in(tmp_path)), WorkBox(store, cipher_in(tmp_path))
        await events.record(Event("observation", 0.0, Reference("Observation", "o1", "1"), "t"))
        (event,) = await events.claim("c", 10.0, 60)
        wait = ModelWait("m", 0.0, 0.0)
        await store.commit(*events.routed(event, [(PatientId(WHO), wait), (PatientId(OTHER), wait)], 10.0))
        items = {item.patient.value: item for item in await works.claim("w", 20.0, 60, 16)}
        await store.commit(*works.settled(items[OTHER].claim, "a1", "scored", 20.0))
        states = Statement("states", "SELECT state, reason FROM event")
        assert [r["state"] for r in await store.read(states)] == ["routed"]
        await forget(store, cipher_in(tmp_path), WHO)
        assert [dict(r) for r in await store.read(states)] == [{"state": "done", "reason": "forgotten"}]
        with pytest.raises(ClaimLost):
            await store.commit(*works.settled(items[WHO].claim, "a2", "scored", 30.0))


@contextlib.contextmanager
def opened(database: str):
    store = open_store(database.partition('"')[2].rstrip('"'))
    try:
        yield store
    finally:
        store.close()


async def test_work_that_waits_and_work_under_way_come_to_nothing(tmp_path, database):
    ehr = PracticeEhr()
    async with house(tmp_path, ehr, store=database) as site:
        await site.admit(WHO)
        await site.chart(observation_set(WHO, now(30), c9279_1=26))
        await site.settled()
        # Routed and owed a look, while the EHR does not answer what the look needs.
        ehr.faults.fail_next(10_000, status=500, only="GET Encounter")
        ehr.faults.fail_next(10_000, status=500, only="GET Patient")
        await site.chart([reading(WHO, "9279-1", 28, now(0))])

        async def routed() -> bool:
            return bool(await site.rows("SELECT 1 AS yes FROM work"))

        await until(routed)
        before = len(ehr.all("RiskAssessment"))
        marked = await marks(site, WHO)
        await gone(site)
        ehr.faults.clear()
        await site.settled(40)
        assert holding(await everything(site), marked) == set()
        assert len(ehr.all("RiskAssessment")) == before


async def test_a_half_written_result_of_somebody_forgotten_is_not_remembered(tmp_path, database):
    async with house(tmp_path, store=database) as site:
        await two(site)
        outbox = site.sidecar.rooms.outbox
        identity = (await site.sidecar.rooms.archive.current(PatientId(WHO), "news2")).identity
        effect = await outbox.effect(identity)
        write = type("Write", (), {"identity": identity, "revision": 1})
        await gone(site)
        await outbox.keep_now(write, effect, 1.0)  # what a write that was under way does when its second half fails
        assert await outbox.effect(identity) is None


async def test_a_half_written_result_that_is_remembered_while_its_patient_is_forgotten_leaves_nothing(tmp_path):
    with new_database(tmp_path, "postgres") as url:
        async with house(tmp_path, store=f'url = "{url}"') as site:
            await two(site)
            outbox, stored = (
                site.sidecar.rooms.outbox,
                await site.sidecar.rooms.archive.current(PatientId(WHO), "news2"),
            )
            effect = await outbox.effect(stored.identity)
            write = type("Write", (), {"identity": stored.identity, "revision": 1})
            other = await asyncpg.connect(url)
            await other.execute("DELETE FROM effect WHERE identity = $1", bytes(stored.identity))  # the first half ever
            async with other.transaction():
                # As forgetting does it, up to its commit: nobody else sees anything of it yet.
                for table in ("delivery", "effect"):
                    await other.execute(f"DELETE FROM {table} WHERE identity = $1", bytes(stored.identity))
                keeping = asyncio.ensure_future(outbox.keep_now(write, effect, 1.0))
                await asyncio.wait([keeping], timeout=0.5)
            await other.close()
            await keeping
            assert len(await site.rows("SELECT identity FROM effect")) == 1  # the other patient's


async def test_every_sealed_value_of_a_patient_is_gone_and_of_the_other_none(tmp_path, database):
    async with house(tmp_path, store=database) as site:
        await two(site)
        cipher = cipher_in(tmp_path)
        await gone(site)
        for sealed in SEALED:
            names = ", ".join(dict.fromkeys((*sealed.row, sealed.column)))
            for row in await site.rows(f"SELECT {names} FROM {sealed.table} WHERE {sealed.column} IS NOT NULL"):
                said = cipher.open(sealed.place, sealed.row_key(row), bytes(row[sealed.column]))
                assert WHO.encode() not in said, sealed.place


async def test_once_the_keys_have_turned_a_backup_made_before_opens_nothing_and_the_living_are_read(tmp_path):
    async with house(tmp_path) as site:
        await two(site)
        store, cipher = site.sidecar.rooms.store, load_keys(site.settings.store.key_file)
        with (
            contextlib.closing(sqlite3.connect(store.path)) as live,
            contextlib.closing(sqlite3.connect(tmp_path / "copy")) as copy,
        ):
            live.backup(copy)
        await gone(site)
        ring = site.settings.store.key_file
        replace_keys(ring, read_keys(ring).grown(2, fresh_key()).turned(2))
        heard = Event("observation", 0.0, Reference("Observation", "o1", "1"), "t")
        await until(lambda: site.sidecar.rooms.events.recorded(heard)[0].rows[0]["focus"][0] == 2)  # the server took it
        rotation = Rotation(store, cipher)
        while not (await rotation.reseal(begin=False))["done"]:
            pass
        await rotation.retire(1, time.time() + 2 * QUIET_S)
        replace_keys(ring, read_keys(ring).without(1))
        now_read = load_keys(ring)
        opened = 0
        with contextlib.closing(sqlite3.connect(tmp_path / "copy")) as copy:
            copy.row_factory = sqlite3.Row
            for sealed in SEALED:
                names = ", ".join(dict.fromkeys((*sealed.row, sealed.column)))
                for row in copy.execute(f"SELECT {names} FROM {sealed.table} WHERE {sealed.column} IS NOT NULL"):
                    opened += 1
                    with pytest.raises(NotHere):
                        now_read.open(sealed.place, sealed.row_key(dict(row)), row[sealed.column])
        assert opened > 20
        await site.chart([reading(OTHER, "9279-1", 28, now(0))])
        await site.settled()
        assert [r for r in site.risk_assessments() if r["subject"]["reference"] == f"Patient/{OTHER}"]
        assert "buried" not in (await site.status())["events"]


async def test_an_event_that_nobody_has_looked_at_is_kept_for_whomever_it_concerns_by_now(tmp_path, database):
    async with house(tmp_path, store=database) as site:
        await two(site)
        moved = next(r for r in site.ehr.all("Observation") if WHO in r["id"])
        cipher = cipher_in(site.settings.store.key_file.parent)
        await site.sidecar.router.pump.stop(5)
        event = Event("observation", time.time(), Reference("Observation", moved["id"], "9"), "later")
        await EventBox(site.sidecar.rooms.store, cipher).record(event)
        await gone(site)
        assert len(await site.rows("SELECT id FROM event WHERE state = 'pending' AND focus_type IS NOT NULL")) == 1
