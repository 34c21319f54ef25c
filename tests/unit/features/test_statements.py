"""What is no Observation: which statements count, by their status, and which are refused."""

import math

import pytest

from sidecar.context import from_bundle
from sidecar.deid.labels import CONFIDENTIALITY, inherited, is_sensitive
from sidecar.errors import Rejected
from tests.unit.chart import AT, SCT, bundle, concept, person, rules
from tests.unit.language import (
    ATC,
    ICD,
    RXNORM,
    SUBJECT,
    ago,
    all_told,
    clinically,
    diagnosis,
    manifest,
    order,
    procedure,
    statement,
    told,
)

STATIN = {"from": [{"type": "MedicationRequest", "codes": [f"{ATC}|C10AA*"]}], "select": "any", "max_age": "36500d"}
PCI = {
    "from": [{"type": "Procedure", "codes": ["http://snomed.info/sct|415070008"]}],
    "select": "any",
    "window": "365d",
}
FAILING = {"from": [{"type": "Condition", "codes": [f"{ICD}|I50*"]}], "select": "any", "max_age": "36500d"}
HISTORY = {**FAILING, "from": [{**FAILING["from"][0], "history": True}]}
SIMVASTATIN = f"{ATC}|C10AA01"


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({}, 1), ({"status": "completed"}, 0), ({"status": "stopped"}, 0), ({"status": "on-hold"}, 0), ({"status": "cancelled"}, 0),
        ({"status": "entered-in-error"}, 0), ({"status": "draft"}, 0), ({"intent": "proposal"}, 0), ({"intent": "option"}, 0),
        ({"intent": "plan"}, 0), ({"intent": "filler-order"}, 1), ({"doNotPerform": True}, 0), ({"doNotPerform": False}, 1),
    ],
)  # fmt: skip
def test_an_order_counts_as_long_as_it_is_in_force(changes, value):
    assert told(STATIN, order(SIMVASTATIN, **changes)).value == value


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "unknown"}, "status:x"), ({"status": "odd"}, "status:x"), ({"intent": "odd"}, "status:x"),
        ({"doNotPerform": "yes"}, "modifier:x"), ({"_doNotPerform": {"extension": []}}, "modifier:x"),
        ({"modifierExtension": [{"url": "urn:x"}]}, "modifier:x"),
    ],
)  # fmt: skip
def test_an_order_that_cannot_be_read_is_a_reason_and_no_absence(changes, reason):
    found = told(STATIN, order(SIMVASTATIN, **changes))
    assert (math.isnan(found.value), found.reason) == (True, reason)


def test_what_is_there_is_there_beside_another_that_cannot_be_read():
    assert told(STATIN, order(SIMVASTATIN), order(SIMVASTATIN, "m2", status="unknown")).value == 1


@pytest.mark.parametrize("status", ["completed", "stopped"])
def test_an_order_that_is_over_counts_where_history_is_asked_for(status):
    spec = {**STATIN, "from": [{**STATIN["from"][0], "history": True}]}
    assert told(spec, order(SIMVASTATIN, status=status)).value == 1


@pytest.mark.parametrize(
    ("code", "value"), [("C10AA01", 1), ("C10AA07", 1), ("C10AB05", 0), ("C10AA", 1), ("XC10AA01", 0)]
)
def test_a_beginning_stands_for_every_code_that_begins_so(code, value):
    assert told(STATIN, order(f"{ATC}|{code}")).value == value


def test_a_code_of_another_system_is_not_one_that_begins_alike():
    assert told(STATIN, order(f"{RXNORM}|C10AA01")).value == 0


@pytest.mark.parametrize(
    ("status", "value"),
    [("completed", 1), ("in-progress", 1), ("preparation", 0), ("not-done", 0), ("entered-in-error", 0), ("on-hold", 0), ("stopped", 0)],
)  # fmt: skip
def test_a_procedure_counts_when_it_was_done(status, value):
    assert told(PCI, procedure("http://snomed.info/sct|415070008", ago(days=5), status=status)).value == value


