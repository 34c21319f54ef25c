"""Classic R4 subscriptions: what a subscriber hears, and what it never hears."""

from datetime import timedelta
from random import Random

import orjson
import pytest

from sidecar.sandbox.ehr import Capabilities, DeliveryPolicy, Faults


async def test_a_requested_subscription_becomes_active_as_a_new_version(client, subscribe):
    created = await subscribe()
    assert (created.status, created.body["status"]) == (201, "requested")
    read = (await client("GET", "Subscription/sub1")).body
    assert (read["status"], read["meta"]["versionId"]) == ("active", "2")


async def test_with_a_payload_the_resource_is_put_with_meta_and_the_headers(client, ehr, subscribe, receiver, make):
    await subscribe(header=["Authorization: Bearer s3cret", "X-Site: a: b"])
    await client("PUT", "Observation/o1", make.observation())
    await ehr.quiet(5)
    ((method, path, body, headers),) = receiver.seen
    assert (method, path) == ("PUT", "/hook/Observation/o1")
    assert orjson.loads(body) == ehr.read("Observation", "o1")
    assert orjson.loads(body)["meta"]["versionId"] == "1"
    assert (headers["Authorization"], headers["X-Site"]) == ("Bearer s3cret", "a: b")
    assert headers["Content-Type"] == "application/fhir+json"


async def test_without_a_payload_it_is_an_empty_post_to_the_endpoint(ehr, subscribe, receiver, make):
    await subscribe(payload=None, header=["Authorization: Bearer s3cret"])
    await ehr.write(make.observation())
    await ehr.quiet(5)
    ((method, path, body, headers),) = receiver.seen
    assert (method, path, body) == ("POST", "/hook", b"")
    assert headers["Authorization"] == "Bearer s3cret"


async def test_only_new_versions_that_match_are_heard(ehr, subscribe, receiver, make):
    await ehr.write(make.observation("before"))
    await subscribe("Observation?status=final&code=http://loinc.org|8867-4")
    await ehr.write(make.observation("o1"))
    await ehr.write(make.observation("other", code={"text": "no code"}))
    await ehr.write(make.observation("o1", status="amended"))
    await ehr.remove("Observation", "o1")
    await ehr.write(make.observation("o2"))
    await ehr.quiet(5)
    assert receiver.ids == ["o1", "o2"]


@pytest.mark.parametrize("criteria", ["Encounter", "Encounter?"])
async def test_a_bare_type_means_every_version_of_it(ehr, subscribe, receiver, make, criteria):
    await subscribe(criteria)
    await ehr.write(make.encounter("e1"))
    await ehr.write(make.encounter("e1", status="finished"))
    await ehr.write(make.observation())
    await ehr.quiet(5)
    assert receiver.ids == ["e1", "e1"]


async def test_every_matching_subscription_hears_in_the_order_of_the_writes(client, ehr, subscribe, receiver, make):
    await subscribe("Observation?status=final")
    await client("POST", "Subscription", make.subscription(f"{receiver.url}/second", "Observation?patient=p1"))
    await ehr.quiet(5)
    written = [f"o{n}" for n in range(30)]
    for logical_id in written:
        await ehr.write(make.observation(logical_id))
    await ehr.quiet(5)
    second = [path for path in receiver.paths if path.startswith("/hook/second/")]
    first = [path for path in receiver.paths if path not in second]
    assert [path.rpartition("/")[2] for path in first] == written
    assert [path.rpartition("/")[2] for path in second] == written


async def test_a_refused_notification_is_repeated_before_the_next_one(ehr, subscribe, receiver, make):
    await subscribe()
    receiver.statuses = [500, 302]
    await ehr.write(make.observation("o1"))
    await ehr.write(make.observation("o2"))
    await ehr.quiet(5)
    assert receiver.ids == ["o1", "o1", "o1", "o2"]
    assert ehr.read("Subscription", "sub1")["status"] == "active"


