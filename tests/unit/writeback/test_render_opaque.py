"""What an EHR gets of a classifier's result: one prediction, how it was explained, and that this is not additive."""

from dataclasses import replace

import pytest
from fhir.resources.R4B import get_fhir_model_class

from sidecar.explanation import rationale, reason_in_words
from sidecar.records import ENDED, Conclusion
from sidecar.writeback import Links, observation, risk_assessment
from tests.unit.opaque import SICK, early_warning, judge, probability, readings

MANIFEST = early_warning().manifest
HOW = "found by occlusion"


def links(conclusion, **more):
    a = conclusion.assessment
    known = {
        "identity": bytes(range(32)), "status": "final", "device": "Device/d1", "rationale": rationale(a, MANIFEST),
        "reasons": tuple(reason_in_words(r, MANIFEST, a.vector.features) for r in a.reasons),
    }  # fmt: skip
    return Links(**{**known, **more})


def risk(conclusion, **more):
    return risk_assessment(conclusion, MANIFEST, links(conclusion, **more))


def ended(conclusion):
    a = conclusion.assessment
    said = replace(a.vector, remarks=(*a.vector.remarks, f"{ENDED}the patient was discharged."))
    return Conclusion(replace(a, vector=said), conclusion.evidence)


@pytest.mark.parametrize("convention", ["percent", "fraction", "range"])
def test_the_risk_assessment_is_valid_r4_with_one_prediction_that_says_why(convention):
    conclusion = judge(*readings())
    made = risk(conclusion, probability=convention)
    get_fhir_model_class("RiskAssessment").model_validate(made)
    (prediction,) = made["prediction"]
    assert prediction["rationale"] == rationale(conclusion.assessment, MANIFEST)
    assert prediction["qualitativeRisk"]["coding"][0]["code"] == "review"
    assert [prediction["whenRange"][side]["value"] for side in ("low", "high")] == [0, 24]
    value = probability(SICK)
    found = {
        "percent": lambda: prediction["probabilityDecimal"] / 100,
        "fraction": lambda: prediction["probabilityDecimal"],
        "range": lambda: prediction["probabilityRange"]["low"]["value"] / 100,
    }[convention]()
    assert found == pytest.approx(value, rel=1e-3)


def test_the_note_says_the_result_every_input_and_how_it_was_explained():
    said = risk(judge(*readings()))["note"][0]["text"]
    assert "92.4 % within 24 hours (20 % or more: review now; local guideline)" in said
    for part in ("respiratory rate 26/min", "oxygen saturation 90 %", "heart rate 120/min"):
        assert part in said
    assert HOW in said
    assert "do not add up to the probability, and they are not Shapley values" in said
    assert " point" not in said.replace("percentage point", "")


def test_an_observation_that_stands_alone_has_the_percentage_and_its_rationale_in_the_note():
    conclusion = judge(*readings())
    made = observation(conclusion, MANIFEST, links(conclusion, alone=True))
    get_fhir_model_class("Observation").model_validate(made)
    (component,) = made["component"]
    assert component["valueQuantity"]["value"] == pytest.approx(probability(SICK) * 100, rel=1e-3)
    said = made["note"][0]["text"]
    assert f"What it comes from: {rationale(conclusion.assessment, MANIFEST)}." in said
    assert HOW in said


def test_a_result_that_does_not_stand_any_more_explains_nothing():
    conclusion = ended(judge(*readings()))
    made = observation(conclusion, MANIFEST, links(conclusion, status="amended", alone=True))
    beside = risk(conclusion, status="amended")
    assert "prediction" not in beside
    for text in (made["note"][0]["text"], beside["note"][0]["text"]):
        assert text.startswith(ENDED)
        assert HOW not in text
        assert "What it comes from" not in text


def test_what_was_entered_in_error_gives_no_rationale_to_act_on():
    conclusion = judge(*readings())
    made = observation(conclusion, MANIFEST, links(conclusion, status="entered-in-error", alone=True))
    assert "What it comes from" not in made["note"][0]["text"]
    assert HOW not in made["note"][0]["text"]
