"""What the ward page reads in the practice EHR: Observations, RiskAssessments and stays, once per version.

No clock: what is true of a resource whenever it is looked at. What may be said of it now is `ward_board`.
Deliberately left out: results of other models, and patients without an Encounter.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sidecar.sandbox.chart import Version, bare_id
from sidecar.sandbox.ehr import PracticeEhr
from sidecar.sandbox.moments import BEGINNING, span
from sidecar.sandbox.outcome import Resource
from sidecar.sandbox.ward import happened_at

SCORE_SYSTEM = "urn:ehr-sidecar:score"
BAND_SYSTEM = "urn:ehr-sidecar:news2-risk"
MODEL_SYSTEM = "urn:ehr-sidecar:model"
MODEL = "news2"
BANDS = ("low", "low-medium", "medium", "high")
VITALS = {
    "RR": frozenset({"9279-1"}),
    "SpO₂": frozenset({"2708-6", "59408-5"}),
    "Oxygen": frozenset({"3151-8", "3150-6"}),
    "BP": frozenset({"85354-9", "55284-4"}),
    "Pulse": frozenset({"8867-4"}),
    "Consc.": frozenset({"80288-4", "9269-2"}),
    "Temp": frozenset({"8310-5"}),
}
"""The vitals line by LOINC code, in the order of a NEWS2 chart: airway to exposure."""
PARAMETERS = {
    "1104301000000104": "RR",
    "1104311000000102": "SpO₂",
    "1104321000000108": "SpO₂",
    "1104331000000105": "Oxygen",
    "1104341000000101": "BP",
    "1104351000000103": "Pulse",
    "1104361000000100": "Consc.",
    "1104371000000107": "Temp",
}
"""Which vital a component of a NEWS2 Observation gives points to, by SNOMED CT (UK) code."""
_COMA_SCALE = "9269-2"

_SYSTOLIC, _DIASTOLIC = "8480-6", "8462-4"
_UNITS = {"/min": " /min", "%": " %", "Cel": " °C", "mm[Hg]": " mmHg", "L/min": " L/min"}
_WITHDRAWN = frozenset({"entered-in-error", "cancelled"})
_USABLE = frozenset({"final", "corrected", "amended", "preliminary"})
_NO_STAY = frozenset({"planned", "cancelled", "entered-in-error"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading:
    """An Observation. `text` is None where it says nothing to rely on; only a score has `total` and `points`."""

    version: Version
    name: str
    vital: str | None
    text: str | None
    at: datetime
    is_score: bool
    total: float | None
    points: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """A usable RiskAssessment. `latency_s`: how long after its newest input it was in the chart."""

    status: str
    at: datetime
    until: datetime | None
    band: str | None
    risk: str
    rationale: str
    note: str
    basis: tuple[str, ...]
    encounter: str | None
    latency_s: float | None


@dataclass(frozen=True, slots=True)
class Stay:
    """An Encounter that began; `began_at` and `ended_at` as charted."""

    encounter: str
    reason: str
    over: bool
    died: bool
    began_at: datetime
    ended_at: datetime | None


class Shelf(Generic[T]):
    """The living resources of one type that `read` makes something of, by id and by patient."""

    def __init__(self, living: Callable[[], Sequence[Version]], read: Callable[[Version], T | None]) -> None:
        """Follow what `living` returns; nothing is read before `catch_up`."""
        self.by_id: dict[str, T] = {}
        self.by_patient: dict[str, dict[str, T]] = {}
        self._living, self._read = living, read
        self._seen: dict[str, Version] = {}

    def catch_up(self) -> None:
        """Read what is new or changed, forget what was deleted."""
        living = self._living()
        for version in living:
            if self._seen.get(version.logical_id) is not version:
                self._take(version)
        if len(self._seen) > len(living):
            for gone in self._seen.keys() - {version.logical_id for version in living}:
                self._drop(self._seen.pop(gone))

    def _take(self, version: Version) -> None:
        old = self._seen.get(version.logical_id)
        if old is not None:
            self._drop(old)
        self._seen[version.logical_id] = version
        item = self._read(version)
        if item is not None:
            self.by_id[version.logical_id] = item
            self.by_patient.setdefault(_patient(version), {})[version.logical_id] = item

    def _drop(self, version: Version) -> None:
        self.by_id.pop(version.logical_id, None)
        self.by_patient.get(_patient(version), {}).pop(version.logical_id, None)


class WardChart:
    """Everything the page reads, kept up with the EHR by `catch_up`."""

    def __init__(self, ehr: PracticeEhr) -> None:
        """Read `ehr`, never write it."""
        self._ehr = ehr
        self.patients = Shelf(self._living("Patient"), _resource)
        self.stays = Shelf(self._living("Encounter"), _stay)
        self.readings = Shelf(self._living("Observation"), _reading)
        self.results = Shelf(self._living("RiskAssessment"), self._result)
        self.written = 0

    def catch_up(self) -> None:
        """Read what changed since the last time; results come last, they cite readings."""
        for shelf in (self.patients, self.stays, self.readings, self.results):
            shelf.catch_up()
        self.written = len(self._living("RiskAssessment")())

    def cited(self, result: Result) -> Iterator[tuple[str, Reading | None]]:
        """Yield every Observation a result rests on, by reference; None when it is not in the chart any more."""
        for reference in result.basis:
            if "Observation/" in reference:
                yield reference, self.readings.by_id.get(bare_id(reference))

    def total(self, result: Result) -> float | None:
        """Return the points of a complete result; an incomplete one has none, whatever it cites."""
        if result.status == "preliminary":
            return None
        totals = (reading.total for _, reading in self.cited(result) if reading is not None)
        return next((total for total in totals if total is not None), None)

    def points(self, result: Result) -> Mapping[str, float]:
        """Return the points of a result by vital, as the Observation of its score states them."""
        return next(
            (reading.points for _, reading in self.cited(result) if reading is not None and reading.is_score), {}
        )

    def _living(self, type_name: str) -> Callable[[], list[Version]]:
        # `PracticeEhr.all` copies every body: 240 ms at 7,000 resources, for each look at the page.
        chart = self._ehr._chart  # noqa: SLF001 - the page lives in the same process and room, and only reads
        return lambda: chart.living(type_name)

    def _result(self, version: Version) -> Result | None:
        resource = version.resource or {}
        models = _codes(resource.get("method"), MODEL_SYSTEM) + _codes(resource.get("code"), MODEL_SYSTEM)
        if resource.get("status") not in _USABLE or (models and MODEL not in models):
            return None
        prediction: Resource = next(iter(resource.get("prediction", [])), {})
        risk, end = prediction.get("qualitativeRisk", {}), prediction.get("whenPeriod", {}).get("end")
        basis = tuple(str(each.get("reference", "")) for each in resource.get("basis", []))
        occurrence = resource.get("occurrenceDateTime") or resource.get("occurrencePeriod", {}).get("end")
        return Result(
            status=resource["status"],
            at=span(occurrence).low if occurrence else BEGINNING,
            until=span(end).low if end else None,
            band=next((code for code in _codes(risk, BAND_SYSTEM) if code in BANDS), None),
            risk=risk.get("text", ""),
            rationale=prediction.get("rationale", ""),
            note=" ".join(str(each.get("text", "")) for each in resource.get("note", [])),
            basis=basis,
            encounter=bare_id(resource["encounter"]["reference"]) if "encounter" in resource else None,
            latency_s=self._latency(basis, version.at),
        )

    def _latency(self, basis: Sequence[str], written_at: datetime) -> float | None:
        """Return seconds from the newest input's arrival; both are the EHR server's wall clock."""
        arrived = []
        for reference in basis:
            reading = self.readings.by_id.get(bare_id(reference)) if "Observation/" in reference else None
            if reading is None or reading.is_score:
                continue
            if reading.version.at <= written_at:
                arrived.append(reading.version.at)
            else:  # it was corrected later: what counts is the version that was there
                stored = self._ehr.history("Observation", bare_id(reference))
                times = [span(each["meta"]["lastUpdated"]).low for each in stored]
                arrived += [at for at in times if at <= written_at][-1:]
        return (written_at - max(arrived)).total_seconds() if arrived else None


def _patient(version: Version) -> str:
    if version.type_name == "Patient":
        return version.logical_id
    subject = (version.resource or {}).get("subject", {})
    return bare_id(subject.get("reference", ""))


def _resource(version: Version) -> Resource | None:
    return version.resource


def _stay(version: Version) -> Stay | None:
    resource = version.resource or {}
    if resource.get("status") in _NO_STAY:
        return None
    period = resource.get("period", {})
    reasons = [each.get("text") or _display(each) for each in resource.get("reasonCode", [])[:1]]
    disposition = resource.get("hospitalization", {}).get("dischargeDisposition", {})
    return Stay(
        encounter=version.logical_id,
        reason=next(iter(reasons), "") or "reason for admission not charted",
        over=resource.get("status") == "finished",
        died=any(each.get("code") == "exp" for each in disposition.get("coding", [])),
        began_at=span(period["start"]).low if "start" in period else BEGINNING,
        ended_at=span(period["end"]).low if "end" in period else None,
    )


def _reading(version: Version) -> Reading | None:
    resource = version.resource or {}
    if resource.get("status") in _WITHDRAWN:
        return None
    codings = resource.get("code", {}).get("coding", [])
    codes = {each.get("code") for each in codings}
    is_score = any(each.get("system") == SCORE_SYSTEM for each in resource.get("identifier", []))
    value = _number(resource)
    text = _text(resource)
    return Reading(
        version=version,
        name=resource.get("code", {}).get("text") or _display(resource.get("code", {})) or "reading",
        vital=next((vital for vital, loinc in VITALS.items() if codes & loinc), None),
        text=f"GCS {text}" if text and _COMA_SCALE in codes else text,
        at=happened_at(resource, BEGINNING),
        is_score=is_score,
        total=value if is_score else None,
        points=dict(_points(resource)) if is_score else {},
    )


def _number(element: Resource) -> float | None:
    value = element.get("valueInteger", element.get("valueQuantity", {}).get("value"))
    return None if value is None else float(value)


def _points(score: Resource) -> Iterator[tuple[str, float]]:
    for component in score.get("component", []):
        points = _number(component)
        vital = next((PARAMETERS[code] for code in _codes(component.get("code")) if code in PARAMETERS), None)
        if vital is not None and points is not None:
            yield vital, points


def _text(resource: Resource) -> str | None:
    """Say the value of an Observation; None when it has none."""
    if "valueQuantity" in resource:
        return _quantity(resource["valueQuantity"])
    if "valueCodeableConcept" in resource:
        return resource["valueCodeableConcept"].get("text") or _display(resource["valueCodeableConcept"])
    if "valueInteger" in resource:
        return str(resource["valueInteger"])
    parts = {code: each for each in resource.get("component", []) for code in _codes(each.get("code"))}
    if _SYSTOLIC not in parts and _DIASTOLIC not in parts:
        return None
    bare = [parts.get(code, {}).get("valueQuantity", {}).get("value") for code in (_SYSTOLIC, _DIASTOLIC)]
    return "/".join("?" if each is None else f"{each:g}" for each in bare) + " mmHg"


def _quantity(quantity: Resource) -> str | None:
    if "value" not in quantity:
        return None
    unit = quantity.get("code") or quantity.get("unit") or ""
    said = f"{quantity.get('comparator', '')}{quantity['value']:g}{_UNITS.get(unit, '')}"
    return said if unit in _UNITS or unit.startswith("{") else f"{said} {quantity.get('unit', unit)}".rstrip()


def _codes(concept: Any, system: str | None = None) -> list[str]:
    codings = (concept or {}).get("coding", [])
    return [each["code"] for each in codings if "code" in each and system in {None, each.get("system")}]


def _display(concept: Resource) -> str:
    return next((str(each["display"]) for each in concept.get("coding", []) if "display" in each), "")