@pytest.mark.parametrize(
    ("status", "now", "ever"),
    [("active", 1, 1), ("recurrence", 1, 1), ("resolved", 0, 1), ("inactive", 0, 1), ("remission", 0, 1)],
)
def test_a_diagnosis_that_is_over_counts_where_history_is_asked_for(status, now, ever):
    charted = diagnosis(f"{ICD}|I50.23", **clinically(status))
    assert (told(FAILING, charted).value, told(HISTORY, charted).value) == (now, ever)


@pytest.mark.parametrize("verification", ["refuted", "entered-in-error", "differential", "provisional", "unconfirmed"])
def test_a_diagnosis_that_is_not_confirmed_does_not_count(verification):
    status = concept(f"http://terminology.hl7.org/CodeSystem/condition-ver-status|{verification}")
    charted = diagnosis(f"{ICD}|I50.23", verificationStatus=status)
    assert (told(FAILING, charted).value, told(HISTORY, charted).value) == (0, 0)


def test_an_end_without_a_status_is_history_too():
    charted = diagnosis(f"{ICD}|I50.1", abatementDateTime="2020-05", clinicalStatus=None)
    assert (told(FAILING, charted).value, told(HISTORY, charted).value) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "codes", "charted", "value"),
    [
        ("MedicationStatement", f"{RXNORM}|36567", {"status": "active", "medicationCodeableConcept": concept(f"{RXNORM}|36567")}, 1),
        ("MedicationStatement", f"{RXNORM}|36567", {"status": "not-taken", "medicationCodeableConcept": concept(f"{RXNORM}|36567")}, 0),
        ("MedicationStatement", f"{RXNORM}|36567", {"status": "intended", "medicationCodeableConcept": concept(f"{RXNORM}|36567")}, 0),
        (
            "MedicationAdministration", f"{RXNORM}|1", {
                "status": "completed", "medicationCodeableConcept": concept(f"{RXNORM}|1"), "effectivePeriod": {"start": ago(hours=3)},
            }, 1,
        ),
        (
            "MedicationAdministration", f"{RXNORM}|1", {
                "status": "not-done", "medicationCodeableConcept": concept(f"{RXNORM}|1"), "effectiveDateTime": ago(hours=3),
            }, 0,
        ),
        ("AllergyIntolerance", "http://snomed.info/sct|91936005", {**clinically("active"), "code": concept("http://snomed.info/sct|91936005"), "patient": SUBJECT, "subject": None}, None),
        ("DiagnosticReport", "http://loinc.org|24627-2", {"status": "final", "code": concept("http://loinc.org|24627-2"), "effectiveDateTime": ago(days=1)}, 1),
        ("DiagnosticReport", "http://loinc.org|24627-2", {"status": "cancelled", "code": concept("http://loinc.org|24627-2"), "effectiveDateTime": ago(days=1)}, 0),
    ],
)  # fmt: skip
def test_other_types_count_by_their_own_status(kind, codes, charted, value):
    spec = {"from": [{"type": kind, "codes": [codes]}], "select": "any", "max_age": "3650d"}
    if value is not None:
        assert told(spec, statement(kind, **charted)).value == value


def test_a_medicine_whose_time_has_ended_is_taken_no_more_whatever_its_status_says():
    code = f"{RXNORM}|36567"
    past = {"start": ago(days=900), "end": ago(days=890)}
    charted = statement(
        "MedicationStatement", status="active", medicationCodeableConcept=concept(code), effectivePeriod=past
    )
    spec = {"from": [{"type": "MedicationStatement", "codes": [code]}], "select": "any", "max_age": "3650d"}
    history = {**spec, "from": [{**spec["from"][0], "history": True}]}
    assert (told(spec, charted).value, told(history, charted).value) == (0, 1)
    ahead = {**charted, "effectivePeriod": {"start": ago(days=900), "end": ago(days=-30)}}
    assert told(spec, ahead).value == 1


