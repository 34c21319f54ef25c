"""What de-identification must not turn into its opposite: what is needed at times, was deleted, or is not said outright."""

import pytest

from sidecar.deid.general import KeyedNames, Mode
from tests.unit.deid.general import KEY, R4, bundle, engine, policy

NAMES = KeyedNames(KEY)
LOCAL = {"text": "when Mrs Smith is in pain"}
PAIN = {"coding": [{"system": "http://snomed.info/sct", "code": "22253000"}]}
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
ACTS = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


def order(**dose):
    timing = {"repeat": {"frequency": 1, "period": 4, "periodUnit": "h"}}
    return {
        "resourceType": "MedicationRequest",
        "status": "active",
        "intent": "order",
        "dosageInstruction": [{"timing": timing, **dose}],
    }


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"asNeededCodeableConcept": LOCAL}, {"asNeededBoolean": True}),
        ({"asNeededCodeableConcept": PAIN}, {"asNeededCodeableConcept": PAIN}),
        ({"asNeededCodeableConcept": "pain"}, {"asNeededBoolean": True}),
        ({"asNeededBoolean": True}, {"asNeededBoolean": True}),
        ({"asNeededBoolean": False}, {"asNeededBoolean": False}),
        ({}, {}),
    ],
)
def test_what_is_taken_as_needed_never_looks_scheduled(said, kept):
    out = engine().resource(order(**said))["dosageInstruction"][0]
    assert {name: value for name, value in out.items() if name.startswith("asNeeded")} == kept
    asked = engine().resource({"resourceType": "ServiceRequest", "status": "active", "intent": "order", **said})
    assert {name: value for name, value in asked.items() if name.startswith("asNeeded")} == kept


@pytest.mark.parametrize(
    "said",
    [
        {"asNeededBoolean": "yes"}, {"_asNeededBoolean": {"extension": [{"url": "urn:x"}]}}, {"asNeededFor": [LOCAL]},
        {"asNeeded": True}, {"asNeededBoolean": False, "asNeededCodeableConcept": LOCAL},
    ],
)  # fmt: skip
def test_what_may_be_needed_or_not_refuses(said):
    judge = engine()
    assert judge.resource(order(**said)) is None
    assert judge.resource({"resourceType": "ServiceRequest", **said}) is None
    assert judge.tally.refused == {"modifier:Dosage.asNeeded[x]": 1, "modifier:ServiceRequest.asNeeded[x]": 1}


def modifiers(path, elements):
    """Every primitive that changes a meaning, in the tables of a resource type: where, and its name."""
    for name, spec in elements.items():
        if spec.get("modifier") and not name.startswith(("modifierExtension", "implicitRules")):
            for kind in spec.get("types", []):
                if kind[0].islower():
                    yield path, name.removesuffix("[x]") + (kind[0].upper() + kind[1:] if name.endswith("[x]") else "")
        if "elements" in spec:
            yield from modifiers((*path, (name, spec.get("many"))), spec["elements"])


def test_what_stands_beside_a_modifier_refuses_its_resource():
    """It may say that the value is not known, or what it is instead."""
    tried = 0
    beside = {
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]
    }
    for type_name, table in R4["resources"].items():
        for path, name in modifiers((), table["elements"]):
            if name == "deceasedDateTime":
                continue
            source = inner = {"resourceType": type_name}
            for step, many in path:
                child = {}
                inner[step] = [child] if many else child
                inner = child
            inner[f"_{name}"] = beside
            judge = engine()
            assert judge.resource(source) is None, (type_name, path, name)
            where = ".".join([type_name, *(step for step, _ in path), name])
            assert judge.tally.refused == {f"modifier:{where}": 1}
            tried += 1
    assert tried > 25
    quantity = {"value": 3, "_comparator": beside}
    judge = engine()
    assert judge.resource({"resourceType": "Observation", "status": "final", "valueQuantity": quantity}) is None
    assert judge.tally.refused == {"modifier:Observation.valueQuantity.comparator": 1}


def history(*entries):
    return {"resourceType": "Bundle", "type": "history", "entry": list(entries)}


def deleting(url="Patient/p1", **more):
    return {"request": {"method": "DELETE", "url": url}, "response": {"status": "204"}, **more}


