"""How patient the server is with a topic-based receiver, and for how long: retries, errors, `end`."""

from datetime import timedelta

import pytest

from sidecar.sandbox.ehr import DeliveryPolicy


async def test_a_heartbeat_nobody_answers_ends_in_error(client, ehr, receiver, listen):
    await listen(client, heartbeat_period=1)
    receiver.statuses = [500] * 1000
    await receiver.until(lambda: ehr.read("Subscription", "sub1")["status"] == "error")


async def test_a_refused_notification_is_repeated_the_same_before_the_next_one(client, ehr, receiver, listen, make):
    await listen(client)
    receiver.statuses = [500, 302]
    await ehr.write(make.observation("o1"))
    await ehr.write(make.observation("o2"))
    await ehr.quiet(5)
    assert [focus for _, focus in receiver.events] == ["Observation/o1"] * 3 + ["Observation/o2"]
    assert receiver.bundles[1] == receiver.bundles[2] == receiver.bundles[3]


async def test_given_up_it_is_in_error_tells_nothing_and_keeps_its_events(client, ehr, receiver, listen, make):
    await listen(client)
    receiver.statuses = [500] * 3
    for n in range(1, 4):
        await ehr.write(make.observation(f"o{n}"))
        await ehr.quiet(5)
    assert ehr.read("Subscription", "sub1")["status"] == "error"
    assert [number for number, _ in receiver.events] == [1, 1, 1]
    (state,) = await client.told("Subscription/sub1/$status")
    assert (state.status, state.since_start) == ("error", 3)
    error = next(each["valueCodeableConcept"] for each in state.parameters if each["name"] == "error")
    assert error["coding"][0]["code"] == "error-response"
    (events,) = await client.told("Subscription/sub1/$events")
    assert events.numbers == [1, 2, 3]


async def test_an_endpoint_that_is_gone_is_an_error_without_response(connect, listen, client, make):
    made = make.topic_subscription("http://127.0.0.1:9/hook")
    await client("PUT", "Subscription/sub1", made)
    await client.ehr.quiet(5)
    (state,) = await client.told("Subscription/sub1/$status")
    error = next(each["valueCodeableConcept"] for each in state.parameters if each["name"] == "error")
    assert error["coding"][0]["code"] == "no-response"


async def test_in_error_it_stays_until_the_client_requests_it_again(client, ehr, receiver, listen, make):
    await listen(client)
    receiver.statuses = [500] * 3
    await ehr.write(make.observation("o1"))
    await ehr.quiet(5)
    failed = ehr.read("Subscription", "sub1")
    await ehr.write(make.observation("o2"))
    seen = len(receiver.seen)
    assert (await client("PUT", "Subscription/sub1", {**failed, "status": "requested"})).status == 200
    await ehr.quiet(5)
    again = ehr.read("Subscription", "sub1")
    assert (again["status"], "error" in again) == ("active", False)
    await ehr.write(make.observation("o3"))
    await ehr.quiet(5)
    handshake, event = receiver.told[seen:]
    assert (handshake.kind, handshake.since_start) == ("handshake", 2)
    assert (event.numbers, event.foci) == ([3], ["Observation/o3"])


async def test_a_new_secret_is_used_at_once_even_for_what_waits(connect, receiver, make):
    client = await connect(delivery=DeliveryPolicy(backoff_s=0.001, give_up_after=1000))
    made = make.topic_subscription(receiver.url)
    made["channel"]["header"] = ["Authorization: Bearer old"]
    await client("PUT", "Subscription/sub1", made)
    await client.ehr.quiet(5)
    receiver.statuses = [401] * 3
    await client.ehr.write(make.observation())
    made["channel"]["header"] = ["Authorization: Bearer new"]
    assert (await client("PUT", "Subscription/sub1", {**made, "status": "active"})).status == 200
    await client.ehr.write(make.observation("o2"))
    await client.ehr.quiet(5)
    sent = [headers["Authorization"] for _, _, _, headers in receiver.seen]
    assert sent[0] == "Bearer old"
    assert sent[-1] == "Bearer new"
    assert sorted(sent, reverse=True) == sent, "once the new one was used, the old one never is again"
    assert receiver.count("handshake") == 1


