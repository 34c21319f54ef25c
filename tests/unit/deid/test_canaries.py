"""No identifier planted anywhere in a chart is in what a model may see, nor in what it computes."""

import copy
import dataclasses
import json
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.context import from_bundle
from sidecar.deid import deidentify
from tests.unit.chart import (
    AT,
    LOINC,
    SCT,
    bundle,
    concept,
    crossed,
    judge,
    model,
    panel,
    person,
    rules,
    scale,
    stay,
    vitals,
)

CANARY = "Xq7Canary"
PARTS = (CANARY.casefold(),)


def chart(mark=CANARY):
    """A chart with `mark` at every place where people have found identity, and where nobody has looked yet."""
    extension = [{"url": f"urn:{mark}", "valueString": mark, "extension": [{"url": "x", "valueCode": mark}]}]
    common = {
        "text": {"status": "generated", "div": f"<div>{mark}</div>"},
        "meta": {"source": f"http://{mark}", "tag": [{"system": f"urn:{mark}", "code": mark, "display": mark}]},
        "extension": extension,
        "contained": [{"resourceType": "Patient", "id": mark, "name": [{"text": mark}]}],
        "language": mark,
        "identifier": [{"system": f"urn:{mark}", "value": mark, "assigner": {"display": mark}}],
        mark: mark,
        f"_{mark}": {"extension": extension},
    }
    who = person(
        id=f"p-{mark}", name=[{"family": mark, "given": [mark]}], telecom=[{"value": mark}], photo=[{"url": mark}],
        address=[{"line": [mark], "postalCode": mark}], contact=[{"name": {"text": mark}}], gender=mark,
        _birthDate={"extension": extension}, generalPractitioner=[{"display": mark}], maritalStatus=concept(f"urn:x|{mark}"),
        **common,
    )  # fmt: skip
    subject = {"reference": f"Patient/p-{mark}", "display": mark, "identifier": {"value": mark}}
    where = stay(
        id=f"e-{mark}",
        subject=subject,
        type=[{"text": mark}],
        reasonCode=[{"text": mark}],
        location=[{"display": mark}],
        **common,
    )
    readings = []
    for index, reading in enumerate([*vitals(systolic_bp=panel(120)).values(), scale(2)]):
        marked = {
            **copy.deepcopy(reading), **copy.deepcopy(common), "id": f"o-{index}-{mark}", "subject": subject,
            "encounter": {"reference": f"Encounter/e-{mark}", "display": mark}, "note": [{"text": mark}],
            "performer": [{"display": mark}], "device": {"display": mark}, "method": {"text": mark}, "bodySite": {"text": mark},
            "interpretation": [{"text": mark, "coding": [{"system": "urn:x", "code": mark}]}], "_effectiveDateTime": {"extension": extension},
            "referenceRange": [{"text": mark}], "specimen": {"display": mark}, "issued": mark,
        }  # fmt: skip
        marked["code"]["text"] = mark
        for coding in marked["code"]["coding"]:
            coding["display"], coding["version"] = mark, mark
        local = {"system": f"urn:oid:{mark}", "code": mark, "display": mark}
        named = [{"system": SCT, "code": f"Mr {mark} Smith"}, {"system": LOINC, "code": f"{mark} {mark}"}]
        marked["code"]["coding"] = [local, *marked["code"]["coding"], *named]
        readings.append(marked)
    readings += [
        {**copy.deepcopy(readings[0]), "id": "unit", "valueQuantity": {"value": 9, "unit": mark, "code": f"{{{mark}}}/min", "system": "http://unitsofmeasure.org"}},
        {**copy.deepcopy(readings[0]), "id": "unit2", "valueQuantity": {"value": 9, "unit": mark}},
        {**copy.deepcopy(readings[0]), "id": "words", "valueQuantity": None, "valueString": mark},
        {**copy.deepcopy(readings[0]), "id": "coded", "valueQuantity": None, "valueCodeableConcept": {"text": mark, "coding": [local]}},
        {**copy.deepcopy(readings[0]), "id": "absent", "dataAbsentReason": {"text": mark}},
        {**copy.deepcopy(readings[0]), "id": "status", "status": mark},
        {"resourceType": "Condition", "id": "c", "subject": subject, "code": {"text": mark, "coding": named}, "note": [{"text": mark}], **common},
    ]  # fmt: skip
    return who, where, readings


def said(value):
    """Every form in which a value might be written down."""
    return (repr(value) + str(value) + json.dumps(dataclasses.asdict(value), default=str)).casefold()


def test_no_planted_identifier_crosses_the_boundary():
    who, where, readings = chart()
    clean = crossed(who, where, readings)
    assert len(clean.facts) > 10
    assert not [part for part in PARTS if part in said(clean)]


def test_no_planted_identifier_is_in_the_vector_or_the_assessment():
    who, where, readings = chart()
    conclusion = judge(readings, who=who, where=where)
    assert not [part for part in PARTS if part in said(conclusion.assessment.vector) + said(conclusion.assessment)]


def test_no_date_of_the_chart_crosses_the_boundary():
    who, where, readings = chart()
    clean = said(crossed(who, where, readings))
    assert not [date for date in ("1950", "2026", "05-04", "03-01") if date in clean]


def test_a_chart_full_of_identity_scores_as_the_same_chart_without_it():
    who, where, readings = chart()
    plain = judge([*vitals(systolic_bp=panel(120)).values(), scale(2)])
    assert judge(readings[:8], who=who, where=where).assessment.contributions == plain.assessment.contributions


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just(CANARY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([CANARY, "coding", "value", "text"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
UNKNOWN = st.text("abcdefghijklmnopqrstuvwxyzABC_", min_size=1, max_size=12)


def sow(draw, node, planted):
    if isinstance(node, dict):
        for child in list(node.values()):
            sow(draw, child, planted)
        allowed = {n for table in rules().types.values() for n in table}
        read = {
            "resourceType",
            "id",
            "subject",
            "encounter",
            "system",
            "code",
            "value",
            "unit",
            "coding",
            "reference",
            "comparator",
            "end",
            "start",
            "type",
        }
        name = draw(UNKNOWN)
        if name not in allowed | read:
            node[name] = draw(planted)
    elif isinstance(node, list):
        for child in node:
            sow(draw, child, planted)


@settings(max_examples=60, deadline=None, print_blob=True)
@given(st.data())
def test_what_no_rule_names_changes_nothing_wherever_it_stands(data):
    plain = [person(), stay(), *vitals(systolic_bp=panel(120)).values(), scale(2)]
    sown = copy.deepcopy(plain)
    for resource in sown:
        sow(data.draw, resource, JSON)
    before, after = (crossed(each[0], each[1], each[2:]) for each in (plain, sown))
    assert before == after


def test_deidentifying_twice_gives_the_same():
    who, where, readings = chart()
    assert crossed(who, where, readings) == crossed(who, where, readings)


def test_a_snapshot_depends_on_the_interval_to_the_trigger_and_not_on_the_calendar():
    def clean(days):
        at = AT + timedelta(days=days)
        moved = [{**r, "effectiveDateTime": at.isoformat()} for r in vitals().values()]
        codes = model().loaded.manifest.observation_codes
        born = person(birthDate=(date(1950, 5, 4) + timedelta(days=days)).isoformat())
        return deidentify(
            from_bundle(bundle(born, stay(), *moved), codes, at, ZoneInfo("UTC")), rules(), model().extractor.reads
        )

    assert clean(0) == clean(40)
