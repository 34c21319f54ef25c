"""What says of a number that it is a limit, is absent or means something else counts for FHIRPath as it does elsewhere."""

import math

import pytest

from tests.unit.chart import concept
from tests.unit.language import RXNORM, SUBJECT, ago, order, told

INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
HAEMOGLOBIN, PRESSURE = "http://loinc.org|718-7", "http://loinc.org|85354-9"
SYSTOLIC, DIASTOLIC = "http://loinc.org|8480-6", "http://loinc.org|8462-4"
MODIFIED = {"modifierExtension": [{"url": "urn:x", "valueBoolean": True}]}


def amount(value, unit, **more):
    return {"value": value, "code": unit, "system": "http://unitsofmeasure.org", **more}


def reading(code, **more):
    return {
        "resourceType": "Observation", "id": "o1", "status": "final", "subject": SUBJECT,
        "effectiveDateTime": ago(hours=1), "code": concept(code), **more,
    }  # fmt: skip


def by_path(expression, code=HAEMOGLOBIN, unit="g/dL", **spec):
    return {"max_age": "24h", "unit": unit, "from": [{"codes": [code], "fhirpath": expression, "unit": unit}], **spec}


def parts(**of_systolic):
    systolic = {"code": concept(SYSTOLIC), "valueQuantity": amount(80, "mm[Hg]"), **of_systolic}
    return reading(PRESSURE, component=[systolic, {"code": concept(DIASTOLIC), "valueQuantity": amount(50, "mm[Hg]")}])


SYSTOLIC_VALUE = "component.where(code.coding.exists(code = '8480-6')).value.ofType(Quantity)"


@pytest.mark.parametrize(
    "expression", ["value.ofType(Quantity).value", "value.ofType(Quantity)", "value.ofType(Quantity).value < 5"]
)
@pytest.mark.parametrize(
    "changes",
    [
        {"valueQuantity": amount(3, "g/dL", comparator="<")},
        {"valueQuantity": amount(3, "g/dL", _comparator={"extension": []})},
        {"interpretation": [concept(f"{INTERPRETATION}|<")]},
        {"interpretation": [{"text": "<"}]},
    ],
)
def test_a_limit_is_no_number_to_an_expression(expression, changes):
    spec = by_path(expression, unit="g/dL" if expression.endswith("y)") else "1")
    plain = reading(HAEMOGLOBIN, valueQuantity=amount(3, "g/dL"))
    assert told(spec, plain).reason is None
    found = told(spec, {**plain, **changes})
    assert (math.isnan(found.value), found.reason) == (True, "comparator:x")


@pytest.mark.parametrize("expression", [SYSTOLIC_VALUE, f"{SYSTOLIC_VALUE}.value"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None), ({"interpretation": [concept(f"{INTERPRETATION}|<")]}, "comparator:x"), ({"interpretation": [{"text": "below 80"}]}, "comparator:x"),
        ({"valueQuantity": amount(80, "mm[Hg]", comparator="<=")}, "comparator:x"), (MODIFIED, "modifier:x"),
        ({"dataAbsentReason": concept("http://terminology.hl7.org/CodeSystem/data-absent-reason|error")}, "missing:x"),
        ({"_dataAbsentReason": {"extension": []}}, "missing:x"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_component_counts_for_its_value(expression, changes, reason):
    unit = "1" if expression.endswith("value") else "mm[Hg]"
    assert told(by_path(expression, PRESSURE, unit), parts(**changes)).reason == reason


def test_an_absent_component_beside_the_one_that_is_asked_for_changes_nothing():
    found = told(
        by_path(SYSTOLIC_VALUE.replace("8480-6", "8462-4"), PRESSURE, "mm[Hg]"),
        parts(dataAbsentReason=concept("http://terminology.hl7.org/CodeSystem/data-absent-reason|error")),
    )
    assert (found.value, found.reason) == (50, None)


def test_a_reading_said_to_be_absent_has_no_value_on_a_path():
    charted = reading(HAEMOGLOBIN, valueQuantity=amount(3, "g/dL"), dataAbsentReason=concept("urn:x|error"))
    assert told(by_path("value.ofType(Quantity)"), charted).reason == "missing:x"


@pytest.mark.parametrize(
    "changes",
    [
        {"dosageInstruction": [{"doseAndRate": [{"doseQuantity": amount(20, "mg")}], **MODIFIED}]},
        {"dosageInstruction": [{"doseAndRate": [{"doseQuantity": amount(20, "mg", **MODIFIED)}]}]},
        {"substitution": {"allowedBoolean": True, **MODIFIED}},
    ],
)
def test_a_modifier_anywhere_in_a_resource_makes_what_an_expression_finds_unusable(changes):
    spec = {
        "select": "sum", "max_age": "3650d", "unit": "mg",
        "from": [{"type": "MedicationRequest", "codes": [f"{RXNORM}|7052"], "fhirpath": "dosageInstruction.doseAndRate.dose.ofType(Quantity)", "unit": "mg"}],
    }  # fmt: skip
    plain = order(f"{RXNORM}|7052", dosageInstruction=[{"doseAndRate": [{"doseQuantity": amount(20, "mg")}]}])
    assert told(spec, plain).value == 20
    assert told(spec, {**plain, **changes}).reason == "modifier:x"


def test_a_flag_is_read_beside_a_value_that_is_a_limit():
    spec = by_path("interpretation.coding.exists(code = 'LL')", unit="1", select="any")
    charted = reading(
        HAEMOGLOBIN, valueQuantity=amount(6, "g/dL", comparator="<"), interpretation=[concept(f"{INTERPRETATION}|LL")]
    )
    assert told(spec, charted).value == 1
