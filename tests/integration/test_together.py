"""PostgreSQL: transactions of the same steps that gather go together, and it is as if each had gone alone."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import asyncpg
import pytest

from sidecar.errors import ClaimLost, NotStored
from sidecar.inbox import EventBox, ModelWait, WorkBox
from sidecar.records import Event, PatientId, Reference
from sidecar.store import Statement, Step, Store, open_store
from tests.harness import cipher_in
from tests.peers.conftest import skip_without_peer
from tests.postgres import missing, new_database

skip_without_peer(missing())

A, B = ModelWait("a", 0.0, 0.0), ModelWait("b", 0.0, 0.0)
MANY = 40
STEAL = Statement("steal", "UPDATE work SET claim = 'another' WHERE patient_key = :patient_key AND model = 'a'")


@pytest.fixture
def url() -> Iterator[str]:
    with new_database() as made:
        yield made


@pytest.fixture
def store(url) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    opened.close()


@pytest.fixture
def boxes(store, tmp_path) -> tuple[EventBox, WorkBox]:
    cipher = cipher_in(tmp_path)
    return EventBox(store, cipher), WorkBox(store, cipher)


async def routed(store, events, concerned):
    """One event for each list of (patient, model) pairs, routed side by side."""
    told = [
        Event("observation", time.time(), Reference("Observation", f"o{n}", "1"), "t") for n in range(len(concerned))
    ]
    await events.record(*told)
    claimed = await events.claim("e", time.time(), 60, len(concerned))
    await asyncio.gather(
        *(store.commit(*events.routed(e, pairs, time.time())) for e, pairs in zip(claimed, concerned, strict=True))
    )


async def count(store, sql):
    (row,) = await store.read(Statement("count", sql))
    return row["n"]


def settled(store, work, items):
    return asyncio.gather(
        *(store.commit(*work.settled(item.claim, "x.1", "scored", 0.0)) for item in items), return_exceptions=True
    )


async def test_work_that_ends_at_the_same_moment_is_stored_by_few_transactions(store, boxes):
    events, work = boxes
    await routed(store, events, [[(PatientId(f"p{n}"), A)] for n in range(MANY)])
    assert await count(store, "SELECT count(DISTINCT xmin::text) AS n FROM work") < MANY / 4
    items = await work.claim("w", time.time(), 60, MANY)
    assert not [result for result in await settled(store, work, items) if isinstance(result, Exception)]
    assert await count(store, "SELECT count(*) AS n FROM event WHERE state = 'done'") == MANY
    assert await count(store, "SELECT count(DISTINCT xmin::text) AS n FROM event") < MANY / 4
    assert await count(store, "SELECT count(*) AS n FROM work") == 0


async def test_a_claim_that_was_lost_fails_alone_among_those_it_gathered_with(store, boxes):
    events, work = boxes
    await routed(store, events, [[(PatientId(f"p{n}"), A)] for n in range(MANY)])
    items = await work.claim("w", time.time(), 60, MANY)
    for stolen in (items[3], items[30]):
        await store.commit(Step(STEAL, [{"patient_key": stolen.claim.patient_key}]))
    ended = await settled(store, work, items)
    assert [n for n, result in enumerate(ended) if isinstance(result, ClaimLost)] == [3, 30]
    assert not [result for n, result in enumerate(ended) if isinstance(result, Exception) and n not in {3, 30}]
    assert await count(store, "SELECT count(*) AS n FROM event WHERE state = 'done'") == MANY - 2
    assert await count(store, "SELECT count(*) AS n FROM work") == 2


async def test_an_event_that_several_answer_at_the_same_moment_ends(store, boxes):
    events, work = boxes
    for patients in ((1, 1), (1, 2)):  # two models of one patient; a reading that was moved to another patient
        concerned = [
            [(PatientId(f"p{n}-{patients[0]}"), A), (PatientId(f"p{n}-{patients[1]}"), B)] for n in range(MANY)
        ]
        await store.commit(Step(Statement("again", "DELETE FROM event")))
        await routed(store, events, concerned)
        items = await work.claim("w", time.time(), 60, 2 * MANY)
        assert len(items) == 2 * MANY
        assert not [result for result in await settled(store, work, items) if isinstance(result, Exception)]
        assert await count(store, "SELECT count(*) AS n FROM event WHERE state <> 'done'") == 0
        assert await count(store, "SELECT count(*) AS n FROM work") == 0


async def test_events_of_one_patient_that_are_routed_together_all_count(store, boxes):
    events, work = boxes
    await routed(store, events, [[(PatientId("p"), A)] for _ in range(MANY)])
    (item,) = await work.claim("w", time.time(), 60, MANY)
    assert len(item.claim.events) == MANY
    await settled(store, work, [item])
    assert await count(store, "SELECT count(*) AS n FROM event WHERE state <> 'done'") == 0


async def test_patients_of_two_models_are_routed_and_settled_beside_each_other_without_a_deadlock(store, boxes):
    events, work = boxes
    patients = [PatientId(f"p{n}") for n in range(20)]
    for turn in range(40):
        concerned = [[(p, A), (p, B)] for p in patients]
        told = [Event("observation", time.time(), Reference("Observation", f"o{n}", f"{turn}"), "t") for n in range(20)]
        await events.record(*told)
        claimed = await events.claim(f"e{turn}", time.time(), 60, 20)
        items = await work.claim(f"w{turn}", time.time(), 60, 2 * MANY)
        routing = (
            store.commit(*events.routed(e, pairs, time.time())) for e, pairs in zip(claimed, concerned, strict=True)
        )
        began = time.monotonic()
        ended, _ = await asyncio.gather(settled(store, work, items), asyncio.gather(*routing))
        assert not [result for result in ended if isinstance(result, Exception)]
        assert time.monotonic() - began < 0.9  # PostgreSQL looks for deadlocks after a second
    items = await work.claim("last", time.time(), 60, 2 * MANY)
    await settled(store, work, items)
    assert await count(store, "SELECT count(*) AS n FROM event WHERE state <> 'done'") == 0


@contextlib.asynccontextmanager
async def locked(url, table, **key):
    """A row that somebody else holds on to."""
    other = await asyncpg.connect(url)
    try:
        async with other.transaction():
            where = " AND ".join(f"{name} = ${n}" for n, name in enumerate(key, 1))
            assert await other.fetch(f"SELECT 1 FROM {table} WHERE {where} FOR UPDATE", *key.values())
            yield
    finally:
        await other.close()


@pytest.mark.parametrize("table", ["work", "event"])
@pytest.mark.parametrize("with_others", [True, False])
async def test_a_settle_that_is_blocked_keeps_no_other_waiting(store, boxes, url, table, with_others):
    events, work = boxes
    await routed(store, events, [[(PatientId(f"p{n}"), A)] for n in range(MANY)])
    blocked, *others = await work.claim("w", time.time(), 60, MANY)
    row = {"patient_key": blocked.claim.patient_key} if table == "work" else {"id": blocked.claim.events[0]}

    def end(item):
        return asyncio.ensure_future(store.commit(*work.settled(item.claim, "x.1", "scored", 0.0)))

    async with locked(url, table, **row):
        began = time.monotonic()
        waits = end(blocked)
        if not with_others:
            await asyncio.sleep(0)
            await store.read(Statement("one", "SELECT 1 AS yes"))  # the blocked one is on its way alone
        first, later = others[: MANY // 2], others[MANY // 2 :]
        await asyncio.gather(*map(end, first))
        await asyncio.gather(*map(end, later))
        assert time.monotonic() - began < 2.5  # the server gives up on a lock after a fifth of a second
        assert not waits.done()
        assert await count(store, "SELECT count(*) AS n FROM event WHERE state = 'done'") == MANY - 1
    await waits
    assert await count(store, "SELECT count(*) AS n FROM event WHERE state = 'done'") == MANY
    assert await count(store, "SELECT count(*) AS n FROM work") == 0


async def test_what_stays_blocked_is_not_stored_and_says_so(store, boxes, url):
    events, work = boxes
    await routed(store, events, [[(PatientId("p"), A)]])
    (item,) = await work.claim("w", time.time(), 60, MANY)
    async with locked(url, "work", patient_key=item.claim.patient_key):
        (ended,) = await settled(store, work, [item])
    assert isinstance(ended, NotStored)
    await settled(store, work, [item])
    assert await count(store, "SELECT count(*) AS n FROM event WHERE state = 'done'") == 1
