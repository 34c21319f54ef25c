"""What else a context reads, over the wire: searches by type, in pages, looked up, bounded, and of one patient only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from aiohttp import web

from sidecar.context import ContextReader, Need, from_bundle
from sidecar.errors import Rejected
from sidecar.fhir.capability import Capability, TypeAbilities
from sidecar.fhir.client import EhrClient
from sidecar.fhir.scopes import needed
from sidecar.records import PatientId
from tests.harness import patient
from tests.ports import free_port
from tests.unit.chart import bundle, concept
from tests.unit.language import ATC, ICD, SUBJECT, diagnosis, manifest, order, procedure, visit

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
FEATURES: dict[str, Any] = {
    "days": {"derive": "length_of_stay", "unit": "d"},
    "visits": {"derive": "ed_visits", "window": "183d"},
    "failing": {"from": [{"type": "Condition", "codes": [f"{ICD}|I50*"]}], "select": "any", "max_age": "36500d"},
    "statin": {
        "from": [{"type": "MedicationRequest", "codes": [f"{ATC}|C10AA*"]}],
        "select": "any",
        "max_age": "36500d",
    },
    "operated": {"from": [{"type": "Procedure", "codes": ["*|*"]}], "select": "any", "anchor": "encounter"},
    "hb": {"from": [{"codes": ["http://loinc.org|718-7"]}], "select": "min", "anchor": "encounter", "unit": "g/dL"},
    "shots": {"from": [{"type": "Immunization", "codes": ["*|*"]}], "select": "count", "window": "365d"},
}
STAY = visit("e1", "2026-02-20T08:00:00Z")
CHART = [
    patient("p1", meta={"versionId": "1"}), STAY, visit("v1", "2026-01-20T08:00:00Z", "2026-01-20T09:00:00Z", "EMER"),
    diagnosis(f"{ICD}|I50.1"), procedure("http://snomed.info/sct|80146002", "2026-02-21"),
    {**order(f"{ATC}|X"), "medicationCodeableConcept": None, "medicationReference": {"reference": "Medication/m9"}},
    {"resourceType": "Medication", "id": "m9", "code": concept(f"{ATC}|C10AA05")},
    {"resourceType": "Immunization", "id": "i1", "patient": SUBJECT, "status": "completed", "vaccineCode": concept("http://hl7.org/fhir/sid/cvx|140"), "occurrenceDateTime": "2025-10-01"},
]  # fmt: skip


class Unsigned:
    """No credentials."""

    async def header(self) -> None:
        """None."""

    def renew(self, refused: str | None) -> None:
        """Nothing."""


@asynccontextmanager
async def ehr(chart: list[dict[str, Any]], page: int = 2) -> AsyncIterator[tuple[ContextReader, list[str]]]:
    """A server that gives all of a type, `page` at a time, whoever asks; what it was asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path_qs.removeprefix("/fhir/"))
        kind, _, logical_id = request.path.removeprefix("/fhir/").partition("/")
        found = [r for r in chart if r["resourceType"] == kind and (not logical_id or r["id"] == logical_id)]
        if logical_id:
            outcome = {"resourceType": "OperationOutcome", "issue": []}
            return web.json_response(found[0] if found else outcome, status=200 if found else 404)
        if ids := request.query.get("_id"):
            found = [r for r in found if r["id"] in ids.split(",")]
        first = int(request.query.get("first", 0))
        more = request.url.update_query(first=first + page)
        links = [{"relation": "next", "url": str(more)}] if first + page < len(found) else []
        entries = [{"resource": each} for each in found[first : first + page]]
        return web.json_response({"resourceType": "Bundle", "type": "searchset", "entry": entries, "link": links})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    client = EhrClient(f"http://127.0.0.1:{port}/fhir", Unsigned(), timeout_s=30.0, connections=4)

    async def capability() -> Capability:
        return Capability({"Observation": TypeAbilities()})

    try:
        yield ContextReader(client, ZoneInfo("UTC"), capability), asked
    finally:
        await client.close()
        await runner.cleanup()


