"""The escape hatch: a small part of FHIRPath that means what FHIRPath means, and reads nothing that is not kept."""

import copy
import json
import math

import pytest
from fhirpathpy import compile as oracle
from fhirpathpy.models import models
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sidecar.deid import load_rules, unreadable
from sidecar.deid.paths import Odd, compiled
from sidecar.features import Extractor, SiteChoices
from tests.unit.chart import concept
from tests.unit.language import SUBJECT, ago, manifest, told

RULES = load_rules()
TYPE = "MedicationAdministration"
GIVEN = {
    "resourceType": TYPE, "id": "a1", "status": "completed", "subject": SUBJECT, "effectiveDateTime": ago(hours=3),
    "medicationCodeableConcept": concept("http://www.nlm.nih.gov/research/umls/rxnorm|7052"),
    "dosage": {"text": "2 mg for Mr Smith", "dose": {"value": 2, "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"}},
}  # fmt: skip
DOSE = {
    "select": "sum", "window": "24h", "unit": "mg",
    "from": [{"type": TYPE, "codes": ["http://www.nlm.nih.gov/research/umls/rxnorm|7052"], "fhirpath": "dosage.dose", "unit": "mg"}],
}  # fmt: skip

numbers = st.sampled_from(["1", "2", "2.5", "10"])
texts = st.sampled_from(["'a'", "'b'", "'completed'", "'urn:x'"])
elements = st.sampled_from(
    ["reasonCode", "reasonCode.coding", "statusReason.coding", "category.coding", "dosage", "dosage.dose", "dosage.route.coding"]
)  # fmt: skip
leaves = st.sampled_from(
    ["status", "reasonCode.coding.code", "reasonCode.coding[0].code", "statusReason.coding.code", "category.coding.code.first()"]
)  # fmt: skip
values = st.sampled_from(
    ["dosage.dose.value", f"{TYPE}.dosage.dose.value", "reasonCode.count()", "category.coding.count()"]
)
cuts = st.sampled_from(["", ".first()", ".last()", "[0]", "[1]"])
conditions = st.sampled_from(
    ["code = 'a'", "code != 'a'", "system = 'urn:x' and code = 'b'", "code.exists()", "code.empty()", "(code = 'a').not()", "true", "code = 'a' or code = 'b'"]
)  # fmt: skip
filtered = st.builds(
    lambda of, by, cut: f"{of}.coding.where({by}){cut}", st.sampled_from(["reasonCode", "statusReason", "category"]), conditions, cuts
)  # fmt: skip
tests = st.one_of(
    st.builds(lambda of, cut, does: f"{of}{cut}.{does}()", elements, cuts, st.sampled_from(["exists", "empty"])),
    st.builds(lambda of, does: f"{of}.{does}()", filtered, st.sampled_from(["exists", "empty"])),
    st.builds(lambda of, by: f"{of}.coding.exists({by})", st.sampled_from(["reasonCode", "category"]), conditions),
    st.builds(lambda one, sign, other: f"{one} {sign} {other}", leaves, st.sampled_from(["=", "!="]), texts),
    st.builds(
        lambda one, sign, other: f"{one} {sign} {other}", values, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), numbers
    ),
    st.sampled_from(["effective.exists()", "effective.ofType(Period).exists()", "effective.ofType(dateTime).empty()", "true", "false"]),
)  # fmt: skip
expressions = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.builds(lambda one, sign, other: f"({one}) {sign} ({other})", inner, st.sampled_from(["and", "or", "="]), inner),
        st.builds(lambda one: f"({one}).not()", inner),
    ),
    max_leaves=4,
) | st.one_of(values, st.builds(lambda of: f"{of}.count()", filtered), st.just("dosage.dose"))  # fmt: skip
coding = st.fixed_dictionaries(
    {}, optional={"system": st.sampled_from(["urn:x", "urn:y"]), "code": st.sampled_from(["a", "b", "c"])}
)
concepts = st.fixed_dictionaries({}, optional={"coding": st.lists(coding.filter(bool), min_size=1, max_size=3)}).filter(
    bool
)
resources = st.fixed_dictionaries(
    {"resourceType": st.just(TYPE), "subject": st.just(SUBJECT)},
    optional={
        "status": st.sampled_from(["completed", "a", "not-done"]),
        "category": concepts,
        "reasonCode": st.lists(concepts, min_size=1, max_size=3),
        "statusReason": st.lists(concepts, min_size=1, max_size=2),
        "effectivePeriod": st.just({"start": "2026-01-01"}),
        "dosage": st.fixed_dictionaries(
            {}, optional={"dose": st.fixed_dictionaries({"value": st.sampled_from([1, 2, 2.5, 10, 0.1])}), "route": concepts}
        ).filter(bool),
    },
)  # fmt: skip


