"""Two readers of one policy tell one story: what the path sees of a chart is what it sees of the de-identified chart.

The path computes with what it reads; the general engine writes FHIR. A chart goes through the path as it is, and once
more after the engine has renamed everybody and moved all dates, with the trigger moved alike.
"""

import dataclasses
import json
import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.deid import deidentify, load_rules
from sidecar.deid.general import KeyedNames
from sidecar.errors import Rejected
from sidecar.records import PatientSnapshot
from tests.unit.deid.general import KEY, engine, say

SYNTHEA = Path(__file__).resolve().parents[4] / "shared" / "fhir" / "synthea"
LOINC, SCT, UCUM = "http://loinc.org", "http://snomed.info/sct", "http://unitsofmeasure.org"
CODES = (f"{LOINC}|8867-4", f"{LOINC}|8480-6", f"{SCT}|709044004", f"{SCT}|46177005")
READS = {"Observation": frozenset(CODES), "Condition": frozenset(CODES)}
RULES = load_rules()
JUDGE = engine()
SHIFT = KeyedNames(KEY).shift("p1")
SUBJECT = {"reference": "Patient/p1"}
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
VERIFIED = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
BIRTH_SEX = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex"
AT = datetime(2025, 6, 1, 12, tzinfo=UTC)

moments = st.datetimes(datetime(2023, 1, 1), datetime(2026, 12, 31)).map(lambda m: m.replace(tzinfo=UTC))  # noqa: DTZ001
whole = st.one_of(moments.map(lambda m: m.isoformat()), st.dates(date(2010, 1, 1), date(2027, 1, 1)).map(str))
partial = st.sampled_from(["2011", "2024", "2025", "2025-06", "2030", "2024-13"])
periods = st.fixed_dictionaries({}, optional={"start": whole, "end": whole})


def maybe(**elements):
    return st.fixed_dictionaries({}, optional=elements)


def concepts(*codes):
    """A concept with some of `codes`, now and then with others and with words."""
    others = [
        {"system": "urn:local", "code": "x"},
        {"system": LOINC, "code": "4548-4", "display": "HbA1c"},
        {"code": "y"},
    ]
    known = [{"system": c.partition("|")[0], "code": c.partition("|")[2]} for c in codes]
    return maybe(coding=st.lists(st.sampled_from([*known, *known, *others]), max_size=3), text=st.just("words"))


def interpretations():
    """One that leaves the number a measurement: in other words the de-identified form has no number."""
    return concepts().map(lambda made: made | ({"text": "High"} if "text" in made else {}))


def read_code():
    """The code of a statement: nearly always one that the model reads, among others."""
    known = [{"system": c.partition("|")[0], "code": c.partition("|")[2]} for c in CODES]
    local = {"system": "urn:local", "code": "x", "display": "words"}
    usual = st.sampled_from(
        [{"coding": [each]} for each in known] + [{"coding": [local, each], "text": "words"} for each in known]
    )
    return st.one_of(usual, usual, usual, concepts(*CODES))


measured = st.builds(
    lambda number, unit, more: {"value": number, **unit, **more},
    st.one_of(st.integers(0, 300), st.floats(-10, 300)),
    st.sampled_from(
        [
            {"unit": "x", "system": UCUM, "code": "/min"}, {"system": UCUM, "code": "mm[Hg]"}, {"unit": "/min"}, {"unit": "beats"},
            {"unit": "Mr Smith", "system": UCUM, "code": "{Mr Smith}"}, {"unit": "/min", "system": "urn:local", "code": "x"}, {},
        ]
    ),
    st.one_of(st.just({}), st.just({}), st.just({}), st.sampled_from([{"comparator": c} for c in ("<", "<=", ">=", ">", "~")])),
)  # fmt: skip
odd = maybe(
    value=st.one_of(st.integers(0, 300), st.floats(-10, 300), st.just("12")),
    comparator=st.sampled_from(["<", "<=", ">=", ">", "~"]),
    unit=st.sampled_from(["/min", "mm[Hg]", "beats", "Mr Smith"]),
    system=st.sampled_from([UCUM, "urn:local"]),
    code=st.sampled_from(["/min", "mm[Hg]", "{Mr Smith}"]),
)
quantities = st.one_of(measured, measured, measured, odd)
values = {
    "valueQuantity": quantities,
    "valueInteger": st.integers(0, 300),
    "valueCodeableConcept": concepts(f"{SCT}|248234008"),
    "valueString": st.just("Mr Smith"),
    "valueBoolean": st.booleans(),
    "valueRange": st.just({"low": {"value": 1}}),
    "valueTime": st.just("12:00:00"),
    "valueDateTime": whole,
    "valuePeriod": periods,
}
parts = {
    "interpretation": st.lists(
        st.one_of(interpretations(), st.just({"coding": [{"system": "urn:local", "code": "<"}]})), max_size=2
    ),
    "dataAbsentReason": concepts(),
}