async def read(
    chart: list[dict[str, Any]], features: dict[str, Any] | None = None, page: int = 2
) -> tuple[Any, list[str]]:
    declared = manifest(features or FEATURES)
    async with ehr(chart, page) as (reader, asked):
        return await reader.read(PatientId("p1"), Need.of(declared, {}, None), AT), asked


async def test_everything_that_a_feature_reads_is_in_the_context():
    snapshot, _ = await read(CHART)
    held = {(r["resourceType"], r["id"]) for r in snapshot.resources}
    assert held == {
        ("Encounter", "e1"), ("Encounter", "v1"), ("Condition", "c1"), ("Procedure", "pr1"), ("MedicationRequest", "m1"), ("Immunization", "i1"),
    }  # fmt: skip
    assert snapshot.encounter["id"] == "e1"


async def test_a_medicine_that_is_only_referred_to_is_looked_up():
    snapshot, asked = await read(CHART)
    (ordered,) = (r for r in snapshot.resources if r["resourceType"] == "MedicationRequest")
    assert ordered["medicationCodeableConcept"] == concept(f"{ATC}|C10AA05")
    assert "Medication?_id=m9&_count=50" in asked


async def test_a_medicine_that_is_not_there_refuses():
    with pytest.raises(Rejected, match="gone:medication"):
        await read([r for r in CHART if r["resourceType"] != "Medication"])


async def test_searches_are_bounded_in_time_where_what_is_over_does_not_count():
    _, asked = await read(CHART)
    plain = [each.replace("%3A", ":").replace("%2B", "+") for each in asked]
    of = {each.partition("?")[0]: each for each in plain if "?" in each}
    assert "date=" not in of["Condition"]
    assert "date=" not in of["MedicationRequest"]
    assert "authoredon" not in of["MedicationRequest"]
    assert "code=" not in of["Condition"]
    assert "date=ge2025-03-01" in of["Immunization"]
    assert "date=ge2026-02-20T08:00:00" in of["Observation"]
    assert all("patient=p1" in each for kind, each in of.items() if kind != "Medication")


async def test_pages_are_followed_to_the_end():
    many = [procedure("urn:x|y", "2026-02-21", f"pr{n}") for n in range(350)]
    snapshot, _ = await read([*CHART[:2], *many], {"operated": FEATURES["operated"]}, page=100)
    assert sum(r["resourceType"] == "Procedure" for r in snapshot.resources) == 350


async def test_more_than_can_be_read_is_a_reason_and_no_cut():
    many = [procedure("urn:x|y", "2026-02-21", f"pr{n}") for n in range(2001)]
    with pytest.raises(Rejected, match="too_many:procedure"):
        await read([*CHART[:2], *many], {"operated": FEATURES["operated"]}, page=500)


OTHER = {"reference": "Patient/p2"}


@pytest.mark.parametrize(
    "foreign",
    [
        {**procedure("urn:x|y", "2026-02-21"), "subject": OTHER}, {**diagnosis(f"{ICD}|I50.1"), "subject": OTHER}, {**order(f"{ATC}|C10AA01"), "subject": OTHER},
        {**visit("v2", "2026-01-20T08:00:00Z", None, "EMER"), "subject": OTHER}, {**CHART[-1], "patient": OTHER}, {**procedure("urn:x|y", "2026-02-21"), "subject": None},
        {**CHART[-1], "patient": {"reference": "https://elsewhere.example/fhir/Patient/p1"}},
    ],
    ids=["procedure", "diagnosis", "order", "stay", "vaccination", "nobody's", "another server's"],
)  # fmt: skip
async def test_what_is_another_patients_refuses(foreign):
    with pytest.raises(Rejected, match="another_patient"):
        await read([*CHART, {**foreign, "id": "foreign"}])


