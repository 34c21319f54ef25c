"""However a reference is written, it resolves to the token of what it means, or it goes."""

import pytest

from sidecar.deid.general import KeyedNames, Mode
from tests.unit.deid.general import KEY, bundle, engine, resources_of

UUID = "urn:uuid:0d9c6a7e-5a52-4b0e-9a0e-2f6f4b0f5a11"
OID = "urn:oid:1.2.840.113619.21.1"
BASE = "https://ehr.example/fhir"
NAMES = KeyedNames(KEY)


def patient(logical_id="p1", **more):
    return {"resourceType": "Patient", "id": logical_id, **more}


def reading(reference, **more):
    subject = {"reference": reference} if isinstance(reference, str) else reference
    return {"resourceType": "Observation", "status": "final", "subject": subject, **more}


def dashed(token):
    return f"urn:uuid:{token[:8]}-{token[8:12]}-{token[12:16]}-{token[16:20]}-{token[20:]}"


def pointed(out):
    """Where the last resource of a Bundle points, if anywhere."""
    return resources_of(out)[-1].get("subject", {}).get("reference")


IN_BUNDLE = [
    (None, "Patient/p1"),
    (None, "Patient/p1/_history/4"),
    (None, "Patient?identifier=urn:mrn|12345"),
    (None, "Patient?identifier=urn%3Amrn%7C12345"),
    (None, "Patient?identifier=12345"),
    (None, {"identifier": {"system": "urn:mrn", "value": "12345"}}),
    (None, {"identifier": {"system": "urn:mrn", "value": "12345"}, "type": "Patient", "display": "Mr Smith"}),
    (UUID, UUID),
    (UUID, f"{UUID}/_history/1"),
    (UUID, "Patient/p1"),
    (OID, OID),
    (f"{BASE}/Patient/p1", "Patient/p1"),
    (f"{BASE}/Patient/p1", f"{BASE}/Patient/p1"),
    (f"{BASE}/Patient/p1", f"{BASE}/Patient/p1/_history/2"),
    (f"{BASE}/Patient/p1/_history/7", f"{BASE}/Patient/p1"),
]


@pytest.mark.parametrize(("url", "written"), IN_BUNDLE)
def test_every_way_to_write_a_reference_in_a_bundle_gives_the_one_token(url, written):
    who = patient(identifier=[{"system": "urn:mrn", "value": "12345"}])
    out = engine().resource(bundle(who, reading(written), urls=[url]))
    token = NAMES.token("Patient", "p1")
    assert resources_of(out)[0]["id"] == token
    assert pointed(out) == dashed(token)
    if url is not None:
        assert out["entry"][0]["fullUrl"] == dashed(token)


@pytest.mark.parametrize(
    "written", ["Patient/p1", "Patient/p1/_history/4", f"{BASE}/Patient/p1", f"{BASE}/Patient/p1/_history/2"]
)
def test_a_reference_of_a_resource_by_itself_has_the_token_of_its_target(written):
    judge = engine()
    out = judge.resource(reading({"reference": written, "type": "Patient", "display": "Mr Smith"}))
    token = judge.resource(patient())["id"]
    assert out["subject"] == {"reference": f"Patient/{token}", "type": "Patient"}


@pytest.mark.parametrize(
    "written",
    [
        UUID, OID, "#p1", "Mr Smith", "Smith/p1", "Patient/p1/name", "Patient/p 1", "Patient/p1\n", "Patient/", "../Patient/p1", "",
        "Patient?name=Smith", "Patient?identifier=urn:mrn|99", "http://x/Smith/p1", "ftp://x/Patient/p1", "patient/p1", "Patient/" + "x" * 65,
        {"identifier": {"value": "99"}}, {"display": "Mr Smith"}, {"type": "Patient"}, {"reference": ["Patient/p1"]}, {"reference": 5},
    ],
)  # fmt: skip
def test_a_reference_that_does_not_resolve_is_dropped(written):
    out = engine().resource(bundle(patient(), reading(written)))
    assert pointed(out) is None


def test_an_identifier_of_two_people_is_nobodys():
    same = [{"system": "urn:mrn", "value": "1"}]
    two = [patient("a", identifier=same), patient("b", identifier=same)]
    assert pointed(engine().resource(bundle(*two, reading("Patient?identifier=urn:mrn|1")))) is None
    assert pointed(engine().resource(bundle(*two, reading({"identifier": same[0]})))) is None


def test_an_address_of_two_entries_is_nobodys():
    out = engine().resource(bundle(patient("a"), patient("b"), reading(UUID), urls=[UUID, UUID]))
    assert pointed(out) is None


def test_the_same_id_on_another_server_is_another_patient():
    urls = [f"{BASE}/Patient/p1", f"{BASE}/Observation/o1", "https://other.example/fhir/Patient/p1"]
    mine, theirs = reading("Patient/p1", id="o1"), reading("https://other.example/fhir/Patient/p1", id="o2")
    out = engine().resource(bundle(patient(), mine, patient(), theirs, urls=urls))
    first, _, second, _ = resources_of(out)
    assert first["id"] != second["id"]
    assert resources_of(out)[1]["subject"]["reference"] == out["entry"][0]["fullUrl"]
    assert pointed(out) == out["entry"][2]["fullUrl"]


