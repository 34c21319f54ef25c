"""Under the rules of Safe Harbor no age of 90 or more crosses from a statement, whichever way a model asks for it."""

import math

import pytest

from sidecar.context import from_bundle
from sidecar.deid import Mode, deidentify
from sidecar.features import Extractor, SiteChoices
from tests.unit.chart import AT, SCT, UCUM, bundle, concept, person, rules
from tests.unit.language import ICD, SUBJECT, ago, diagnosis, manifest, procedure

AGE, ONSET = "http://loinc.org|30525-0", "http://loinc.org|21612-7"
CAPPED = "deid:age_capped"
OVER = [
    {"value": 92, "unit": "a"},
    {"value": 90, "unit": "years"},
    {"value": 1104, "unit": "mo"},
    {"value": 95, "unit": "kg"},
    {"value": "90"},
]


def crossed(spec, charted, mode=Mode.SAFE_HARBOR_RULES):
    extractor = Extractor(manifest({"x": spec}), SiteChoices())
    snapshot = from_bundle(bundle(person(), charted), frozenset(), AT, AT.tzinfo)
    clean = deidentify(snapshot, rules(mode), extractor.reads)
    return clean, extractor.run(clean)[1]["x"]


def amount(value, unit=None, **more):
    said = {"value": value} if unit is None else {"value": value, "code": unit, "system": UCUM}
    return said | more


def by_path(kind, code, expression, unit="a"):
    return {
        "select": "max", "max_age": "36500d", "unit": unit,
        "from": [{"type": kind, "codes": [code], "fhirpath": expression, "unit": unit}],
    }  # fmt: skip


def ill(**more):
    return diagnosis(f"{ICD}|I50.9", recordedDate=ago(days=1), **more)


def done(**more):
    return {**procedure(f"{SCT}|415070008", ago(days=1)), "performedDateTime": None, **more}


@pytest.mark.parametrize(
    ("kind", "code", "expression", "charted"),
    [
        ("Condition", f"{ICD}|I50.9", "onset.ofType(Age)", lambda age: ill(onsetAge=age)),
        ("Condition", f"{ICD}|I50.9", "onset.ofType(Age).value", lambda age: ill(onsetAge=age)),
        ("Condition", f"{ICD}|I50.9", "onset.ofType(Age).value > 91", lambda age: ill(onsetAge=age)),
        ("Condition", f"{ICD}|I50.9", "onset.ofType(Range).low", lambda age: ill(onsetRange={"low": age})),
        ("Procedure", f"{SCT}|415070008", "performed.ofType(Age)", lambda age: done(performedAge=age)),
        ("Procedure", f"{SCT}|415070008", "performed.ofType(Range).high.value", lambda age: done(performedRange={"high": age})),
    ],
)  # fmt: skip
def test_no_age_over_89_is_found_by_an_expression(kind, code, expression, charted):
    spec = by_path(kind, code, expression, "a" if expression.endswith(("e)", "low")) else "1")
    for age in OVER:
        clean, found = crossed(spec, charted(age))
        told = [fact for fact in clean.facts if fact.codes[0].startswith("urn:ehr-sidecar:fhirpath")]
        assert [(fact.value, fact.trouble) for fact in told] == [(None, CAPPED)], age
        assert math.isnan(found.value)
    clean, _ = crossed(spec, charted(amount(60, "a")))
    assert CAPPED not in {fact.trouble for fact in clean.facts}
    clean, _ = crossed(spec, charted(amount(92, "a")), Mode.KEYED_PSEUDONYMS)
    assert CAPPED not in {fact.trouble for fact in clean.facts}


@pytest.mark.parametrize(
    ("value", "capped"),
    [
        ({"valueQuantity": amount(92, "a")}, True), ({"valueQuantity": amount(89, "a")}, False), ({"valueQuantity": amount(92)}, True),
        ({"valueQuantity": amount(1100, "mo")}, True), ({"valueQuantity": amount(900, "mo")}, False), ({"valueInteger": 95}, True), ({"valueInteger": 80}, False),
        ({"valueQuantity": amount(92, "/min")}, True), ({"valueQuantity": {"value": 92, "code": ["a"]}}, True), ({"valueString": "ninety"}, True),
        ({"valueCodeableConcept": concept(f"{SCT}|105437006")}, True), ({"valueRange": {"low": amount(91, "a")}}, True),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "expression", [None, "value.ofType(Quantity).value", "value.ofType(CodeableConcept).coding.exists()"]
)
def test_an_observed_age_over_89_is_unusable(value, capped, expression):
    source = {"codes": [AGE]} if expression is None else {"codes": [AGE], "fhirpath": expression}
    spec = {"max_age": "36500d", "from": [source]}
    charted = {
        "resourceType": "Observation", "id": "o1", "status": "final", "subject": SUBJECT,
        "effectiveDateTime": ago(hours=1), "code": concept(AGE), **value,
    }  # fmt: skip
    clean, found = crossed(spec, charted)
    fact = clean.facts[-1]
    assert (fact.trouble == CAPPED) is capped
    if capped:
        assert (fact.value, fact.value_codes, found.reason) == (None, (), CAPPED)
    assert all(fact.trouble != CAPPED for fact in crossed(spec, charted, Mode.LIMITED_DATA_SET)[0].facts)


def test_an_age_of_long_ago_counts_by_what_it_is_now():
    spec = by_path("Condition", f"{ICD}|I50.9", "onset.ofType(Age)")
    past = {**ill(onsetAge=amount(80, "a")), "recordedDate": ago(days=11 * 365.25)}
    assert crossed(spec, past)[1].reason == CAPPED
    assert crossed(spec, {**past, "recordedDate": ago(days=8 * 365.25)})[1].reason != CAPPED


@pytest.mark.parametrize("expression", [None, "component.value.ofType(Quantity).value"])
def test_an_age_in_a_component_is_one(expression):
    source = {"codes": [ONSET]} if expression is None else {"codes": [f"{SCT}|1"], "fhirpath": expression}
    if expression is None:
        source["panels"] = [f"{SCT}|1"]
    spec = {"max_age": "36500d", "unit": "a" if expression is None else "1", "from": [source]}
    charted = {
        "resourceType": "Observation", "id": "o1", "status": "final", "subject": SUBJECT, "effectiveDateTime": ago(hours=1),
        "code": concept(f"{SCT}|1"), "component": [{"code": concept(ONSET), "valueQuantity": amount(93, "a")}],
    }  # fmt: skip
    clean, found = crossed(spec, charted)
    assert found.reason == CAPPED
    assert {fact.value for fact in clean.facts} == {None}
    assert not math.isnan(crossed(spec, charted, Mode.KEYED_PSEUDONYMS)[1].value)