def test_an_allergy_and_a_vaccination_name_the_patient_in_their_own_way():
    allergy = {
        "resourceType": "AllergyIntolerance", "id": "a1", "patient": SUBJECT, "code": concept("http://snomed.info/sct|91936005"),
        "clinicalStatus": concept("http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical|active"),
    }  # fmt: skip
    spec = {"from": [{"type": "AllergyIntolerance", "codes": ["http://snomed.info/sct|91936005"]}], "select": "any", "max_age": "36500d"}  # fmt: skip
    assert told(spec, allergy).value == 1
    refuted = concept("http://terminology.hl7.org/CodeSystem/allergyintolerance-verification|refuted")
    assert told(spec, {**allergy, "verificationStatus": refuted}).value == 0
    shot = {
        "resourceType": "Immunization", "id": "i1", "patient": SUBJECT, "status": "completed", "occurrenceDateTime": "2025-10",
        "vaccineCode": concept("http://hl7.org/fhir/sid/cvx|140"),
    }  # fmt: skip
    flu = {
        "from": [{"type": "Immunization", "codes": ["http://hl7.org/fhir/sid/cvx|140"]}],
        "select": "any",
        "window": "365d",
    }
    assert told(flu, shot).value == 1
    assert told(flu, {**shot, "status": "not-done"}).value == 0
    assert told(flu, {**shot, "isSubpotent": True}).value == 0


def test_an_appointment_counts_by_its_status_and_may_lie_ahead():
    def appointment(status, when, key):
        return {
            "resourceType": "Appointment", "id": key, "status": status, "start": when, "created": ago(days=40),
            "participant": [{"actor": {"reference": "Practitioner/d1"}}, {"actor": SUBJECT}],
        }  # fmt: skip

    status = "http://hl7.org/fhir/appointmentstatus"
    missed = {"from": [{"type": "Appointment", "codes": [f"{status}|noshow"]}], "select": "count", "window": "730d"}
    next_one = {
        "from": [{"type": "Appointment", "codes": [f"{status}|booked"]}],
        "select": "time_since",
        "max_age": "1d",
        "unit": "d",
    }
    booked = {**next_one, "from": [{**next_one["from"][0], "placed": "charted"}], "max_age": "365d"}
    chart = [
        appointment("noshow", ago(days=30), "a1"), appointment("noshow", ago(days=800), "a2"), appointment("fulfilled", ago(days=20), "a3"),
        appointment("booked", ago(days=-10), "a4"), appointment("entered-in-error", ago(days=2), "a5"),
    ]  # fmt: skip
    assert told(missed, *chart).value == 1
    assert told(next_one, *chart).value == -10
    assert told(booked, *chart).value == 40


@pytest.mark.parametrize("status", ["proposed", "pending", "waitlist", "cancelled", "noshow"])
@pytest.mark.parametrize("whatever", ["*|*", f"{SCT}|394579002"])
def test_an_appointment_that_did_not_come_about_counts_by_its_status_alone(status, whatever):
    system = "http://hl7.org/fhir/appointmentstatus"
    counted = {"select": "count", "window": "730d"}
    made = {
        "resourceType": "Appointment", "id": "a1", "start": ago(days=30), "created": ago(days=40),
        "participant": [{"actor": SUBJECT}], "specialty": [concept(f"{SCT}|394579002")],
    }  # fmt: skip
    declared = manifest(
        {
            "by_status": {**counted, "from": [{"type": "Appointment", "codes": [f"{system}|{status}"]}]},
            "any": {**counted, "from": [{"type": "Appointment", "codes": [whatever]}]},
            "by_path": {
                **counted, "select": "any", "from": [{"type": "Appointment", "codes": [whatever], "fhirpath": "start.exists()"}],
            },
        }
    )  # fmt: skip
    found = all_told(declared, {**made, "status": status})
    assert {name: feature.value for name, feature in found.items()} == {"by_status": 1, "any": 0, "by_path": 0}
    kept = all_told(declared, {**made, "status": "fulfilled"})
    assert {name: feature.value for name, feature in kept.items()} == {"by_status": 0, "any": 1, "by_path": 1}
    assert (
        told({**counted, "from": [{"type": "Appointment", "codes": [whatever]}]}, {**made, "status": status}).value == 0
    )