async def test_given_up_it_is_in_error_and_silent_until_requested_again(client, ehr, subscribe, receiver, make):
    await subscribe()
    receiver.statuses = [500] * 3
    for logical_id in ("o1", "o2"):
        await ehr.write(make.observation(logical_id))
    await ehr.quiet(5)
    failed = ehr.read("Subscription", "sub1")
    assert failed["status"] == "error"
    assert "500" in failed["error"]
    assert receiver.ids == ["o1"] * 3
    await ehr.write(make.observation("o3"))
    await ehr.quiet(5)
    assert len(receiver.seen) == 3
    assert (await client("PUT", "Subscription/sub1", {**failed, "status": "requested"})).status == 200
    await ehr.quiet(5)
    again = ehr.read("Subscription", "sub1")
    assert (again["status"], "error" in again) == ("active", False)
    await ehr.write(make.observation("o4"))
    await ehr.quiet(5)
    assert receiver.ids[3:] == ["o4"]


async def test_a_receiver_that_is_not_there_counts_as_failing(client, ehr, make):
    await client("PUT", "Subscription/sub1", make.subscription("http://127.0.0.1:9/hook"))
    await ehr.quiet(5)
    await ehr.write(make.observation())
    await ehr.quiet(5)
    assert ehr.read("Subscription", "sub1")["status"] == "error"


async def test_a_receiver_that_takes_too_long_counts_as_failing(connect, receiver, make):
    client = await connect(delivery=DeliveryPolicy(timeout_s=0.05, give_up_after=1))
    await client("PUT", "Subscription/sub1", make.subscription(receiver.url))
    await client.ehr.quiet(5)
    receiver.gate.clear()
    await client.ehr.write(make.observation())
    await client.ehr.quiet(5)
    receiver.gate.set()
    assert client.ehr.read("Subscription", "sub1")["status"] == "error"
    assert DeliveryPolicy().timeout_s == 2.0


async def test_past_its_end_it_is_off(client, ehr, receiver, make, clock):
    end = (clock() + timedelta(minutes=5)).isoformat()
    await client("PUT", "Subscription/sub1", {**make.subscription(receiver.url), "end": end})
    await ehr.quiet(5)
    await ehr.write(make.observation("o1"))
    await ehr.quiet(5)
    clock.advance(600)
    assert (await client("GET", "Subscription/sub1")).body["status"] == "off"
    await ehr.write(make.observation("o2"))
    await client("PUT", "Subscription/late", {**make.subscription(receiver.url), "id": "late", "end": end})
    await ehr.quiet(5)
    assert [each["status"] for each in ehr.history("Subscription", "late")] == ["requested", "off"]
    assert receiver.ids == ["o1"]


async def test_renewed_by_the_client_it_misses_nothing(client, ehr, subscribe, receiver, make):
    await subscribe()
    read = (await client("GET", "Subscription/sub1")).body
    renewed = await client("PUT", "Subscription/sub1", {**read, "status": "requested", "end": "2027-01-01T00:00:00Z"})
    assert renewed.status == 200
    await ehr.write(make.observation("o1"))
    await ehr.quiet(5)
    await ehr.write(make.observation("o2"))
    await ehr.quiet(5)
    assert receiver.ids == ["o1", "o2"]
    assert ehr.read("Subscription", "sub1")["status"] == "active"


@pytest.mark.parametrize("close", ["off", "delete"])
async def test_turned_off_or_deleted_it_is_silent(client, subscribe, receiver, make, close):
    await subscribe()
    if close == "off":
        await client("PUT", "Subscription/sub1", {**make.subscription(receiver.url), "status": "off"})
    else:
        await client("DELETE", "Subscription/sub1")
    await client.ehr.write(make.observation())
    await client.ehr.quiet(5)
    assert receiver.seen == []


