"""Shapes of notifications, `$status` and `$events`: those of the guide, and those of servers that differ."""

import pytest
from fhir.resources.R4B import get_fhir_model_class

from sidecar.sandbox.ehr import Backport, Capabilities
from sidecar.sandbox.quirks import ATHENA, HAPI, SEKMET
from sidecar.sandbox.topics import changed_topic

PROFILE = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"


def assert_keeps_to_the_guide(bundle, base_url):
    """What the profiles of notification and status ask for, and R4's rules on history Bundles."""
    get_fhir_model_class("Bundle").model_validate(bundle)
    assert bundle["type"] == "history"
    assert bundle["meta"]["profile"] == [f"{PROFILE}backport-subscription-notification-r4"]
    assert bundle["timestamp"]
    for entry in bundle["entry"]:
        assert {"request", "response"} <= entry.keys(), "bdl-3 and bdl-4"
        assert entry["fullUrl"].startswith(("urn:uuid:", f"{base_url}/"))
    first, *others = bundle["entry"]
    assert first["request"] == {"method": "GET", "url": f"{base_url}/Subscription/sub1/$status"}
    assert first["response"]["status"] == "200"
    assert first["fullUrl"] == f"urn:uuid:{first['resource']['id']}"
    assert_status_keeps_to_the_guide(first["resource"], base_url)
    assert all(each["request"]["method"] in {"POST", "PUT", "DELETE"} for each in others)


def assert_status_keeps_to_the_guide(resource, base_url):
    assert resource["meta"]["profile"] == [f"{PROFILE}backport-subscription-status-r4"]
    types = {
        "subscription": "valueReference",
        "topic": "valueCanonical",
        "status": "valueCode",
        "type": "valueCode",
        "events-since-subscription-start": "valueString",
        "event-number": "valueString",
        "timestamp": "valueInstant",
        "focus": "valueReference",
        "error": "valueCodeableConcept",
    }
    parts = [part for each in resource["parameter"] for part in each.get("part", [])]
    plain = [each for each in resource["parameter"] if each["name"] != "notification-event"]
    for each in [*plain, *parts]:
        assert each.keys() == {"name", types[each["name"]]}
    names = [each["name"] for each in plain]
    assert {"subscription", "status", "type"} <= set(names)
    assert len(names) == len(set(names))
    assert plain[0]["valueReference"]["reference"] == f"{base_url}/Subscription/sub1"
    kind = next(each["valueCode"] for each in plain if each["name"] == "type")
    assert kind in {"handshake", "heartbeat", "event-notification", "query-status", "query-event"}


@pytest.fixture
async def told_all(client, receiver, listen, make):
    """A handshake, a create, an update, a delete and a heartbeat, in one of the three contents."""

    async def tell(content):
        await listen(client, content=content, heartbeat_period=1)
        await client("POST", "Observation", make.observation(None))
        (stored,) = client.ehr.all("Observation")
        await client("PUT", f"Observation/{stored['id']}", stored | {"status": "amended"})
        await client("DELETE", f"Observation/{stored['id']}")
        await client.ehr.quiet(5)
        await receiver.until(lambda: receiver.count("heartbeat") > 0)
        by_kind = {told.kind: bundle for told, bundle in zip(receiver.told, receiver.bundles, strict=True)}
        assert by_kind.keys() == {"handshake", "event-notification", "heartbeat"}
        events = [bundle for told, bundle in zip(receiver.told, receiver.bundles, strict=True) if told.numbers]
        return stored["id"], events

    return tell


@pytest.mark.parametrize("content", ["empty", "id-only", "full-resource"])
async def test_every_notification_keeps_to_the_guide(client, receiver, told_all, content):
    await told_all(content)
    for bundle in receiver.bundles:
        assert_keeps_to_the_guide(bundle, client.ehr.base_url)
    assert {headers["Content-Type"] for _, _, _, headers in receiver.seen} == {"application/fhir+json"}
    assert {(method, path) for method, path, _, _ in receiver.seen} == {("POST", "/hook")}


async def test_empty_says_nothing_of_what_it_is_about(receiver, told_all):
    logical_id, events = await told_all("empty")
    for bundle in events:
        assert len(bundle["entry"]) == 1
    said = b"".join(body for _, _, body, _ in receiver.seen)
    assert logical_id.encode() not in said.replace(b"urn:uuid:", b"")
    assert b"Observation" not in said
    assert b"SubscriptionTopic" not in said
    assert [told.numbers for told in receiver.told if told.numbers] == [[1], [2], [3]]


async def test_id_only_names_the_resource_and_carries_none(client, told_all):
    logical_id, events = await told_all("id-only")
    for bundle, (method, url, status) in zip(
        events,
        [
            ("POST", "Observation", "201"),
            ("PUT", f"Observation/{logical_id}", "200"),
            ("DELETE", f"Observation/{logical_id}", "204"),
        ],
        strict=True,
    ):
        _, entry = bundle["entry"]
        assert entry["fullUrl"] == f"{client.ehr.base_url}/Observation/{logical_id}"
        assert entry["request"] == {"method": method, "url": url}
        assert entry["response"]["status"] == status
        assert "resource" not in entry