async def test_past_its_end_it_is_off_and_counts_nothing(client, ehr, receiver, make, clock):
    end = (clock() + timedelta(minutes=5)).isoformat()
    await client("PUT", "Subscription/sub1", {**make.topic_subscription(receiver.url), "end": end})
    await ehr.quiet(5)
    await ehr.write(make.observation("o1"))
    await ehr.quiet(5)
    clock.advance(600)
    (state,) = await client.told("Subscription/sub1/$status")
    assert (state.status, state.since_start) == ("off", 1)
    await ehr.write(make.observation("o2"))
    await ehr.quiet(5)
    assert receiver.events == [(1, "Observation/o1")]
    (events,) = await client.told("Subscription/sub1/$events")
    assert events.numbers == [1]


async def test_past_its_end_heartbeats_stop_though_nobody_looks(client, receiver, make, clock):
    made = make.topic_subscription(receiver.url, heartbeat_period=1) | {
        "end": (clock() + timedelta(minutes=5)).isoformat()
    }
    await client("PUT", "Subscription/sub1", made)
    await receiver.until(lambda: receiver.count("heartbeat") > 0)
    clock.advance(600)
    await receiver.until(lambda: client.ehr.read("Subscription", "sub1")["status"] == "off")
    other = make.topic_subscription(f"{receiver.url}/other", heartbeat_period=1) | {"id": "other"}
    await client("PUT", "Subscription/other", other)
    await receiver.until(lambda: receiver.paths.count("/hook/other") > 3)
    assert {told.status for told in receiver.told} == {"requested", "active"}


@pytest.mark.parametrize("wanted", [None, "2030-01-01T00:00:00Z"])
async def test_a_server_may_cut_how_long_it_keeps_one(connect, receiver, make, clock, wanted):
    client = await connect(delivery=DeliveryPolicy(longest_life_s=3600))
    made = make.topic_subscription(receiver.url) | ({"end": wanted} if wanted else {})
    await client("PUT", "Subscription/sub1", made)
    await client.ehr.quiet(5)
    granted = client.ehr.read("Subscription", "sub1")
    assert (granted["status"], granted["end"]) == ("active", "2026-03-01T13:00:00.000Z")
    clock.advance(1800)
    await client("PUT", "Subscription/sub1", {**granted, "end": "2030-01-01T00:00:00Z"})
    renewed = client.ehr.read("Subscription", "sub1")
    assert (renewed["status"], renewed["end"]) == ("active", "2026-03-01T13:30:00.000Z")
    clock.advance(2000)
    assert (await client("GET", "Subscription/sub1")).body["status"] == "active"
    clock.advance(2000)
    assert (await client("GET", "Subscription/sub1")).body["status"] == "off"


async def test_a_server_that_ignores_end_goes_on(connect, receiver, make, clock):
    client = await connect(delivery=DeliveryPolicy(enforces_end=False))
    made = make.topic_subscription(receiver.url) | {"end": "2026-03-01T12:05:00Z"}
    await client("PUT", "Subscription/sub1", made)
    clock.advance(600)
    await client.ehr.quiet(5)
    await client.ehr.write(make.observation())
    await client.ehr.quiet(5)
    assert receiver.events == [(1, "Observation/o1")]


async def test_a_server_that_drops_what_it_cannot_deliver_stays_active(connect, receiver, listen, make):
    client = await connect(delivery=DeliveryPolicy(backoff_s=0.001, give_up_after=2, gives_up="drop"))
    await listen(client)
    receiver.statuses = [500] * 2
    await client.ehr.write(make.observation("o1"))
    await client.ehr.write(make.observation("o2"))
    await client.ehr.quiet(5)
    assert receiver.events == [(1, "Observation/o1"), (1, "Observation/o1"), (2, "Observation/o2")]
    assert client.ehr.read("Subscription", "sub1")["status"] == "active"
    assert client.ehr.faults.counts["given up"] == 1


async def test_the_timeout_a_client_asks_for_counts(connect, receiver, listen, make):
    client = await connect(delivery=DeliveryPolicy(timeout_s=30, give_up_after=1, second_s=0.05))
    await listen(client, timeout=1)
    receiver.gate.clear()
    await client.ehr.write(make.observation())
    await client.ehr.quiet(10)
    receiver.gate.set()
    assert client.ehr.read("Subscription", "sub1")["status"] == "error"
