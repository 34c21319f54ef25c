"""Faults of topic-based notifications: what does not come, comes twice, late or out of order, and how one can tell."""

import asyncio
from random import Random

import pytest

from sidecar.sandbox.ehr import Capabilities, Faults
from sidecar.sandbox.quirks import HAPI

MISHAPS = ("lose", "repeat", "reorder", "late", "twin")


@pytest.fixture
def write(ehr, make):
    """Store Observations of the given ids, and wait until all that is sent of them was."""

    async def store(*ids):
        for logical_id in ids:
            await ehr.write(make.observation(logical_id))
        await ehr.quiet(5)

    return store


def numbers(receiver):
    return [number for number, _ in receiver.events]


async def test_what_is_lost_is_counted_and_can_be_asked_for_and_is_never_sent(client, ehr, receiver, listen, write):
    await listen(client)
    ehr.faults.lose_next(2)
    await write("o1", "o2", "o3")
    assert numbers(receiver) == [3]
    assert receiver.told[-1].since_start == 3
    assert ehr.faults.counts["lost"] == 2
    (events,) = await client.told("Subscription/sub1/$events?eventsSinceNumber=1&eventsUntilNumber=2")
    assert events.foci == ["Observation/o1", "Observation/o2"]
    await ehr.stop()
    await ehr.start()
    await ehr.quiet(5)
    assert numbers(receiver) == [3]


async def test_the_last_one_lost_shows_in_the_next_heartbeat(client, ehr, receiver, listen, write):
    await listen(client, heartbeat_period=1)
    ehr.faults.lose_next()
    await write("o1")
    assert receiver.events == []
    await receiver.until(lambda: receiver.told[-1].kind == "heartbeat" and receiver.told[-1].since_start == 1)


async def test_repeated_it_has_the_same_number_twice(client, ehr, receiver, listen, write):
    await listen(client)
    ehr.faults.mishap_next("repeat")
    await write("o1", "o2")
    assert numbers(receiver) == [1, 1, 2]
    assert receiver.told[-1].since_start == 2
    assert ehr.faults.counts["repeated"] == 1


async def test_overtaken_it_comes_after_the_next_one(client, ehr, receiver, listen, write):
    await listen(client)
    ehr.faults.mishap_next("reorder")
    await write("o1", "o2", "o3")
    assert numbers(receiver) == [2, 1, 3]
    assert ehr.faults.counts["reordered"] == 1


async def test_late_it_comes_after_all_that_came_meanwhile(client, receiver, listen, write, make):
    await listen(client)
    client.ehr.faults.late_s = 0.3
    client.ehr.faults.mishap_next("late")
    for n in range(1, 5):
        await client.ehr.write(make.observation(f"o{n}"))
    await client.ehr.quiet(5)
    assert numbers(receiver) == [2, 3, 4, 1]
    assert client.ehr.faults.counts["late"] == 1


async def test_a_twin_comes_over_two_connections_at_the_same_time(client, ehr, receiver, listen, make):
    await listen(client)
    ehr.faults.mishap_next("twin")
    receiver.gate.clear()
    await ehr.write(make.observation("o1"))
    await receiver.until(lambda: receiver.inside == 2)
    receiver.gate.set()
    await ehr.quiet(5)
    await ehr.write(make.observation("o2"))
    await ehr.quiet(5)
    assert numbers(receiver) == [1, 1, 2]
    assert receiver.bundles[1] == receiver.bundles[2]
    assert ehr.faults.counts["twinned"] == 1


async def test_of_a_twin_it_is_enough_that_one_arrives(client, ehr, receiver, listen, write):
    await listen(client)
    ehr.faults.mishap_next("twin")
    receiver.statuses = [500]
    await write("o1", "o2")
    assert numbers(receiver) == [1, 1, 2]
    assert ehr.read("Subscription", "sub1")["status"] == "active"


async def test_a_mishap_may_wait_for_a_type(client, ehr, receiver, listen, make):
    await listen(client, type_name="Patient")
    other = make.topic_subscription(receiver.url, "Observation") | {"id": "sub2"}
    await client("PUT", "Subscription/sub2", other)
    await ehr.quiet(5)
    ehr.faults.mishap_next("lose", only="Observation")
    await ehr.write(make.patient())
    await ehr.write(make.observation("o1"))
    await ehr.write(make.observation("o2"))
    await ehr.quiet(5)
    assert {focus for _, focus in receiver.events} == {"Patient/p1", "Observation/o2"}


async def test_mute_it_says_nothing_and_seems_well(client, ehr, receiver, listen, write):
    await listen(client, heartbeat_period=1)
    began = asyncio.get_running_loop().time()
    ehr.faults.mute = True
    receiver.seen.clear()
    await write("o1")
    await receiver.until(lambda: ehr.faults.counts["mute heartbeats"] >= 3)
    assert asyncio.get_running_loop().time() - began >= 0.09, "one a period of 0.05 s, not as many as it can"
    assert receiver.seen == []
    (state,) = await client.told("Subscription/sub1/$status")
    assert (state.status, state.since_start) == ("active", 1)
    assert ehr.faults.counts["lost"] == 1
    ehr.faults.clear()
    await receiver.until(lambda: receiver.count("heartbeat") > 0)
    assert receiver.told[0].since_start == 1
    assert receiver.events == []


