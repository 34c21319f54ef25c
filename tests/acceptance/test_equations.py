"""Published equations over the wire: one result with a prediction an outcome, and a score of nothing but diagnoses."""

from datetime import UTC, datetime, timedelta

from tests.harness import house, until

SITE = """version = "1.0.0"
promoted_by = "tests"
promoted_because = "tests"
debounce = "0.05s"
max_wait = "0.5s"
"""
AT = (datetime.now(UTC) - timedelta(minutes=3)).replace(microsecond=0)
LOINC, SNOMED, ICD = "http://loinc.org", "http://snomed.info/sct", "http://hl7.org/fhir/sid/icd-10-cm"
RESULTS = {
    "2093-3": (200, "mg/dL"),
    "2085-9": (45, "mg/dL"),
    "8480-6": (160, "mm[Hg]"),
    "39156-5": (35, "kg/m2"),
    "98979-8": (90, "mL/min/{1.73_m2}"),
}


def born(years):
    """A birthday some months ago."""
    today = datetime.now(UTC).date()
    return (today.replace(year=today.year - years, day=1) - timedelta(days=100)).isoformat()


def reading(code, **more):
    return {
        "resourceType": "Observation",
        "id": f"o-{code}",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": AT.isoformat(),
        **more,
    }


def results():
    smoking = {"coding": [{"system": SNOMED, "code": "266919005"}]}
    return [reading("72166-2", valueCodeableConcept=smoking)] + [
        reading(code, valueQuantity={"value": value, "system": "http://unitsofmeasure.org", "code": unit})
        for code, (value, unit) in RESULTS.items()
    ]


def statement(kind, code, system, **more):
    return {
        "resourceType": kind,
        "id": f"s-{code.replace('.', '-')}".lower(),
        "subject": {"reference": "Patient/p1"},
        **({"code": {"coding": [{"system": system, "code": code}]}, "onsetDateTime": "2020-02-03"} if kind == "Condition" else {}),
        **more,
    }  # fmt: skip


def medicine(code):
    concept = {"coding": [{"system": "http://www.whocc.no/atc", "code": code}]}
    return statement(
        "MedicationRequest", code, "", status="active", intent="order", medicationCodeableConcept=concept,
        authoredOn="2024-02-03",
    )  # fmt: skip


async def test_ten_risks_are_one_result_with_a_rationale_each_and_from_60_on_five(tmp_path):
    async with house(tmp_path, models__aha_prevent=SITE) as site:
        await site.admit("p1", gender="male", birthDate=born(50))
        await site.chart([statement("Condition", "E11.9", ICD), medicine("C09AA03"), *results()])
        await site.settled()
        made = [r for r in site.risk_assessments() if r["method"]["coding"][0]["code"] == "aha_prevent"]
        assert len(made) == 1
        predictions = made[0]["prediction"]
        assert [round(p["probabilityDecimal"] / 100, 3) for p in predictions][:4] == [0.163, 0.102, 0.106, 0.056]
        assert [p["whenRange"]["high"]["value"] for p in predictions] == [10] * 5 + [30] * 5
        assert len({p["rationale"] for p in predictions}) == 10
        assert "diabetes yes (x 2.42)" in predictions[0]["rationale"]
        assert "Heart failure within 30 years" in [p["outcome"]["text"] for p in predictions]

        older = {**site.ehr.read("Patient", "p1"), "birthDate": born(65)}
        await site.chart([older, {**results()[1], "status": "amended"}])
        await until(lambda: len(site.risk_assessments()[-1].get("prediction", ())) == 5)
        assert "Not given: risks within 30 years" in site.risk_assessments()[-1]["note"][0]["text"]


async def test_a_score_of_nothing_but_diagnoses_comes_with_the_diagnosis_it_waits_for(tmp_path):
    async with house(tmp_path, models__cha2ds2_vasc=SITE) as site:
        await site.admit("p1", gender="female", birthDate=born(75))
        await site.chart([statement("Condition", "I48.91", ICD), statement("Condition", "I10", ICD)])
        await until(lambda: [r for r in site.risk_assessments() if "CHA2DS2-VASc total 4" in r["note"][0]["text"]])
        (total,) = (o for o in site.ehr.all("Observation") if o["id"].startswith("so-"))
        assert (total["valueQuantity"]["value"], len(total["component"])) == (4, 7)
