"""A model that is told at discharge, over the wire: stays, diagnoses, orders and procedures, read, cited and followed."""

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from sidecar.sandbox.capability import Capabilities
from sidecar.sandbox.ehr import PracticeEhr
from tests.harness import house, patient, until
from tests.unit.chart import NEWS2
from tests.unit.discharge import install
from tests.unit.language import ATC, ICD, diagnosis, order, procedure, visit
from tests.versions import carded

SITE = """version = "1.0.0"
promoted_by = "tests"
promoted_because = "tests"
debounce = "0.05s"
max_wait = "0.5s\""""
NOW = datetime.now(UTC).replace(microsecond=0)


def before(**past):
    return (NOW - timedelta(**past)).isoformat()


def haemoglobin(value, key, **past):
    return {
        "resourceType": "Observation", "id": key, "status": "final", "subject": {"reference": "Patient/p1"},
        "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}, "effectiveDateTime": before(**past),
        "valueQuantity": {"value": value, "system": "http://unitsofmeasure.org", "code": "g/dL"},
    }  # fmt: skip


def stay(**more):
    return visit("e1", before(days=6), **more)


def medicine(code):
    return {"resourceType": "Medication", "id": "warfarin", "code": {"coding": [{"system": ATC, "code": code}]}}


def ordered(**more):
    charted = order(f"{ATC}|X", medicationReference={"reference": "Medication/warfarin"}, **more)
    del charted["medicationCodeableConcept"]
    return {**charted, "authoredOn": before(days=3)}


CHART = [
    patient("p1"),
    visit("v1", before(days=90), before(days=89, hours=20), kind="EMER"),
    visit("v2", before(days=6, hours=5), before(days=6), kind="EMER"),
    diagnosis(f"{ICD}|I50.23", "c1"),
    diagnosis(f"{ICD}|E11.9", "c2", clinicalStatus={"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "resolved"}]}),
    diagnosis(f"{ICD}|I10", "c3"),
    medicine("B01AA03"),
    ordered(),
    procedure("http://snomed.info/sct|80146002", before(days=4), "pr1"),
    haemoglobin(14, "h1", days=5),
    haemoglobin(12.5, "h2", days=1),
]  # fmt: skip
POINTS = {
    "days": 5,
    "urgent": 1,
    "charlson": 3,
    "visits": 1,
    "anticoagulant": 1,
    "operated": 1,
    "haemoglobin_fall": -1.5,
}


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    root = tmp_path / "models"
    shutil.copytree(NEWS2, root / "news2" / "1.0.0", ignore=shutil.ignore_patterns("__pycache__"))
    carded(install(root))
    monkeypatch.setenv("SIDECAR__MODELS_DIR", str(root))


def written(site):
    return [r for r in site.risk_assessments() if r["method"]["coding"][0]["code"] == "discharge"]


def totals(site):
    return [o for o in site.ehr.all("Observation") if o["code"]["coding"][0]["code"] == "discharge-points"]


@pytest.mark.parametrize("include", [True, False], ids=["a search brings medicines along", "medicines are read"])
async def test_the_end_of_a_stay_is_told_once_with_all_it_rests_on(tmp_path, include):
    ehr = PracticeEhr(capabilities=Capabilities(include=include))
    async with house(tmp_path, ehr, models__discharge=SITE) as site:
        await site.chart(CHART)
        await site.chart([stay(status="finished", period={"start": before(days=6), "end": before(days=1)})])
        await until(lambda: bool(totals(site)))
        await site.settled()
        (total,), (made,) = totals(site), written(site)
        assert total["valueQuantity"]["value"] == pytest.approx(sum(POINTS.values()))
        cited = {r["reference"].partition("/_history")[0] for r in made["basis"]}
        assert {"Encounter/e1", "Encounter/v1", "Condition/c1", "Condition/c2", "MedicationRequest/m1", "Procedure/pr1", "Observation/h1", "Observation/h2"} <= cited  # fmt: skip
        assert "Condition/c3" not in cited
        assert made["encounter"]["reference"].startswith("Encounter/e1")


async def test_a_diagnosis_that_is_refuted_later_corrects_what_rested_on_it(tmp_path):
    async with house(tmp_path, models__discharge=SITE) as site:
        await site.chart([*CHART, stay(status="finished", period={"start": before(days=6), "end": before(days=1)})])
        await until(lambda: bool(totals(site)))
        await site.settled()
        refuted = {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-ver-status", "code": "refuted"}]
        }
        await site.chart([diagnosis(f"{ICD}|I50.23", "c1", verificationStatus=refuted)])
        await until(lambda: totals(site)[0]["valueQuantity"]["value"] == pytest.approx(sum(POINTS.values()) - 2))
        assert len(totals(site)) == 1


async def test_a_medicine_that_is_not_there_is_a_reason_and_no_result(tmp_path):
    async with house(tmp_path, models__discharge=SITE) as site:
        await site.chart([r for r in CHART if r["resourceType"] != "Medication"])
        await site.chart([stay(status="finished", period={"start": before(days=6), "end": before(days=1)})])
        await site.settled()
        assert (await site.status())["not_scored"] == {"gone:medication": 1}
        assert totals(site) == []
