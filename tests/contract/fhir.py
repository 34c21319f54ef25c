"""What the suite speaks: plain HTTP with httpx, and resources that only its test knows."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx

from tests.peers.servers import Server

FHIR_JSON = {"Accept": "application/fhir+json", "Content-Type": "application/fhir+json"}
NO_CACHE = {"Cache-Control": "no-cache"}
LOINC = "http://loinc.org"
SYSTEM = "urn:tests:contract"
Resource = dict[str, Any]


class Fhir:
    """One server, over HTTP. `key` is this test's own: in ids, identifiers and codes that no other test has."""

    def __init__(self, server: Server) -> None:
        self.server, self.base_url, self.key = server, server.base_url, uuid4().hex
        self.http = httpx.Client(timeout=60, trust_env=False, headers=FHIR_JSON)

    def close(self) -> None:
        self.http.close()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """One request; `If_Match="..."` becomes the header `If-Match`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None if body is None else body if isinstance(body, bytes | str) else json.dumps(body)
        return self.http.request(method, f"{self.base_url}/{path}", content=content, headers=named)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.send("GET", path, **headers)

    def made(self, resource: Resource) -> Resource:
        """Create `resource`; as the server now has it."""
        answer = self.send("POST", resource["resourceType"], resource)
        assert answer.status_code == 201, answer.text
        return self.read(f"{resource['resourceType']}/{located(answer)}")

    def read(self, path: str) -> Resource:
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def updated(self, resource: Resource, **headers: str) -> Resource:
        """Update `resource`; as the server now has it."""
        path = f"{resource['resourceType']}/{resource['id']}"
        answer = self.send("PUT", path, resource, **headers)
        assert answer.status_code == 200, answer.text
        return self.read(path)

    def found(self, query: str) -> list[Resource]:
        """Every match of a search, page by page; each `next` link must stay under the base."""
        url, matches = f"{self.base_url}/{query}", []
        while url:
            answer = self.http.get(url, headers=NO_CACHE)
            assert answer.status_code == 200, answer.text
            bundle = answer.json()
            assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "searchset")
            entries = bundle.get("entry", [])
            matches += [e["resource"] for e in entries if e["resource"]["resourceType"] != "OperationOutcome"]
            url = next((link["url"] for link in bundle.get("link", []) if link["relation"] == "next"), None)
            assert url is None or url.startswith(self.base_url)
        return matches

    def ids(self, query: str) -> list[str]:
        return [resource["id"] for resource in self.found(query)]

    def statement(self) -> Resource:
        return self.read("metadata")

    def declared(self, type_name: str) -> Resource:
        """What /metadata says of a type; empty when it does not name it."""
        (rest,) = (r for r in self.statement()["rest"] if r["mode"] == "server")
        return next((r for r in rest["resource"] if r["type"] == type_name), {})

    def patient(self, **more: Any) -> Resource:
        identifier = [{"system": SYSTEM, "value": uuid4().hex}]
        return {
            "resourceType": "Patient",
            "identifier": identifier,
            "gender": "female",
            "birthDate": "1950-05-04",
        } | more

    def device(self, value: str) -> Resource:
        return {"resourceType": "Device", "identifier": [{"system": SYSTEM, "value": value}], "status": "active"}

    def observation(self, patient_id: str, **more: Any) -> Resource:
        """A heart rate, charted half an hour ago."""
        at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)
        return {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": LOINC, "code": "8867-4"}]},
            "subject": {"reference": f"Patient/{patient_id}"},
            "effectiveDateTime": at.isoformat(),
            "valueQuantity": {"value": 70, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"},
        } | more

    def risk(self, patient_id: str, value: str) -> Resource:
        return {
            "resourceType": "RiskAssessment",
            "identifier": [{"system": SYSTEM, "value": value}],
            "status": "final",
            "subject": {"reference": f"Patient/{patient_id}"},
            "occurrenceDateTime": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def located(answer: httpx.Response) -> str:
    """The id in a Location header: `[base]/Type/id`, with or without its version."""
    steps = answer.headers["Location"].partition("/_history/")[0].split("/")
    return steps[-1]


def instant(text: str) -> datetime:
    """A FHIR instant; it always has a zone."""
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is not None, text
    return moment


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait for a state of the server, looking often."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen in time"
        time.sleep(0.05)
