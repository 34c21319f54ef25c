"""The context over the wire: which Patient it shows, where a search brings one along."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from aiohttp import web

from sidecar.context import ContextReader, Need
from sidecar.errors import Rejected
from sidecar.fhir.capability import Capability, TypeAbilities
from sidecar.fhir.client import EhrClient
from sidecar.records import PatientId
from tests.harness import now, patient, reading
from tests.ports import free_port

RATE = "http://loinc.org|9279-1"
NEED = Need((RATE,), timedelta(days=1), (), timedelta(0), (), of_a_stay=False)


class Unsigned:
    """No credentials."""

    async def header(self) -> None:
        """None."""

    def renew(self, refused: str | None) -> None:
        """Nothing."""


def person(version: str, key: str = "p1", **more: Any) -> dict[str, Any]:
    return patient(key, meta={"versionId": version}, **more)


@asynccontextmanager
async def ehr(
    found: list[dict[str, Any]], current: dict[str, Any] | None
) -> AsyncIterator[tuple[ContextReader, list[str]]]:
    """A server whose searches find `found` and whose Patient is `current`; what it was asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path_qs.removeprefix("/fhir/"))
        if request.path.endswith("/Observation"):
            entries = [{"resource": resource} for resource in found]
            return web.json_response({"resourceType": "Bundle", "type": "searchset", "entry": entries})
        outcome = {"resourceType": "OperationOutcome", "issue": []}
        return web.json_response(current or outcome, status=200 if current else 404)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    client = EhrClient(f"http://127.0.0.1:{port}/fhir", Unsigned(), timeout_s=5.0, connections=4)

    async def capability() -> Capability:
        return Capability({"Observation": TypeAbilities(include=frozenset({"Observation:patient"}))})

    try:
        yield ContextReader(client, ZoneInfo("UTC"), capability), asked
    finally:
        await client.close()
        await runner.cleanup()


async def shown(found: list[dict[str, Any]], current: dict[str, Any] | None) -> tuple[str, int]:
    """The version of the Patient in the context, and how many requests it took."""
    async with ehr(found, current) as (reader, asked):
        snapshot = await reader.read(PatientId("p1"), NEED, datetime.now(UTC))
        assert "_include=Observation:patient" in asked[0] or "_include=Observation%3Apatient" in asked[0]
        return snapshot.patient["meta"]["versionId"], len(asked)


RATE_NOW = reading("p1", "9279-1", 16, now(5))


async def test_a_patient_who_comes_along_is_not_asked_for():
    assert await shown([RATE_NOW, person("7")], person("7")) == ("7", 1)


@pytest.mark.parametrize(
    "found",
    [
        [],
        [RATE_NOW],
        [RATE_NOW, person("6", "p2")],
        [RATE_NOW, person("6"), person("7")],
        [{**RATE_NOW, "subject": {"reference": "Patient/p1/_history/6"}}, person("6")],
    ],
    ids=["no readings", "nobody came", "somebody else came", "two versions came", "a reading refers to a version"],
)
async def test_a_patient_is_read_when_who_came_along_may_not_be_the_one_of_now(found):
    assert await shown(found, person("7")) == ("7", 2)


async def test_a_patient_who_is_gone_and_did_not_come_along_is_gone():
    with pytest.raises(Rejected, match="gone:patient"):
        await shown([RATE_NOW], None)


@pytest.mark.parametrize("subject", ["Patient/p1", ["Patient/p1"], 7, {"reference": 7}, None])
async def test_a_reading_whose_subject_has_no_shape_is_not_the_patients(subject):
    with pytest.raises(Rejected, match="another_patient"):
        await shown([{**RATE_NOW, "subject": subject}, person("7")], person("7"))
