"""Topic-based Subscriptions of the R4 Backport guide, where a server has topics.

http://hl7.org/fhir/uv/subscriptions-backport
"""

import pytest

from tests.contract.differences import expected
from tests.contract.fhir import eventually, instant, located
from tests.peers.servers import usable

pytestmark = pytest.mark.timeout(300)

able = pytest.mark.parametrize("fhir", [n for n in usable() if expected(n, "topics are declared")], indirect=True)
"""Only servers of which the table says that they can."""

SECRET = "Bearer a-hook-secret-for-tests-only"
GUIDE = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
TOPICS = f"{GUIDE}/capabilitystatement-subscriptiontopic-canonical"


def topics(fhir):
    """The topics that /metadata names."""
    found = fhir.declared("Subscription").get("extension", [])
    return [e["valueCanonical"] for e in found if e["url"] == TOPICS]


def topic_of_patients(fhir):
    """The topic that fires when a Patient changes: its Basic says so."""
    for basic in fhir.found("Basic?code=SubscriptionTopic&_count=100"):
        said = str(basic["extension"])
        url = next((e["valueUri"] for e in basic["extension"] if e["url"].endswith("SubscriptionTopic.url")), None)
        if url in topics(fhir) and "StructureDefinition/Patient" in said:
            return url
    raise AssertionError("no topic of Patients")


def subscription(topic, endpoint, content, heartbeat_s):
    return {
        "resourceType": "Subscription",
        "meta": {"profile": [f"{GUIDE}/backport-subscription"]},
        "status": "requested",
        "reason": "tests",
        "criteria": topic,
        "channel": {
            "extension": [{"url": f"{GUIDE}/backport-heartbeat-period", "valueUnsignedInt": heartbeat_s}],
            "type": "rest-hook",
            "endpoint": endpoint,
            "payload": "application/fhir+json",
            "_payload": {"extension": [{"url": f"{GUIDE}/backport-payload-content", "valueCode": content}]},
            "header": [f"Authorization: {SECRET}"],
        },
    }


def parameters(bundle):
    """The parameters of the status that opens a notification, by name; events as a list."""
    first = bundle["entry"][0]["resource"]
    assert first["resourceType"] == "Parameters"
    found = {"notification-event": []}
    for each in first["parameter"]:
        if each["name"] == "notification-event":
            found["notification-event"].append({p["name"]: p for p in each["part"]})
        else:
            found[each["name"]] = next(v for k, v in each.items() if k.startswith("value"))
    return found


def told(hook, kind):
    """The notifications of one kind, as (bundle, status)."""
    bundles = [h.body for h in hook.heard]
    return [(b, parameters(b)) for b in bundles if parameters(b)["type"] == kind]


@pytest.fixture
def subscribe(fhir, hook):
    """Subscribe to the topic of Patients, wait until it is active, and end it with the test."""
    made = []

    def go(content, heartbeat_s=60):
        body = subscription(topic_of_patients(fhir), f"{hook.url}/topic", content, heartbeat_s)
        answer = fhir.send("POST", "Subscription", body)
        assert answer.status_code == 201, answer.text
        made.append(located(answer))
        eventually(lambda: fhir.read(f"Subscription/{made[-1]}")["status"] == "active")
        return made[-1]

    yield go
    for logical_id in made:
        fhir.send("DELETE", f"Subscription/{logical_id}")


def test_the_topics_that_it_names_are_there_as_basic_resources(fhir):
    assert bool(topics(fhir)) is expected(fhir.server.name, "topics are declared")
    if topics(fhir):
        assert topic_of_patients(fhir)


@able
def test_it_shakes_hands_before_it_is_active(fhir, hook, subscribe):
    logical_id = subscribe("id-only")
    (bundle, status), *more = told(hook, "handshake")
    assert more == []
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "history")
    assert status["subscription"]["reference"].endswith(f"Subscription/{logical_id}")
    assert status["events-since-subscription-start"] == "0"
    (heard,) = [h for h in hook.heard if h.body is bundle]
    assert (heard.method, heard.path) == ("POST", "/topic")
    assert heard.headers["authorization"] == SECRET
    assert heard.headers["content-type"].partition(";")[0] == "application/fhir+json"


@able
@pytest.mark.parametrize("content", ["empty", "id-only", "full-resource"])
def test_events_are_numbered_from_one_in_strings(fhir, hook, subscribe, content):
    subscribe(content)
    made = [fhir.made(fhir.patient()) for _ in range(3)]
    eventually(lambda: len(told(hook, "event-notification")) >= 3)

    numbers = set()
    for bundle, status in told(hook, "event-notification"):
        assert status["events-since-subscription-start"] in {"1", "2", "3"}
        assert status["status"] == "active"
        for event in status["notification-event"]:
            numbers.add(event["event-number"]["valueString"])
            assert instant(event["timestamp"]["valueInstant"])
            focus = event.get("focus", {}).get("valueReference", {}).get("reference")
            ids = [resource["id"] for resource in made]
            assert (focus is None) if content == "empty" else focus.rpartition("Patient/")[2] in ids
        resources = [e["resource"] for e in bundle["entry"][1:] if "resource" in e]
        assert [r["resourceType"] for r in resources] == (["Patient"] if content == "full-resource" else [])
    if content == "empty":
        assert numbers <= {"1", "2", "3"}
    else:
        assert numbers == {"1", "2", "3"}


@able
def test_the_status_says_how_many_events_there_were(fhir, hook, subscribe):
    logical_id = subscribe("id-only")
    fhir.made(fhir.patient())
    eventually(lambda: len(told(hook, "event-notification")) >= 1)

    bundle = fhir.read(f"Subscription/{logical_id}/$status")
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "searchset")
    status = parameters(bundle)
    assert (status["type"], status["status"]) == ("query-status", "active")
    assert status["events-since-subscription-start"] == "1"


@able
def test_it_beats_while_nothing_happens(fhir, hook, subscribe):
    subscribe("id-only", heartbeat_s=1)
    eventually(lambda: len(told(hook, "heartbeat")) >= 2)
    assert {s["events-since-subscription-start"] for _, s in told(hook, "heartbeat")} == {"0"}


@able
def test_events_can_be_asked_for_again(fhir, hook, subscribe):
    logical_id = subscribe("id-only")
    made = [fhir.made(fhir.patient()) for _ in range(3)]
    eventually(lambda: len(told(hook, "event-notification")) >= 3)

    answer = fhir.get(f"Subscription/{logical_id}/$events?eventsSinceNumber=2&eventsUntilNumber=3")
    assert answer.status_code == expected(fhir.server.name, "$events is answered")
    if answer.status_code == 200:
        events = parameters(answer.json())["notification-event"]
        assert [e["event-number"]["valueString"] for e in events] == ["2", "3"]
        assert [e["focus"]["valueReference"]["reference"].rpartition("/")[2] for e in events] == [
            resource["id"] for resource in made[1:]
        ]
    else:
        assert answer.json()["resourceType"] == "OperationOutcome"
