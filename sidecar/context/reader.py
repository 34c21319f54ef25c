"""Read one patient's context from the EHR: what active manifests name, as far back as they look.

Recent readings and slowly changing facts (pregnancy, a scale decision) are searched apart, so that the cost of an event
does not grow with the length of the chart.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sidecar.errors import Rejected
from sidecar.fhir import references
from sidecar.fhir.client import EhrClient
from sidecar.manifest import Manifest
from sidecar.records import PatientId, PatientSnapshot, Reference

RECENT = timedelta(days=2)
MAX_RECENT = 2000
MAX_SLOW = 200
OPEN_STATUS = "arrived,triaged,in-progress,onleave"


@dataclass(frozen=True, slots=True)
class Need:
    """What to fetch: codes by how far back they matter."""

    recent_codes: tuple[str, ...]
    recent_reach: timedelta
    slow_codes: tuple[str, ...]
    slow_reach: timedelta
    condition_codes: tuple[str, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> "Need":
        """The need of one model. Twice the reach is read, so that what is stale is seen to be stale."""
        recent: set[str] = set()
        slow: set[str] = set()
        recent_reach = slow_reach = timedelta(0)
        for feature in manifest.features.values():
            codes = {c for s in feature.sources if s.type == "Observation" for c in (*s.codes, *s.panels)}
            if feature.reach <= RECENT:
                recent |= codes
                recent_reach = max(recent_reach, feature.reach * 2)
            else:
                slow |= codes
                slow_reach = max(slow_reach, feature.reach)
        return cls(
            tuple(sorted(recent)), recent_reach, tuple(sorted(slow)), slow_reach,
            tuple(sorted(manifest.codes_of("Condition"))),
        )  # fmt: skip


class ContextReader:
    """Reads snapshots."""

    def __init__(self, client: EhrClient, tz: Any) -> None:
        self._client, self._tz = client, tz

    async def read(self, patient: PatientId, need: Need, at: datetime) -> PatientSnapshot:
        """Everything `need` names about `patient`, as seen from `at`.

        Raises:
            Rejected: the Patient is gone, or the EHR returned another patient's resource.
            Unavailable, Retryable: the EHR did not answer properly.
        """
        who = Reference("Patient", patient.value)
        at = at.astimezone(self._tz)
        record, stays, recent, slow, conditions = await asyncio.gather(
            self._client.read(who),
            self._collect("Encounter", {"patient": patient.value, "status": OPEN_STATUS}, MAX_SLOW),
            self._observations(patient, need.recent_codes, at - need.recent_reach, MAX_RECENT),
            self._observations(patient, need.slow_codes, at - need.slow_reach, MAX_SLOW),
            self._conditions(patient, need.condition_codes),
        )
        if record is None:
            raise Rejected("gone:patient")
        resources = (*recent, *slow, *conditions)
        for resource in (*stays, *resources):
            if references.of(resource.get("subject"), self._client.base_url) != who:
                raise Rejected("another_patient")
        encounter = await self._encounter(resources, stays, who, at)
        return PatientSnapshot(record, encounter, resources, at)

    async def _collect(self, type_name: str, query: Mapping[str, str], most: int) -> list[Mapping[str, Any]]:
        return [r async for r in self._client.search(type_name, query, most) if r.get("resourceType") == type_name]

    async def _observations(
        self, patient: PatientId, codes: Iterable[str], since: datetime, most: int
    ) -> list[Mapping[str, Any]]:
        wanted = ",".join(codes)
        if not wanted:
            return []
        query = {"patient": patient.value, "code": wanted, "date": f"ge{since.isoformat(timespec='seconds')}"}
        return await self._collect("Observation", query | {"_count": "200"}, most)

    async def _conditions(self, patient: PatientId, codes: Iterable[str]) -> list[Mapping[str, Any]]:
        wanted = ",".join(codes)
        if not wanted:
            return []
        return await self._collect("Condition", {"patient": patient.value, "code": wanted}, MAX_SLOW)

    async def _encounter(
        self,
        resources: Iterable[Mapping[str, Any]],
        stays: list[Mapping[str, Any]],
        who: Reference,
        at: datetime,
    ) -> Mapping[str, Any] | None:
        """The stay of the latest reading; without one, the open stay that began last."""
        linked = current_encounter(resources, self._client.base_url, at)
        if linked is None:
            return max(stays, key=_start, default=None)
        for stay in stays:
            if stay.get("id") == linked.id:
                return stay
        named = await self._client.read(linked)
        if named is not None and references.of(named.get("subject"), self._client.base_url) != who:
            raise Rejected("another_patient")
        return named


def current_encounter(resources: Iterable[Mapping[str, Any]], base_url: str | None, at: datetime) -> Reference | None:
    """The encounter that the latest reading up to `at` names."""
    latest: tuple[float, Reference] | None = None
    for resource in resources:
        encounter = references.of(resource.get("encounter"), base_url)
        moment = _epoch(resource.get("effectiveDateTime"))
        if encounter is None or encounter.type != "Encounter" or moment is None or moment > at.timestamp():
            continue
        if latest is None or (moment, encounter.id) > (latest[0], latest[1].id):
            latest = (moment, encounter)
    return latest[1] if latest else None


def _epoch(value: object) -> float | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment.timestamp() if moment is not None and moment.tzinfo is not None else None


def _start(stay: Mapping[str, Any]) -> float:
    period = stay.get("period")
    return (_epoch(period.get("start")) if isinstance(period, Mapping) else None) or 0.0