@pytest.mark.parametrize(("actors", "fine"), [(["p1"], True), (["p2", "p1"], True), (["p2"], False), ([], False)])
async def test_an_appointment_is_of_whoever_takes_part(actors, fine):
    status = "http://hl7.org/fhir/appointmentstatus|noshow"
    missed = {"missed": {"from": [{"type": "Appointment", "codes": [status]}], "select": "count", "window": "365d"}}
    taking_part = [{"actor": {"reference": f"Patient/{each}"}} for each in actors]
    appointment = {
        "resourceType": "Appointment",
        "id": "a1",
        "status": "noshow",
        "start": "2026-02-01T08:00:00Z",
        "participant": taking_part,
    }
    chart = [CHART[0], STAY, appointment]
    if fine:
        assert any(r["resourceType"] == "Appointment" for r in (await read(chart, missed))[0].resources)
        return
    with pytest.raises(Rejected, match="another_patient"):
        await read(chart, missed)


async def test_the_present_stay_is_the_newest_of_its_class_that_has_begun():
    later = [
        visit("clinic", "2026-02-28T08:00:00Z", kind="AMB"),
        visit("planned", "2026-03-09T08:00:00Z"),
        visit("old", "2025-02-28T08:00:00Z", "2025-03-01T08:00:00Z"),
    ]
    snapshot, _ = await read([*CHART, *later], page=9)
    assert snapshot.encounter["id"] == "e1"


def test_what_is_read_is_asked_for_and_nothing_else():
    scopes = needed([manifest(FEATURES)], writes=False)
    assert set(scopes) == {"Patient", "Encounter", "Subscription", "Condition", "MedicationRequest", "Medication", "Procedure", "Immunization", "Observation"}  # fmt: skip


PULSE = {"pulse": {"from": [{"codes": ["http://loinc.org|8867-4"]}], "max_age": "24h", "unit": "/min"}}


async def stay_of(*stays: dict[str, Any], named: str | None = None) -> str | None:
    """The present stay of a model that says of no class that it is its own, with a reading that names one."""
    reading = {
        "resourceType": "Observation", "id": "o1", "subject": SUBJECT, "status": "final", "code": concept("http://loinc.org|8867-4"),
        "effectiveDateTime": "2026-03-01T11:00:00Z", **({"encounter": {"reference": f"Encounter/{named}"}} if named else {}),
    }  # fmt: skip
    declared = manifest(PULSE, cohort={"exclude": ["discharged"]})
    async with ehr([CHART[0], reading, *stays], 9) as (reader, _):
        found = (await reader.read(PatientId("p1"), Need.of(declared, {}, None), AT)).encounter
    return None if found is None else str(found["id"])


@pytest.mark.parametrize("status", ["planned", "cancelled", "entered-in-error"])
async def test_a_stay_that_never_was_stands_in_for_no_other(status):
    never = visit("never", "2026-02-28T08:00:00Z", status=status)
    here = visit("e1", "2026-02-20T08:00:00Z")
    gone = visit("e0", "2026-01-20T08:00:00Z", "2026-01-21T08:00:00Z")
    assert await stay_of(never) is None
    assert await stay_of(never, gone) == "e0"
    assert await stay_of(never, here, gone) == "e1"
    assert await stay_of(never, here, gone, named="never") == "e1"
    assert await stay_of(never, gone, named="never") == "never"  # it is no open one, and says so


@pytest.mark.parametrize("status", ["planned", "cancelled", "entered-in-error"])
def test_in_a_bundle_neither(status):
    never = visit("never", "2026-02-28T08:00:00Z", status=status)
    gone = visit("e0", "2026-01-20T08:00:00Z", "2026-01-21T08:00:00Z")
    assert from_bundle(bundle(CHART[0], never), frozenset(), AT, AT.tzinfo).encounter is None
    assert from_bundle(bundle(CHART[0], never, gone), frozenset(), AT, AT.tzinfo).encounter == gone
    reading = {
        "resourceType": "Observation", "id": "o1", "subject": SUBJECT, "status": "final", "code": concept("http://loinc.org|8867-4"),
        "effectiveDateTime": "2026-03-01T11:00:00Z", "encounter": {"reference": "Encounter/never"},
    }  # fmt: skip
    read_at, here = (frozenset({"http://loinc.org|8867-4"}), AT, AT.tzinfo), visit("e1", "2026-02-20T08:00:00Z")
    assert from_bundle(bundle(CHART[0], never, gone, here, reading), *read_at).encounter == here
    assert from_bundle(bundle(CHART[0], never, gone, reading), *read_at).encounter == never