def test_a_medicine_that_an_order_contains_is_read_from_there():
    inside = {"resourceType": "Medication", "id": "med", "code": concept(SIMVASTATIN)}
    charted = order(SIMVASTATIN, contained=[inside], medicationReference={"reference": "#med"})
    del charted["medicationCodeableConcept"]
    assert told(STATIN, charted).value == 1


@pytest.mark.parametrize(
    ("when", "value", "reason"),
    [
        ("2025-04-01", 1, None),
        ("2025", math.nan, "imprecise:x"),
        ("2024", 0, None),
        ("2026-02", 1, None),
        (None, math.nan, "imprecise:x"),
    ],
)
def test_a_date_counts_as_far_as_it_is_known(when, value, reason):
    found = told(PCI, procedure("http://snomed.info/sct|415070008", when))
    assert (str(found.value), found.reason) == (str(float(value)), reason)


def test_every_diagnosis_that_counts_is_cited():
    spec = {**FAILING, "select": "count"}
    found = told(spec, *(diagnosis(f"{ICD}|I50.{n}", f"c{n}") for n in (1, 2, 3)), diagnosis(f"{ICD}|E11.9", "c9"))
    assert found.value == 3
    assert len({found.index, *found.others}) == 3


def named_medicine(**more):
    """An order that refers to its Medication, and that Medication."""
    ordered = {**order(SIMVASTATIN), "medicationCodeableConcept": None, "medicationReference": {"reference": "Medication/m9"}}  # fmt: skip
    return ordered, {"resourceType": "Medication", "id": "m9", "code": concept(SIMVASTATIN), **more}


@pytest.mark.parametrize(
    "modified",
    [
        {"modifierExtension": [{"url": "urn:x"}]}, {"implicitRules": "urn:x"}, {"_implicitRules": {"extension": []}},
        {"ingredient": [{"modifierExtension": [{"url": "urn:x"}]}]}, {"code": {**concept(SIMVASTATIN), "modifierExtension": []}},
    ],
)  # fmt: skip
def test_a_modifier_of_a_medicine_is_one_of_its_order(modified):
    assert told(STATIN, *named_medicine()).value == 1
    assert told(STATIN, *named_medicine(status="inactive")).value == 1
    assert told(STATIN, *named_medicine(**modified)).reason == "modifier:x"


@pytest.mark.parametrize("unknown", [{"status": "entered-in-error"}, {"code": None}, {"code": "simvastatin"}])
def test_a_medicine_that_does_not_say_what_it_is_refuses(unknown):
    with pytest.raises(Rejected, match="gone:medication"):
        told(STATIN, *named_medicine(**unknown))
    ordered, medicine = named_medicine(**unknown)
    contained = {**ordered, "medicationReference": {"reference": "#m9"}, "contained": [medicine]}
    with pytest.raises(Rejected, match="gone:medication"):
        told(STATIN, contained)
    assert told(STATIN, {**ordered, "status": "entered-in-error"}, medicine).value == 0


@pytest.mark.parametrize(
    "own", [None, {"versionId": "1"}, {"security": [{"system": CONFIDENTIALITY, "code": "N"}]}, "x"]
)
def test_what_an_order_rests_on_has_the_labels_of_its_medicine(own):
    ordered, medicine = named_medicine(meta={"security": [{"system": CONFIDENTIALITY, "code": "R"}]})
    snapshot = from_bundle(bundle(person(), {**ordered, "meta": own}, medicine), frozenset(), AT, AT.tzinfo)
    (read,) = snapshot.resources
    assert inherited([read]) == (f"{CONFIDENTIALITY}|R",)
    assert is_sensitive(read, rules())
