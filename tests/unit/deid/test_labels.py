"""A result is as sensitive as what it rests on, and its words do not name what would reveal a condition."""

from zoneinfo import ZoneInfo

import pytest

from sidecar.commands.score import line_of
from sidecar.deid import inherited, is_sensitive, load_rules
from sidecar.errors import Misconfigured
from sidecar.explanation import reason_in_words
from tests.unit.chart import (
    AT,
    LOINC,
    REPO,
    SCT,
    amount,
    bundle,
    model,
    observation,
    person,
    rules,
    scale,
    stay,
    vitals,
)
from tests.unit.kidney import acr, chronic, condition, creatinine, judge, judge_ckd, kfre

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


def labelled(*labels):
    return {"security": [dict(zip(("system", "code"), label.split("|"), strict=True)) for label in labels]}


def result(**changes):
    """What would be written of a ward patient with a raised pulse and breathing rate."""
    chart = bundle(person(), stay(), *vitals(**{"pulse": fast(), **changes}).values())
    said = line_of(chart, model(), rules(), AT, ZoneInfo("UTC"))
    return said, {r["resourceType"]: r for r in said["resources"]}


def fast(**more):
    return observation(f"{LOINC}|8867-4", valueQuantity=amount(135, "/min"), **more)


def test_a_result_inherits_the_labels_of_what_it_rests_on_and_of_confidentiality_the_highest():
    said, made = result(respiratory_rate=observation(
        f"{LOINC}|9279-1", valueQuantity=amount(26, "/min"), meta=labelled(f"{CONFIDENTIALITY}|N", f"{ACT}|PSY", "urn:site|VIP")
    ))  # fmt: skip
    for kind in ("RiskAssessment", "Observation"):
        codes = {f"{c['system']}|{c['code']}" for c in made[kind]["meta"]["security"]}
        assert codes >= {f"{CONFIDENTIALITY}|N", f"{ACT}|PSY", "urn:site|VIP"}
    assert said["outcome"] == "scored"


@pytest.mark.parametrize("order", [("N", "R"), ("R", "N"), ("R", "L"), ("U", "R")])
def test_of_several_degrees_of_confidentiality_only_the_highest_is_inherited(order):
    found = inherited({"meta": labelled(f"{CONFIDENTIALITY}|{degree}")} for degree in order)
    assert found == (f"{CONFIDENTIALITY}|R",)


@pytest.mark.parametrize(
    "bad", [None, [], "x", [{"system": 1, "code": {}}], {"system": "a"}, [{"system": "a\nb", "code": "c"}]]
)
def test_a_label_of_another_shape_is_no_label(bad):
    assert inherited([{"meta": {"security": bad}}, {"meta": bad}]) == ()


@pytest.mark.parametrize("label", [f"{ACT}|HIV", f"{CONFIDENTIALITY}|R", f"{ACT}|42CFRPart2"])
def test_no_words_name_an_input_that_a_label_holds_back_and_the_total_counts_it_all_the_same(label):
    breathing = {"valueQuantity": amount(26, "/min")}
    plain, _ = result(respiratory_rate=observation(f"{LOINC}|9279-1", **breathing))
    held, made = result(respiratory_rate=observation(f"{LOINC}|9279-1", meta=labelled(label), **breathing))
    risk = made["RiskAssessment"]
    words = risk["prediction"][0]["rationale"] + risk["note"][0]["text"] + str(made["Observation"]["component"])
    assert plain["score"] == held["score"] > 3
    assert "espiratory rate" in str(plain["resources"])
    assert "espiratory rate" not in words
    assert "pulse 135" in words.casefold()
    assert "sensitive" in risk["prediction"][0]["rationale"]


def test_an_input_is_held_back_by_its_code_too():
    policy = rules()
    hiv = {"code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "B20.1"}]}}
    flu = {
        "code": {
            "coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "J10.1"}, {"system": {}, "code": []}]
        }
    }
    assert (is_sensitive(hiv, policy), is_sensitive(flu, policy), is_sensitive({}, policy)) == (True, False, False)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("[sensitive.codes]", "[sensitive.code]"), ('"86406008"', "86406008"), ('"Z21", "R75", "F10"', '""'), ("labels = [", "labels = [1, ")],
)  # fmt: skip
def test_a_list_of_what_is_sensitive_that_does_not_parse_stops_the_start(right, wrong):
    shipped = (REPO / "sidecar" / "deid" / "rules.toml").read_text()
    assert right in shipped
    with pytest.raises(Misconfigured, match="sensitive"):
        load_rules(shipped.replace(right, wrong, 1).encode())


RESTRICTED = labelled(f"{CONFIDENTIALITY}|R")


def words_of(resources):
    """All that a person or a program reads of them, but for the links to what they rest on."""
    return str([{k: v for k, v in r.items() if k not in {"basis", "derivedFrom", "meta"}} for r in resources])


def test_an_implausible_value_that_is_held_back_is_not_shown_for_checking():
    said, _ = result(pulse=observation(f"{LOINC}|8867-4", valueQuantity=amount(290, "/min"), meta=RESTRICTED))
    words = words_of(said["resources"])
    assert said["outcome"] == "incomplete"
    assert "cannot be used" in words
    assert "pulse" not in words.casefold().replace("8867", "")
    assert "290" not in words


def test_when_all_that_counts_is_held_back_the_words_do_not_say_that_nothing_counts():
    said, made = result(pulse=fast(meta=RESTRICTED))
    assert said["score"] == 3
    assert made["RiskAssessment"]["prediction"][0]["rationale"] == "what it comes from is not named (sensitive)"


def test_a_component_that_tells_of_a_decision_that_is_held_back_is_left_out():
    plain, open_ = result(on_scale2=scale(2))
    held, made = result(on_scale2={**scale(2), "meta": RESTRICTED})
    assert "scale 2" in words_of(plain["resources"])
    assert "scale 2" not in words_of(held["resources"])
    assert len(made["Observation"]["component"]) == len(open_["Observation"]["component"]) - 1


def test_a_remark_does_not_tell_of_the_reading_that_a_held_back_value_was_computed_from():
    told = judge_ckd(creatinine(2.3), acr()).assessment
    held = judge_ckd(creatinine(2.3, meta=RESTRICTED), acr()).assessment
    assert "serum creatinine 2.3" in str(told.vector.remarks)
    assert "creatinine" not in str(held.vector.remarks)
    assert held.probabilities == told.probabilities


def test_a_diagnosis_that_only_the_cohort_asks_for_labels_the_result_and_its_refusal_is_not_spelt_out():
    ill = {**chronic(), "meta": RESTRICTED}
    scored = judge(ill, creatinine(2.3), acr())
    assert scored.assessment.probabilities
    assert scored.evidence.labels == (f"{CONFIDENTIALITY}|R",)

    dialysis = {**condition(f"{SCT}|46177005"), "meta": RESTRICTED}
    refused = judge(chronic(), dialysis, creatinine(2.3), acr())
    a = refused.assessment
    assert a.reasons == ("out_of_cohort:dialysis",)
    said = reason_in_words(a.reasons[0], kfre().manifest, a.vector.features, a.withheld)
    assert "dialysis" not in said
    assert refused.evidence.labels == (f"{CONFIDENTIALITY}|R",)


def test_every_label_is_inherited_however_many_and_one_without_a_system_too():
    many = [{"system": "urn:site", "code": f"c{n}"} for n in range(99)]
    found = inherited([{"meta": {"security": [*many, {"code": "house"}]}}])
    assert len(found) == 100
    assert "|house" in found
