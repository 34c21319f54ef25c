"""Leases of several processes: one owner of each duty, and nothing that a dead process had claimed is held for long.

Time is an argument: every process has a clock that only the test moves.
"""

import asyncio
from collections.abc import Iterator

import pytest

from sidecar.errors import ClaimLost
from sidecar.inbox import EventBox
from sidecar.records import Event, Reference
from sidecar.store import Leases, Statement, Store, open_store
from sidecar.store.leases import BEAT_S, LEASE_S
from tests.harness import cipher_in, new_database, until
from tests.harness import open_store as opened

DUTIES = ("subscriptions", "review")
HELD = Statement("held", "SELECT claim FROM event WHERE claim IS NOT NULL")


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Process:
    """One process of several: its own store and leases, and the clock all share."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.leases = store, Leases(store, DUTIES, clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pair(tmp_path, clock) -> Iterator[tuple[Process, Process]]:
    with new_database(tmp_path, "postgres") as url:
        stores = open_store(url), open_store(url)
        yield Process(stores[0], clock), Process(stores[1], clock)
        for store in stores:
            store.close()


async def pass_time(clock: Clock, seconds: float, *living: Process) -> None:
    """Time passes, and who lives beats."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now = min(clock.now + BEAT_S, end)
        for process in living:
            await process.leases.beat()
            await process.leases.free()


async def test_a_duty_has_one_owner_and_another_takes_it_when_the_owner_is_gone(pair, clock):
    one, two = pair
    await one.leases.beat()
    await two.leases.beat()
    assert [p.leases.holds("review") for p in pair] == [True, False]
    await pass_time(clock, 60, one, two)
    assert [p.leases.holds("review") for p in pair] == [True, False]
    await pass_time(clock, LEASE_S + BEAT_S, two)
    assert [p.leases.holds("review") for p in pair] == [False, True]


async def test_an_owner_that_could_not_renew_stops_before_another_may_begin(pair, clock):
    one, two = pair
    await one.leases.beat()
    for _ in range(int(2 * LEASE_S)):
        clock.now += 0.5
        await two.leases.beat()
        assert not (one.leases.holds("review") and two.leases.holds("review"))
    with pytest.raises(ClaimLost):
        one.leases.must_hold("review")
    two.leases.must_hold("review")
    await one.leases.beat()
    assert not one.leases.holds("review")


async def test_an_owner_that_stops_leaves_its_duties_to_the_others_at_once(pair):
    one, two = pair
    await one.leases.beat()
    await one.leases.give_back()
    await two.leases.beat()
    assert [p.leases.holds("review") for p in pair] == [False, True]


async def test_a_duty_runs_in_its_owner_and_is_cancelled_when_the_lease_is_lost(pair, clock):
    one, two = pair
    running: set[str] = set()

    async def duty(name: str) -> None:
        running.add(name)
        try:
            await asyncio.Event().wait()
        finally:
            running.discard(name)

    tasks = [
        asyncio.ensure_future(p.leases.alone("review", lambda name=name: duty(name)))
        for name, p in zip("12", pair, strict=True)
    ]
    await one.leases.beat()
    await until(lambda: running == {"1"})
    clock.now += LEASE_S + 0.1
    await two.leases.beat()
    await until(lambda: running == {"2"})
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert running == set()


async def test_a_duty_that_fails_says_so_to_whoever_runs_it(pair):
    one, _ = pair

    async def duty() -> None:
        raise ZeroDivisionError

    await one.leases.beat()
    with pytest.raises(ZeroDivisionError):
        await one.leases.alone("review", duty)


async def claimed_by(process: Process, tmp_path, focus: str) -> None:
    box = EventBox(process.store, cipher_in(tmp_path))
    await box.record(Event("observation", 0.0, Reference("Observation", focus, "1"), "t"))
    await box.claim(process.store.fresh_claim(), 0.0, 1e12)


async def test_what_a_dead_process_had_claimed_is_free_within_its_lease_and_what_a_living_one_has_is_not(
    pair, clock, tmp_path
):
    one, two = pair
    await one.leases.beat()
    await two.leases.beat()
    await claimed_by(one, tmp_path, "of-the-dead")
    await claimed_by(two, tmp_path, "of-the-living")
    await pass_time(clock, LEASE_S - BEAT_S, two)
    assert len(await two.store.read(HELD)) == 2
    await pass_time(clock, 2 * BEAT_S, two)
    (left,) = await two.store.read(HELD)
    assert left["claim"].startswith(two.store.owner)


async def test_after_an_outage_nobody_frees_what_the_living_hold(pair, clock, tmp_path):
    one, two = pair
    await pass_time(clock, 2 * LEASE_S, one, two)
    await claimed_by(one, tmp_path, "o1")
    clock.now += 10 * LEASE_S  # nobody could renew
    await two.leases.beat()
    await pass_time(clock, BEAT_S, two)
    await pass_time(clock, LEASE_S * 2, one, two)
    assert len(await two.store.read(HELD)) == 1


async def test_the_one_process_of_a_file_has_every_duty_and_frees_what_its_predecessor_held(tmp_path, clock):
    with opened(tmp_path) as store:
        await claimed_by(Process(store, clock), tmp_path, "o1")
        leases = Leases(store, DUTIES, clock)
        assert len(await store.read(HELD)) == 1
        await leases.beat()
        clock.now += 1000 * LEASE_S
        assert leases.holds("review")
        assert await store.read(HELD) == []
        assert await store.read(Statement("leases", "SELECT * FROM lease")) == []
