"""Topic-based Subscriptions: how one becomes active, what it is told, and how it ends."""

from datetime import UTC, datetime

import pytest

from sidecar.sandbox.ehr import Backport, Capabilities, DeliveryPolicy
from sidecar.sandbox.topics import changed_topic

BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"


async def test_a_requested_subscription_is_active_once_its_endpoint_answered_the_handshake(client, receiver, listen):
    reply = await listen(client)
    assert (reply.status, reply.body["status"]) == (201, "requested")
    (told,) = receiver.told
    assert (told.kind, told.status, told.since_start, told.numbers) == ("handshake", "requested", 0, [])
    assert client.ehr.read("Subscription", "sub1")["status"] == "active"


async def test_until_the_handshake_is_answered_it_is_not_active(connect, receiver, make):
    client = await connect(delivery=DeliveryPolicy(timeout_s=30))
    receiver.gate.clear()
    await client("PUT", "Subscription/sub1", make.topic_subscription(receiver.url))
    await client.ehr.write(make.observation())
    with pytest.raises(TimeoutError):
        await client.ehr.quiet(0.05)
    assert client.ehr.read("Subscription", "sub1")["status"] == "requested"
    receiver.gate.set()
    await receiver.until(lambda: client.ehr.read("Subscription", "sub1")["status"] == "active")
    await client.ehr.quiet(5)
    assert receiver.events == [(1, "Observation/o1")], "what happened during the handshake is told after it"


@pytest.mark.parametrize("change", ["off", "deleted", "moved"])
async def test_changed_during_the_handshake_it_is_as_it_was_changed(connect, receiver, make, change):
    client = await connect(delivery=DeliveryPolicy(timeout_s=30))
    receiver.gate.clear()
    made = make.topic_subscription(receiver.url)
    await client("PUT", "Subscription/sub1", made)
    await receiver.until(lambda: receiver.inside == 1)
    if change == "off":
        await client("PUT", "Subscription/sub1", made | {"status": "off"})
    elif change == "deleted":
        await client("DELETE", "Subscription/sub1")
    else:
        made["channel"]["endpoint"] = f"{receiver.url}/moved"
        await client("PUT", "Subscription/sub1", made)
    receiver.gate.set()
    await client.ehr.quiet(5)
    await client.ehr.write(make.observation())
    await client.ehr.quiet(5)
    found = client.ehr.read("Subscription", "sub1")
    assert (found and found["status"]) == {"off": "off", "deleted": None, "moved": "active"}[change]
    told = [(path, told.kind) for path, told in zip(receiver.paths, receiver.told, strict=True)]
    moved = [("/hook/moved", "handshake"), ("/hook/moved", "event-notification")]
    assert told == [("/hook", "handshake"), *(moved if change == "moved" else [])]


@pytest.mark.parametrize("answer", [500, 302, 404])
async def test_a_handshake_that_is_not_answered_with_2xx_ends_in_error(client, ehr, receiver, listen, answer):
    receiver.statuses = [answer] * 3
    await listen(client)
    failed = ehr.read("Subscription", "sub1")
    assert (failed["status"], str(answer) in failed["error"]) == ("error", True)
    assert receiver.count("handshake") == len(receiver.seen) == 3


async def test_every_create_update_and_delete_is_told_in_order(client, ehr, receiver, listen, make):
    await ehr.write(make.observation("before"))
    await listen(client)
    await client("PUT", "Observation/o1", make.observation("o1"))
    await ehr.write(make.observation("o1", status="amended"))
    await client("POST", "Observation", make.observation(None))
    await client("DELETE", "Observation/o1")
    await ehr.write(make.patient())
    await ehr.quiet(5)
    created = next(each["id"] for each in ehr.all("Observation") if each["id"] != "before")
    foci = ["o1", "o1", created, "o1"]
    assert receiver.events == [(number, f"Observation/{focus}") for number, focus in enumerate(foci, 1)]
    methods = [bundle["entry"][1]["request"]["method"] for bundle in receiver.bundles[1:]]
    assert methods == ["PUT", "PUT", "POST", "DELETE"]


async def test_a_transaction_is_told_once_it_is_final_and_not_at_all_when_it_fails(client, ehr, receiver, listen, make):
    await listen(client)
    entries = [
        {"resource": make.observation(f"o{n}"), "request": {"method": "PUT", "url": f"Observation/o{n}"}}
        for n in range(3)
    ]
    bad = {"resource": {"resourceType": "Observation"}, "request": {"method": "POST", "url": "Observation"}}
    assert (
        await client("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": [*entries, bad]})
    ).status == 400
    await ehr.quiet(5)
    assert receiver.events == []
    assert (await client("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": entries})).status == 200
    await ehr.quiet(5)
    assert receiver.events == [(1, "Observation/o0"), (2, "Observation/o1"), (3, "Observation/o2")]