@st.composite
def part(draw):
    """A code with at most one value."""
    made = draw(
        maybe(**parts, modifierExtension=st.just([{"url": "urn:x"}]))
        if draw(st.integers(0, 19)) == 0
        else maybe(**parts)
    )
    made["code"] = draw(read_code())
    if draw(st.integers(0, 4)):
        name = draw(st.sampled_from([*values, *["valueQuantity"] * 6]))
        made[name] = draw(values[name])
    return made


@st.composite
def observations(draw, times=whole):
    when = st.one_of(
        maybe(effectiveDateTime=times),
        maybe(effectiveInstant=moments.map(lambda m: m.isoformat())),
        maybe(effectivePeriod=periods),
    )
    extra = maybe(
        issued=moments.map(lambda m: m.isoformat()), component=st.lists(part(), max_size=3), note=st.just([{"text": "Mr Smith"}]),
    )  # fmt: skip
    rare = maybe(
        focus=st.just([{"reference": "Patient/p2"}]),
        modifierExtension=st.just([{"url": "urn:x"}]),
        implicitRules=st.just("urn:x"),
    )
    status = draw(
        st.sampled_from(
            ["final", "final", "final", "amended", "preliminary", "entered-in-error", "registered", "unknown", "odd"]
        )
    )
    return {
        "resourceType": "Observation", "subject": SUBJECT, "status": status, **draw(part()), **draw(when), **draw(extra),
        **(draw(rare) if draw(st.integers(0, 19)) == 0 else {}),
    }  # fmt: skip


@st.composite
def conditions(draw, times=whole):
    extra = maybe(
        clinicalStatus=concepts(*(f"{CLINICAL}|{c}" for c in ("active", "recurrence", "resolved", "odd"))),
        verificationStatus=concepts(*(f"{VERIFIED}|{c}" for c in ("confirmed", "provisional", "refuted"))),
        recordedDate=times,
    )
    began = st.one_of(maybe(onsetDateTime=times), maybe(onsetPeriod=periods), maybe(onsetString=st.just("in spring")))
    ended = st.one_of(
        st.just({}), st.just({}), st.fixed_dictionaries({"abatementDateTime": times}), st.fixed_dictionaries({"abatementPeriod": periods}),
        st.just({"abatementString": "Easter"}), st.just({"abatementAge": {"value": 50, "unit": "a", "system": UCUM, "code": "a"}}),
    )  # fmt: skip
    return {
        "resourceType": "Condition",
        "subject": SUBJECT,
        "code": draw(read_code()),
        **draw(extra),
        **draw(began),
        **draw(ended),
    }


people = st.builds(
    lambda more, sex: {
        "resourceType": "Patient",
        "id": "p1",
        **more,
        **({"extension": [{"url": BIRTH_SEX, "valueCode": sex}]} if sex else {}),
    },
    maybe(
        birthDate=st.dates(date(1920, 1, 1), date(2025, 5, 1)).map(str),
        gender=st.sampled_from(["male", "female", "other", "unknown"]),
        deceasedBoolean=st.booleans(),
        active=st.booleans(),
        link=st.lists(
            st.fixed_dictionaries(
                {"other": st.just({"reference": "Patient/p2"}), "type": st.sampled_from(["replaced-by", "seealso"])}
            ),
            max_size=1,
        ),
        name=st.just([{"family": "Smith"}]),
    ),
    st.sampled_from([None, "M", "F", "UNK"]),
)
stays = st.one_of(
    st.none(),
    st.builds(
        lambda more: {"resourceType": "Encounter", "id": "e1", "subject": SUBJECT, **more},
        maybe(status=st.sampled_from(["in-progress", "finished", "cancelled", "planned", "odd"]), period=periods),
    ),
)  # fmt: skip


def seen(who, stay, resources, at):
    """What the path sees; None when it rejects the Patient or the Encounter."""
    try:
        return deidentify(PatientSnapshot(who, stay, tuple(resources), at), RULES, READS)
    except Rejected:
        return None


def empty(fact):
    """An Observation without a value: one form may say why, and the other that something was withheld."""
    if fact.type == "Observation" and fact.value is None and not fact.value_codes:
        return msgspec.structs.replace(fact, trouble=None, unit=None)
    return fact


def close(one, two):
    """Equal facts, with differences of binary fractions in their seconds."""
    a, b = msgspec.structs.asdict(empty(one)), msgspec.structs.asdict(empty(two))
    times = ("seconds", "recorded", "began")
    assert {k: v for k, v in a.items() if k not in times} == {k: v for k, v in b.items() if k not in times}
    for name in times:
        assert (a[name] is None) == (b[name] is None), name
        assert a[name] is None or a[name] == b[name] or math.isclose(a[name], b[name], abs_tol=1e-4), name


def through(resources):
    """Each in its de-identified form, or nothing where it is refused, at its old index."""
    return [JUDGE.resource(r) or {} for r in resources]