async def test_full_resource_carries_the_version_that_was_the_event(told_all):
    _, events = await told_all("full-resource")
    resources = [bundle["entry"][1].get("resource") for bundle in events]
    assert [each and (each["meta"]["versionId"], each["status"]) for each in resources] == [
        ("1", "final"),
        ("2", "amended"),
        None,
    ]


async def test_status_is_a_searchset_that_keeps_to_the_guide(client, receiver, listen, make):
    await listen(client)
    await client("PUT", "Subscription/sub2", make.topic_subscription("http://127.0.0.1:9") | {"id": "sub2"})
    await client("PUT", "Subscription/classic", make.subscription(receiver.url) | {"id": "classic"})
    await client.ehr.quiet(5)
    for path, expected in (
        ("Subscription/sub1/$status", {"sub1"}),
        ("Subscription/$status", {"sub1", "sub2"}),
        ("Subscription/$status?id=sub1", {"sub1"}),
        ("Subscription/$status?id=sub1&id=sub2", {"sub1", "sub2"}),
        ("Subscription/$status?status=error", {"sub2"}),
        ("Subscription/$status?id=sub1&status=error", set()),
        ("Subscription/$status?id=nobody", set()),
    ):
        reply = await client("GET", path)
        get_fhir_model_class("Bundle").model_validate(reply.body)
        assert (reply.status, reply.body["type"]) == (200, "searchset")
        entries = reply.body.get("entry", [])
        assert reply.body["total"] == len(entries)
        references = [entry["resource"]["parameter"][0]["valueReference"]["reference"] for entry in entries]
        assert (path, {each.rpartition("/")[2] for each in references}) == (path, expected)
        for entry in entries:
            assert (entry["search"], entry["resource"]["resourceType"]) == ({"mode": "match"}, "Parameters")
            if references == [f"{client.ehr.base_url}/Subscription/sub1"]:
                assert_status_keeps_to_the_guide(entry["resource"], client.ehr.base_url)
    assert (await client("GET", "Subscription/classic/$status")).status == 422
    assert (await client("GET", "Subscription/classic/$events")).status == 422
    assert (await client("GET", "Subscription/nobody/$status")).status == 404


async def test_operations_can_be_posted_too(client, listen, make):
    await listen(client)
    for n in range(3):
        await client.ehr.write(make.observation(f"o{n}"))
    body = {"resourceType": "Parameters", "parameter": [{"name": "eventsSinceNumber", "valueString": "2"}]}
    (events,) = await client.told("Subscription/sub1/$events", body)
    assert events.numbers == [2, 3]
    active = {"resourceType": "Parameters", "parameter": [{"name": "status", "valueCode": "active"}]}
    assert [each.kind for each in await client.told("Subscription/$status", active)] == ["query-status"]
    assert (await client("POST", "Subscription/$status")).status == 200
    assert (await client("POST", "Subscription/sub1/$events", make.patient())).status == 400


async def test_events_are_told_from_and_up_to_the_numbers_given_both_included(client, receiver, listen, make):
    await listen(client)
    for n in range(1, 6):
        await client.ehr.write(make.observation(f"o{n}"))
    for query, numbers in (
        ("", [1, 2, 3, 4, 5]),
        ("?eventsSinceNumber=4", [4, 5]),
        ("?eventsUntilNumber=2", [1, 2]),
        ("?eventsSinceNumber=2&eventsUntilNumber=3", [2, 3]),
        ("?eventsSinceNumber=6", []),
        ("?eventsSinceNumber=3&eventsUntilNumber=2", []),
    ):
        reply = await client("GET", f"Subscription/sub1/$events{query}")
        assert_keeps_to_the_guide(reply.body, client.ehr.base_url)
        (events,) = await client.told(f"Subscription/sub1/$events{query}")
        assert (query, events.numbers) == (query, numbers)
        assert (events.kind, events.since_start) == ("query-event", 5)
        assert events.foci == [f"Observation/o{n}" for n in numbers]
        assert len(reply.body["entry"]) == 1 + len(numbers)


async def test_events_come_in_the_content_asked_for(client, receiver, listen, make):
    await listen(client, content="empty")
    await client.ehr.write(make.observation())
    for content, entries, resources in (("", 1, 0), ("id-only", 2, 0), ("full-resource", 2, 1)):
        reply = await client("GET", "Subscription/sub1/$events" + (f"?content={content}" if content else ""))
        others = reply.body["entry"][1:]
        assert (1 + len(others), sum("resource" in each for each in others)) == (entries, resources)


@pytest.mark.parametrize("query", ["eventsSinceNumber=two", "eventsUntilNumber=-1", "content=all"])
async def test_events_that_cannot_be_understood_are_refused(client, listen, query):
    await listen(client)
    assert (await client("GET", f"Subscription/sub1/$events?{query}")).status == 400


