"""A result is as sensitive as what it rests on, and its words do not name what would reveal a condition."""

from zoneinfo import ZoneInfo

import pytest

from sidecar.commands.score import line_of
from sidecar.deid import inherited, is_sensitive, load_rules
from sidecar.errors import Misconfigured
from tests.unit.chart import AT, LOINC, REPO, amount, bundle, model, observation, person, rules, stay, vitals

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


def labelled(*labels):
    return {"security": [dict(zip(("system", "code"), label.split("|"), strict=True)) for label in labels]}


def result(**changes):
    """What would be written of a ward patient with a raised pulse and breathing rate."""
    chart = bundle(person(), stay(), *vitals(pulse=fast(), **changes).values())
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
