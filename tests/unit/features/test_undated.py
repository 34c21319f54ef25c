"""A statement that says nothing of when it was did not fail to happen: it makes what depends on it unknown."""

import math

import pytest

from sidecar.context import from_bundle
from sidecar.deid import deidentify
from sidecar.features import Extractor, SiteChoices
from tests.unit.chart import AT, SCT, bundle, concept, person, rules
from tests.unit.language import (
    ICD,
    RXNORM,
    SUBJECT,
    ago,
    all_told,
    diagnosis,
    manifest,
    procedure,
    statement,
    told,
    visit,
)

PCI = f"{SCT}|415070008"
HERE = visit("e1", "2026-02-26T08:00:00Z")
FLU = "http://hl7.org/fhir/sid/cvx|140"
SHOT = statement("Immunization", "i1", status="completed", vaccineCode=concept(FLU))
NAMED = {"encounter": {"reference": "Encounter/e1"}}


def undated(**more):
    return {**procedure(PCI, ago(days=1)), "performedDateTime": None, **more}


def of(select="any", kind="Procedure", code=PCI, **more):
    return {"select": select, "from": [{"type": kind, "codes": [code]}], **more}


@pytest.mark.parametrize(
    "spec",
    [
        of(window="365d"), of("count", window="365d"), of("sum", window="24h"), of("time_since", max_age="365d", unit="d"),
        of(anchor="encounter"), of("count", anchor="encounter", window="365d"), of(max_age="36500d"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("charted", [undated(), undated(performedString="last year"), undated(performedPeriod={})])
def test_a_procedure_without_a_time_makes_the_feature_unknown(spec, charted):
    found = told(spec, HERE, charted)
    assert (math.isnan(found.value), found.reason) == (True, "imprecise:x")


@pytest.mark.parametrize(
    ("kind", "code", "charted"),
    [
        ("Immunization", FLU, {"status": "completed", "vaccineCode": concept(FLU)}),
        ("MedicationAdministration", f"{RXNORM}|7052", {"status": "completed", "medicationCodeableConcept": concept(f"{RXNORM}|7052")}),
        ("DiagnosticReport", "http://loinc.org|24627-2", {"status": "final", "code": concept("http://loinc.org|24627-2")}),
    ],
)  # fmt: skip
def test_so_does_any_other_statement_of_what_happened_once(kind, code, charted):
    spec = of(kind=kind, code=code, max_age="3650d")
    assert told(spec, statement(kind, **charted)).reason == "imprecise:x"
    assert told(spec, statement(kind, **{**charted, "status": "entered-in-error"})).value == 0


@pytest.mark.parametrize("select", ["latest", "first", "min", "max", "mean"])
def test_it_may_be_the_one_that_decides_alone(select):
    age = {"window": "365d"} if select == "first" else {"max_age": "365d"}
    spec = of(select, "Immunization", FLU, absent=0, **age)
    dated = {**SHOT, "id": "i2", "occurrenceDateTime": ago(days=1)}
    assert told(spec).value == 0
    assert told(spec, SHOT).reason == "imprecise:x"
    assert told(spec, SHOT, dated).reason == "imprecise:x"
    assert told(spec, dated).value == 1


def test_one_that_is_dated_is_there_whatever_another_leaves_open():
    assert told(of(window="365d"), undated(), procedure(PCI, ago(days=1), "pr2")).value == 1


def test_a_diagnosis_without_a_time_still_holds():
    assert told(of(kind="Condition", code=f"{ICD}|I50.9", max_age="3650d"), diagnosis(f"{ICD}|I50.9")).value == 1


def test_what_names_the_present_stay_was_in_it():
    declared = manifest(
        {
            "here": of("count", anchor="encounter"), "before": of("count", anchor="encounter", window="365d"),
            "year": of("count", window="365d"), "day": of("count", window="24h"),
        }
    )  # fmt: skip
    found = all_told(declared, HERE, undated(**NAMED))
    assert {name: (str(each.value), each.reason) for name, each in found.items()} == {
        "here": ("1.0", None), "before": ("0.0", None), "year": ("1.0", None), "day": ("nan", "imprecise:day"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "named",
    [
        {"encounter": {"reference": "Encounter/e1/_history/3"}},
        {"encounter": {"reference": "Encounter/e2"}},
        {"encounter": {"reference": "https://elsewhere.example/fhir/Encounter/e1"}},
        {"encounter": "Encounter/e1"},
    ],
)
def test_only_what_names_the_present_stay_itself_counts_as_in_it(named):
    found = told(of("count", anchor="encounter"), HERE, undated(**named))
    inside = named["encounter"] == {"reference": "Encounter/e1/_history/3"}
    assert (found.value == 1, found.reason) == (inside, None if inside else "imprecise:x")


def test_no_id_of_a_stay_crosses():
    extractor = Extractor(manifest({"x": of(anchor="encounter")}), SiteChoices())
    here = {**HERE, "id": "stay-4711"}
    charted = undated(encounter={"reference": "Encounter/stay-4711"})
    classes = frozenset({"http://terminology.hl7.org/CodeSystem/v3-ActCode|IMP"})
    clean = deidentify(
        from_bundle(bundle(person(), here, charted), frozenset(), AT, AT.tzinfo, classes), rules(), extractor.reads
    )
    assert [fact.of_stay for fact in clean.facts if fact.type == "Procedure"] == [True]
    assert "4711" not in repr(clean)


def test_an_administration_names_its_stay_as_context():
    charted = statement(
        "MedicationAdministration", status="completed", medicationCodeableConcept=concept(f"{RXNORM}|7052"),
        context={"reference": "Encounter/e1"},
    )  # fmt: skip
    spec = of(kind="MedicationAdministration", code=f"{RXNORM}|7052", anchor="encounter")
    assert told(spec, HERE, charted).value == 1
    assert told(spec, HERE, {**charted, "subject": SUBJECT, "context": None}).reason == "imprecise:x"
