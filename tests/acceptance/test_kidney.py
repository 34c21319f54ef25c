"""Two models in one house: a kidney failure risk from results months old, beside NEWS2, each written once."""

from datetime import UTC, datetime, timedelta

import pytest

from sidecar.sandbox.capability import Capabilities
from sidecar.sandbox.ehr import PracticeEhr
from tests.harness import House, encounter, house, now, observation_set, patient, until

SITE = """version = "1.0.0"
promoted_by = "tests"
promoted_because = "tests"
debounce = "0.05s"
max_wait = "0.5s"
choices = { region = "other" }"""
UNITS = {"98979-8": "mL/min/{1.73_m2}", "2160-0": "mg/dL", "14682-9": "umol/L", "9318-7": "mg/g", "32294-1": "mg/mmol"}
START = datetime.now(UTC).replace(microsecond=0)
"""Results are charted relative to one moment, so that a correction is of the same moment."""
BORN = {"gender": "male", "birthDate": "1956-03-01"}


def result(code, value, ago=timedelta(minutes=2), **more):
    at = START - ago
    return {
        "resourceType": "Observation",
        "id": f"lab-{code}-{int(ago.total_seconds())}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": at.isoformat(),
        "valueQuantity": {"value": value, "system": "http://unitsofmeasure.org", "code": UNITS[code]},
        **more,
    }


def diagnosis(code="709044004", system="http://snomed.info/sct", **more):
    onset = (START - timedelta(days=400)).date().isoformat()
    return {
        "resourceType": "Condition",
        "id": f"c-{code}",
        "code": {"coding": [{"system": system, "code": code}]},
        "subject": {"reference": "Patient/p1"},
        "onsetDateTime": onset,
        **more,
    }


def of(site: House, model: str):
    return [r for r in site.risk_assessments() if r["method"]["coding"][0]["code"] == model]


async def test_both_models_write_one_result_each_for_one_patient(tmp_path):
    async with house(tmp_path, models__kfre_4var=SITE) as site:
        await site.admit("p1", **BORN)
        await site.chart([diagnosis(), result("98979-8", 28), result("32294-1", 50)])
        await site.chart(observation_set("p1", now(1)))
        await site.settled()
        (kidney,), (ward,) = of(site, "kfre_4var"), of(site, "news2")

        two, five = kidney["prediction"]
        assert [p["whenRange"]["high"]["value"] for p in (two, five)] == [2, 5]
        assert 0 < two["probabilityDecimal"] < five["probabilityDecimal"] < 100
        assert "outside North America" in kidney["note"][0]["text"]
        assert "% within 2 years" in kidney["note"][0]["text"]
        assert "encounter" not in kidney
        assert all("/_history/1" in reference["reference"] for reference in kidney["basis"])
        assert "probabilityDecimal" not in ward["prediction"][0]
        assert {o["code"]["coding"][0]["code"] for o in site.ehr.all("Observation") if o["id"].startswith("so-")} == {
            "1104051000000101"
        }


async def test_a_corrected_result_corrects_the_probability_and_a_withdrawn_one_withdraws_it(tmp_path):
    async with house(tmp_path, models__kfre_4var=SITE) as site:
        await site.admit("p1", **BORN)
        await site.chart([diagnosis(), result("98979-8", 28), result("9318-7", 50)])
        await site.settled()
        (first,) = of(site, "kfre_4var")
        await site.chart([result("9318-7", 500, status="corrected")])
        await until(lambda: of(site, "kfre_4var")[0]["status"] == "corrected")
        (second,) = of(site, "kfre_4var")
        assert second["id"] == first["id"]
        assert second["prediction"][0]["probabilityDecimal"] > 2 * first["prediction"][0]["probabilityDecimal"]
        await site.chart([result("9318-7", 500, status="entered-in-error")])
        await until(lambda: "No current KFRE" in of(site, "kfre_4var")[0]["note"][0]["text"])
        assert "prediction" not in of(site, "kfre_4var")[0]


async def test_dialysis_ends_the_result_that_still_stands(tmp_path):
    async with house(tmp_path, models__kfre_4var=SITE) as site:
        await site.admit("p1", **BORN)
        await site.chart([diagnosis(), result("98979-8", 14), result("9318-7", 500)])
        await site.settled()
        await site.chart([diagnosis("Z99.2", "http://hl7.org/fhir/sid/icd-10-cm")])
        await until(lambda: of(site, "kfre_4var")[0]["status"] == "amended")
        (ended,) = of(site, "kfre_4var")
        assert "No longer current: on dialysis" in ended["note"][0]["text"]


async def test_a_densely_measured_patient_needs_no_whole_history(tmp_path):
    dense = [result("2160-0", 2.2, timedelta(hours=6 * n, minutes=5)) for n in range(260)]
    async with house(tmp_path, models__kfre_4var=SITE) as site:
        await site.ehr.write({"resourceType": "Patient", "id": "p1", **BORN})
        await site.chart(
            [result("2160-0", 2.0, timedelta(days=120)), result("9318-7", 300, timedelta(days=240)), *dense]
        )
        await site.settled(90)
        newest = max(of(site, "kfre_4var"), key=lambda r: r["occurrenceDateTime"])
        assert "computed from serum creatinine 2.2 mg/dL" in newest["note"][0]["text"]
        assert any("lab-9318-7" in reference["reference"] for reference in newest["basis"])