def test_what_was_deleted_stays_deleted_under_the_token_that_it_had():
    created = {
        "fullUrl": "https://e/fhir/Patient/p1",
        "resource": {"resourceType": "Patient", "id": "p1"},
        "request": {"method": "POST", "url": "Patient"},
    }
    for gone in (deleting(), deleting(fullUrl="https://e/fhir/Patient/p1"), deleting("Patient/p1/_history/2")):
        judge = engine()
        out = judge.resource(history(gone, created))
        token = NAMES.token("Patient", "p1")
        assert out["entry"][0]["request"] == {"method": "DELETE", "url": f"Patient/{token}"}
        assert "resource" not in out["entry"][0]
        assert out["entry"][1]["resource"]["id"] == token
        assert "request" not in out["entry"][1]
        assert judge.tally.refused == {}
    last = deleting(resource={"resourceType": "Patient", "id": "p1", "active": True})
    assert engine().resource(history(last))["entry"][0]["request"]["method"] == "DELETE"


def test_what_was_deleted_on_another_server_is_another():
    here = {"fullUrl": "https://e/fhir/Patient/p1", "resource": {"resourceType": "Patient", "id": "p1"}}
    seen = {"fullUrl": "https://e/fhir/Patient/p2", "resource": {"resourceType": "Patient", "id": "p2"}}
    there = deleting(fullUrl="https://other/fhir/Patient/p1")
    out = engine().resource(history(here, seen, there))
    assert out["entry"][2]["request"]["url"] == f"Patient/{NAMES.token('Patient', 'https://other/fhir/Patient/p1')}"


P1, HERE = {"resourceType": "Patient", "id": "p1"}, "https://e/fhir/Patient"


@pytest.mark.parametrize(
    "gone",
    [
        deleting("Patient/p2", fullUrl=f"{HERE}/p1"),
        deleting("Patient/p2", resource=P1),
        deleting("Observation/p1", resource=P1),
        deleting("https://other/fhir/Patient/p1", fullUrl=f"{HERE}/p1"),
        deleting("Patient/p1", fullUrl=f"{HERE}/p2", resource=P1),
        deleting("Patient/p1", fullUrl="https://e/fhir/Smith/p1"),
        deleting("Patient?identifier=urn:mrn|1", fullUrl=f"{HERE}/p1"),
        deleting(5, fullUrl=f"{HERE}/p1"),
        deleting("Patient/p2", fullUrl="urn:uuid:1", resource=P1),
    ],
)
def test_what_is_deleted_and_said_in_two_ways_is_left_out_alone(gone):
    """Whose deletion it is nobody knows: the wrong one would end somebody who lives, and the other stays."""
    judge = engine()
    out = judge.resource(history({"fullUrl": f"{HERE}/p3", "resource": {**P1, "id": "p3"}}, gone))
    assert [each["resource"]["id"] for each in out["entry"]] == [NAMES.token("Patient", "p3")]
    assert judge.tally.refused == {"modifier:Bundle.entry.request": 1}


@pytest.mark.parametrize(
    "gone",
    [
        deleting(fullUrl=f"{HERE}/p1/_history/3"),
        deleting(f"{HERE}/p1", fullUrl=f"{HERE}/p1", resource=P1),
        deleting(fullUrl="urn:uuid:1", resource=P1),
        deleting(fullUrl="urn:uuid:1"),
        deleting(None, fullUrl=f"{HERE}/p1"),
    ],
)
def test_what_is_deleted_and_said_in_one_way_is_deleted(gone):
    out = engine().resource(history({"fullUrl": f"{HERE}/p3", "resource": {**P1, "id": "p3"}}, gone))
    assert out["entry"][1]["request"] == {"method": "DELETE", "url": f"Patient/{NAMES.token('Patient', 'p1')}"}


@pytest.mark.parametrize(
    "entry",
    [
        {"request": {"method": "DELETE", "url": "Patient?identifier=urn:mrn|1"}}, {"request": {"method": "DELETE"}},
        {"request": {"method": "DELETE", "url": "Smith/1"}}, {"request": {"method": "delete", "url": "Patient/p1"}},
        {"request": {"url": "Patient/p1"}}, {"request": {"_method": {}, "method": "PUT"}}, {"request": "DELETE"}, {"request": {"method": ["DELETE"]}},
    ],
)  # fmt: skip
def test_an_entry_whose_request_cannot_be_read_is_left_out_alone(entry):
    who = {"resourceType": "Patient", "id": "p1"}
    judge = engine(listing=True)
    out = judge.resource(
        history(
            {"resource": who, "request": {"method": "PUT", "url": "Patient/p1"}},
            {"resource": {**who, "id": "p2"}, **entry} if "DELETE" not in str(entry) else entry,
        )
    )
    assert [each["resource"]["id"] for each in out["entry"]] == [NAMES.token("Patient", "p1")]
    assert judge.tally.refused == {"modifier:Bundle.entry.request": 1}
    assert judge.tally.resources == {"Patient": 1, "Bundle": 1}
    assert judge.tally.counts["Patient.id", "replaced"] == 1


