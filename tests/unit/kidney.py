"""A patient with chronic kidney disease, written by hand, and the whole path from the chart to a kidney failure risk."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from sidecar.app import running_model
from sidecar.context import from_bundle
from sidecar.pipeline import RunningModel, conclude
from sidecar.records import Conclusion
from sidecar.scoring import LoadedModel, load_model
from sidecar.settings import ModelSettings
from tests.unit.chart import AT, REPO, SCT, Resource, bundle, concept, measured, person, rules

KFRE = REPO / "models" / "kfre_4var" / "1.0.0"
EGFR_UNIT = "mL/min/{1.73_m2}"
ICD = "http://hl7.org/fhir/sid/icd-10-cm"
CKD = f"{SCT}|709044004"
LONG_AGO = timedelta(days=200)


@cache
def kfre() -> LoadedModel:
    return load_model(KFRE)


@cache
def running(region: str = "north_america") -> RunningModel:
    return running_model(kfre(), ModelSettings(choices={"region": region}))


def who(**more: Any) -> Resource:
    return person(**{"gender": "male", "birthDate": "1956-03-01", **more})


def egfr(value: float = 30, ago: timedelta = timedelta(0), **more: Any) -> Resource:
    return measured("98979-8", value, EGFR_UNIT, ago, **more)


def creatinine(value: float, unit: str = "mg/dL", ago: timedelta = timedelta(0), **more: Any) -> Resource:
    return measured({"mg/dL": "2160-0"}.get(unit, "14682-9"), value, unit, ago, **more)


def acr(value: float = 300, unit: str = "mg/g", code: str = "9318-7", ago: timedelta = timedelta(0)) -> Resource:
    return measured(code, value, unit, ago)


def condition(code: str, since: str | None = None, **more: Any) -> Resource:
    known = {"onsetDateTime": since} if since else {}
    logical_id = "c-" + code.rpartition("|")[2].replace(".", "-")
    subject = {"reference": "Patient/p1"}
    return {"resourceType": "Condition", "id": logical_id, "subject": subject, "code": concept(code), **known, **more}


def chronic() -> Resource:
    """The diagnosis, old enough."""
    return condition(CKD, (AT - LONG_AGO).isoformat())


def judge(
    *resources: Resource, patient: Resource | None = None, region: str = "north_america", at: datetime | None = AT, tz: str = "UTC"
) -> Conclusion:  # fmt: skip
    """The whole path: Bundle, context, de-identification, features, graph, explanation."""
    chart = bundle(patient or who(), *({k: v for k, v in r.items() if k != "encounter"} for r in resources))
    snapshot = from_bundle(chart, kfre().manifest.set_codes, at, ZoneInfo(tz))
    return conclude(snapshot, running(region), rules())


def judge_ckd(*resources: Resource, **how: Any) -> Conclusion:
    """`judge` of someone whose chronic kidney disease is coded and old."""
    return judge(chronic(), *resources, **how)


def risks(conclusion: Conclusion) -> tuple[float, float]:
    """Within 2 and 5 years."""
    found = conclusion.assessment.probabilities
    return found["two_years"], found["five_years"]


def reasons(conclusions: Iterable[Conclusion]) -> list[tuple[str, ...]]:
    return [c.assessment.reasons for c in conclusions]
