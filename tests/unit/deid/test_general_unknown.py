"""Nothing that R4 does not have, and nothing that the policy does not name, is in what the general engine gives out."""

import json
from collections import Counter
from random import Random

import pytest

from sidecar.deid.general import Mode
from tests.unit.deid.general import R4, TYPES, Chart, bundle, engine, policy, say, words_of

SEED = 20261125
ROUNDS = 3_500


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.timeout(300)
def test_of_ten_thousand_random_resources_no_planted_value_survives(mode):
    seed = SEED + list(Mode).index(mode)
    say(f"seed {seed}")
    judge, random, places, passed, made, values = engine(mode), Random(seed), set(), Counter(), 0, 0
    while made < ROUNDS:
        chart = Chart(random.getrandbits(64))
        make = random.choices([chart.resource, chart.bundle, chart.parameters], [8, 1, 1])[0]
        source = make()
        made += json.dumps(source).count('"resourceType"')
        out = judge.resource(source)
        places |= chart.planted
        values += len(chart.marks)
        if out is None:
            continue
        passed[out["resourceType"]] += 1
        said = json.dumps(out).casefold()
        survived = [mark for mark in chart.marks if mark in said]
        assert not survived, (mode, json.dumps(source)[:2000], survived)
    say(f"{mode}: {made} resources, {values} values at {len(places)} places, 0 survived; passed {passed}")
    assert len(places) > 500
    assert values > 50_000
    assert all(passed[name] for name in [*TYPES, "Bundle", "Parameters"])


def test_an_unknown_modifier_refuses_its_resource_wherever_the_policy_walks():
    """At the top and in every backbone element that is kept, however deep."""

    def tables(path, table):
        yield path
        for name, keep in table.items():
            if keep.table is not None and name not in path:
                yield from tables((*path, name), keep.table)

    tried = 0
    for type_name in R4["resources"]:
        for path in tables((), policy().types[type_name]):
            source = {"resourceType": type_name}
            inner = source
            for name in path:
                inner[name] = [child := {}] if _many(type_name, path, name) else (child := {})
                inner = child
            inner["modifierExtension"] = [{"url": "urn:x", "valueBoolean": True}]
            judge = engine()
            assert judge.resource(source) is None, (type_name, path)
            (reason,) = judge.tally.refused
            assert reason.startswith(f"modifier:{type_name}.")
            assert reason.endswith(".modifierExtension")
            tried += 1
    assert tried > 60


def _many(type_name, path, name):
    table = policy().types[type_name]
    for each in path[: path.index(name)]:
        table = table[each].table
    return table[name].many


def test_an_unknown_modifier_of_a_contained_or_entered_resource_takes_that_one_away():
    changed = {"resourceType": "Observation", "id": "o", "status": "final", "modifierExtension": [{"url": "urn:x"}]}
    plain = {"resourceType": "Observation", "id": "p", "status": "final", "contained": [changed]}
    judge = engine()
    out = judge.resource(bundle(changed, plain, urls=["urn:uuid:1", "urn:uuid:2"]))
    assert [e["resource"].keys() for e in out["entry"]] == [{"resourceType", "id", "status"}]
    assert judge.tally.refused == {"modifier:Observation.modifierExtension": 2}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({"resourceType": "Observation", "status": "quite final"}, "modifier:Observation.status"),
        ({"resourceType": "Observation", "status": "final", "implicitRules": "urn:x"}, "modifier:Observation.implicitRules"),
        ({"resourceType": "Observation", "status": "final", "focus": [{"display": "fetus"}]}, "modifier:Observation.focus"),
        ({"resourceType": "Condition", "verificationStatus": {"text": "no"}}, "modifier:Condition.verificationStatus"),
        ({"resourceType": "MedicationRequest", "doNotPerform": "yes"}, "modifier:MedicationRequest.doNotPerform"),
        (
            {"resourceType": "Observation", "valueQuantity": {"value": 3, "comparator": "~"}},
            "modifier:Observation.valueQuantity.comparator",
        ),
        ({"resourceType": "Patient", "link": [{"other": {"display": "x"}, "type": "is"}]}, "modifier:Patient.link"),
        ({"resourceType": "Practitioner", "id": "1"}, "type:Practitioner"),
        ({"resourceType": "Mr Smith"}, "type:?"),
        ({}, "type:?"),
    ],
)  # fmt: skip
def test_what_changes_the_meaning_and_is_not_understood_refuses_with_a_reason(source, reason):
    judge = engine()
    assert judge.resource(source) is None
    assert judge.tally.refused == {reason: 1}


