"""What is concluded of several outputs, of points that belong to no input, and of limits that act."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import manifest as manifests
from sidecar.errors import Misconfigured
from sidecar.explanation import conclude, limits_that_act, rationale, rationales, reason_in_words
from sidecar.records import Assessment, Feature, FeatureVector, Outcome
from tests.unit.equations import folder, golden, loaded, of_bundle

PREVENT = {
    "age": 50, "sex": 1, "total_cholesterol": 200, "hdl_cholesterol": 45, "systolic_bp": 160, "diabetes": 1,
    "smoking": 0, "bmi": 35, "egfr": 90, "bp_treated": 1, "statin": 0,
}  # fmt: skip
MELD = {
    "age": 50, "sex": 1, "bilirubin": 2, "sodium": 134, "inr": 1.4, "creatinine": 1.3, "dialysis": 0, "albumin": 3,
}  # fmt: skip


def vector(values, **more):
    reasons = {name: f"missing:{name}" for name, value in {**values, **more}.items() if math.isnan(value)}
    return FeatureVector(tuple(Feature(n, float(v), "1", reason=reasons.get(n)) for n, v in {**values, **more}.items()))


def concluded(name, values, **more):
    found = vector(values, **more)
    return conclude(loaded(name).manifest, found, loaded(name).score(found))


def assessed(name, values, **more):
    c = concluded(name, values, **more)
    return Assessment(
        model=name, version="1.0.0", model_digest="d", policy_digest="p", outcome=c.outcome, reasons=c.reasons,
        score=c.score, at_least=c.at_least, risk=c.risk, urgent=c.urgent, vector=vector(values, **more),
        contributions=c.contributions, probabilities=c.probabilities, terms=c.terms,
    )  # fmt: skip


def test_an_output_that_is_not_for_the_patient_is_left_out_with_its_reason_and_the_others_are_given():
    c = concluded("aha_prevent", PREVENT, age=65)
    assert (c.outcome, c.reasons) == (Outcome.SCORED, ("out_of_cohort:age_30_years",))
    assert set(c.probabilities) == set(c.terms) == {n for n in c.probabilities if n.endswith("_10yr")}
    assert len(c.probabilities) == 5
    assert "30 to 59" in reason_in_words(c.reasons[0], loaded("aha_prevent").manifest)


def test_with_an_input_missing_no_output_is_given():
    c = concluded("aha_prevent", PREVENT, smoking=math.nan)
    assert (c.outcome, c.reasons, dict(c.probabilities)) == (Outcome.NOT_SCORED, ("missing:smoking",), {})


def test_what_the_graph_refuses_is_not_computable_even_if_no_rule_says_so():
    assert concluded("aha_prevent", PREVENT, statin=2).reasons == ("not_computable",)
    assert concluded("meld_3", MELD, inr=0).reasons == ("not_computable",)


def test_a_total_without_a_rule_for_incomplete_ones_is_not_scored_when_an_input_is_missing():
    c = concluded("meld_3", MELD, albumin=math.nan)
    assert (c.outcome, c.score, c.at_least, c.reasons) == (Outcome.NOT_SCORED, None, None, ("missing:albumin",))


def test_each_output_has_the_words_of_its_own_terms():
    said = rationales(assessed("aha_prevent", PREVENT), loaded("aha_prevent").manifest)
    assert len(said) == len(set(said.values())) == 10
    assert "body mass index 35 kg/m2" in said["heart_failure_10yr"]
    assert "total cholesterol" not in said["heart_failure_10yr"], "that equation has none"
    assert "body mass index" not in said["ascvd_10yr"], "that equation has none"


def test_points_of_no_input_are_said_after_the_others_and_never_in_place_of_one():
    said = rationale(assessed("meld_3", MELD), loaded("meld_3").manifest)
    inputs, _, rest = said.partition("; ")
    assert inputs.count("(") == 3
    assert rest.startswith("the constant of the equation (6), rounding to a whole number")


@settings(max_examples=100, deadline=None, print_blob=True)
@given(st.floats(0.2, 30), st.integers(115, 145), st.floats(0.5, 5), st.floats(1, 5))
def test_a_limit_of_the_equation_is_said_exactly_when_it_acts(bilirubin, sodium, creatinine, albumin):
    values = {**MELD, "bilirubin": bilirubin, "sodium": sodium, "creatinine": creatinine, "albumin": albumin}
    said = " ".join(limits_that_act(loaded("meld_3").manifest, vector(values)))
    assert ("Bilirubin below 1 mg/dL counts as 1" in said) == (bilirubin < 1)
    assert ("Sodium below 125 mmol/L counts as 125" in said) == (sodium < 125)
    assert ("Sodium above 137 mmol/L counts as 137" in said) == (sodium > 137)
    assert ("Creatinine above 3 mg/dL counts as 3" in said) == (creatinine > 3)
    assert ("Albumin above 3.5 g/dL counts as 3.5" in said) == (albumin > 3.5)


def test_a_limit_is_not_said_of_an_input_that_is_not_named():
    said = limits_that_act(loaded("meld_3").manifest, vector(MELD, bilirubin=0.5), ("bilirubin",))
    assert said == ()


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        ("total_cholesterol", (129.9, 130, 320, 320.1)), ("hdl_cholesterol", (19.9, 20, 100, 100.1)),
        ("systolic_bp", (89.9, 90, 200, 200.1)), ("bmi", (18.4, 18.5, 39.9, 40)), ("egfr", (14.9, 15, 140, 140.1)),
    ],
)  # fmt: skip
def test_the_manifest_refuses_in_words_exactly_what_the_graph_refuses(feature, values):
    rules = [r for r in loaded("aha_prevent").manifest.cohort.exclude_when if r.feature == feature]
    for value in values:
        refused = concluded("aha_prevent", PREVENT, **{feature: value}).outcome is Outcome.NOT_SCORED
        assert any(rule.holds(value) for rule in rules) == refused, value
    assert all("out of the range" in reason_in_words(f"out_of_cohort:{r.reason}", loaded("aha_prevent").manifest) for r in rules)  # fmt: skip


def test_the_quick_sofa_is_kept_with_the_total_and_not_charted():
    line = of_bundle("news2", golden("news2-total.json"), at=None)
    assert set(line["further"]) == {"qsofa"}
    assert "qsofa" not in str(line["resources"]).lower()


CHANGES = [
    ("lace", "point_names = [\n", 'rest = { nowhere = "x" }\npoint_names = [\n', "rest names what is no point"),
    ("hospital_score", 'source = "Donzé 2016, potentially avoidable readmission within 30 days"\n', "", "observed needs source"),
    ("meld_3", 'feature = "bilirubin"\nbelow = 1', 'feature = "platelets"\nbelow = 1', "platelets"),
    ("meld_3", 'feature = "bilirubin"\nbelow = 1', 'feature = "bilirubin"\nbelow = 1\nabove = 2', "use one of below, above, equals"),
    ("aha_prevent", '{ feature = "age", at_least = 60,', '{ feature = "weight", at_least = 60,', "weight"),
    ("aha_prevent", '{ feature = "age", at_least = 60,', '{ feature = "age", at_least = 60, above = 59,', "use one of"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "said"), CHANGES)
def test_what_cannot_work_is_refused_and_says_what(tmp_path, name, old, new, said):
    text = (folder(name) / "manifest.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "manifest.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(Misconfigured) as refused:
        manifests.load(path)
    assert said in str(refused.value.problems)
