"""Topics: what /metadata advertises, how they are read, and how a site adds its own."""

import pytest
from fhir.resources.R4B import get_fhir_model_class

from sidecar.sandbox.ehr import Backport, Capabilities
from sidecar.sandbox.topics import changed_topic

ROOT = "http://hl7.org/fhir/5.0/StructureDefinition/extension-SubscriptionTopic."
GUIDE = "http://hl7.org/fhir/uv/subscriptions-backport"
MINE = "http://site.example/SubscriptionTopic/mine"


def basic(*triggers, status="active", root=ROOT, filters=("patient",), more=()):
    code = {"coding": [{"system": "http://hl7.org/fhir/fhir-types", "code": "SubscriptionTopic"}]}
    can_filter = [
        {"url": f"{root}canFilterBy", "extension": [{"url": "filterParameter", "valueString": name}]}
        for name in filters
    ]
    return {
        "resourceType": "Basic",
        "id": "mine",
        "modifierExtension": [{"url": f"{root}status", "valueCode": status}],
        "extension": [{"url": f"{root}url", "valueUri": MINE}, *triggers, *can_filter, *more],
        "code": code,
    }


def trigger(type_name="Encounter", *interactions, root=ROOT, more=(), **criteria):
    parts = [{"url": "resource", "valueUri": type_name}, *more]
    parts += [{"url": "supportedInteraction", "valueCode": each} for each in interactions]
    if criteria:
        kinds = {"previous": "valueString", "current": "valueString", "requireBoth": "valueBoolean"}
        query = [{"url": name, kinds.get(name, "valueCode"): value} for name, value in criteria.items()]
        parts.append({"url": "queryCriteria", "extension": query})
    return {"url": f"{root}resourceTrigger", "extension": parts}


@pytest.fixture
def topic(client, ehr, receiver, make):
    """Store a topic and subscribe to it."""

    async def create(resource):
        reply = await client("PUT", "Basic/mine", resource)
        assert reply.status in {200, 201}, reply.raw
        await client("PUT", "Subscription/sub1", make.topic_subscription(receiver.url) | {"criteria": MINE})
        await ehr.quiet(5)
        assert ehr.read("Subscription", "sub1")["status"] == "active"

    return create


async def _subscription(client):
    statement = (await client("GET", "metadata")).body
    get_fhir_model_class("CapabilityStatement").model_validate(statement)
    return next(each for each in statement["rest"][0]["resource"] if each["type"] == "Subscription")


async def test_metadata_says_what_is_served_of_the_guide(client):
    stated = await _subscription(client)
    assert stated["supportedProfile"] == [f"{GUIDE}/StructureDefinition/backport-subscription"]
    assert {each["url"] for each in stated["extension"]} == {
        f"{GUIDE}/StructureDefinition/capabilitystatement-subscriptiontopic-canonical",
    }
    topics = [changed_topic(name) for name in ("Condition", "Encounter", "Observation", "Patient")]
    assert [each["valueCanonical"] for each in stated["extension"]] == topics
    assert {each["name"]: each["definition"] for each in stated["operation"]} == {
        name: f"{GUIDE}/OperationDefinition/backport-subscription-{name}" for name in ("status", "events")
    }


@pytest.mark.parametrize(
    ("quirks", "missing"),
    [
        ({"status_operation": False}, ("$status", "operation", 1)),
        ({"events_operation": False}, ("$events", "operation", 1)),
        ({"advertised": False}, (None, "extension", 0)),
    ],
)
async def test_metadata_leaves_out_what_the_server_lacks(connect, listen, quirks, missing):
    operation, element, left = missing
    client = await connect(capabilities=Capabilities(backport=Backport(**quirks)))
    assert len((await _subscription(client)).get(element, [])) == left
    await listen(client)
    assert client.ehr.read("Subscription", "sub1")["status"] == "active"
    if operation:
        reply = await client("GET", f"Subscription/sub1/{operation}")
        assert (reply.status, reply.body["issue"][0]["code"]) == (404, "not-supported")


