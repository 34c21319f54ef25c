"""A practice EHR with the ward page: written to as a scorer would, read over the wire."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import orjson

from sidecar.sandbox.ehr import PracticeEhr
from sidecar.sandbox.ward_page import Unscored, WardPage

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WORDS = {
    "low": "low: ward-based response",
    "low-medium": "low-medium: urgent ward-based review",
    "medium": "medium: urgent response",
    "high": "high: emergency response",
}
UCUM = "http://unitsofmeasure.org"


def ago(hours: float) -> str:
    return (NOON - timedelta(hours=hours)).isoformat(timespec="milliseconds")


@dataclass
class Ward:
    """A practice EHR with the page, written to as a scorer would, and read as a browser would."""

    ehr: PracticeEhr
    session: aiohttp.ClientSession
    now: datetime = NOON
    wall: datetime = NOON
    unscored: dict[str, Unscored] = field(default_factory=dict)

    async def admit(self, key: str, name: str = "Lee", hours: float = 24, **patient: Any) -> None:
        await self.ehr.write({"resourceType": "Patient", "id": key, "name": [{"family": name}], **patient})
        await self.stay(key, "in-progress", {"start": ago(hours)})

    async def stay(self, key: str, status: str, period: dict[str, str], reason: str = "") -> None:
        said = [{"text": reason or f"reason of {key}"}]
        encounter = {"resourceType": "Encounter", "id": f"e-{key}", "status": status, "class": {"code": "IMP"}}
        await self.ehr.write(encounter | {"subject": _ref(key), "period": period, "reasonCode": said})

    async def reading(self, key: str, code: str, value: float, unit: str, hours: float = 1) -> str:
        quantity = {"value": value, "unit": unit, "system": UCUM, "code": unit}
        stored = await self.ehr.write(observation(key, code, hours) | {"valueQuantity": quantity})
        return f"Observation/{stored['id']}/_history/1"

    async def total(self, key: str, points: int, band: str, hours: float = 1, **more: Any) -> dict[str, Any]:
        score = observation(key, "score", hours) | {"id": f"so-{key}-{hours}", "valueInteger": points}
        if "components" in more:
            score["component"] = more.pop("components")
        score["identifier"] = [{"system": "urn:ehr-sidecar:score", "value": f"{key}-{hours}"}]
        await self.ehr.write(score)
        basis = [{"reference": f"Observation/so-{key}-{hours}"}, *more.pop("basis", [])]
        coding = [{"system": "urn:ehr-sidecar:news2-risk", "code": band}]
        risk = {"coding": coding, "text": WORDS[band]}
        note = f"NEWS2 total {points} ({WORDS[band]}). Inputs: all."
        return await self.ehr.write(_assessment(key, hours, risk, note) | {"basis": basis} | more)

    async def incomplete(self, key: str, least: int, band: str, hours: float = 1, *, urgent: bool = False) -> None:
        text = f"NEWS2 at least {least}, incomplete: temperature not charted. This is not a total. Inputs: some."
        risk = {"text": f"incomplete: at least {WORDS[band]}"}
        note = f"{'URGENT: ' if urgent else ''}{text}"
        await self.ehr.write(_assessment(key, hours, risk, note) | {"status": "preliminary"})

    def url(self, path: str) -> str:
        return self.ehr.base_url.removesuffix("/fhir") + path

    async def get(self, path: str = "/ward") -> str:
        async with self.session.get(self.url(path)) as response:
            assert response.status == 200
            return await response.text()

    async def state(self) -> dict[str, Any]:
        return orjson.loads(await self.get("/ward/state.json"))

    async def row(self, key: str) -> dict[str, Any]:
        return next(row for row in (await self.state())["rows"] if row["id"] == key)

    async def order(self) -> list[str]:
        return [row["id"] for row in (await self.state())["rows"]]


def _ref(key: str) -> dict[str, str]:
    return {"reference": f"Patient/{key}"}


def observation(key: str, code: str, hours: float) -> dict[str, Any]:
    coding = [{"system": "http://loinc.org", "code": code, "display": f"name of {code}"}]
    observation = {"resourceType": "Observation", "status": "final", "code": {"coding": coding}}
    return observation | {"subject": _ref(key), "effectiveDateTime": ago(hours)}


def _assessment(key: str, hours: float, risk: dict[str, Any], note: str) -> dict[str, Any]:
    held = {"start": ago(hours), "end": ago(hours - 6)}
    return {
        "resourceType": "RiskAssessment",
        "id": f"sc-{key}-{hours}",
        "status": "final",
        "subject": _ref(key),
        "encounter": {"reference": f"Encounter/e-{key}"},
        "occurrenceDateTime": ago(hours),
        "prediction": [{"qualitativeRisk": risk, "whenPeriod": held, "rationale": "mostly pulse"}],
        "note": [{"text": note}],
    }


@contextlib.asynccontextmanager
async def open_ward(port: int = 0) -> AsyncIterator[Ward]:
    """Start the EHR with the page at NOON; it stands still until told otherwise."""
    async with aiohttp.ClientSession() as session:
        ehr = PracticeEhr(clock=lambda: ward.wall)
        ward = Ward(ehr, session)

        async def unscored() -> dict[str, Unscored]:
            return ward.unscored

        WardPage(ehr, lambda: ward.now, unscored, lambda: (3, 40)).mount()
        await ehr.start(port=port)
        try:
            yield ward
        finally:
            await ehr.stop()