async def test_events_older_than_the_server_keeps_are_gone_and_their_number_is_not(connect, listen, make):
    client = await connect(capabilities=Capabilities(backport=Backport(retention=2)))
    await listen(client)
    for n in range(5):
        await client.ehr.write(make.observation(f"o{n}"))
    (events,) = await client.told("Subscription/sub1/$events?eventsSinceNumber=2")
    assert (events.numbers, events.since_start) == ([4, 5], 5)


@pytest.fixture
def imitate(connect, listen, make):
    """A server with quirks that has told of a create and a delete."""

    async def start(quirks, **arguments):
        client = await connect(capabilities=Capabilities(backport=quirks))
        await listen(client, **arguments)
        await client.ehr.write(make.observation())
        await client.ehr.remove("Observation", "o1")
        await client.ehr.quiet(5)
        return client

    return start


async def test_hapi_shakes_no_hands_counts_days_and_leaves_out_the_request(imitate, receiver):
    client = await imitate(HAPI, heartbeat_period=1)
    assert client.ehr.read("Subscription", "sub1")["status"] == "active"
    first, second = receiver.bundles
    get_fhir_model_class("Bundle").model_validate(first)
    status = first["entry"][0]
    assert not {"request", "response"} & status.keys()
    (event,) = (each["part"] for each in status["resource"]["parameter"] if each["name"] == "notification-event")
    assert {"name": "timestamp", "valueDate": "2026-03-01"} in event
    assert {"name": "focus", "valueReference": {"reference": "Observation/o1"}} in event
    assert second["entry"][1]["request"]["method"] == "DELETE"
    for operation in ("$status", "$events"):
        assert (await client("GET", f"Subscription/sub1/{operation}")).status == 404


async def test_athena_sends_the_status_of_r4b_and_numbers_that_show_no_gap(imitate, receiver):
    client = await imitate(ATHENA)
    status = get_fhir_model_class("SubscriptionStatus")
    handshake, *events = (bundle["entry"][0]["resource"] for bundle in receiver.bundles)
    assert status.model_validate(handshake).type == "handshake"
    for event in events:
        told = status.model_validate(event)
        assert (str(told.eventsSinceSubscriptionStart), told.topic) == ("1", changed_topic("Observation"))
        assert [str(each.eventNumber) for each in told.notificationEvent] == ["1"]
        assert told.notificationEvent[0].focus.reference == f"{client.ehr.base_url}/Observation/o1"
        assert event["notificationEvent"][0]["timestamp"].endswith("Z")
    assert (await client("GET", "Subscription/sub1/$events")).status == 404


async def test_sekmet_only_leaves_out_the_request_of_the_status(imitate, receiver):
    await imitate(SEKMET)
    for bundle in receiver.bundles:
        assert [("request" in entry) for entry in bundle["entry"]] == [False] + [True] * (len(bundle["entry"]) - 1)


async def test_parameters_may_be_named_in_camel_case(imitate, receiver):
    await imitate(Backport(names="camel"))
    parameters = receiver.bundles[-1]["entry"][0]["resource"]["parameter"]
    assert {each["name"] for each in parameters} == {
        "subscription", "topic", "status", "type", "eventsSinceSubscriptionStart", "notificationEvent",
    }  # fmt: skip
    assert [part["name"] for part in parameters[-1]["part"]] == ["eventNumber", "timestamp", "focus"]


@pytest.mark.parametrize(
    ("quirks", "part"),
    [
        ({"timestamp": "valueDateTime"}, {"name": "timestamp", "valueDateTime": "2026-03-01T12:00:00.000Z"}),
        ({"references": "relative"}, {"name": "focus", "valueReference": {"reference": "Observation/o1"}}),
        (
            {"references": "relative", "versioned_focus": True},
            {"name": "focus", "valueReference": {"reference": "Observation/o1/_history/2"}},
        ),
    ],
)
async def test_quirks_of_one_event(imitate, receiver, quirks, part):
    await imitate(Backport(**quirks))
    parameters = receiver.bundles[-1]["entry"][0]["resource"]["parameter"]
    assert part in parameters[-1]["part"]


@pytest.mark.parametrize("sends", ["empty", "full-resource"])
async def test_a_server_may_send_another_content_than_was_asked_for(imitate, receiver, sends):
    await imitate(Backport(sends=sends), content="id-only")
    created = receiver.bundles[1]["entry"]
    assert (len(created), "resource" in created[-1]) == ((1, True) if sends == "empty" else (2, True))
    assert bool(receiver.told[1].foci) == (sends != "empty")


async def test_without_heartbeats_none_come_whatever_was_asked_for(imitate, connect, receiver, listen):
    client = await imitate(Backport(heartbeat=False), heartbeat_period=1)
    other = await connect()
    await listen(other, heartbeat_period=1)
    await receiver.until(lambda: receiver.count("heartbeat") >= 3)
    own = [told for told in receiver.told if client.ehr.base_url in str(told.parameters[0])]
    assert {told.kind for told in own} == {"handshake", "event-notification"}
