"""The load of a campaign: a ward that is charted all the time, and a notifier that remembers what was acknowledged."""

import asyncio
import contextlib
import random
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson

from sidecar.sandbox.ehr import PracticeEhr
from tests.harness import SECRET, encounter, observation_set, patient

Resource = dict[str, Any]
Notified = tuple[str, str, str]
"""What tells one event from another: `Type/id`, version, lastUpdated."""

CHARTING_S = 0.25
NOTIFY_S = 0.03
CHOICES = {
    "9279-1": (7, 10, 16, 22, 28), "2708-6": (89, 92, 94, 97), "8480-6": (85, 95, 105, 120, 225),
    "8867-4": (38, 45, 70, 100, 120, 140), "8310-5": (34.5, 35.5, 37.0, 38.5, 39.5), "9269-2": (15, 15, 14),
    "3151-8": (0, 0, 2),
}  # fmt: skip


def code(reading: Resource) -> str:
    """Its LOINC code."""
    return str(reading["code"]["coding"][0]["code"])


class Ward:
    """Patients whose readings are charted, completed, corrected and voided without pause."""

    def __init__(self, ehr: PracticeEhr, rng: random.Random, patients: int) -> None:
        self.ehr, self._rng = ehr, rng
        self.patients = [f"k{n}" for n in range(patients)]
        self._last = dict.fromkeys(self.patients, datetime.fromtimestamp(0, UTC))
        self._charted: dict[str, dict[str, None]] = {who: {} for who in self.patients}

    async def admit(self) -> None:
        """Every patient, and a stay for each."""
        for who in self.patients:
            await self.ehr.write(patient(who))
            await self.ehr.write(encounter(who))

    async def chart_until(self, stop: asyncio.Event) -> None:
        """Chart without pause."""
        while not stop.is_set():
            await self.chart()
            await asyncio.sleep(self._rng.uniform(0, 2 * CHARTING_S))

    async def chart(self) -> None:
        """Mostly a complete set, often a partial one, sometimes a correction, rarely a voided reading."""
        kind = self._rng.random()
        await (self._chart_set(partial=kind > 0.5) if kind < 0.75 else self._change(void=kind > 0.97))

    async def _chart_set(self, *, partial: bool) -> None:
        who, at = self._rng.choice(self.patients), datetime.now(UTC).replace(microsecond=0)
        if self._last[who] >= at:
            return
        self._last[who] = at
        values = {f"c{code.replace('-', '_')}": self._rng.choice(some) for code, some in CHOICES.items()}
        for reading in self._rng.sample(observation_set(who, at, **values), self._rng.randint(1, 5) if partial else 7):
            await self.ehr.write(reading, validate=False)
            self._charted[who][reading["id"]] = None
            await asyncio.sleep(self._rng.uniform(0, 0.01))

    async def _change(self, *, void: bool) -> None:
        reading = self.any_reading()
        if reading is not None:
            reading["status"] = "entered-in-error" if void else "corrected"
            reading["valueQuantity"]["value"] = self._rng.choice(CHOICES[code(reading)])
            await self.ehr.write(reading, validate=False)

    @property
    def count(self) -> int:
        """How many vital signs were charted."""
        return sum(map(len, self._charted.values()))

    def any_reading(self) -> Resource | None:
        """One of the last of some patient, as it is now."""
        ids = list(self._charted[self._rng.choice(self.patients)])[-21:]
        return self.ehr.read("Observation", self._rng.choice(ids)) if ids else None

    def readings(self, who: str) -> list[Resource]:
        """Every vital sign of a patient, as it is now."""
        found = (self.ehr.read("Observation", logical_id) for logical_id in self._charted[who])
        return [reading for reading in found if reading is not None]


class Notifier:
    """Calls the hook as an EHR would, at least once, and remembers what was acknowledged."""

    def __init__(self, ward: Ward, port: int, rng: random.Random) -> None:
        self._ward, self._rng, self._count = ward, rng, 0
        self._url = f"http://127.0.0.1:{port}/notify/observation/Observation"
        self.acknowledged: set[Notified] = set()
        self.heard = asyncio.Event()

    async def notify_until(self, stop: asyncio.Event) -> None:
        """One notification after the other; a refused one is often tried again, an acknowledged one sometimes."""
        headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/fhir+json"}
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=2)) as session:
            while not stop.is_set():
                resource = self._next()
                again = 1.0
                while self._rng.random() < again and not stop.is_set():
                    again = 0.1 if await self._send(session, resource) else 0.8
                    await asyncio.sleep(self._rng.uniform(0, 2 * NOTIFY_S))

    def _next(self) -> Resource:
        """A version the EHR has, one that only this notification tells of, or a resource that nobody has."""
        self._count += 1
        kind, resource = self._rng.random(), self._ward.any_reading()
        if kind < 0.1 or resource is None:
            resource = {"resourceType": "Observation", "id": f"nobody-has-{self._count % 50}", "meta": {}}
        if kind > 0.4 or not resource["meta"]:
            # Of a resource that nobody has the verdict knows the versions by their numbers: others are stored as opaque.
            version = f"only-here-{self._count}" if resource["meta"] else str(self._count)
            resource["meta"] = {"versionId": version, "lastUpdated": datetime.now(UTC).isoformat()}
        return resource

    async def _send(self, session: aiohttp.ClientSession, resource: Resource) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.put(f"{self._url}/{resource['id']}", data=orjson.dumps(resource)) as answer:
                if answer.status == 200:
                    meta = resource["meta"]
                    self.acknowledged.add((f"Observation/{resource['id']}", meta["versionId"], meta["lastUpdated"]))
                    self.heard.set()
                    return True
        return False