async def test_a_normal_value_behind_many_newer_ones_is_found_and_breaks_the_three_months(tmp_path):
    ehr = PracticeEhr()
    await ehr.start()
    await ehr.write({"resourceType": "Patient", "id": "p1", **BORN})
    for n in range(230):
        await ehr.write(result("2160-0", 2.2, timedelta(hours=6 * n, minutes=5)))
    await ehr.write(result("2160-0", 0.8, timedelta(days=80)))
    await ehr.write(result("2160-0", 2.0, timedelta(days=120)))
    async with house(tmp_path, ehr, models__kfre_4var=SITE) as site:
        await site.chart([result("9318-7", 300, timedelta(minutes=1))])
        await site.settled(90)
        assert of(site, "kfre_4var") == []
        assert "out_of_cohort:ckd_duration" in (await site.status())["not_scored"]

        await site.chart([result("2160-0", 0.8, timedelta(days=80), status="entered-in-error")])
        await site.chart([result("9318-7", 310, timedelta(minutes=1))])
        await site.settled(90)
        assert len(of(site, "kfre_4var")) == 1


async def test_what_lies_beyond_the_bound_of_a_search_shows_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.context.reader.MAX_LASTING", 10)
    monkeypatch.setattr("sidecar.context.reader.MAX_SLOW", 10)
    dense = [result("2160-0", 2.2, timedelta(hours=6 * n, minutes=5)) for n in range(12)]
    async with house(tmp_path, models__kfre_4var=SITE) as site:
        await site.ehr.write({"resourceType": "Patient", "id": "p1", **BORN})
        # The rate of four months ago is among what is read for its own code; the normal creatinine since is not.
        await site.chart(
            [result("98979-8", 40, timedelta(days=120)), result("2160-0", 0.8, timedelta(days=80)), *dense]
        )
        await site.chart([result("9318-7", 300, timedelta(minutes=1))])
        await site.settled(90)
        assert of(site, "kfre_4var") == []
        assert "out_of_cohort:ckd_duration" in (await site.status())["not_scored"]


async def charted_long_before(*resources):
    """A practice EHR that has held `resources` for longer than a sidecar looks back when it starts."""
    ago = timedelta(days=2)
    ehr = PracticeEhr(clock=lambda: datetime.now(UTC) - ago)
    await ehr.start()
    for one in resources:
        await ehr.write(one)
    ago = timedelta(0)
    return ehr


async def test_a_diagnosis_makes_the_model_look_at_results_from_before_the_sidecar_came(tmp_path):
    who = {"resourceType": "Patient", "id": "p1", **BORN}
    ehr = await charted_long_before(who, result("98979-8", 28), result("9318-7", 300))
    async with house(tmp_path, ehr, models__kfre_4var=SITE) as site:
        await site.settled()
        assert of(site, "kfre_4var") == []
        await site.chart([diagnosis()])
        await site.settled()
        assert [r["status"] for r in of(site, "kfre_4var")] == ["final"]


async def test_a_diagnosis_that_can_only_exclude_makes_no_score_out_of_nothing(tmp_path):
    ehr = await charted_long_before(patient("p1"), encounter("p1"), *observation_set("p1", now(5), c9279_1=30))
    async with house(tmp_path, ehr) as site:
        pregnancy = diagnosis("77386006")
        await site.chart([pregnancy | {"abatementDateTime": START.date().isoformat()}])
        await site.settled()
        assert site.risk_assessments() == []
        assert await site.rows("SELECT 1 FROM assessment") == []


async def test_an_ehr_without_risk_assessments_gets_the_percentages_as_an_observation_and_their_withdrawal(tmp_path):
    ehr = PracticeEhr(capabilities=Capabilities(types=Capabilities().types - {"RiskAssessment"}))
    async with house(tmp_path, ehr, models__kfre_4var=SITE) as site:
        await site.admit("p1", **BORN)
        await site.chart([diagnosis(), result("98979-8", 28), result("9318-7", 300)])
        await site.settled()
        (written,) = (o for o in ehr.all("Observation") if o["id"].startswith("so-"))
        assert [c["valueQuantity"]["code"] for c in written["component"]] == ["%", "%"]
        assert "% within 5 years" in written["note"][0]["text"]
        await site.chart([result("9318-7", 300, status="entered-in-error")])
        await until(lambda: ehr.read("Observation", written["id"])["status"] == "entered-in-error")
        await site.settled()
        assert "buried" not in (await site.status())["writes"]


async def test_an_ehr_that_reads_fractions_gets_fractions_and_the_same_words(tmp_path, monkeypatch):
    monkeypatch.setenv("SIDECAR__EHR__PROBABILITY", "fraction")
    async with house(tmp_path, models__kfre_4var=SITE) as site:
        await site.admit("p1", **BORN)
        await site.chart([diagnosis(), result("98979-8", 28), result("9318-7", 300)])
        await site.settled()
        (risk,) = of(site, "kfre_4var")
        two = risk["prediction"][0]["probabilityDecimal"]
        assert 0 < two < 1
        assert f"{two * 100:.1f} % within 2 years" in risk["note"][0]["text"]


@pytest.mark.parametrize("sex", ["other", "unknown"])
async def test_who_cannot_be_scored_has_a_stored_reason_and_nothing_in_the_chart(tmp_path, sex):
    async with house(tmp_path, models__kfre_4var=SITE) as site:
        await site.admit("p1", **{**BORN, "gender": sex})
        await site.chart([diagnosis(), result("98979-8", 28), result("9318-7", 300)])
        await site.settled()
        assert of(site, "kfre_4var") == []
        assert (await site.status())["not_scored"].get("missing:sex", 0) >= 1
