"""What the chart holds twice is reduced to one: the oldest is kept, the others are withdrawn and say so."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from sidecar.errors import Rejected
from sidecar.fhir import capability
from sidecar.fhir.auth import NoCredentials
from sidecar.fhir.capability import Capability, TypeAbilities
from sidecar.fhir.client import EhrClient
from sidecar.metrics import REGISTRY
from sidecar.sandbox.ehr import Capabilities, PracticeEhr
from sidecar.writeback import LadderWriter
from tests.harness import Unguarded, patient

SEARCH = Capabilities(update_create=False, conditional_create=False)
RUNGS = {
    "search": SEARCH,
    "search without identifier": Capabilities(update_create=False, conditional_create=False, identifier_search=False),
    "conditional": Capabilities(update_create=False),
    "put": Capabilities(),
}
CREATES_ONLY = TypeAbilities(create=True, search=frozenset({"identifier"}))


def ours(type_name: str) -> dict[str, Any]:
    """One resource of ours, with all that a reader could act on."""
    about: dict[str, Any] = {"subject": {"reference": "Patient/p"}, "status": "final"}
    more = {
        "Device": {"status": "active"},
        "Observation": {
            **about,
            "code": {"text": "total"},
            "valueQuantity": {"value": 7},
            "component": [{"code": {"text": "part"}, "valueQuantity": {"value": 3}}],
        },
        "RiskAssessment": {**about, "prediction": [{"outcome": {"text": "deterioration"}, "probabilityDecimal": 12.5}]},
    }[type_name]
    return {
        "resourceType": type_name,
        "id": "ours",
        "identifier": [{"system": "urn:tests:twins", "value": "one"}],
        **more,
    }


@contextlib.asynccontextmanager
async def chart(
    capabilities: Capabilities, known: Capability | None = None
) -> AsyncIterator[tuple[PracticeEhr, LadderWriter]]:
    seconds = itertools.count(1_700_000_000)
    ehr = PracticeEhr(lambda: datetime.fromtimestamp(next(seconds), UTC), capabilities)
    await ehr.start()
    client = EhrClient(ehr.base_url, NoCredentials(), timeout_s=10, connections=2)
    try:
        await ehr.write(patient("p"))
        yield ehr, LadderWriter(client, known or await capability.read(client))
    finally:
        await client.close()
        await ehr.stop()


def seen(type_name: str, result: str) -> float:
    return REGISTRY.get_sample_value("sidecar_duplicates_total", {"type": type_name, "result": result}) or 0.0


@pytest.mark.parametrize("type_name", ["Device", "Observation", "RiskAssessment"])
@pytest.mark.parametrize("rung", RUNGS)
async def test_of_two_the_oldest_is_kept_and_the_other_is_in_error_and_predicts_nothing(rung, type_name):
    async with chart(RUNGS[rung]) as (ehr, writer):
        await ehr.write({**ours(type_name), "id": "zz-first"})
        await ehr.write({**ours(type_name), "id": "aa-second"})
        before = seen(type_name, "withdrawn")
        for _ in range(2):
            assert await writer.write(ours(type_name), None, Unguarded(), look_first=True) == "zz-first"
        assert await writer.locate(ours(type_name)) == "zz-first"

        assert len(ehr.all(type_name)) == 2
        kept, twin = ehr.read(type_name, "zz-first"), ehr.read(type_name, "aa-second")
        assert (kept["status"], kept["meta"]["versionId"]) == (ours(type_name)["status"], "1")
        assert (twin["status"], twin["meta"]["versionId"]) == ("entered-in-error", "2")
        assert f"{type_name}/zz-first" in twin["note"][0]["text"]
        assert not {"prediction", "valueQuantity", "component"} & set(twin)
        assert seen(type_name, "withdrawn") == before + 1


async def test_what_arrives_beside_a_result_that_we_know_is_withdrawn_with_its_next_revision():
    async with chart(SEARCH) as (ehr, writer):
        await ehr.write({**ours("RiskAssessment"), "id": "came-late"})
        await ehr.write({**ours("RiskAssessment"), "id": "known"})
        revised = ours("RiskAssessment") | {"status": "corrected"}
        assert await writer.write(revised, "known", Unguarded(), look_first=False) == "known"
        states = {r["id"]: r["status"] for r in ehr.all("RiskAssessment")}
        assert states == {"known": "corrected", "came-late": "entered-in-error"}


async def test_a_withdrawn_twin_is_never_taken_for_the_result():
    async with chart(SEARCH) as (ehr, writer):
        await ehr.write({**ours("RiskAssessment"), "id": "twin", "status": "entered-in-error"})
        await ehr.write({**ours("RiskAssessment"), "id": "counts"})
        assert await writer.write(ours("RiskAssessment"), None, Unguarded(), look_first=True) == "counts"
        assert ehr.read("RiskAssessment", "twin")["meta"]["versionId"] == "1"


async def test_an_ehr_that_updates_nothing_keeps_both_and_a_person_is_told():
    async with chart(SEARCH, Capability({"RiskAssessment": CREATES_ONLY})) as (ehr, writer):
        for logical_id in ("a", "b"):
            await ehr.write({**ours("RiskAssessment"), "id": logical_id})
        before = seen("RiskAssessment", "left")
        with pytest.raises(Rejected, match="duplicate:in_ehr"):
            await writer.write(ours("RiskAssessment"), None, Unguarded(), look_first=True)
        assert seen("RiskAssessment", "left") == before + 1


async def test_a_device_that_is_there_twice_and_cannot_be_withdrawn_bars_no_result():
    async with chart(SEARCH, Capability({"Device": CREATES_ONLY})) as (ehr, writer):
        for logical_id in ("first", "second"):
            await ehr.write({**ours("Device"), "id": logical_id})
        assert await writer.write(ours("Device"), None, Unguarded(), look_first=True) == "first"
