"""The ward: fixture stays replayed into a practice EHR as if they happened now.

A stay is a Bundle of one Patient, one Encounter, its Conditions and Observations with relative references.
Each stay moves by one constant, so that ages, gaps and orders inside it stay what they were; all stays begin
within the ward's first hours. Nothing is charted before ward time reaches it: no fact comes from the future.
Deterministic: the same stays and start give the same resources at the same ward times.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import orjson

from sidecar.sandbox.moments import BEGINNING, END, instant, span
from sidecar.sandbox.outcome import Resource
from sidecar.sandbox.shifting import next_lap, shifted

ARRIVALS = timedelta(hours=4)
"""The first hours of the ward, over which the stays begin."""
LONGEST_LAG_S = 120
_CHARTED_TIMES = ("effectiveDateTime", "effectiveInstant", "recordedDate", "issued")


class Writes(Protocol):
    """What the ward needs of an EHR."""

    async def write(self, resource: Resource) -> Resource:
        """Store one resource."""
        ...


@dataclass(frozen=True, slots=True)
class Stay:
    """One patient's stay, as recorded."""

    name: str
    patient: Resource
    encounter: Resource
    others: tuple[Resource, ...]

    @property
    def begins_at(self) -> datetime:
        """The first thing that happened."""
        return min([_begin(self.encounter), *(happened_at(other, END) for other in self.others)])

    @property
    def ends_at(self) -> datetime:
        """Discharge, or the last thing charted where the Encounter has no end."""
        last = max([_begin(self.encounter), *(happened_at(other, BEGINNING) for other in self.others)])
        end = self.encounter.get("period", {}).get("end")
        return span(end).low if end else last


def load_ward(folder: Path) -> list[Stay]:
    """Read every `stay-*.json` in `folder`, in the order of their names.

    Raises:
        ValueError: a file is not a stay, or there is none.
    """
    stays = [_stay(path.stem, orjson.loads(path.read_bytes())) for path in sorted(folder.glob("stay-*.json"))]
    if not stays:
        msg = f"no stay-*.json in {folder}"
        raise ValueError(msg)
    return stays


def _stay(name: str, bundle: Resource) -> Stay:
    resources = [entry["resource"] for entry in bundle.get("entry", [])]
    patients = [resource for resource in resources if resource["resourceType"] == "Patient"]
    encounters = [resource for resource in resources if resource["resourceType"] == "Encounter"]
    if len(patients) != 1 or len(encounters) != 1:
        msg = f"{name}: a stay has one Patient and one Encounter, not {len(patients)} and {len(encounters)}"
        raise ValueError(msg)
    others = (each for each in resources if each["resourceType"] not in {"Patient", "Encounter"})
    return Stay(name, patients[0], encounters[0], tuple(others))


def happened_at(resource: Resource, otherwise: datetime) -> datetime:
    """Return when an Observation took effect or a Condition was recorded."""
    times = (resource[name] for name in _CHARTED_TIMES if name in resource)
    period = resource.get("effectivePeriod", {})
    text = next(times, period.get("end") or period.get("start"))
    return span(text).low if text else otherwise


def _begin(encounter: Resource) -> datetime:
    return span(encounter["period"]["start"]).low


