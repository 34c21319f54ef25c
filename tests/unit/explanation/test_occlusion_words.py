"""What a clinician reads of a probability by occlusion: the strongest inputs, by how much, and compared with what."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as struct

from sidecar.explanation import rationale
from tests.unit.kidney import kfre
from tests.unit.opaque import FEATURES, MANIFEST, early_warning, fresh, judge, readings

BEGINNING = "by occlusion, one input at a time (not additive, not SHAP): "


def said(conclusion=None, model=None, **changes):
    a = (conclusion or judge(*readings())).assessment
    if changes:
        a = replace(a, contributions={name: changes.get(name, 0.0) for name in FEATURES})
    return rationale(a, (model or early_warning()).manifest)


def test_the_strongest_come_first_each_with_its_change_and_what_it_is_compared_with():
    assert said() == BEGINNING + (
        "respiratory rate 26/min (+30.2 percentage points compared with 16/min), "
        "oxygen saturation 90 % (+27.8 percentage points compared with 97 %), "
        "systolic blood pressure 95 mmHg (+17.4 percentage points compared with 120 mmHg), "
        "heart rate 120/min (+6.6 percentage points compared with 80/min)"
    )


def test_what_lowers_the_probability_is_as_strong_as_what_raises_it():
    assert said(pulse=0.02, spo2=-0.081) == BEGINNING + (
        "oxygen saturation 90 % (-8.1 percentage points compared with 97 %), "
        "heart rate 120/min (+2.0 percentage points compared with 80/min)"
    )


def test_a_change_that_rounds_to_nothing_is_left_out_on_either_side():
    assert said(pulse=0.00049, spo2=-0.00049, systolic_bp=0.00051) == BEGINNING + (
        "systolic blood pressure 95 mmHg (+0.1 percentage points compared with 120 mmHg)"
    )


def test_where_no_input_alone_changes_anything_that_is_said():
    assert said(pulse=0.0001) == BEGINNING + (
        "no input changes the probability by 0.1 percentage points compared with a typical value"
    )


def test_it_is_compared_with_what_it_was_computed_with_whatever_the_manifest_says_by_now():
    other = fresh(None, MANIFEST.replace("pulse = 80 }", "pulse = 60 }"))
    assert "heart rate 120/min (+6.6 percentage points compared with 80/min)" in said(model=other)


def test_terms_of_another_version_of_a_model_are_not_told_as_if_they_were_points():
    a = replace(judge(*readings()).assessment, typical={}, contributions={"pulse": 0.9})
    assert rationale(a, early_warning().manifest) == "no explanation is kept of this probability"


def test_a_model_of_terms_that_had_none_before_still_says_how_the_old_result_came_to_be():
    a = judge(*readings()).assessment
    aged = {"age": 0.1}
    old = replace(
        a, vector=replace(a.vector, features=(struct(a.vector.features[0], name="age", value=70.0, unit="a"),))
    )
    assert rationale(replace(old, contributions=aged, typical={"age": 50.0}), kfre().manifest) == BEGINNING + (
        "age 70 years (+10.0 percentage points compared with 50 years)"
    )


@settings(max_examples=100, deadline=None, print_blob=True)
@given(st.fixed_dictionaries({name: st.floats(-1, 1) for name in FEATURES}))
def test_every_change_that_is_seen_is_told_or_counted(changes):
    text = said(**changes)
    seen = sum(round(change * 100, 1) != 0 for change in changes.values())
    assert text.count("percentage points compared with") == max(seen, 1)
    assert text.startswith(BEGINNING)


def test_beyond_six_the_rest_is_counted():
    a = judge(*readings()).assessment
    text = MANIFEST
    names = [f"extra_{n}" for n in range(5)]
    for name in names:
        text += f'\n[features.{name}]\nlabel = "{name}"\nunit = "1"\nmax_age = "4h"\n[[features.{name}.from]]\ncodes = ["a|{name}"]\n'
    manifest = fresh(None, text).manifest
    more = tuple(struct(a.vector.features[0], name=n, value=1.0) for n in names)
    wide = replace(
        a, vector=replace(a.vector, features=(*a.vector.features, *more)),
        contributions={**a.contributions, **dict.fromkeys(names, 0.01)}, typical={**a.typical, **dict.fromkeys(names, 0.0)},
    )  # fmt: skip
    assert rationale(wide, manifest).endswith(" and 3 more")


SHARES = {"respiratory_rate": 0.021, "spo2": 0.3, "pulse": -0.1, "systolic_bp": 0.0001}


def shared(*withheld, shares=SHARES):
    a = replace(judge(*readings()).assessment, typical={}, contributions=shares, baseline=0.031, withheld=withheld)
    return rationale(a, early_warning().manifest)


def test_beside_a_share_that_is_withheld_there_is_neither_a_mean_nor_another_share():
    """Shares sum to the probability less the mean: all but one of them are that one."""
    assert "from 3.1 %" in shared()
    assert "+30.0 percentage points" in shared()
    assert shared("respiratory_rate") == (
        "by Shapley values: oxygen saturation 90 %, heart rate 120/min; "
        "an input is not named (sensitive), so no input has a number here"
    )
    assert shared("respiratory_rate", "spo2", "pulse") == "what it comes from is not named (sensitive)"
    assert shared("spo2", shares={"spo2": 0.0, "pulse": 0.0}) == "what it comes from is not named (sensitive)"


def test_beside_a_change_that_is_withheld_the_others_stay_as_they_sum_to_nothing():
    a = replace(judge(*readings()).assessment, withheld=("spo2",))
    words = rationale(a, early_warning().manifest)
    assert "respiratory rate 26/min (+30.2 percentage points" in words
    assert "oxygen" not in words