async def test_a_restart_forgets_numbers_events_and_what_waits_and_keeps_the_chart(
    client, receiver, listen, write, make
):
    await listen(client)
    await write("o1", "o2")
    before = client.ehr.base_url
    receiver.gate.clear()
    await client.ehr.write(make.observation("o3"))
    await client.ehr.restart()
    receiver.gate.set()
    assert client.ehr.base_url == before
    assert client.ehr.faults.counts["forgotten"] == 1
    (state,) = await client.told("Subscription/sub1/$status")
    assert (state.status, state.since_start) == ("active", 0)
    (events,) = await client.told("Subscription/sub1/$events")
    assert events.numbers == []
    assert (await client("GET", "Observation/o3")).status == 200
    seen = len(receiver.seen)
    await write("o4")
    assert [(each.numbers, each.since_start, each.foci) for each in receiver.told[seen:]] == [
        ([1], 1, ["Observation/o4"])
    ]


async def test_a_restart_shows_in_the_next_heartbeat(client, ehr, receiver, listen, write):
    await listen(client, heartbeat_period=1)
    await write("o1", "o2")
    await ehr.restart()
    await receiver.until(lambda: receiver.told[-1].kind == "heartbeat" and receiver.told[-1].since_start == 0)


async def test_stopped_and_started_it_keeps_numbers_and_what_waits(client, receiver, listen, write, make):
    await listen(client)
    await write("o1")
    await client.ehr.stop()
    await client.ehr.write(make.observation("o2"))
    with pytest.raises(TimeoutError):
        await client.ehr.quiet(0.01)
    await client.ehr.start()
    await client.ehr.quiet(5)
    assert numbers(receiver) == [1, 2]
    assert receiver.count("handshake") == 1


async def test_requested_while_stopped_it_shakes_hands_after_the_start(client, ehr, receiver, make):
    await ehr.stop()
    await ehr.write(make.topic_subscription(receiver.url))
    await ehr.write(make.observation())
    assert receiver.seen == []
    receiver.statuses = [500] * 3
    await ehr.start()
    await ehr.quiet(5)
    assert [told.kind for told in receiver.told] == ["handshake"] * 3
    assert ehr.read("Subscription", "sub1")["status"] == "error"


async def test_what_is_late_when_the_server_restarts_never_comes(client, ehr, receiver, listen, make):
    await listen(client)
    ehr.faults.late_s = 0.2
    ehr.faults.mishap_next("late")
    await ehr.write(make.observation())
    await ehr.restart()
    await ehr.quiet(5)
    assert receiver.events == []
    assert ehr.faults.counts["forgotten"] == 1


async def test_a_classic_subscription_loses_what_waits_in_a_restart_too(client, ehr, subscribe, receiver, make):
    await subscribe()
    await ehr.stop()
    await ehr.write(make.observation("o1"))
    await ehr.restart()
    await ehr.write(make.observation("o2"))
    await ehr.quiet(5)
    assert receiver.ids == ["o2"]
    assert ehr.faults.counts["forgotten"] == 1


async def test_a_refused_activation_shows_in_the_status(client, ehr, listen):
    ehr.faults.refuse_activation_next()
    await listen(client)
    (state,) = await client.told("Subscription/sub1/$status")
    assert state.status == "error"


async def test_a_server_without_handshake_can_still_refuse(connect, listen, receiver, make):
    client = await connect(capabilities=Capabilities(backport=HAPI))
    client.ehr.faults.refuse_activation_next()
    await listen(client)
    assert client.ehr.read("Subscription", "sub1")["status"] == "error"
    await client.ehr.write(make.observation())
    await client.ehr.quiet(5)
    assert receiver.seen == []


async def test_an_operation_can_fail_by_name(client, ehr, listen):
    await listen(client)
    ehr.faults.fail_next(1, 503, only="GET Subscription/{id}/$events")
    assert (await client("GET", "Subscription/sub1/$status")).status == 200
    assert (await client("GET", "Subscription/sub1")).status == 200
    assert (await client("GET", "Subscription/sub1/$events")).status == 503
    assert ehr.requests["GET", "Subscription/{id}/$events"] == 1


async def test_whatever_befalls_what_is_sent_all_that_happened_can_be_asked_for(connect, receiver, make, listen):
    runs = []
    for _ in range(2):
        faults = Faults(Random(11), lose=0.2, repeat=0.2, reorder=0.2, late=0.2, twin=0.2, late_s=0.05)
        client = await connect(faults=faults)
        await listen(client, max_count=1)
        receiver.seen.clear()
        for n in range(60):
            await client.ehr.write(make.observation(f"o{n}"))
        await client.ehr.quiet(10)
        counts = faults.counts
        assert all(counts[name] > 0 for name in ("lost", "repeated", "reordered", "late", "twinned")), "seed 11"
        assert len(receiver.events) == 60 - counts["lost"] + counts["repeated"] + counts["twinned"]
        assert len(set(receiver.events)) == 60 - counts["lost"]
        (state,) = await client.told("Subscription/sub1/$events")
        assert state.numbers == list(range(1, 61))
        runs.append((sorted(receiver.events), dict(counts)))
    assert runs[0] == runs[1]


async def test_clear_forgets_mishaps_and_keeps_counts(client, ehr, receiver, listen, write):
    await listen(client)
    ehr.faults.lose_next()
    await write("o1")
    for mishap in MISHAPS:
        ehr.faults.mishap_next(mishap)
    ehr.faults.late = ehr.faults.twin = 1.0
    ehr.faults.clear()
    await write("o2")
    assert numbers(receiver) == [2]
    assert ehr.faults.counts["lost"] == 1