@pytest.mark.parametrize(
    ("change", "channel", "named"),
    [
        ({"status": "active"}, {}, "status"),
        ({"criteria": "Observation?colour=red"}, {}, "criteria"),
        ({"criteria": "Observation?_count=5"}, {}, "criteria"),
        ({"criteria": "Substance?code=x"}, {}, "criteria"),
        ({}, {"type": "websocket"}, "channel.type"),
        ({}, {"payload": "application/fhir+xml"}, "channel.payload"),
        ({}, {"endpoint": "http://192.0.2.1/hook"}, "channel.endpoint"),
        ({}, {"endpoint": "http://127.0.0.1.example.org/hook"}, "channel.endpoint"),
        ({}, {"endpoint": "https://localhost/hook"}, "channel.endpoint"),
        ({}, {"header": ["no colon"]}, "channel.header"),
    ],
)
async def test_a_subscription_the_server_cannot_serve_is_refused(client, make, change, channel, named):
    subscription = {**make.subscription("http://127.0.0.1:9/hook", **channel), **change}
    reply = await client("PUT", "Subscription/sub1", subscription)
    assert reply.status == 422
    assert reply.body["issue"][0]["expression"] == [f"Subscription.{named}"]
    assert client.ehr.all("Subscription") == []


async def test_subscriptions_can_be_searched(client, subscribe, receiver):
    await subscribe("Encounter")
    for query in (f"url={receiver.url}", "status=active", "criteria=Encounter", "type=rest-hook"):
        assert (await client("GET", f"Subscription?{query}")).ids == ["sub1"]
    assert (await client("GET", "Subscription?status=error")).ids == []


async def test_without_the_capability_there_are_no_subscriptions(connect, make):
    client = await connect(capabilities=Capabilities(subscriptions=False))
    assert (await client("PUT", "Subscription/sub1", make.subscription("http://127.0.0.1:9"))).status == 404


async def test_an_activation_can_be_refused(client, ehr, make):
    ehr.faults.refuse_activation_next()
    await client("PUT", "Subscription/sub1", make.subscription("http://127.0.0.1:9/hook"))
    await ehr.quiet(5)
    refused = ehr.read("Subscription", "sub1")
    assert refused["status"] == "error"
    assert refused["error"]


async def test_lost_notifications_never_come(ehr, subscribe, receiver, make):
    await subscribe()
    ehr.faults.lose_next(2)
    for n in range(4):
        await ehr.write(make.observation(f"o{n}"))
    await ehr.quiet(5)
    assert receiver.ids == ["o2", "o3"]


async def test_repeated_notifications_come_twice(ehr, subscribe, receiver, make):
    await subscribe()
    ehr.faults.repeat = 1.0
    await ehr.write(make.observation("o1"))
    await ehr.write(make.observation("o2"))
    await ehr.quiet(5)
    assert receiver.ids == ["o1", "o1", "o2", "o2"]


async def test_an_overtaken_notification_comes_after_the_next_or_late_but_comes(ehr, subscribe, receiver, make):
    await subscribe()
    ehr.faults.reorder = 1.0
    for n in range(5):
        await ehr.write(make.observation(f"o{n}"))
    await ehr.quiet(5)
    assert receiver.ids == ["o1", "o0", "o3", "o2", "o4"]


async def test_the_same_seed_gives_the_same_faults(connect, receiver, make):
    runs = []
    for _ in range(2):
        client = await connect(faults=Faults(Random(7), lose=0.3, repeat=0.3, reorder=0.3))
        await client("PUT", "Subscription/sub1", make.subscription(receiver.url))
        await client.ehr.quiet(5)
        receiver.seen.clear()
        for n in range(40):
            await client.ehr.write(make.observation(f"o{n}"))
        await client.ehr.quiet(5)
        runs.append(receiver.ids)
    assert runs[0] == runs[1]
    assert len(set(runs[0])) < 40 < len(runs[0]) + 20
    assert runs[0] != sorted(runs[0], key=lambda each: int(each[1:]))


async def test_what_was_not_delivered_when_stopped_is_delivered_after_the_start(client, ehr, subscribe, receiver, make):
    await subscribe()
    await ehr.stop()
    await ehr.write(make.observation("o1"))
    with pytest.raises(TimeoutError):
        await ehr.quiet(0.01)
    assert receiver.seen == []
    await ehr.start()
    await ehr.quiet(5)
    assert receiver.ids == ["o1"]