class WardClock:
    """Ward time: `speed` seconds for each second that passes."""

    def __init__(
        self,
        start: datetime,
        speed: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock now, at ward time `start` (aware).

        Raises:
            ValueError: `speed` is not positive, or `start` has no zone.
        """
        if speed <= 0 or start.tzinfo is None:
            msg = "a ward clock needs a positive speed and a start with a zone"
            raise ValueError(msg)
        self._start = start.astimezone(UTC)
        self._speed = speed
        self._monotonic = monotonic
        self._origin = monotonic()

    def now(self) -> datetime:
        """Return ward time."""
        return self._start + timedelta(seconds=(self._monotonic() - self._origin) * self._speed)

    async def reach(self, due: datetime) -> None:
        """Return when ward time is `due`; at once if it is past."""
        while (ahead := due - self.now()) > timedelta(0):  # noqa: ASYNC110 - it sleeps until due, and checks
            await asyncio.sleep(ahead.total_seconds() / self._speed)


class Ward:
    """Replays stays; each `run` is one lap, with new patients."""

    def __init__(
        self,
        stays: Sequence[Stay],
        ehr: Writes,
        clock: WardClock,
        start: datetime | None = None,
    ) -> None:
        """Replay `stays` into `ehr` from ward time `start`, by default the clock's now."""
        self._stays = list(stays)
        self._ehr = ehr
        self._clock = clock
        self._start = start or clock.now()
        self._laps = 0
        self._sent = self._total = 0

    @property
    def progress(self) -> tuple[int, int]:
        """Resources written and to be written in this lap."""
        return self._sent, self._total

    async def run(self, lap: int | None = None) -> None:
        """Replay one lap to its end; without `lap`, the next one. Cancel it at any time."""
        lap = self._laps if lap is None else lap
        self._laps = lap + 1
        schedule = self.schedule(lap)
        self._sent, self._total = 0, len(schedule)
        for due, resource in schedule:
            await self._clock.reach(due)
            await self._ehr.write(resource)
            self._sent += 1
            # At high speeds nothing above waits; the EHR must still get to answer its clients.
            await asyncio.sleep(0)

    def schedule(self, lap: int = 0) -> list[tuple[datetime, Resource]]:
        """Return what a lap writes and when, in order; lap n starts where lap n-1 is over."""
        length = max(self._offset(n) + (stay.ends_at - stay.begins_at) for n, stay in enumerate(self._stays))
        start = self._start + lap * (length + timedelta(seconds=LONGEST_LAG_S))
        events: list[tuple[datetime, Resource]] = []
        for position, stay in enumerate(self._stays):
            events += _events(stay, start + self._offset(position), lap)
        return sorted(events, key=lambda event: event[0])

    def _offset(self, position: int) -> timedelta:
        return ARRIVALS * position / len(self._stays)


def _events(stay: Stay, begin: datetime, lap: int) -> Iterator[tuple[datetime, Resource]]:
    """Yield a stay's writes as if it began at `begin`: admission, what was charted, discharge."""
    # Whole seconds: a shift of microseconds would rewrite every time with a precision nobody charted.
    move = timedelta(seconds=round((begin - stay.begins_at).total_seconds()))
    patient, encounter, *others = next_lap([stay.patient, stay.encounter, *stay.others], stay.name, lap)
    patient, encounter = shifted(patient, move), shifted(encounter, move)
    admitted = stay.begins_at + move
    at_admission = _admission(patient)
    yield admitted, at_admission
    yield admitted, _open(encounter)
    over = stay.ends_at + move
    for other in others:
        moved = shifted(other, move)
        due = max(happened_at(moved, admitted), admitted) + _lag(moved)
        over = max(over, due)
        yield due, moved
    if at_admission != patient:
        yield over, patient
    yield over, _closed(encounter, stay.ends_at + move)


def _admission(patient: Resource) -> Resource:
    """Return the Patient as known at admission: nobody knows yet that they will die."""
    return {name: value for name, value in patient.items() if not name.startswith("deceased")}


def _open(encounter: Resource) -> Resource:
    """Return the Encounter as known at admission: no end, no disposition."""
    opened = {name: value for name, value in encounter.items() if name not in {"length", "statusHistory"}}
    opened["status"] = "in-progress"
    opened["period"] = {"start": encounter["period"]["start"]}
    known = {n: v for n, v in encounter.get("hospitalization", {}).items() if n != "dischargeDisposition"}
    opened.pop("hospitalization", None)
    return opened | ({"hospitalization": known} if known else {})


def _closed(encounter: Resource, end: datetime) -> Resource:
    """Return the Encounter as it is after the stay; a recording cut short ends where it was cut."""
    period = {"end": instant(end), **encounter["period"]}
    return {**encounter, "status": "finished", "period": period}


def _lag(resource: Resource) -> timedelta:
    """Return how late an Observation is charted: 1 s to 2 min, always the same for the same id."""
    if resource["resourceType"] != "Observation":
        return timedelta(0)
    digest = hashlib.sha256(resource["id"].encode()).digest()
    return timedelta(seconds=1 + int.from_bytes(digest[:4]) % LONGEST_LAG_S)
