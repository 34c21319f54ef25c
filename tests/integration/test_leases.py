"""Leases of several processes: one owner of each duty, and nothing that a dead process had claimed is held for long.

Time is an argument: every process has a clock that only the test moves.
"""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from sidecar.errors import ClaimLost, NotHere
from sidecar.inbox import EventBox
from sidecar.records import Event, Reference
from sidecar.store import Leases, Says, Statement, Store, open_store
from sidecar.store.durability import MOST_SKEW_S
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

    def __init__(self, store: Store, clock: Callable[[], float], runs: str = "") -> None:
        self.store, self.leases = store, Leases(store, DUTIES, clock, Says(runs))


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


async def test_what_an_owner_that_stops_had_still_claimed_is_free_at_once_and_what_others_claimed_is_not(
    pair, tmp_path
):
    one, two = pair
    await one.leases.beat()
    await two.leases.beat()
    await claimed_by(two, tmp_path, "of-the-other")
    await claimed_by(one, tmp_path, "of-the-stopped")
    await one.leases.give_back()
    (left,) = await two.store.read(HELD)
    assert left["claim"].startswith(two.store.owner)


async def test_two_owners_whose_clocks_differ_by_all_that_is_allowed_never_overlap(pair, clock):
    behind, ahead = (
        Process(p.store, lambda skew=skew: clock.now + skew)
        for p, skew in zip(pair, (-MOST_SKEW_S, MOST_SKEW_S), strict=True)
    )
    await behind.leases.beat()
    for _ in range(int(20 * LEASE_S)):
        clock.now += 0.1
        await ahead.leases.beat()
        assert not (behind.leases.holds("review") and ahead.leases.holds("review"))
    assert ahead.leases.holds("review")


async def works(process: Process) -> bool:
    """Whether it may claim, and may go on with what it claimed; both or neither."""
    try:
        await process.leases.must_lead()
    except NotHere:
        may_go_on = False
    else:
        may_go_on = True
    try:
        await asyncio.wait_for(process.leases.leading(), 0.05)
    except TimeoutError:
        assert not may_go_on
    else:
        assert may_go_on
    return may_go_on


async def test_of_processes_that_run_something_else_those_like_the_one_started_last_work_alone(pair, clock):
    old, new = (Process(p.store, clock, runs) for p, runs in zip(pair, ("old", "new"), strict=True))
    await pass_time(clock, BEAT_S, old)
    assert await works(old)
    clock.now += 0.5
    await new.leases.beat()
    with pytest.raises(NotHere):  # at once, before it has beaten again
        await old.leases.must_lead()
    await pass_time(clock, BEAT_S, old, new)
    assert [await works(old), await works(new)] == [False, True]
    while not new.leases.holds("review"):
        await pass_time(clock, 0.5, old, new)
        assert not (old.leases.holds("review") and new.leases.holds("review"))
    third = Process(pair[0].store, clock, "new")
    await third.leases.beat()
    assert [await works(new), await works(third)] == [True, True]


async def test_a_process_that_was_left_without_work_has_it_back_when_the_others_have_gone(pair, clock):
    old, new = (Process(p.store, clock, runs) for p, runs in zip(pair, ("old", "new"), strict=True))
    await pass_time(clock, BEAT_S, old)
    clock.now += 0.5
    await pass_time(clock, 2 * BEAT_S, old, new)
    assert not await works(old)
    await pass_time(clock, LEASE_S + BEAT_S, old)
    assert await works(old)
    await pass_time(clock, BEAT_S, old)
    assert old.leases.holds("review")


async def test_a_process_that_stood_still_for_longer_than_its_lease_claims_nothing_before_it_has_looked(pair, clock):
    one, _ = pair
    await one.leases.beat()
    clock.now += LEASE_S
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.leases.leading(), 0.05)
    await one.leases.beat()
    await one.leases.leading()


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