@pytest.mark.parametrize("type_name", ["Patient", "Encounter", "Observation", "Condition"])
async def test_there_is_a_topic_for_each_type_that_readers_listen_to(client, receiver, listen, make, type_name):
    await listen(client, type_name=type_name)
    condition = {"resourceType": "Condition", "id": "c1", "subject": {"reference": "Patient/p1"}}
    for resource in (make.patient(), make.encounter(), make.observation(), condition):
        await client.ehr.write(resource)
    await client.ehr.quiet(5)
    ((number, focus),) = receiver.events
    assert (number, focus.partition("/")[0]) == (1, type_name)


async def test_filters_narrow_and_several_must_all_be_met(client, ehr, receiver, listen, make):
    await listen(client, filters=["Observation?code=http://loinc.org|8867-4", "patient=Patient/p1&status=final"])
    await ehr.write(make.observation("yes"))
    await ehr.write(make.observation("other-code", code={"text": "no code"}))
    await ehr.write(make.observation("other-patient", subject={"reference": "Patient/p2"}))
    await ehr.write(make.observation("other-status", status="amended"))
    await ehr.remove("Observation", "other-patient")
    await ehr.remove("Observation", "yes")
    await ehr.quiet(5)
    assert receiver.events == [(1, "Observation/yes"), (2, "Observation/yes")], (
        "a deletion is judged by what was deleted"
    )


@pytest.mark.parametrize(
    ("change", "element", "said"),
    [
        ({"criteria": changed_topic("Medication")}, "criteria", "topic"),
        ({"criteria": changed_topic("Observation") + "|9.9.9"}, "criteria", "topic"),
        ({"filters": ["Observation?colour=red"]}, "criteria", "colour"),
        ({"filters": ["Observation?date=yesterday"]}, "criteria", "date"),
        ({"filters": ["Observation?_lastUpdated=gt2026"]}, "criteria", "_lastUpdated"),
        ({"filters": ["Patient?_id=p1"]}, "criteria", "Patient"),
        ({"content": "everything"}, "channel.payload", "everything"),
        ({"payload": None}, "channel.payload", "required"),
        ({"extension": [{"url": f"{BACKPORT}backport-timeout", "valueString": "soon"}]}, "channel", "whole number"),
        ({"type": "websocket"}, "channel.type", "websocket"),
        ({"endpoint": "http://192.0.2.1/hook"}, "channel.endpoint", "loopback"),
        ({"status": "active"}, "status", "requested"),
    ],
)
async def test_what_the_server_or_the_topic_cannot_do_is_refused(client, make, change, element, said):
    made = make.topic_subscription(
        "http://127.0.0.1:9/hook",
        content=change.get("content", "id-only"),
        filters=change.get("filters", ()),
    )
    made |= {name: change[name] for name in ("criteria", "status") if name in change}
    made["channel"] |= {name: change[name] for name in ("type", "endpoint", "extension") if name in change}
    if "payload" in change:
        del made["channel"]["payload"], made["channel"]["_payload"]
    reply = await client("PUT", "Subscription/sub1", made)
    assert (reply.status, reply.body["issue"][0]["expression"]) == (422, [f"Subscription.{element}"])
    assert said in reply.said
    assert client.ehr.all("Subscription") == []


async def test_a_topic_may_be_named_with_its_version(client, ehr, receiver, make):
    made = make.topic_subscription(receiver.url) | {"criteria": changed_topic("Observation") + "|1.0.0"}
    await client("PUT", "Subscription/sub1", made)
    await ehr.quiet(5)
    assert ehr.read("Subscription", "sub1")["status"] == "active"


async def test_heartbeats_come_when_nothing_else_does_and_quiet_does_not_wait_for_them(
    client, ehr, receiver, listen, make
):
    await listen(client, heartbeat_period=2)
    await receiver.until(lambda: receiver.count("heartbeat") >= 3)
    await ehr.write(make.observation())
    await ehr.quiet(5)
    assert receiver.events == [(1, "Observation/o1")]
    seen = len(receiver.seen)
    await receiver.until(lambda: len(receiver.seen) > seen)
    told = receiver.told[-1]
    assert (told.kind, told.status, told.since_start, told.numbers) == ("heartbeat", "active", 1, [])


async def test_a_heartbeat_comes_a_period_after_the_last_notification(connect, receiver, listen, make):
    client = await connect(clock=lambda: datetime.now(UTC))
    await listen(client, heartbeat_period=3)
    await receiver.until(lambda: receiver.count("heartbeat") >= 2)
    await client.ehr.write(make.observation())
    await receiver.until(lambda: receiver.count("heartbeat") >= 4)
    sent = [datetime.fromisoformat(bundle["timestamp"]) for bundle in receiver.bundles]
    pairs = zip(sent, sent[1:], receiver.told[1:], strict=False)
    gaps = [(after - before).total_seconds() for before, after, told in pairs if told.kind == "heartbeat"]
    assert min(gaps) >= 0.149