def test_what_changes_the_meaning_and_is_understood_is_kept():
    out = engine().resource(
        {
            "resourceType": "Observation", "id": "1", "status": "entered-in-error",
            "valueQuantity": {"value": 3, "comparator": "<", "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"},
            "interpretation": [{"coding": [{"system": "urn:local", "code": "<"}], "text": "off scale"}],
            "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7"}]},
            "component": [{"dataAbsentReason": {"text": "refused by patient"}}],
        }
    )  # fmt: skip
    assert out["status"] == "entered-in-error"
    assert out["valueQuantity"]["comparator"] == "<"
    assert out["interpretation"][0]["coding"][0]["code"] == "<"
    assert out["component"][0]["dataAbsentReason"]["coding"][0]["code"] == "unknown"


@pytest.mark.parametrize(
    "value", [{"valueString": "Mr Smith"}, {"valueDateTime": "1950-05-04"}, {"valueQuantity": {"value": "3"}}]
)
def test_a_value_that_has_to_go_is_said_to_be_masked(value):
    plain = {"resourceType": "Observation", "status": "final", "component": [dict(value)], **value}
    out = engine().resource(plain)
    assert out["dataAbsentReason"]["coding"][0]["code"] == "masked"
    assert out["component"][0]["dataAbsentReason"]["coding"][0]["code"] == "masked"


US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
OMB = "urn:oid:2.16.840.1.113883.6.238"


def test_of_extensions_only_the_named_ones_stay_and_of_those_only_listed_codes():
    white = {"url": "ombCategory", "valueCoding": {"system": OMB, "code": "2106-3"}}
    detailed = {"url": "detailed", "valueCoding": {"system": OMB, "code": "2108-9", "display": "European"}}
    spoiled = [
        {"url": "text", "valueString": "White"},
        {"url": "ombCategory", "valueCoding": {"system": OMB, "code": "Smith"}},
    ]
    shown = {"url": "ombCategory", "valueCoding": {**white["valueCoding"], "display": "White", "version": "1"}}
    source = [
        {"url": f"{US_CORE}race", "extension": [shown, detailed, *spoiled]},
        {"url": f"{US_CORE}ethnicity", "extension": spoiled},
        {"url": f"{US_CORE}birthsex", "valueCode": "F"},
        {"url": f"{US_CORE}birthsex", "valueCode": "Smith"},
        {"url": f"{US_CORE}genderIdentity", "valueCode": "F"},
        {"url": "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName", "valueString": "Smith"},
        {"valueString": "Smith"},
        "Smith",
    ]
    out = engine().resource({"resourceType": "Patient", "extension": source})
    assert out["extension"] == [
        {"url": f"{US_CORE}race", "extension": [white]},
        {"url": f"{US_CORE}birthsex", "valueCode": "F"},
    ]


def test_a_condition_that_ended_at_some_unknown_time_has_ended_and_the_dead_are_dead():
    judge = engine()
    ended = judge.resource({"resourceType": "Condition", "abatementDateTime": "2011"})
    assert ended == {"resourceType": "Condition", "abatementString": "masked"}
    assert judge.resource({"resourceType": "Patient", "deceasedDateTime": "2011"})["deceasedBoolean"] is True
    assert judge.resource({"resourceType": "Condition", "abatementString": "in spring"}) == ended
    unknown = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason"}]}
    assert judge.resource({"resourceType": "Condition", "_abatementDateTime": unknown}) == ended
    assert judge.resource({"resourceType": "Patient", "_deceasedDateTime": unknown})["deceasedBoolean"] is True


@pytest.mark.parametrize(
    ("said", "dead"),
    [
        ({"deceasedString": "no"}, None), ({"deceasedString": "at home"}, None), ({"deceasedBoolean": False}, False),
        ({"deceasedBoolean": "no"}, None), ({"deceasedAge": {}}, None), ({"deceasedDate": "never"}, None),
        ({"deceasedDate": "1999"}, True), ({"deceasedAge": {"value": 70}}, True), ({"deceasedRange": {"low": {"value": 70}}}, True),
    ],
)  # fmt: skip
def test_a_relative_is_dead_where_an_age_or_a_date_says_so_and_not_by_a_text(said, dead):
    out = engine().resource({"resourceType": "FamilyMemberHistory", "status": "completed", **said})
    assert out.get("deceasedBoolean") is dead