def test_a_reference_to_another_server_is_not_one_to_the_same_id_here():
    out = engine().resource(
        bundle(patient(), reading("https://other.example/fhir/Patient/p1"), urls=[f"{BASE}/Patient/p1"])
    )
    assert pointed(out) == f"Patient/{NAMES.token('Patient', 'https://other.example/fhir/Patient/p1')}"


def test_an_entry_without_an_id_is_known_by_its_full_url():
    bare = {"resourceType": "Patient", "gender": "female"}
    out = engine().resource(bundle(bare, reading(UUID), urls=[UUID]))
    assert "id" not in resources_of(out)[0]
    assert pointed(out) == out["entry"][0]["fullUrl"] == dashed(NAMES.token("Patient", UUID))


def test_the_full_url_does_not_depend_on_the_order_of_an_entry():
    one = {"resource": patient(), "fullUrl": UUID}
    two = {"fullUrl": UUID, "resource": patient()}
    outs = [
        engine().resource({"resourceType": "Bundle", "type": "collection", "entry": [e]})["entry"][0]
        for e in (one, two)
    ]
    assert outs[0] == outs[1]
    assert "fullUrl" in outs[0]


def test_a_reference_to_what_is_contained_holds_and_one_to_what_had_to_go_does_not():
    drug = {
        "resourceType": "Medication",
        "id": "med",
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": "387458008"}]},
    }
    doctor = {"resourceType": "Practitioner", "id": "doc", "name": [{"family": "Smith"}]}
    changed = {"resourceType": "Condition", "id": "why", "modifierExtension": [{"url": "urn:x"}]}
    order = {
        "resourceType": "MedicationRequest", "id": "m1", "status": "active", "intent": "order", "contained": [drug, doctor, changed],
        "medicationReference": {"reference": "#med"}, "reasonReference": [{"reference": "#why"}, {"reference": "#gone"}],
        "basedOn": [{"reference": "#doc"}, {"reference": "#"}],
    }  # fmt: skip
    out = engine().resource(order)
    (kept,) = out["contained"]
    assert kept["resourceType"] == "Medication"
    assert out["medicationReference"]["reference"] == f"#{kept['id']}"
    assert "reasonReference" not in out
    assert out["basedOn"] == [{"reference": "#"}]


def test_an_id_of_two_contained_resources_is_nobodys():
    two = [{"resourceType": name, "id": "x"} for name in ("Patient", "Device")]
    out = engine().resource(reading("#x", contained=two))
    assert len(out["contained"]) == 2
    assert "subject" not in out


def test_what_is_contained_in_two_resources_under_one_id_has_two_tokens():
    def order(logical_id):
        return {
            "resourceType": "MedicationRequest", "id": logical_id, "status": "active", "intent": "order",
            "contained": [{"resourceType": "Medication", "id": "med"}], "medicationReference": {"reference": "#med"},
        }  # fmt: skip

    judge = engine()
    assert judge.resource(order("a"))["contained"][0]["id"] != judge.resource(order("b"))["contained"][0]["id"]


def test_who_is_contained_in_nameless_resources_is_not_one_person():
    """Else one would be dated by the other's first moment, and moved by the other's shift."""

    def nameless(day):
        who = {"resourceType": "Patient", "id": "p"}
        return reading("#p", contained=[who], effectiveDateTime=f"2024-05-{day}T08:00:00Z")

    judge = engine(Mode.SAFE_HARBOR_RULES)
    outs = [judge.resource(nameless(day)) for day in ("01", "02")]
    assert [o["_effectiveDateTime"]["extension"][0]["valueDecimal"] for o in outs] == [0, 0]
    assert outs[0]["contained"][0]["id"] != outs[1]["contained"][0]["id"]


def test_a_bundle_in_a_bundle_resolves_within_itself_first_and_then_around():
    inner = bundle(reading(UUID), reading(OID), urls=[None, None])
    out = engine().resource(bundle(patient("p1"), patient("p2"), inner, urls=[UUID, OID]))
    inside = resources_of(resources_of(out)[2])
    assert [r["subject"]["reference"] for r in inside] == [e["fullUrl"] for e in out["entry"][:2]]


def test_an_identifier_resolves_in_the_bundle_around_too_and_the_inner_one_comes_first():
    def known(logical_id):
        return patient(logical_id, identifier=[{"system": "urn:mrn", "value": "12345"}])

    by_identifier = {"identifier": {"system": "urn:mrn", "value": "12345"}}
    outer = engine().resource(
        bundle(known("p1"), bundle(reading(by_identifier), reading("Patient?identifier=urn:mrn|12345")))
    )
    inside = resources_of(resources_of(outer)[1])
    assert [each["subject"]["reference"] for each in inside] == [dashed(NAMES.token("Patient", "p1"))] * 2
    both = engine().resource(bundle(known("p1"), bundle(known("p2"), reading(by_identifier))))
    assert pointed(resources_of(both)[1]) == dashed(NAMES.token("Patient", "p2"))


def test_the_mode_does_not_change_what_resolves():
    who = patient(identifier=[{"system": "urn:mrn", "value": "12345"}])
    for mode in Mode:
        for url, written in IN_BUNDLE:
            out = engine(mode).resource(bundle(who, reading(written), urls=[url]))
            assert pointed(out) == dashed(resources_of(out)[0]["id"]), (mode, url, written)
