"""Ages over 89 that no element of FHIR says to be ages: by a code, by a year beside them, by a number alone."""

import json

import pytest

from sidecar.deid.general import Mode
from tests.unit.deid.general import bundle, engine

UCUM, LOINC = "http://unitsofmeasure.org", "http://loinc.org"
SAFE = Mode.SAFE_HARBOR_RULES
CAPPED = {"value": 90, "comparator": ">=", "unit": "a", "system": UCUM, "code": "a"}
AGE, RATE, BORN = ({"coding": [{"system": LOINC, "code": code}]} for code in ("30525-0", "8867-4", "80904-6"))
LOCAL = {"coding": [{"system": "urn:local", "code": "AGE"}], "text": "Age"}
MASKED = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "masked"}]}


def years(value, **more):
    return {"value": value, "unit": "a", "system": UCUM, "code": "a", **more}


def reading(code, **more):
    return {"resourceType": "Observation", "status": "final", "code": code, **more}


def value_of(out):
    return {name: value for name, value in out.items() if name.startswith("value")}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ({"valueQuantity": {"value": 95, "comparator": "<"}}, {}),
        ({"valueQuantity": {"value": 95, "comparator": "<="}}, {}),
        ({"valueQuantity": {"value": 95, "comparator": ">"}}, {"valueQuantity": CAPPED}),
        ({"valueQuantity": {"value": 90}}, {"valueQuantity": CAPPED}),
        ({"valueQuantity": {"value": 89}}, {"valueQuantity": {"value": 89}}),
        ({"valueQuantity": {"value": 89, "unit": "{count}"}}, {"valueQuantity": {"value": 89}}),
        ({"valueQuantity": {"value": 89, "comparator": "<"}}, {"valueQuantity": {"value": 89, "comparator": "<"}}),
        ({"valueQuantity": {"value": 45, "unit": "years"}}, {"valueQuantity": years(45)}),
        ({"valueQuantity": {"value": 1200, "unit": "months"}}, {"valueQuantity": CAPPED}),
        ({"valueQuantity": {"value": 8, "unit": "decades"}}, {}),
        ({"valueQuantity": {"value": 96, "unit": "kg", "system": UCUM, "code": "kg"}}, {}),
        ({"valueQuantity": {"value": 96, "code": ["a"]}}, {}),
        ({"valueQuantity": {"value": -95}}, {}),
        ({"valueInteger": 90}, {"valueQuantity": CAPPED}),
        ({"valueInteger": 89}, {"valueInteger": 89}),
        ({"valueRange": {"low": {"value": 92}, "high": {"value": 95}}}, {"valueRange": {"low": {k: v for k, v in CAPPED.items() if k != "comparator"}}}),
        ({"valueRange": {"low": {"value": 80}, "high": {"value": 95}}}, {"valueRange": {"low": {"value": 80}}}),
        ({"valueRange": {"low": {"value": 80}, "high": {"value": 9, "unit": "decades"}}}, {}),
        ({"valueRange": {"high": {"value": 95}}}, {}),
        ({"valueRatio": {"numerator": {"value": 96}, "denominator": {"value": 1}}}, {}),
        ({"valueCodeableConcept": {"coding": [{"system": LOINC, "code": "LA33-6"}]}}, {}),
        ({"valueBoolean": True}, {}),
    ],
)  # fmt: skip
def test_the_value_of_an_age_is_an_age_under_90_or_more_or_nothing(written, kept):
    """By the code of the statement, of a component, or of the panel that a component stands in."""
    own = engine(SAFE).resource(reading(AGE, **written))
    assert value_of(own) == kept
    part = engine(SAFE).resource(reading(RATE, component=[{"code": AGE, **written}]))["component"][0]
    assert value_of(part) == kept
    inside = engine(SAFE).resource(reading(AGE, component=[{"code": RATE, **written}]))["component"][0]
    assert value_of(inside) == kept
    for out in (own, part, inside):
        assert ("dataAbsentReason" in out) is (kept == {})


def test_the_range_that_is_normal_for_an_age_tells_the_age():
    normal = [{"low": {"value": 96}, "high": {"value": 97}}]
    assert "96" not in json.dumps(engine(SAFE).resource(reading(AGE, valueInteger=96, referenceRange=normal)))


@pytest.mark.parametrize(
    "value", [{"valueQuantity": years(96)}, {"valueQuantity": {"value": 96, "unit": "Lenze"}}, {"valueInteger": 96}]
)
@pytest.mark.parametrize("mode", Mode)
def test_a_number_under_a_code_that_may_not_cross_is_withheld(mode, value):
    """It may be an age, a telephone number or a number of a record."""
    out = engine(mode).resource(reading(LOCAL, component=[{"code": LOCAL, **value}], **value))
    assert value_of(out) == value_of(out["component"][0]) == {}
    assert out["dataAbsentReason"] == out["component"][0]["dataAbsentReason"] == MASKED


@pytest.mark.parametrize(
    "value",
    [
        {"valueInteger": 1934},
        {"valueQuantity": {"value": 1934, "unit": "a", "system": UCUM, "code": "a"}},
        {"valueQuantity": {"value": 1934}},
    ],
)
def test_a_year_of_birth_as_an_observation_goes_where_dates_are_moved_or_cut(value):
    for mode in (SAFE, Mode.KEYED_PSEUDONYMS):
        out = engine(mode).resource(reading(BORN, component=[{"code": BORN, **value}], **value))
        assert value_of(out) == value_of(out["component"][0]) == {}
        assert out["dataAbsentReason"] == MASKED
    assert value_of(engine(Mode.LIMITED_DATA_SET).resource(reading(BORN, **value))) == value