@pytest.mark.parametrize(
    ("type_name", "name"),
    [("Condition", "abatementBoolean"), ("Patient", "deceasedAge"), ("ServiceRequest", "asNeeded")],
)
def test_a_choice_of_another_version_of_fhir_refuses_unless_it_denies(type_name, name):
    judge = engine()
    assert judge.resource({"resourceType": type_name, name: True}) is None
    (reason,) = judge.tally.refused
    assert reason.startswith(f"modifier:{type_name}.")
    assert judge.resource({"resourceType": type_name, name: False}) == {"resourceType": type_name}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ({"unit": "per minute", "system": "http://unitsofmeasure.org", "code": "/min"}, "/min"),
        ({"unit": "/min"}, "/min"),
        ({"unit": "Mr Smith", "system": "http://unitsofmeasure.org", "code": "{Mr Smith}"}, "unknown"),
        ({"unit": "beats of Mr Smith"}, "unknown"),
        ({}, None),
    ],
)
def test_a_number_in_a_unit_that_may_not_stay_is_not_a_bare_number(written, kept):
    named = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    out = engine().resource({"resourceType": "Observation", "code": named, "valueQuantity": {"value": 70, **written}})
    assert out["valueQuantity"]["value"] == 70
    assert out["valueQuantity"].get("unit") == kept
    assert out["valueQuantity"].get("code") == (kept if kept != "unknown" else None)


def test_an_end_or_a_death_with_a_distance_is_said_once():
    """Of the choices that R4 has for when it ended, one may be used."""
    about = {"reference": "Patient/p1"}
    sick = {
        "resourceType": "Condition",
        "subject": about,
        "onsetDateTime": "2020-01-01",
        "abatementDateTime": "2020-01-11",
    }
    judge = engine(Mode.SAFE_HARBOR_RULES)
    out = judge.resource(sick)
    assert [name for name in out if "abatement" in name] == ["_abatementDateTime"]
    assert out["_abatementDateTime"]["extension"][0]["valueInteger"] == 10
    dead = judge.resource({"resourceType": "Patient", "id": "p1", "deceasedDateTime": "2020-01-21"})
    assert [name for name in dead if "deceased" in name] == ["_deceasedDateTime"]


def test_the_tally_counts_by_element_and_has_no_value_in_it():
    judge = engine(listing=True)
    chart = Chart(SEED)
    for _ in range(300):
        judge.resource(chart.resource("Observation"))
    words = {*words_of([list(key) for key in judge.tally.counts]), *judge.tally.refused, *judge.tally.resources}
    said = " ".join({*words, *(part for step in judge.tally.steps for part in (step.path, step.what))}).casefold()
    assert not [mark for mark in chart.marks if mark in said]
    assert judge.tally.counts["Observation.code", "kept"] > 0
    assert judge.tally.counts["Observation.code.text", "dropped"] > 0
    assert judge.tally.counts["Observation.id", "replaced"] > 0
    assert sum(judge.tally.counts.values()) == len(judge.tally.steps)


def test_what_was_in_a_refused_resource_is_not_counted_as_given_out():
    judge = engine(listing=True)
    inside = {"resourceType": "Observation", "id": "1", "status": "final"}
    assert judge.resource({**bundle(inside), "implicitRules": "urn:x"}) is None
    assert (judge.tally.counts, judge.tally.resources, judge.tally.steps) == ({}, {}, [])
    assert judge.tally.refused == {"modifier:Bundle.implicitRules": 1}
    judge.resource(inside)
    assert judge.tally.resources == {"Observation": 1}
    assert judge.tally.counts == {("Observation.id", "replaced"): 1, ("Observation.status", "kept"): 1}
    assert [(step.path, step.what) for step in judge.tally.steps] == list(judge.tally.counts)


def test_resources_in_resources_without_end_are_refused():
    deep = {"resourceType": "Bundle", "type": "collection"}
    for _ in range(500):
        deep = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": deep}]}
    items = {"linkId": "1"}
    for _ in range(500):
        items = {"item": [items]}
    judge = engine()
    judge.resource(deep)
    assert judge.resource({"resourceType": "QuestionnaireResponse", "status": "completed", **items}) is None
    assert judge.tally.refused == {"depth": 2}