LABELS = [
    {"system": CONFIDENTIALITY, "code": "R", "display": "restricted for Mr Smith", "version": "1"},
    {"system": ACTS, "code": "HIV"},
]
OTHERS = [
    {"system": CONFIDENTIALITY, "code": "N"},
    {"system": "urn:local", "code": "VIP-SMITH"},
    {"code": "R"},
    "R",
    {"system": ACTS, "code": ["HIV"]},
]


@pytest.mark.parametrize("mode", Mode)
def test_of_meta_the_listed_security_labels_stay_and_nothing_else(mode):
    meta = {
        "versionId": "7", "lastUpdated": "2026-01-01T00:00:00Z", "source": "urn:smith", "profile": ["urn:smith"],
        "tag": [{"system": "urn:t", "code": "smith"}, LABELS[0]], "security": [*LABELS, *OTHERS], "extension": [{"url": "urn:x"}],
    }  # fmt: skip
    seen = {"resourceType": "Observation", "status": "final", "meta": meta}
    out = engine(mode).resource(
        {**bundle({**seen, "contained": [{"resourceType": "Device", "id": "d", "meta": meta}]}), "meta": meta}
    )
    kept = {"security": [{"system": CONFIDENTIALITY, "code": "R"}, {"system": ACTS, "code": "HIV"}]}
    inside = out["entry"][0]["resource"]
    assert out["meta"] == inside["meta"] == inside["contained"][0]["meta"] == kept
    plain = engine(mode).resource({**seen, "meta": {**meta, "security": OTHERS}})
    assert "meta" not in plain
    assert {f"{each['system']}|{each['code']}" for each in kept["security"]} <= policy().labels


READ = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": "H"}
LIMITED = {"system": READ["system"], "code": "<"}


def interpreted(said):
    """A troponin, alone and as a component."""
    one = {
        "code": {"coding": [{"system": "http://loinc.org", "code": "6598-7"}]},
        "valueQuantity": {"value": 3},
        "interpretation": said,
    }
    out = engine().resource({"resourceType": "Observation", "status": "final", "component": [one], **one})
    return out, out["component"][0]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([{"text": "<"}], [{"coding": [LIMITED]}]),
        ([{"text": " < ", "coding": [{"system": "urn:local", "code": "17"}]}], [{"coding": [LIMITED]}]),
        ([{"coding": [{"system": "urn:local", "code": "17", "display": "<"}]}], [{"coding": [LIMITED]}]),
        ([{"text": "<", "coding": [LIMITED]}], [{"coding": [LIMITED]}]),
        ([{"text": "<", "coding": [READ]}], [{"coding": [READ, LIMITED]}]),
        ([{"text": "Mrs Smith's usual", "coding": [READ]}], [{"coding": [READ]}]),
        ([{"text": "HIGH"}, {"text": "Critically  high"}, {"text": "h"}], None),
        ([{"coding": [{"system": "urn:local", "code": "17"}]}, {"text": ""}, "x", None], None),
        ([], None),
    ],
)
def test_an_interpretation_in_words_that_are_understood_leaves_the_number_what_it_was(said, kept):
    for one in interpreted(said):
        assert one["valueQuantity"] == {"value": 3}
        assert one.get("interpretation") == kept


@pytest.mark.parametrize(
    "said",
    [
        [{"text": "off scale"}],
        [{"text": "<="}],
        [{"text": "below detection limit"}, {"coding": [READ]}],
        [{"coding": [{"system": "urn:local", "code": "OS", "display": "Off scale low"}]}],
        {"text": "below the limit"},
        {"text": "<"},
        {"coding": [LIMITED]},
    ],
)
def test_a_number_beside_an_interpretation_in_other_words_is_masked(said):
    """It may be the limit of the device: 3 with "below detection limit" is no 3."""
    for one in interpreted(said):
        assert "valueQuantity" not in one
        assert one["dataAbsentReason"]["coding"][0]["code"] == "masked"


def test_what_is_no_number_is_no_limit_and_stays_beside_an_interpretation_in_words():
    blood_group = {"coding": [{"system": "http://loinc.org", "code": "LA33-6"}]}
    out = engine().resource(
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "883-9"}]},
            "valueCodeableConcept": blood_group,
            "interpretation": [{"text": "as Mrs Smith said"}],
        }
    )
    assert out["valueCodeableConcept"] == blood_group
    assert "interpretation" not in out