@pytest.mark.parametrize("status", [400, 404, 501])
async def test_how_a_missing_operation_is_refused_can_be_chosen(connect, status):
    client = await connect(capabilities=Capabilities(backport=Backport(missing_operation=status)))
    for path in ("Subscription/$get-ws-binding-token", "$export", "Patient/$everything", "Patient/p1/$everything"):
        reply = await client("GET", path)
        assert (path, reply.status, reply.body["resourceType"]) == (path, status, "OperationOutcome")


async def test_topics_are_read_and_searched_as_basic(client):
    found = await client("GET", "Basic?code=http://hl7.org/fhir/fhir-types|SubscriptionTopic")
    assert found.ids == [f"{name}-changed" for name in ("condition", "encounter", "observation", "patient")]
    read = (await client("GET", "Basic/observation-changed")).body
    get_fhir_model_class("Basic").model_validate(read)
    parts = {each["url"].removeprefix(ROOT): each for each in read["extension"]}
    assert parts["url"]["valueUri"] == changed_topic("Observation")
    assert read["modifierExtension"] == [{"url": f"{ROOT}status", "valueCode": "active"}]
    codes = [
        each["valueCode"] for each in parts["resourceTrigger"]["extension"] if each["url"] == "supportedInteraction"
    ]
    assert codes == ["create", "update", "delete"]
    filters = {
        part["valueString"]
        for each in read["extension"]
        for part in each.get("extension", [])
        if part["url"] == "filterParameter"
    }
    assert {"code", "patient", "subject", "encounter"} <= filters


async def test_a_type_that_is_not_served_has_no_topic(connect, make):
    types = Capabilities().types - {"Condition"}
    client = await connect(capabilities=Capabilities(types=types))
    assert "condition-changed" not in (await client("GET", "Basic")).ids
    made = make.topic_subscription("http://127.0.0.1:9/hook", "Condition")
    assert (await client("PUT", "Subscription/sub1", made)).status == 422


@pytest.mark.parametrize("root", [ROOT, ROOT.replace("5.0", "4.3")])
async def test_a_site_adds_a_topic_that_is_advertised_and_served(client, receiver, topic, make, root):
    await topic(basic(trigger("Encounter", "create", root=root), root=root))
    assert MINE in [each["valueCanonical"] for each in (await _subscription(client))["extension"]]
    await client.ehr.write(make.encounter("e1"))
    await client.ehr.write(make.encounter("e1", status="finished"))
    await client.ehr.remove("Encounter", "e1")
    await client.ehr.write(make.encounter("e1"))
    await client.ehr.quiet(5)
    assert receiver.events == [(1, "Encounter/e1"), (2, "Encounter/e1")], "created, and created again after a deletion"


async def test_a_topic_may_be_about_several_types(client, ehr, receiver, topic, make):
    await topic(basic(trigger("Encounter"), trigger("http://hl7.org/fhir/StructureDefinition/Observation", "delete")))
    await ehr.write(make.encounter())
    await ehr.write(make.observation())
    await ehr.remove("Observation", "o1")
    await ehr.quiet(5)
    assert receiver.events == [(1, "Encounter/e1"), (2, "Observation/o1")]


async def test_a_filter_on_one_type_says_nothing_of_the_others(client, ehr, receiver, topic, make):
    await topic(basic(trigger("Encounter"), trigger("Observation")))
    made = make.topic_subscription(receiver.url, filters=["Observation?patient=p2"]) | {"criteria": MINE}
    await client("PUT", "Subscription/sub1", made)
    await ehr.quiet(5)
    for resource in (make.encounter(), make.observation(), make.observation("o2", subject={"reference": "Patient/p2"})):
        await ehr.write(resource)
    await ehr.quiet(5)
    assert receiver.events == [(1, "Encounter/e1"), (2, "Observation/o2")]
    bare = make.topic_subscription(receiver.url, filters=["patient=p2"]) | {"criteria": MINE}
    assert (await client("PUT", "Subscription/sub1", bare)).status == 422


