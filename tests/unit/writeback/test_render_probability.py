"""What a clinician gets of a probability: two horizons, a percentage in words, and no total."""

import json
import re
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from fhir.resources.R4B import get_fhir_model_class

from sidecar.context import from_bundle
from sidecar.explanation import rationale, reason_in_words
from sidecar.pipeline import conclude
from sidecar.records import Outcome
from sidecar.writeback import Links, device, observation, risk_assessment
from sidecar.writeback.note import percent, text
from tests.unit.chart import REPO, rules
from tests.unit.kidney import acr, creatinine, egfr, judge_ckd, kfre, risks, running, who

FIXTURES = REPO / "fhir_fixtures"
GOLDEN = sorted(path.name for path in (FIXTURES / "input").glob("kfre-*.json"))
MANIFEST = kfre().manifest


def links(conclusion, **more):
    a = conclusion.assessment
    known = {
        "identity": bytes(range(32)), "status": "final", "device": "Device/d1", "rationale": rationale(a, MANIFEST),
        "reasons": tuple(reason_in_words(r, MANIFEST, a.vector.features) for r in a.reasons),
    }  # fmt: skip
    return Links(**{**known, **more})


def risk(conclusion, **more):
    return risk_assessment(conclusion, MANIFEST, links(conclusion, **more))


def note(conclusion):
    return text(conclusion, MANIFEST, "final", links(conclusion).reasons)


def golden(name):
    """Outcome, reasons and resources of a fixture; a name with `other-region` is of a site that chose so."""
    chart = json.loads((FIXTURES / "input" / name).read_text(encoding="utf-8"))
    snapshot = from_bundle(chart, MANIFEST.set_codes, None, ZoneInfo("Europe/London"))
    conclusion = conclude(snapshot, running("other" if "other-region" in name else "north_america"), rules())
    a = conclusion.assessment
    digest = a.model_digest
    to = links(conclusion, device=f"Device/sd-{digest[:40]}")
    found = [device(MANIFEST, digest), risk_assessment(conclusion, MANIFEST, to)] if a.outcome is Outcome.SCORED else []
    written = json.dumps(found)
    for part in (digest, digest[:40], digest[:12]):
        written = written.replace(part, "MANIFEST-DIGEST")
    return {"outcome": a.outcome.value, "reasons": list(a.reasons), "resources": json.loads(written)}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_input_renders_to_its_golden_output(name):
    assert golden(name) == json.loads((FIXTURES / "expected" / name).read_text(encoding="utf-8"))


def test_every_golden_input_has_an_output_and_every_output_an_input():
    assert len(GOLDEN) >= 6
    assert sorted(path.name for path in (FIXTURES / "expected").glob("kfre-*.json")) == GOLDEN


@pytest.mark.parametrize("name", GOLDEN)
def test_every_golden_resource_is_valid_r4(name):
    said = json.loads((FIXTURES / "expected" / name).read_text(encoding="utf-8"))["resources"]
    chart = json.loads((FIXTURES / "input" / name).read_text(encoding="utf-8"))["entry"]
    for resource in [*said, *(entry["resource"] for entry in chart)]:
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)


@pytest.mark.parametrize("convention", ["percent", "fraction", "range"])
@pytest.mark.parametrize("region", ["north_america", "other"])
def test_whatever_the_convention_the_result_is_valid_r4_and_the_note_says_the_percentage(convention, region):
    conclusion = judge_ckd(egfr(25), acr(600), region=region)
    made = risk(conclusion, probability=convention)
    get_fhir_model_class("RiskAssessment").model_validate(made)
    two, five = risks(conclusion)
    said = made["note"][0]["text"]
    assert f"{two * 100:.1f} % within 2 years" in said
    assert f"{five * 100:.1f} % within 5 years" in said


def test_the_conventions_are_a_percentage_a_fraction_and_a_range_in_percent():
    conclusion = judge_ckd(egfr(25), acr(600))
    two, _ = risks(conclusion)
    percentage, fraction, span = (
        risk(conclusion, probability=c)["prediction"][0] for c in ("percent", "fraction", "range")
    )
    assert percentage["probabilityDecimal"] == pytest.approx(two * 100, rel=1e-3)
    assert fraction["probabilityDecimal"] == pytest.approx(two, rel=1e-3)
    assert "probabilityDecimal" not in span
    both = {"value": percentage["probabilityDecimal"], "unit": "%", "system": "http://unitsofmeasure.org", "code": "%"}
    assert span["probabilityRange"] == {"low": both, "high": both}


