"""R4 rest-hook Subscriptions. https://hl7.org/fhir/R4/subscription.html"""

import pytest

from tests.contract.differences import expected
from tests.contract.fhir import LOINC, eventually, located
from tests.peers.servers import usable

pytestmark = pytest.mark.timeout(300)

able = pytest.mark.parametrize(
    "fhir", [n for n in usable() if expected(n, "a Subscription is answered") == 201], indirect=True
)
"""Only servers of which the table says that they can."""

SECRET = "Bearer a-hook-secret-for-tests-only"


def subscription(hook, criteria, path, **more):
    channel = {
        "type": "rest-hook",
        "endpoint": f"{hook.url}/{path}",
        "payload": "application/fhir+json",
        "header": [f"Authorization: {SECRET}"],
    }
    wanted = {"resourceType": "Subscription", "status": "requested", "reason": "tests", "criteria": criteria}
    return wanted | {"channel": channel} | more


@pytest.fixture
def subscribe(fhir, hook):
    """Subscribe, wait until it is active, and end it with the test."""
    made = []

    def go(criteria, path="hook"):
        answer = fhir.send("POST", "Subscription", subscription(hook, criteria, path))
        assert answer.status_code == 201, answer.text
        made.append(located(answer))
        eventually(lambda: fhir.read(f"Subscription/{made[-1]}")["status"] == "active")
        return made[-1]

    yield go
    for logical_id in made:
        fhir.send("DELETE", f"Subscription/{logical_id}")


def puts_of(hook, resource):
    return [h for h in hook.heard if h.path.endswith(f"/{resource['resourceType']}/{resource['id']}")]


def test_a_server_without_subscriptions_refuses_one_with_an_outcome(fhir, hook):
    answer = fhir.send("POST", "Subscription", subscription(hook, "Patient?", "hook"))
    assert answer.status_code == expected(fhir.server.name, "a Subscription is answered")
    assert answer.json()["resourceType"] in {"Subscription", "OperationOutcome"}
    if answer.status_code == 201:
        fhir.send("DELETE", f"Subscription/{located(answer)}")


@able
def test_every_version_is_put_at_the_hook_with_our_header(fhir, hook, subscribe):
    subscribe("Patient?")
    first = fhir.made(fhir.patient())
    second = fhir.updated(first | {"gender": "male"})

    eventually(lambda: len(puts_of(hook, first)) >= 2)
    for heard in puts_of(hook, first):
        assert (heard.method, heard.path) == ("PUT", f"/hook/Patient/{first['id']}")
        assert heard.headers["authorization"] == SECRET
        assert heard.headers["content-type"].partition(";")[0] == "application/fhir+json"
        assert heard.body["id"] == first["id"]
    versions = {h.body["meta"]["versionId"] for h in puts_of(hook, first)}
    assert versions == {first["meta"]["versionId"], second["meta"]["versionId"]}


@able
def test_only_what_matches_is_told_and_a_deletion_is_not(fhir, hook, subscribe):
    subscribe(f"Observation?code={LOINC}|8867-4,{LOINC}|8310-5")
    patient = fhir.made(fhir.patient())
    other = fhir.made(fhir.observation(patient["id"], code={"coding": [{"system": LOINC, "code": "2708-6"}]}))
    reading = fhir.made(fhir.observation(patient["id"]))
    eventually(lambda: bool(puts_of(hook, reading)))
    fhir.send("DELETE", f"Observation/{reading['id']}")
    last = fhir.made(fhir.observation(patient["id"]))
    eventually(lambda: bool(puts_of(hook, last)))

    assert puts_of(hook, other) == []
    assert [h.method for h in hook.heard] == ["PUT"] * 2


@able
def test_it_is_found_by_the_address_of_its_hook(fhir, hook, subscribe):
    logical_id = subscribe("Patient?", f"hook/{fhir.key}")
    assert fhir.ids(f"Subscription?url={hook.url}/hook/{fhir.key}") == [logical_id]
    assert fhir.ids(f"Subscription?url={hook.url}/hook/{fhir.key}/other") == []


@able
def test_what_is_deleted_tells_no_more(fhir, hook, subscribe):
    ended = subscribe("Patient?", "ended")
    subscribe("Patient?", "goes-on")
    fhir.send("DELETE", f"Subscription/{ended}")
    eventually(lambda: fhir.get(f"Subscription/{ended}").status_code in {404, 410})

    def silent() -> bool:
        """A server may go on for a moment: it keeps a list of its Subscriptions in memory."""
        last = fhir.made(fhir.patient())
        eventually(lambda: any(h.path.startswith("/goes-on") for h in puts_of(hook, last)))
        return not any(h.path.startswith("/ended") for h in puts_of(hook, last))

    eventually(silent)