async def test_without_a_heartbeat_period_there_are_none(client, receiver, listen, connect):
    await listen(client)
    other = await connect()
    await listen(other, heartbeat_period=1)
    await receiver.until(lambda: receiver.count("heartbeat") >= 3)
    subscriptions = {
        told.parameters[0]["valueReference"]["reference"] for told in receiver.told if told.kind == "heartbeat"
    }
    assert subscriptions == {f"{other.ehr.base_url}/Subscription/sub1"}


async def test_a_changed_heartbeat_period_counts_from_now_on(client, ehr, receiver, listen, make):
    await listen(client, heartbeat_period=100_000)
    changed = make.topic_subscription(receiver.url, heartbeat_period=1) | {"status": "active"}
    assert (await client("PUT", "Subscription/sub1", changed)).status == 200
    await receiver.until(lambda: receiver.count("heartbeat") >= 2)


async def test_events_wait_for_the_receiver_and_then_come_in_bundles_of_at_most_max_count(
    client, ehr, receiver, listen, make
):
    await listen(client, max_count=4)
    receiver.gate.clear()
    for n in range(10):
        await ehr.write(make.observation(f"o{n}"))
    receiver.gate.set()
    await ehr.quiet(5)
    assert receiver.events == [(n + 1, f"Observation/o{n}") for n in range(10)]
    assert max(len(told.numbers) for told in receiver.told) == 4


async def test_without_max_count_each_event_comes_alone(client, ehr, receiver, listen, make):
    await listen(client)
    receiver.gate.clear()
    for n in range(3):
        await ehr.write(make.observation(f"o{n}"))
    receiver.gate.set()
    await ehr.quiet(5)
    assert [told.numbers for told in receiver.told[1:]] == [[1], [2], [3]]


async def test_the_number_since_the_start_counts_all_that_happened_whatever_was_told(
    client, ehr, receiver, listen, make
):
    await listen(client)
    receiver.gate.clear()
    for n in range(3):
        await ehr.write(make.observation(f"o{n}"))
    receiver.gate.set()
    await ehr.quiet(5)
    assert receiver.told[-1].since_start == 3
    assert all(told.since_start >= max(told.numbers) for told in receiver.told[1:])


@pytest.mark.parametrize("close", ["off", "delete"])
async def test_turned_off_or_deleted_it_is_silent(client, receiver, listen, make, close):
    await listen(client, heartbeat_period=1)
    other = make.topic_subscription(f"{receiver.url}/other", "Patient", heartbeat_period=1)
    await client("PUT", "Subscription/other", {**other, "id": "other"})
    if close == "off":
        await client("PUT", "Subscription/sub1", make.topic_subscription(receiver.url) | {"status": "off"})
    else:
        await client("DELETE", "Subscription/sub1")
    await client.ehr.write(make.observation())
    await client.ehr.quiet(5)
    receiver.seen.clear()
    await receiver.until(lambda: len(receiver.seen) > 3)
    assert set(receiver.paths) == {"/hook/other"}


async def test_deleted_and_created_again_it_counts_from_the_start(client, ehr, receiver, listen, make):
    await listen(client)
    await ehr.write(make.observation())
    await ehr.quiet(5)
    await client("DELETE", "Subscription/sub1")
    assert (await client("GET", "Subscription/sub1/$status")).status == 410
    await listen(client)
    await ehr.write(make.observation())
    await ehr.quiet(5)
    assert [number for number, _ in receiver.events] == [1, 1]


async def test_a_classic_subscription_may_become_topic_based_and_back(client, subscribe, receiver, listen, make):
    await subscribe()
    await listen(client)
    await client.ehr.write(make.observation("o1"))
    await client.ehr.quiet(5)
    assert [told.kind for told in receiver.told] == ["handshake", "event-notification"]
    await subscribe()
    await client.ehr.write(make.observation("o2"))
    await client.ehr.quiet(5)
    assert receiver.paths[2:] == ["/hook/Observation/o2"]


async def test_switched_off_there_are_neither_topics_nor_operations(connect, make):
    client = await connect(capabilities=Capabilities(backport=None))
    reply = await client("PUT", "Subscription/sub1", make.topic_subscription("http://127.0.0.1:9/hook"))
    assert (reply.status, reply.body["issue"][0]["expression"]) == (422, ["Subscription.criteria"])
    assert (await client("GET", "Basic")).status == 404
    for path in ("Subscription/$status", "Subscription/sub1/$status", "Subscription/sub1/$events"):
        assert (await client("GET", path)).status == 404
    assert "SubscriptionTopic" not in (await client("GET", "metadata")).raw.decode()


async def test_a_content_the_server_does_not_offer_is_refused(connect, make):
    client = await connect(capabilities=Capabilities(backport=Backport(contents=frozenset({"id-only"}))))
    for content, status in (("full-resource", 422), ("empty", 422), ("id-only", 201)):
        made = make.topic_subscription("http://127.0.0.1:9/hook", content=content)
        assert (await client("PUT", "Subscription/sub1", made)).status == status