@pytest.mark.parametrize(
    "case",
    [
        ({"current": "Encounter?status=finished"}, ["finish", "finish again", "delete"]),
        ({"current": "status=finished", "resultForDelete": "test-fails"}, ["finish", "finish again"]),
        (
            {"previous": "status:not=finished", "current": "status=finished", "requireBoth": True},
            ["finish", "delete"],
        ),
        (
            {
                "previous": "status:not=finished",
                "current": "status=finished",
                "resultForCreate": "test-fails",
                "resultForDelete": "test-fails",
                "requireBoth": True,
            },
            ["finish"],
        ),
        (
            {
                "previous": "status=finished",
                "current": "status=finished",
                "resultForCreate": "test-fails",
                "resultForDelete": "test-fails",
            },
            ["finish", "finish again", "reopen"],
        ),
        ({"previous": "status=finished"}, ["admit", "finish again", "reopen"]),
    ],
)
async def test_query_criteria_decide_by_the_versions_before_and_after(ehr, receiver, topic, make, case):
    criteria, told = case
    await topic(basic(trigger("Encounter", **criteria)))
    steps = {
        "admit": make.encounter(),
        "finish": make.encounter(status="finished"),
        "finish again": make.encounter(status="finished"),
        "reopen": make.encounter(),
        "delete": None,
    }
    heard = []
    for step, resource in steps.items():
        before = len(receiver.events)
        await (ehr.write(resource) if resource else ehr.remove("Encounter", "e1"))
        await ehr.quiet(5)
        heard += [step] * (len(receiver.events) - before)
    assert heard == told


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        (basic(), "resourceTrigger"),
        (basic(trigger("Substance")), "Substance"),
        (basic(trigger("Encounter", "read")), "supportedInteraction"),
        (basic(trigger(more=[{"url": "fhirPathCriteria", "valueString": "true"}])), "fhirPathCriteria"),
        (basic(trigger(), filters=["colour"]), "colour"),
        (basic(trigger(current="colour=red")), "colour"),
        (
            basic(
                trigger(),
                more=[{"url": f"{ROOT}eventTrigger", "extension": [{"url": "resource", "valueUri": "Patient"}]}],
            ),
            "eventTrigger",
        ),
        (
            basic(
                trigger(),
                more=[{"url": f"{ROOT}notificationShape", "extension": [{"url": "include", "valueString": "x"}]}],
            ),
            "include",
        ),
        (basic({"url": f"{ROOT}resourceTrigger", "valueString": "Encounter"}), "not supported"),
        (basic(trigger()) | {"modifierExtension": [{"url": f"{ROOT}other", "valueCode": "x"}]}, "status"),
    ],
)
async def test_a_topic_the_server_cannot_evaluate_is_refused(client, resource, said):
    reply = await client("PUT", "Basic/mine", resource)
    assert (reply.status, said in reply.said) == (422, True), reply.raw
    assert client.ehr.read("Basic", "mine") is None


@pytest.mark.parametrize("how", ["retired", "deleted"])
async def test_a_topic_that_is_gone_cannot_be_subscribed_to(client, receiver, topic, make, how):
    await topic(basic(trigger()))
    if how == "retired":
        await client("PUT", "Basic/mine", basic(trigger(), status="retired"))
    else:
        await client("DELETE", "Basic/mine")
    assert MINE not in [each["valueCanonical"] for each in (await _subscription(client))["extension"]]
    again = make.topic_subscription(receiver.url) | {"criteria": MINE}
    assert (await client("PUT", "Subscription/sub1", again)).status == 422


async def test_a_basic_that_is_no_topic_is_just_stored(client):
    other = {"resourceType": "Basic", "id": "b1", "code": {"coding": [{"system": "urn:x", "code": "note"}]}}
    assert (await client("PUT", "Basic/b1", other)).status == 201


async def test_built_in_topics_a_site_removed_stay_removed_after_a_restart(client, ehr):
    await client("DELETE", "Basic/patient-changed")
    await ehr.restart()
    assert "patient-changed" not in (await client("GET", "Basic")).ids
