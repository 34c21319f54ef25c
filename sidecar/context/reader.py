"""Read one patient's context from the EHR: what active manifests name, as far back as they look.

Recent readings and slowly changing facts (pregnancy, a scale decision, a yearly result) are searched apart, so that the
cost of an event does not grow with the length of the chart. Searches come newest first and stop at a bound; a code that
the bound cut off is then asked for by itself, so a densely monitored patient is scored like any other. What must have
lasted is read without a gap from the newest reading back to some that are old enough, or as far as the bound allows:
what lies beyond a gap proves nothing and is left out.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sidecar.context.statements import (
    NEVER_WAS,
    OPEN,
    StatementReader,
    Whole,
    present_stay,
    read_whole,
    start_of,
    wholes,
)
from sidecar.errors import Rejected
from sidecar.fhir import references
from sidecar.fhir.capability import Capability
from sidecar.fhir.client import EhrClient, Query
from sidecar.manifest import Manifest
from sidecar.records import PatientId, PatientSnapshot, Reference, later

RECENT = timedelta(days=2)
MAX_RECENT = 1000
MAX_SLOW = 200
MAX_OF_ONE = 20
MAX_LASTING = 1000
PAGE = 200
BRINGS_PATIENT = frozenset({"Observation:patient", "Observation:subject"})
Found = list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Need:
    """What to fetch: codes by how far back they matter.

    Readings of `lasting_codes` must go on for `lasting_for` to prove what they prove. `of_a_stay` is whether the
    patient's encounter matters, and `stays` are the classes it may be of. `wholes` are read without a bound that cuts.
    """

    recent_codes: tuple[str, ...]
    recent_reach: timedelta
    slow_codes: tuple[str, ...]
    slow_reach: timedelta
    condition_codes: tuple[str, ...]
    lasting_codes: tuple[str, ...] = ()
    lasting_for: timedelta = timedelta(0)
    lasting_reach: timedelta = timedelta(0)
    of_a_stay: bool = True
    stays: frozenset[str] = frozenset()
    wholes: tuple[Whole, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest, max_age: Mapping[str, timedelta], spread: timedelta | None) -> "Need":
        """The need of one model at one site. Twice the reach is read, so that what is stale is seen to be stale."""
        recent: set[str] = set()
        slow: set[str] = set()
        recent_reach = slow_reach = timedelta(0)
        lasting = [f for f in manifest.features.values() if f.apart is not None]
        for name, feature in manifest.features.items():
            codes = feature.codes("Observation")
            if feature.apart is not None or not codes or read_whole(feature):
                continue
            reach = max(feature.window or timedelta(0), max_age.get(name, feature.max_age), spread or timedelta(0))
            if feature.reach <= RECENT:
                recent |= codes
                recent_reach = max(recent_reach, reach * 2)
            else:
                slow |= codes
                slow_reach = max(slow_reach, reach * 2)
        whole, conditions = wholes(manifest, max_age), tuple(sorted(manifest.codes_of("Condition")))
        return cls(
            recent_codes=tuple(sorted(recent)),
            recent_reach=recent_reach,
            slow_codes=tuple(sorted(slow)),
            slow_reach=slow_reach,
            condition_codes=() if any(w.type == "Condition" for w in whole) else conditions,
            lasting_codes=tuple(sorted({c for f in lasting for c in f.codes("Observation")})),
            lasting_for=max((f.apart for f in lasting if f.apart), default=timedelta(0)),
            lasting_reach=max((f.reach for f in lasting), default=timedelta(0)),
            of_a_stay=manifest.cohort.of_a_stay,
            stays=frozenset(manifest.cohort.stays),
            wholes=whole,
        )

    @property
    def every_stay(self) -> Whole | None:
        """The search for all stays, if a feature reads stays."""
        return next((w for w in self.wholes if w.type == "Encounter"), None)

    @property
    def newest(self) -> Iterator[tuple[str, tuple[str, ...], timedelta, int]]:
        """Searches for the newest readings: name, codes, how far back, how many at most."""
        if self.recent_codes:
            yield "recent", self.recent_codes, self.recent_reach, MAX_RECENT
        if self.slow_codes:
            yield "slow", self.slow_codes, self.slow_reach, MAX_SLOW

    def shows(self, codes: frozenset[str], age: timedelta) -> bool:
        """Whether a reading of one of `codes`, that old, is among what a context reads."""
        recent = not codes.isdisjoint(self.recent_codes) and age < self.recent_reach
        return recent or (not codes.isdisjoint(self.slow_codes) and age < self.slow_reach)


@dataclass(frozen=True, slots=True)
class _Span:
    """From when, and until when (None = no end), readings are asked for; with `include`, what comes along is kept."""

    since: datetime
    until: datetime | None
    include: str = ""
    brought: Found = field(default_factory=list)

    @property
    def query(self) -> tuple[str, ...]:
        start = f"ge{_text(self.since)}"
        return (start,) if self.until is None else (start, f"le{_text(self.until)}")


class ContextReader:
    """Reads snapshots. `tz` is the facility's: it decides the local day on which ages are counted.

    `capability` tells what the EHR can do: where a search brings the Patient along, that is one request less.
    """

    def __init__(self, client: EhrClient, tz: ZoneInfo, capability: Callable[[], Awaitable[Capability]]) -> None:
        self._client, self._tz, self._capability = client, tz, capability

    async def read(
        self, patient: PatientId, need: Need, at: datetime, until: datetime | None = None
    ) -> PatientSnapshot:
        """Everything `need` names about `patient`, as seen from `at`; with `until`, no reading after it.

        Raises:
            Rejected: the Patient is gone, or the EHR returned another patient's resource.
            Unavailable, Retryable: the EHR did not answer properly.
        """
        who = Reference("Patient", patient.value)
        at = at.astimezone(self._tz)
        capability = await self._capability()
        include = min(capability.of("Observation").include & BRINGS_PATIENT, default="")
        brought: Found = []
        asked: dict[str, Coroutine[Any, Any, Any]] = {}
        for name, codes, reach, most in need.newest:
            span = _Span(later(at, -reach), until, include if not asked else "", brought)
            asked[name] = self._newest(patient, codes, span, most)
        if not (asked and include):
            asked["record"] = self._client.read(who)
        statements = StatementReader(self._client, patient, at, until, capability)
        every = need.every_stay
        if need.of_a_stay or every is not None:
            asked["stays"] = self._stays(patient) if every is None else statements.read(every)
        if need.lasting_codes:
            asked["lasting"] = self._lasting(patient, need, at, until)
        if need.condition_codes:
            asked["conditions"] = self._conditions(patient, need.condition_codes)
        if need.wholes:
            asked["wholes"] = statements.read_each(w for w in need.wholes if w is not every and not w.of_stay)
        found = dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))
        readings = [r for name in ("recent", "slow") for r in found.get(name, ())]
        record = found["record"] if "record" in found else await self._brought(brought, readings, who)
        if record is None:
            raise Rejected("gone:patient")
        self._check(found, who)
        encounter = await self._encounter(found, need, who, at) if need.of_a_stay else None
        since = start_of(encounter) if encounter is not None else None
        if since is not None:
            began = datetime.fromtimestamp(since, at.tzinfo)
            found["of_stay"] = await statements.read_each((w for w in need.wholes if w.of_stay), began)
            self._check({"of_stay": found["of_stay"]}, who)
        return PatientSnapshot(record, encounter, _put_together(found, need), at)

    def _check(self, found: Mapping[str, Any], who: Reference) -> None:
        """Whether all that was found is about `who`.

        Raises:
            Rejected: something is another patient's.
        """
        for name, each in found.items():
            for resource in each[0] if name == "lasting" else each if name != "record" else ():
                if not self._is_about(resource, who):
                    raise Rejected("another_patient")

    def _is_about(self, resource: Mapping[str, Any], who: Reference) -> bool:
        subject = resource.get("subject")
        if isinstance(subject, dict) and subject.get("reference") == who.relative:  # as nearly all are
            return True
        said = (references.of(element, self._client.base_url) for element in references.subjects(resource))
        return any(r is not None and r.relative == who.relative for r in said)

    async def _brought(self, brought: Found, readings: Found, who: Reference) -> Mapping[str, Any] | None:
        """The Patient that came along with the readings; read by itself when that may not be the one of now.

        None came where there are no readings; and what comes along with a reference to a version is that version.
        """
        versioned = any("/_history/" in str(r.get("subject")) for r in readings)  # whatever it is: not checked yet
        came = [r for r in brought if r.get("resourceType") == who.type and r.get("id") == who.id]
        versions = {identity.version for r in came if (identity := references.identity(r)) is not None}
        if versioned or len(versions) != 1:
            return await self._client.read(who)
        return came[0]

    async def _collect(self, type_name: str, query: Query, most: int, brought: Found | None = None) -> Found:
        """Up to `most` resources of `type_name`; a search that holds more is cut, not refused."""
        found: Found = []
        async for resource in self._client.search(type_name, query):
            if resource.get("resourceType") == type_name:
                found.append(resource)
            elif brought is not None:
                brought.append(resource)
            if len(found) >= most:
                break
        return found

    async def _stays(self, patient: PatientId) -> Found:
        query = {"patient": patient.value, "_sort": "-date", "_count": "20"}
        return await self._collect("Encounter", query, MAX_OF_ONE)

    async def _newest(self, patient: PatientId, codes: Iterable[str], span: "_Span", most: int) -> Found:
        """Up to `most` readings, newest first, and the newest of each code that did not come among them."""
        found = await self._observations(patient, codes, span, most)
        if len(found) < most:
            return found
        cut_off = [c for c in codes if not any(c in references.codes(r) for r in found)]
        more = await asyncio.gather(*(self._observations(patient, (code,), span, MAX_OF_ONE) for code in cut_off))
        known = {r.get("id") for r in found}
        return found + [r for batch in more for r in batch if r.get("id") not in known]

    async def _lasting(
        self, patient: PatientId, need: Need, at: datetime, until: datetime | None
    ) -> tuple[Found, float | None]:
        """Readings without a gap, newest first, until enough are old enough; where it ended, if before the last."""
        found: Found = []
        span = _Span(later(at, -need.lasting_reach), until)
        newest, oldest, old_enough = -math.inf, math.inf, 0
        async for resource in self._client.search(
            "Observation", _query(patient, need.lasting_codes, span, MAX_LASTING)
        ):
            moment = _moment(resource)
            if resource.get("resourceType") != "Observation":
                continue
            found.append(resource)
            if moment is not None:
                newest, oldest = max(newest, min(moment, at.timestamp())), min(oldest, moment)
                old_enough += moment <= newest - need.lasting_for.total_seconds()
            if old_enough >= MAX_OF_ONE or len(found) >= MAX_LASTING:
                return found, oldest
        return found, None

    async def _observations(self, patient: PatientId, codes: Iterable[str], span: "_Span", most: int) -> Found:
        return await self._collect("Observation", _query(patient, codes, span, most), most, span.brought)

    async def _conditions(self, patient: PatientId, codes: Iterable[str]) -> Found:
        return await self._collect("Condition", {"patient": patient.value, "code": ",".join(codes)}, MAX_SLOW)

    async def _encounter(
        self, found: Mapping[str, Found], need: Need, who: Reference, at: datetime
    ) -> Mapping[str, Any] | None:
        """The stay that the latest reading names; an open one instead when that is over, never was or is another's.

        After a transfer the readings still name the emergency stay while the patient lies on a ward. A model that says
        which stays are stays for it gets the newest of those, whatever a reading names.
        """
        recent, stays = found.get("recent", []), found["stays"]
        if need.stays:
            return present_stay(stays, need.stays, at)
        open_stay = max((s for s in stays if s.get("status") in OPEN), key=lambda s: start_of(s) or 0.0, default=None)
        linked = current_encounter(recent, self._client.base_url, at)
        if linked is None:
            been = (s for s in stays if s.get("status") not in NEVER_WAS)
            return open_stay or max(been, key=lambda s: start_of(s) or 0.0, default=None)
        named = next((s for s in stays if s.get("id") == linked.id), None)
        if named is None:
            named = await self._client.read(Reference("Encounter", linked.id))
        if named is None or not self._is_about(named, who):
            return open_stay
        return open_stay if open_stay is not None and named.get("status") in ("finished", *NEVER_WAS) else named


def _put_together(found: Mapping[str, Any], need: Need) -> tuple[Mapping[str, Any], ...]:
    """All that was found, each reading once and none beyond a gap."""
    stays, recent, slow, conditions = (found.get(n, []) for n in ("stays", "recent", "slow", "conditions"))
    lasting, cut = found.get("lasting", ([], None))
    known = {r.get("id") for r in lasting}
    others = [r for r in (*recent, *slow) if r.get("id") not in known]
    if cut is not None:
        lasting_codes = frozenset(need.lasting_codes)
        others = [r for r in others if not references.codes(r) & lasting_codes or (_moment(r) or cut) > cut]
    wholes = [*found.get("wholes", ()), *found.get("of_stay", ())]
    if not wholes and need.every_stay is None:
        return (*others, *lasting, *conditions)
    every = {(r["resourceType"], r.get("id")): r for r in (*wholes, *others, *lasting, *conditions)}
    return (*every.values(), *(stays if need.every_stay is not None else ()))


def _query(patient: PatientId, codes: Iterable[str], span: _Span, most: int) -> Query:
    return {
        "patient": patient.value, "code": ",".join(codes), "date": span.query, "_sort": "-date",
        "_count": str(min(most, PAGE)), **({"_include": span.include} if span.include else {}),
    }  # fmt: skip


def current_encounter(readings: Iterable[Mapping[str, Any]], base_url: str | None, at: datetime) -> Reference | None:
    """The encounter that the latest reading up to `at` names; readings that never were do not count."""
    latest: tuple[float, Reference] | None = None
    now = at.timestamp()
    for resource in readings:
        moment = _epoch(resource.get("effectiveDateTime") or resource.get("effectiveInstant"))
        if moment is None or moment > now or (latest is not None and moment < latest[0]):
            continue
        if resource.get("status") in ("entered-in-error", "cancelled"):
            continue
        encounter = references.of(resource.get("encounter"), base_url)
        if encounter is None or encounter.type != "Encounter":
            continue
        if latest is None or (moment, encounter.id) > (latest[0], latest[1].id):
            latest = (moment, encounter)
    return latest[1] if latest else None


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _epoch(value: object) -> float | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment.timestamp() if moment is not None and moment.tzinfo is not None else None


def _moment(reading: Mapping[str, Any]) -> float | None:
    """When a reading was taken, where the time of day is known."""
    period = reading.get("effectivePeriod")
    ends = (period.get("end"), period.get("start")) if isinstance(period, Mapping) else ()
    found = map(_epoch, (reading.get("effectiveDateTime"), reading.get("effectiveInstant"), *ends))
    return next((moment for moment in found if moment is not None), None)