@pytest.mark.parametrize(("answer", "kept"), [
    ({"value": 92}, False), ({"value": 92, "unit": "summers"}, False), ({"value": 12}, True), (years(92), True),
    ({"value": 92, "unit": "kg", "system": UCUM, "code": "kg"}, True),
])  # fmt: skip
def test_an_answer_that_may_be_an_age_is_none(answer, kept):
    asked = {"resourceType": "QuestionnaireResponse", "status": "completed"}
    out = engine(SAFE).resource({**asked, "item": [{"linkId": "/44250-9", "answer": [{"valueQuantity": answer}]}]})
    assert ("answer" in out["item"][0]) is kept
    assert '92, "unit": "a"' not in json.dumps(out)
    unknown = {**asked, "item": [{"linkId": "age", "answer": [{"valueQuantity": answer}, {"valueBoolean": True}]}]}
    for mode in Mode:
        assert engine(mode).resource(unknown)["item"] == [{"answer": [{"valueBoolean": True}]}]


@pytest.mark.parametrize(
    ("age", "recorded", "kept"),
    [
        (85, "2015-03-01", False),  # born by 1930
        (85, "2025-03-01", True),
        (60, "2015-03-01", True),
        (78, "2015-03-01", False),  # born in 1936 or 1937
        (77, "2015-03-01", True),
        (30, "1960", False),
        (8, "2015-03-01", True),
        (85, None, True),
    ],
)
def test_an_age_beside_a_year_that_makes_somebody_over_89_is_left_out(age, recorded, kept):
    told = {"recordedDate": recorded} if recorded else {}
    sick = {
        "resourceType": "Condition",
        "id": "c",
        "subject": {"reference": "Patient/p"},
        "onsetAge": years(age),
        **told,
    }
    assert ("onsetAge" in engine(SAFE).resource(sick)) is kept
    span = {**sick, "onsetRange": {"low": years(age - 1), "high": years(age)}}
    assert ("onsetRange" in engine(SAFE).resource(span)) is kept
    dated = {"effectiveDateTime": recorded} if recorded else {}
    seen = reading(AGE, valueInteger=age, subject={"reference": "Patient/p"}, **dated)
    assert ("valueInteger" in engine(SAFE).resource(seen)) is kept
    inside = {**{k: v for k, v in sick.items() if k != "recordedDate"}, "id": "i"}
    holder = reading(RATE, contained=[inside], subject={"reference": "Patient/p"}, **dated)
    assert ("onsetAge" in engine(SAFE).resource(holder)["contained"][0]) is kept
    assert "onsetAge" in engine().resource(sick)


def test_an_age_that_another_resource_may_date_is_left_out():
    sick = {"resourceType": "Condition", "onsetAge": years(85), "encounter": {"reference": "Encounter/e"}}
    assert "onsetAge" not in engine(SAFE).resource(sick)
    ended = {**sick, "abatementAge": years(86)}
    assert engine(SAFE).resource(ended)["abatementString"] == "masked"


def test_a_relatives_age_at_death_stays_whenever_that_was():
    history = {"resourceType": "FamilyMemberHistory", "status": "completed", "date": "1990-01-01"}
    out = engine(SAFE).resource({**history, "deceasedAge": years(69), "ageAge": years(69)})
    assert out["deceasedAge"] == years(69)
    assert "ageAge" not in out


def test_a_range_for_the_oldest_tells_no_age_and_is_not_left_as_everybodys():
    ranges = [
        {"low": {"value": 1}, "age": {"low": years(92)}},
        {"low": {"value": 2}, "age": {"low": {"value": 92}}},
        {"low": {"value": 3}},
    ]
    out = engine(SAFE).resource(reading(RATE, referenceRange=ranges))
    assert [
        (each["low"]["value"], each.get("age", {}).get("low", {}).get("value")) for each in out["referenceRange"]
    ] == [(1, 90), (3, None)]
    local = [{"low": {"value": 1}, "appliesTo": [{"text": "runners"}]}]
    assert "referenceRange" not in engine().resource(reading(RATE, referenceRange=local))


def test_a_goal_that_does_not_say_what_is_measured_keeps_no_number():
    target = [{"measure": LOCAL, "detailQuantity": years(3)}, {"measure": RATE, "detailInteger": 70}]
    out = engine().resource({"resourceType": "Goal", "lifecycleStatus": "active", "target": target})
    assert out["target"] == [{"measure": RATE, "detailInteger": 70}]


def test_nobody_over_89_is_found_in_a_chart_of_every_shape():
    """One person of 96, in each shape that an age is charted in."""
    about = {"reference": "Patient/p"}
    who = {"resourceType": "Patient", "id": "p", "birthDate": "1930-06-10"}
    charted = [
        reading(AGE, valueInteger=96, subject=about), reading(LOCAL, valueInteger=96, subject=about),
        reading(BORN, valueInteger=1930, subject=about), reading(RATE, valueQuantity={"value": 96, "unit": "Jahre"}, subject=about),
        {"resourceType": "Condition", "subject": about, "onsetRange": {"low": {"value": 96}, "high": {"value": 96}}},
        {"resourceType": "Procedure", "subject": about, "performedAge": {"value": 96, "unit": "yo"}},
        {"resourceType": "FamilyMemberHistory", "patient": about, "ageRange": {"low": {"value": 96}}},
    ]  # fmt: skip
    out = engine(SAFE).resource(bundle(who, *charted))
    assert not {96, 1930} & {value for value in numbers_of(out) if not isinstance(value, bool)}


def numbers_of(value):
    """Every number of a JSON value, and every string that is one."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers_of(each)
    elif isinstance(value, int | float) or (isinstance(value, str) and value.isdigit()):
        yield float(value)