@settings(max_examples=400, deadline=None, print_blob=True)
@given(expressions, resources)
def test_an_expression_means_what_fhirpath_means(expression, resource):
    assume(len(expression) <= 500)
    ours = compiled(RULES, TYPE, expression)
    try:
        theirs = oracle(expression, models["r4"])(copy.deepcopy(resource))
    except Exception:  # noqa: BLE001 -- it has no exceptions of its own for what has no meaning
        with pytest.raises(Odd):
            ours.of(resource)
        return
    if len(theirs) > 1:
        with pytest.raises(Odd):
            ours.of(resource)
        return
    found = ours.of(resource)
    plain = json.loads(json.dumps(theirs, default=float))
    assert ([] if found is None else [found]) == plain


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("note.text = 'x'", "does not keep note"), ("dosage.text.exists()", "does not keep text"), ("identifier.exists()", "does not keep identifier"),
        ("subject.reference = 'Patient/p1'", "no expression reads"), ("id = 'a1'", "no expression reads"), ("performer.exists()", "does not keep performer"),
        ("status", "comes to text"), ("effective", "comes to a choice"), ("effective.ofType(dateTime)", "comes to time"),
        ("dose.exists()", "R4 has no dose"), ("effectiveDateTime.exists()", "R4 has no effectiveDateTime"), ("dosage.dose > 2", "is not supported"),
        ("status > 'a'", "is not supported"), ("status = 1", "is not supported"), ("effective.ofType(dateTime) = effective.ofType(dateTime)", "is not supported"),
        ("reasonCode.where(coding)", "must be true or false"), ("status.not()", "of true and false"), ("extension.exists()", "does not keep"),
        ("effective.ofType(Age).exists()", "no Age that is kept"), ("contained.exists()", "R4 has no contained|does not keep contained|no expression"),
    ],
)  # fmt: skip
def test_what_is_not_kept_or_means_nothing_refuses_the_start(expression, why):
    reads = Extractor(manifest({"x": with_path(expression)}), SiteChoices()).reads
    (said,) = unreadable(RULES, reads)
    assert said.startswith(f'fhirpath "{expression}" of {TYPE}: ')
    assert any(each in said for each in why.split("|")), said


@pytest.mark.parametrize(
    "expression",
    [
        "dosage.dose.value + 1", "dosage | status", "iif(true, 1, 2)", "status in ('a')", "%resource", "today()", "status ~ 'a'", "dosage.", "(dosage",
        "dosage)", "dosage dose", "", "   ", "$this", "'it\\'s'", 'status = "a"', "dosage.dose.value > @2026", "where()", "a[b]", "a[1.5]",
        "status.matches('x')", "status.select(a)", "resolve()", "repeat(a)", "a is b", "x" * 501, "(" * 40 + "true" + ")" * 40, "true true",
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_and_says_what_is(expression):
    with pytest.raises(ValueError, match=r"supported are element names"):
        manifest({"x": with_path(expression)})


def with_path(expression):
    return {**DOSE, "from": [{**DOSE["from"][0], "fhirpath": expression}]}


def test_a_dose_is_summed_in_its_unit():
    second = {
        **GIVEN,
        "id": "a2",
        "dosage": {"dose": {"value": 1500, "code": "ug", "system": "http://unitsofmeasure.org"}},
    }
    spec = {**DOSE, "from": [{**DOSE["from"][0], "units": {"mg": 1, "ug": 0.001}}]}
    assert told(spec, GIVEN, second).value == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("changes", "value", "reason"),
    [
        ({}, 2, None), ({"status": "not-done"}, 0, None), ({"status": "unknown"}, math.nan, "status:x"), ({"dosage": {"dose": {"value": 2}}}, math.nan, "unit:x"),
        ({"dosage": {"dose": {"value": 2, "code": "mg", "system": "http://unitsofmeasure.org", "comparator": ">"}}}, math.nan, "comparator:x"),
        ({"dosage": {"dose": "two"}}, math.nan, "shape:x"), ({"dosage": {"text": "2 mg"}}, 0, None), ({"effectiveDateTime": ago(hours=30)}, 0, None),
    ],
)  # fmt: skip
def test_a_value_by_path_is_held_to_the_same_rules_as_any_other(changes, value, reason):
    found = told(DOSE, {**GIVEN, **changes})
    assert (str(found.value), found.reason) == (str(float(value)), reason)


def test_a_path_on_an_observation_counts_beside_its_plain_value():
    spec = {
        "select": "any", "max_age": "24h",
        "from": [{"codes": ["http://loinc.org|718-7"], "fhirpath": "interpretation.coding.exists(code = 'LL')"}],
    }  # fmt: skip
    reading = {
        "resourceType": "Observation", "id": "o1", "status": "final", "subject": SUBJECT, "effectiveDateTime": ago(hours=1),
        "code": concept("http://loinc.org|718-7"), "valueQuantity": {"value": 6, "code": "g/dL", "system": "http://unitsofmeasure.org"},
        "interpretation": [concept("http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation|LL")],
    }  # fmt: skip
    assert told(spec, reading).value == 1
    assert told(spec, {**reading, "interpretation": []}).value == 0
    assert told(spec, {**reading, "status": "entered-in-error"}).reason == "missing:x"
