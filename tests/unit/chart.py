"""One patient's chart, written by hand, and the whole path from it to a conclusion. No network, no database."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sidecar.app import running_model
from sidecar.context import from_bundle
from sidecar.deid import Mode, Rules, deidentify, load_rules
from sidecar.pipeline import RunningModel, conclude
from sidecar.records import Conclusion, DeidentifiedSnapshot, PatientSnapshot
from sidecar.scoring import LoadedModel, load_model
from sidecar.settings import ModelSettings

REPO = Path(__file__).resolve().parents[2]
NEWS2 = REPO / "models" / "news2" / "1.0.0"
AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LOINC = "http://loinc.org"
SCT = "http://snomed.info/sct"
OURS = "urn:ehr-sidecar:code"
UCUM = "http://unitsofmeasure.org"
ALERT, CONFUSED = f"{SCT}|248234008", f"{SCT}|130987000"
POINTS = ("respiratory_rate", "spo2", "on_oxygen", "systolic_bp", "pulse", "consciousness", "temperature")
Resource = dict[str, Any]


@cache
def loaded() -> LoadedModel:
    return load_model(NEWS2)


@cache
def rules(mode: Mode = Mode.KEYED_PSEUDONYMS) -> Rules:
    return load_rules(mode=mode)


@cache
def model(*switches: str) -> RunningModel:
    return running_model(loaded(), ModelSettings(switches=dict.fromkeys(switches, True)))


def person(**more: Any) -> Resource:
    return {"resourceType": "Patient", "id": "p1", "birthDate": "1950-05-04", **more}


def stay(**more: Any) -> Resource:
    return {
        "resourceType": "Encounter",
        "id": "e1",
        "status": "in-progress",
        "subject": {"reference": "Patient/p1"},
        "period": {"start": "2026-02-27T08:00:00Z"},
        **more,
    }


def concept(*codes: str) -> dict[str, Any]:
    return {"coding": [{"system": code.partition("|")[0], "code": code.partition("|")[2]} for code in codes]}


def observation(code: str, ago: timedelta = timedelta(0), **more: Any) -> Resource:
    """An Observation `ago` before AT, without a value."""
    when = (AT - ago).isoformat()
    return {
        "resourceType": "Observation",
        "id": f"o-{code.rpartition('|')[2]}-{int(ago.total_seconds())}".replace("--", "-later-"),
        "status": "final",
        "code": concept(code),
        "subject": {"reference": "Patient/p1"},
        "encounter": {"reference": "Encounter/e1"},
        "effectiveDateTime": when,
        **more,
    }


def amount(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def measured(code: str, value: float, unit: str, ago: timedelta = timedelta(0), **more: Any) -> Resource:
    return observation(f"{LOINC}|{code}", ago, valueQuantity=amount(value, unit), **more)


def answered(code: str, answer: str, ago: timedelta = timedelta(0), **more: Any) -> Resource:
    return observation(code, ago, valueCodeableConcept=concept(answer), **more)


def scale(number: int, ago: timedelta = timedelta(0)) -> Resource:
    return answered(f"{OURS}|spo2-scale", f"{OURS}|spo2-scale-{number}", ago)


def panel(systolic: float, diastolic: float = 70, unit: str = "mm[Hg]", ago: timedelta = timedelta(0)) -> Resource:
    parts = ((f"{LOINC}|8480-6", systolic), (f"{LOINC}|8462-4", diastolic))
    return observation(
        f"{LOINC}|85354-9",
        ago,
        component=[{"code": concept(code), "valueQuantity": amount(value, unit)} for code, value in parts],
    )


def vitals(**changes: Resource | None) -> dict[str, Resource]:
    """A complete set that scores 0, by input; a change replaces one, None leaves it out."""
    normal: dict[str, Resource | None] = {
        "respiratory_rate": measured("9279-1", 16, "/min"),
        "spo2": measured("59408-5", 97, "%"),
        "on_oxygen": measured("3151-8", 0, "L/min"),
        "systolic_bp": measured("8480-6", 120, "mm[Hg]"),
        "pulse": measured("8867-4", 70, "/min"),
        "consciousness": measured("9269-2", 15, "{score}"),
        "temperature": measured("8310-5", 37.0, "Cel"),
    }
    return {name: found for name, found in {**normal, **changes}.items() if found is not None}


def bundle(*resources: Resource) -> Resource:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}


def crossed(
    who: Resource, where: Resource | None, readings: Iterable[Resource], running: RunningModel | None = None
) -> DeidentifiedSnapshot:
    """What `running` (NEWS2) may see of a chart at AT."""
    reads = (running or model()).extractor.reads
    return deidentify(PatientSnapshot(who, where, tuple(readings), AT), rules(), reads)


def judge(
    readings: Iterable[Resource],
    *switches: str,
    at: datetime | None = AT,
    who: Resource | None = None,
    where: Resource | None = None,
    tz: str = "UTC",
) -> Conclusion:
    """The whole path: Bundle, context, de-identification, features, graph, explanation."""
    running = model(*switches)
    chart = bundle(who or person(), where or stay(), *readings)
    snapshot = from_bundle(chart, running.loaded.manifest.set_codes, at, ZoneInfo(tz))
    return conclude(snapshot, running, rules())


def judge_set(*switches: str, **changes: Resource | None) -> Conclusion:
    """`judge` on a set that scores 0 but for `changes`."""
    return judge(vitals(**changes).values(), *switches)