@given(who=people, stay=stays, readings=st.lists(st.one_of(observations(), conditions()), max_size=6))
@settings(max_examples=500, deadline=None)
def test_what_the_path_sees_of_a_chart_it_sees_of_the_deidentified_chart(who, stay, readings):
    """What the engine refuses has a statement that the path does not use, or a part with an unknown modifier.

    Ages in years are compared but for birthdays within two days: a moved year may have another 29 February.
    """
    moved_who = JUDGE.resource(who)
    moved_stay = JUDGE.resource(stay) if stay else None
    path, general = seen(who, stay, readings, AT), seen(moved_who, moved_stay, through(readings), AT + SHIFT)
    assert path.deceased == general.deceased
    assert path.inactive == general.inactive
    assert path.sex == general.sex
    assert path.encounter_open == general.encounter_open
    assert path.lived_s == general.lived_s
    if not near_birthday(who.get("birthDate")):
        assert path.age_years == general.age_years
    refused = {i for i, r in enumerate(through(readings)) if not r}
    mine = [f for f in path.facts if f.index not in refused]
    assert len(mine) == len(general.facts)
    for one, two in zip(mine, general.facts, strict=True):
        close(one, two)
    for index in refused:
        facts = [f for f in path.facts if f.index == index]
        assert not facts or any(f.trouble for f in facts) or changed_part(readings[index])


def changed_part(reading):
    """Whether a part has a modifier that nobody interprets: the path leaves that part out, the engine the whole."""
    listed = (reading, *reading.get("component", ()))
    return any("modifierExtension" in c or c.get("valueQuantity", {}).get("comparator") == "~" for c in listed)


def near_birthday(born):
    """Whether AT, or AT as it was moved, is within two days of a birthday."""
    if born is None:
        return False
    day = date.fromisoformat(born)
    return any(
        abs((on - (start + timedelta(days=round(365.2425 * years)))).days) <= 2
        for start, on in ((day, AT.date()), (day + SHIFT, (AT + SHIFT).date()))
        for years in range(110)
    )


@given(
    readings=st.lists(
        st.one_of(observations(st.one_of(whole, partial)), conditions(st.one_of(whole, partial))), max_size=6
    )
)
@settings(max_examples=200, deadline=None)
def test_with_parts_of_dates_the_deidentified_chart_never_proves_more(readings):
    """A part of a date is masked, so less may be known of when; nothing that cannot be used becomes usable."""
    who = {"resourceType": "Patient", "id": "p1"}
    general = seen(JUDGE.resource(who), None, through(readings), AT + SHIFT)
    path = {(f.index, f.codes): f for f in seen(who, None, readings, AT).facts}
    for fact in general.facts:
        if fact.trouble is None and (fact.value is not None or fact.value_codes):
            same = path[fact.index, fact.codes]
            assert same.trouble is None or len([f for f in general.facts if f.index == fact.index]) > 1
        if fact.began is not None and (fact.index, fact.codes) in path:
            assert path[fact.index, fact.codes].began <= fact.began + 1e-4


@pytest.mark.parametrize("seed", [1])
def test_the_charts_of_synthea_are_seen_alike(seed):
    if not SYNTHEA.is_dir():
        pytest.skip(f"missing: {SYNTHEA}")
    compared = 0
    for path in sorted(SYNTHEA.glob("*.json")):
        entries = [e["resource"] for e in json.loads(path.read_text())["entry"]]
        who = next(r for r in entries if r["resourceType"] == "Patient")
        readings = [r for r in entries if r["resourceType"] in ("Observation", "Condition")]
        stay = next(r for r in entries if r["resourceType"] == "Encounter")
        codes = frozenset(
            f"{c['system']}|{c['code']}"
            for r in readings
            for p in (r, *r.get("component", ()))
            for c in p["code"]["coding"]
        )
        reads = {"Observation": codes, "Condition": codes}
        resolved = [
            json.loads(json.dumps(r).replace("urn:uuid:" + who["id"], "Patient/" + who["id"]))
            for r in (who, stay, *readings)
        ]
        shift = KeyedNames(KEY).shift(who["id"])
        at = datetime(2019, 6, 1, 12, tzinfo=UTC)
        first = PatientSnapshot(resolved[0], resolved[1], tuple(resolved[2:]), at)
        moved = [JUDGE.resource(r) for r in resolved]
        second = PatientSnapshot(moved[0], moved[1], tuple(moved[2:]), at + shift)
        one, two = (dataclasses.replace(deidentify(s, RULES, reads), age_years=None) for s in (first, second))
        assert len(one.facts) == len(two.facts)
        for a, b in zip(one.facts, two.facts, strict=True):
            close(a, b)
        assert dataclasses.replace(one, facts=()) == dataclasses.replace(two, facts=())
        compared += len(one.facts)
    say(f"{compared} facts alike")
    assert compared > 2_000