def test_a_prediction_has_its_outcome_and_runs_from_now_to_its_horizon():
    first, second = risk(judge_ckd(egfr(), acr()))["prediction"]
    for prediction, years in ((first, 2), (second, 5)):
        assert prediction["outcome"]["text"] == f"Kidney failure (dialysis or transplant) within {years} years"
        span = prediction["whenRange"]
        assert [(span[side]["value"], span[side]["code"]) for side in ("low", "high")] == [(0, "a"), (years, "a")]


def bands(conclusion):
    made = risk(conclusion)["prediction"]
    return [p["qualitativeRisk"]["coding"][0]["code"] if "qualitativeRisk" in p else None for p in made]


@pytest.mark.parametrize(
    ("rate", "ratio", "expected"),
    [
        (58, 5, [None, None]),
        (45, 100, [None, "consider-referral"]),
        (35, 100, [None, "refer"]),
        (25, 600, ["multidisciplinary-care", "refer"]),
        (12, 3000, ["plan-kidney-replacement", "refer"]),
    ],
)
def test_a_band_is_given_only_where_guidance_is_cited(rate, ratio, expected):
    conclusion = judge_ckd(egfr(rate), acr(ratio), patient=who(birthDate="1971-03-01"))
    assert bands(conclusion) == expected, risks(conclusion)
    cited = [p["qualitativeRisk"]["text"] for p in risk(conclusion)["prediction"] if "qualitativeRisk" in p]
    assert all(re.search(r"KDIGO 2024|NICE NG203", words) and "not a rule" in words for words in cited)


def test_a_band_begins_exactly_where_it_says():
    output = next(o for o in MANIFEST.outputs if o.name == "five_years")
    found = [output.band(p) for p in (0.02999, 0.03, 0.05, 0.0500001)]
    assert [b.risk if b else None for b in found] == [None, "consider-referral", "consider-referral", "refer"]


@pytest.mark.parametrize(
    ("probability", "said"),
    [(0.0124, "1.2 %"), (0.0003, "less than 0.1 %"), (0.9997, "more than 99.9 %"), (0, "0.0 %"), (1, "100.0 %"), (0.5, "50.0 %")],
)  # fmt: skip
def test_a_percentage_never_reads_as_certainty_by_rounding(probability, said):
    assert percent(probability) == said


def test_a_tiny_risk_is_not_charted_as_none():
    conclusion = judge_ckd(egfr(59), acr(0.5), patient=who(birthDate="1930-01-01", gender="female"))
    assert 0 < risk(conclusion)["prediction"][0]["probabilityDecimal"] < 0.1


def test_the_note_says_region_origin_times_validity_and_limits():
    said = note(judge_ckd(creatinine(177, "umol/L"), acr(ago=timedelta(days=3)), region="other"))
    for part in (
        "region of the baseline risk outside North America (chosen by this site)",
        "eGFR computed from serum creatinine 177 µmol/L by the CKD-EPI 2021 equation",
        "at 1 Mar 2026 12:00 +0000",
        "at 26 Feb 2026 12:00 +0000",
        "Holds until 30 May 2026 12:00 +0000 at the latest.",
        "JAMA 2016;315:164",
    ):
        assert part in said
    assert said.endswith("it does not replace clinical judgement.")


def test_the_rationale_names_every_input_by_what_it_multiplies():
    words = rationale(judge_ckd(egfr(25), acr(600)).assessment, MANIFEST)
    assert words.startswith("hazard compared with the average of the cohorts the equation came from: eGFR")
    assert all(part in words for part in ("age 70 years", "sex male", "ratio 600 mg/g"))


def test_where_only_an_observation_can_be_written_it_holds_the_percentages_and_the_note_and_no_total():
    conclusion = judge_ckd(egfr(25), acr(600))
    made = observation(conclusion, MANIFEST, links(conclusion))
    get_fhir_model_class("Observation").model_validate(made)
    assert not [key for key in made if key.startswith("value")]
    values = [c["valueQuantity"] for c in made["component"]]
    assert [v["value"] for v in values] == pytest.approx([p * 100 for p in risks(conclusion)], rel=1e-3)
    assert {v["code"] for v in values} == {"%"}
    assert "% within 2 years" in made["note"][0]["text"]


def test_a_result_that_can_no_longer_be_computed_says_so_and_predicts_nothing():
    conclusion = judge_ckd(egfr())
    made = risk(conclusion, status="corrected")
    get_fhir_model_class("RiskAssessment").model_validate(made)
    assert "prediction" not in made
    assert "No current KFRE (4 variables): urine albumin-to-creatinine ratio not charted." in made["note"][0]["text"]
