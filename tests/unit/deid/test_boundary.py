"""What crosses the boundary has exactly the meaning it had; what cannot be parsed does not cross, and nothing crashes."""

import copy
import math
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.deid import deidentify, instant, load_rules
from sidecar.deid.boundary import BIRTH_SEX
from sidecar.deid.mode import Mode
from sidecar.deid.times import days, years_between
from sidecar.errors import Misconfigured, Rejected
from sidecar.records import Event, Evidence, PatientId, PatientSnapshot, Reference, Sex
from tests.unit.chart import (
    AT,
    UCUM,
    amount,
    concept,
    crossed,
    judge,
    measured,
    observation,
    panel,
    person,
    rules,
    scale,
    stay,
    vitals,
)

SHIPPED = Path(__file__).resolve().parents[3] / "sidecar" / "deid" / "rules.toml"
GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["9999", "0001-01-01T00:00:00+14:00", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["coding", "value", "code", "system", "end", "type"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def facts(*readings):
    return crossed(person(), stay(), readings).facts


def places(node, path=()):
    """Every place of a JSON value."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


CHART = [person(active=True, link=[]), stay(), *vitals(systolic_bp=panel(120)).values(), scale(2)]
PLACES = [p for p in places(CHART) if len(p) > 1]


@settings(max_examples=300, deadline=None, print_blob=True)
@given(st.sampled_from(PLACES), GARBAGE)
def test_whatever_stands_in_a_place_is_read_or_refused_and_never_crashes(place, garbage):
    chart = copy.deepcopy(CHART)
    node = chart
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = garbage
    try:
        crossed(chart[0], chart[1], chart[2:])
    except Rejected as refusal:
        assert refusal.reason in {"modifier:patient", "modifier:encounter"}  # noqa: PT017 -- most garbage is no refusal


def test_a_fact_is_a_number_a_unit_and_seconds_before_the_trigger():
    (fact,) = facts(measured("9279-1", 16, "/min", timedelta(minutes=5)))
    assert (fact.index, fact.codes, fact.value, fact.unit, fact.seconds, fact.trouble) == (
        0, ("http://loinc.org|9279-1",), 16.0, "/min", -300.0, None,
    )  # fmt: skip


def test_a_fact_points_to_its_source_by_position_only():
    unread = measured("2345-7", 100, "mg/dL")
    assert [f.index for f in facts(unread, *vitals(systolic_bp=panel(120)).values())] == [1, 2, 3, 4, 5, 6, 7]


def test_of_a_panel_only_the_component_that_the_model_reads_crosses():
    (fact,) = facts(panel(120))
    assert (fact.codes, fact.value) == (("http://loinc.org|8480-6",), 120.0)


class Watched(dict):
    """A resource that remembers which of its elements were looked at."""

    def __init__(self, resource):
        super().__init__(resource)
        self.seen = set()

    def get(self, name, default=None):
        if name in self:
            self.seen.add(name)
        return super().get(name, default)


def test_of_a_statement_that_the_model_does_not_read_nothing_but_its_codes_is_looked_at():
    part = {"code": concept("http://loinc.org|2339-0"), "valueQuantity": {"value": 3}}
    unread = Watched(measured("2345-7", 100, "mg/dL", issued=AT.isoformat(), component=[part], focus=[]))
    assert facts(unread) == ()
    assert unread.seen == {"resourceType", "code", "component"}


@settings(max_examples=200, deadline=None, print_blob=True)
@given(st.lists(st.tuples(st.sampled_from(sorted(observation("x|y"))), GARBAGE), max_size=4))
def test_whatever_a_statement_that_is_not_read_says_changes_nothing(changes):
    unread = {**measured("2345-7", 100, "mg/dL"), **{name: value for name, value in changes if name != "resourceType"}}
    charted = list(vitals().values())
    assert facts(*charted, unread) == facts(*charted)


def test_a_type_that_the_model_does_not_read_is_not_looked_at():
    unread = Watched({"resourceType": "Condition", "id": "c", "code": concept("http://snomed.info/sct|1")})
    reads = {"Observation": frozenset({"http://loinc.org|9279-1"})}
    assert deidentify(PatientSnapshot(person(), stay(), (unread,), AT), rules(), reads).facts == ()
    assert unread.seen == {"resourceType"}


def test_a_code_that_a_model_names_does_not_cross_from_a_system_that_is_not_known():
    reads = {"Observation": frozenset({"urn:elsewhere|9279-1"})}
    reading = observation("urn:elsewhere|9279-1", valueQuantity={"value": 3, "system": UCUM, "code": "/min"})
    assert deidentify(PatientSnapshot(person(), stay(), (reading,), AT), rules(), reads).facts == ()


@pytest.mark.parametrize("unit", ["{John Smith}/min", "mmHg", "beats", "", "% "])
def test_a_unit_that_is_not_on_the_list_crosses_as_unknown(unit):
    quantity = {"value": 3, "system": UCUM, "code": unit}
    assert facts(observation("http://loinc.org|9279-1", valueQuantity=quantity))[0].unit == "unknown"


def test_only_the_types_of_the_policy_cross():
    note = {**measured("9279-1", 3, "/min"), "resourceType": "DocumentReference"}
    assert facts(note) == ()


@pytest.mark.parametrize("word", [PatientId("p-1"), Reference("Patient", "p-1", "3"), Event("s", 1.0, Reference("Patient", "p-1")),
                                  PatientSnapshot({"id": "p-1"}, None, (), AT)], ids=lambda v: type(v).__name__)  # fmt: skip
def test_an_identified_value_shows_its_type_and_nothing_else(word):
    assert {repr(word), str(word), f"{word}", f"{[word]!r}".strip("[]")} == {f"<{type(word).__name__}>"}


def test_a_conclusion_and_its_evidence_show_their_type_and_nothing_else():
    conclusion = judge(vitals().values())
    assert (repr(conclusion), repr(conclusion.evidence)) == ("<Conclusion>", "<Evidence>")


def test_evidence_survives_being_stored():
    evidence = judge(vitals().values()).evidence
    assert Evidence.from_json(evidence.to_json()) == evidence
    assert evidence.encounter is not None


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2024", date(2024, 1, 1), date(2024, 12, 31)),
        ("2024-02", date(2024, 2, 1), date(2024, 2, 29)),
        ("2023-02", date(2023, 2, 1), date(2023, 2, 28)),
        ("2024-12", date(2024, 12, 1), date(2024, 12, 31)),
        ("2024-02-29", date(2024, 2, 29), date(2024, 2, 29)),
        ("2024-02-29T10:00:00Z", date(2024, 2, 29), date(2024, 2, 29)),
        ("9999-12", date(9999, 12, 1), date(9999, 12, 31)),
    ],
)
def test_a_partial_date_is_the_span_of_days_it_may_mean(text, first, last):
    assert days(text) == (first, last)


@pytest.mark.parametrize(
    "text", ["2023-02-29", "2023-13", "2023-00-10", "0000", "24", "2023-1-1", "", None, 2023, "2024-02-xx"]
)
def test_what_is_not_a_date_is_none(text):
    assert days(text) is None


@pytest.mark.parametrize(
    ("born", "on", "years"),
    [
        (date(2000, 3, 1), date(2016, 2, 29), 15),
        (date(2000, 3, 1), date(2016, 3, 1), 16),
        (date(2000, 2, 29), date(2018, 2, 28), 17),
        (date(2000, 2, 29), date(2018, 3, 1), 18),
    ],
)
def test_a_year_of_age_is_completed_on_the_birthday(born, on, years):
    assert years_between(born, on) == years


@pytest.mark.parametrize("text", ["2026-03-01T12:00:00Z", "2026-03-01T12:00Z", "2026-03-01T13:00:00.000+01:00"])
def test_an_instant_has_a_time_of_day_and_a_zone(text):
    assert instant(text) == AT


@pytest.mark.parametrize(
    "text", ["2026-03-01", "2026-03-01T12:00:00", "2026-03-01T25:00:00Z", "20260301T120000Z", 3, None]
)
def test_anything_else_is_no_instant(text):
    assert instant(text) is None


def test_the_shipped_policy_is_named_by_its_digest():
    changed = load_rules(SHIPPED.read_bytes() + b"\n# reviewed")
    assert changed.digest != load_rules().digest == rules().digest


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (b"schema = 2\n[read.Observation]\nvalueString = 'keep'\n", "read.Observation.valueString: unknown action"),
        (b"schema = 2\n[read.Observation]\nstatus = { do = 'status', usabel = ['final'] }\n", "unknown key usabel"),
        (b"schema = 1\n", "schema must be 2"),
        (b"read.Observation = 'all'\nschema = 2\n", "Observation must be a table"),
        (b"[Observation\n", "not valid TOML"),
        (b"schema = 2\n[read.Observation]\nstatus = 'status'\ncode = 'codes'\n", "Observation: must begin with codes"),
        (b"schema = 2\n[read.Observation]\ncode = 'codes'\ncomponent = 'components'\n", "components, then codes"),
    ],
)
def test_a_rule_that_does_not_parse_stops_the_start(policy, said):
    with pytest.raises(Misconfigured, match=said):
        load_rules(policy)


@pytest.mark.parametrize("death", [{"_deceasedDateTime": {"extension": [{"url": "u", "valueCode": "unknown"}]}}, {"deceasedDateTime": None, "_deceasedDateTime": {"id": "x"}}])  # fmt: skip
def test_a_death_whose_time_nobody_knows_is_a_death(death):
    assert crossed(person(**death), None, ()).deceased
    assert not crossed(person(_birthDate={"extension": []}), None, ()).deceased


@pytest.mark.parametrize(
    ("silent", "trouble"),
    [({"_status": {}}, None), ({"status": None, "_status": {"extension": []}}, "modifier"), ({"_implicitRules": {"id": "x"}}, "modifier"), ({"_focus": {}}, "modifier")],
)  # fmt: skip
def test_what_changes_the_meaning_and_has_no_value_makes_its_statement_unusable(silent, trouble):
    (fact,) = crossed(person(), None, [measured("8867-4", 88, "/min") | silent]).facts
    assert fact.trouble == trouble


def test_a_comparator_without_a_value_is_one():
    quantity = {**measured("8867-4", 3, "/min")["valueQuantity"], "_comparator": {"extension": []}}
    (fact,) = crossed(person(), None, [measured("8867-4", 3, "/min") | {"valueQuantity": quantity}]).facts
    assert fact.trouble == "comparator"


MODIFIED = {"modifierExtension": [{"url": "urn:x", "valueBoolean": True}]}
PULSE = concept("http://loinc.org|8867-4")


def inside(concept_, **more):
    return {**concept_, "coding": [{**concept_["coding"][0], **more}]}


@pytest.mark.parametrize("changes", [
    {"valueQuantity": {"value": 88, "system": UCUM, "code": "/min", **MODIFIED}},
    {"valueQuantity": {"value": 88, "system": UCUM, "code": "/min", "extension": [{"url": "urn:y", **MODIFIED}]}},
    {"valueQuantity": {"value": 88, "system": UCUM, "code": "/min", "modifierExtension": []}},
    {"valueQuantity": {"value": 88, "system": UCUM, "code": "/min", "x": {"y": MODIFIED}}},
    {"code": {**PULSE, **MODIFIED}},
    {"code": inside(PULSE, **MODIFIED)},
    {"valueQuantity": None, "valueCodeableConcept": inside(concept("http://snomed.info/sct|248234008"), **MODIFIED)},
    {"interpretation": [{**concept("urn:x|N"), **MODIFIED}]},
    {"dataAbsentReason": {**concept("urn:x|N"), **MODIFIED}},
    {"effectiveDateTime": None, "effectivePeriod": {"end": AT.isoformat(), **MODIFIED}},
], ids=str)  # fmt: skip
def test_a_modifier_within_an_element_that_is_read_makes_its_statement_unusable(changes):
    (fact,) = facts(measured("8867-4", 88, "/min") | changes)
    assert fact.trouble == "modifier"


def test_a_modifier_within_a_component_makes_that_one_unusable_and_no_other():
    whole = panel(120)
    pressed = {**whole["component"][0], "valueQuantity": {**whole["component"][0]["valueQuantity"], **MODIFIED}}
    other = {"code": PULSE, "valueQuantity": {"value": 88, "system": UCUM, "code": "/min"}}
    found = facts(whole | {"component": [pressed, other]})
    assert [fact.trouble for fact in found] == ["modifier", None]


def test_a_modifier_within_an_element_that_is_not_read_changes_nothing():
    found = facts(measured("8867-4", 88, "/min") | {"note": [{"text": "x", **MODIFIED}], "category": [MODIFIED]})
    assert [fact.trouble for fact in found] == [None]


@pytest.mark.parametrize(("who", "where", "reason"), [
    (person(link=[{"type": "seealso", **MODIFIED}]), stay(), "modifier:patient"),
    (person(extension=[{"url": BIRTH_SEX, "valueCode": "F", **MODIFIED}]), stay(), "modifier:patient"),
    (person(), stay(period={"start": "2026-02-27T08:00:00Z", **MODIFIED}), "modifier:encounter"),
])  # fmt: skip
def test_a_modifier_within_what_is_read_of_the_patient_or_the_stay_refuses_them(who, where, reason):
    with pytest.raises(Rejected) as refused:
        crossed(who, where, ())
    assert refused.value.reason == reason


def test_a_modifier_within_an_extension_that_is_not_read_refuses_nobody():
    assert crossed(person(extension=[{"url": "urn:y", **MODIFIED}, MODIFIED]), stay(), ()).age_years == (75, 75)


def test_how_deep_an_element_is_nested_does_not_matter():
    for innermost in (MODIFIED, {}):  # deeper than R4 goes, nobody knows what is meant
        deep = innermost
        for _ in range(5_000):
            deep = {"extension": [deep]}
        (fact,) = facts(measured("8867-4", 88, "/min") | {"valueQuantity": {"value": 88, "unit": "/min", **deep}})
        assert fact.trouble == "modifier"
    shallow = {"extension": [{"url": "urn:y", "extension": [{"url": "urn:z", "valueCodeableConcept": PULSE}]}]}
    (fact,) = facts(measured("8867-4", 88, "/min") | {"valueQuantity": {"value": 88, "unit": "/min", **shallow}})
    assert fact.trouble is None


@pytest.mark.parametrize("value", [
    {"valueQuantity": "88"}, {"valueQuantity": {"value": "88"}}, {"valueQuantity": {"value": True}},
    {"valueQuantity": {"value": 10**400}}, {"valueQuantity": {"value": 88, "comparator": "<"}}, {"valueInteger": "88"},
    {"valueString": "88"}, {"valueCodeableConcept": {"text": "88"}}, {"interpretation": [{"coding": [{"code": "<"}]}]},
    {"_implicitRules": {}},
], ids=str)  # fmt: skip
def test_a_value_that_cannot_be_read_hides_no_trouble_of_the_whole_statement(value):
    part = {"code": PULSE, "valueQuantity": {"value": 88, "system": UCUM, "code": "/min"}}
    whole = observation("http://loinc.org|8867-4") | {"status": "unknown", "component": [part], **value}
    assert [fact.trouble for fact in facts(whole)] == ["status", "status"]


def test_a_number_without_a_unit_has_none():
    assert facts(observation("http://loinc.org|9279-1", valueQuantity={"value": 3}))[0].unit is None
    assert facts(observation("http://loinc.org|9279-1", valueQuantity={"value": 3, "system": UCUM}))[0].unit is None


@pytest.mark.parametrize(
    "odd", [[{"coding": [{"code": ["<"]}]}], [{"coding": [{"code": {}}]}], "<", [None], [{"coding": "<"}]]
)
def test_an_interpretation_of_another_shape_says_nothing(odd):
    assert facts(measured("8867-4", 88, "/min") | {"interpretation": odd})[0].trouble is None


@pytest.mark.parametrize(
    ("told", "trouble"),
    [
        ({"text": "<"}, "comparator"), ({"text": " > "}, "comparator"), ({"text": "below detection limit"}, "comparator"), ({"text": "off scale high"}, "comparator"),
        ({"coding": [{"display": "<"}]}, "comparator"), ({"text": "H"}, None), ({"text": "l"}, None), ({"text": "High"}, None), ({"text": "normal"}, None),
        ({"text": ""}, None), ({}, None), ({"text": "below detection limit", **concept("urn:x|L")}, None),
    ],
)  # fmt: skip
def test_an_interpretation_in_words_is_a_limit_unless_they_are_plain_ones(told, trouble):
    (fact,) = facts(measured("8867-4", 88, "/min") | {"interpretation": [told]})
    assert fact.trouble == trouble


def test_a_word_that_says_nothing_of_the_sex_contradicts_nothing():
    told = [{"url": BIRTH_SEX, "valueCode": "F"}]
    for word in ("unknown", "UNK", "ASKU"):
        assert crossed(person(gender=word, extension=told), stay(), ()).sex is Sex.FEMALE
    assert crossed(person(gender="other", extension=told), stay(), ()).sex is Sex.CONTRADICTORY
    assert crossed(person(gender="other"), stay(), ()).sex is Sex.UNKNOWN


@pytest.mark.parametrize(("state", "end", "is_open"), [
    ("in-progress", None, True), ("in-progress", "2026-03-01T11:59:59Z", False), ("in-progress", "2026-03-01T12:00:00Z", True),
    ("in-progress", "2026-03-01T12:00:01Z", True), ("finished", None, False), ("finished", "2026-03-01T11:59:59Z", False),
    ("finished", "2026-03-01T12:00:00Z", True), ("finished", "2026-03-01T12:00:01Z", True), ("finished", "2026-03-02", False),
    ("arrived", None, True), ("triaged", None, True), ("onleave", None, True), ("cancelled", None, False),
    ("cancelled", "2026-03-02T12:00:00Z", False), ("entered-in-error", "2026-03-02T12:00:00Z", False), ("planned", "2026-03-02T12:00:00Z", None),
    ("entered-in-error", None, False), ("planned", None, None), ("unknown", None, None), (3, None, None),
])  # fmt: skip
def test_a_stay_is_open_by_its_status_and_its_end(state, end, is_open):
    period = {"start": "2026-02-27T08:00:00Z", **({"end": end} if end else {})}
    assert crossed(person(), stay(status=state, period=period), ()).encounter_open is is_open


def test_who_has_no_stay_has_none_that_is_open():
    assert crossed(person(), None, ()).encounter_open is None
    assert crossed(person(), stay(period="2026"), ()).encounter_open is True


@pytest.mark.parametrize(("number", "value", "trouble"), [
    (999_999_999_999_999, 999_999_999_999_999.0, None), (10**15, None, "shape"), (-(10**15), None, "shape"),
    (float("nan"), None, "shape"), (float("inf"), None, "shape"), (False, None, "shape"), (0, 0.0, None), (-1.5, -1.5, None),
])  # fmt: skip
def test_a_number_is_one_that_can_be_measured(number, value, trouble):
    (quantity,) = facts(observation("http://loinc.org|9279-1", valueQuantity={"value": number}))
    (bare,) = facts(observation("http://loinc.org|9279-1", valueInteger=number))
    assert (quantity.value, quantity.trouble) == (bare.value, bare.trouble) == (value, trouble)
    assert (quantity.unit, bare.unit) == (None, "{count}")


@pytest.mark.parametrize(("born", "age", "days_lived"), [
    ("1936-03-01", (90, 90), 32_872), ("1936-03-02", (89, 89), 32_871), ("1936", (89, 90), None), ("1936-03", (89, 90), None),
    ("x", None, None), ("2026-03-01", (0, 0), 0),
])  # fmt: skip
def test_an_age_is_a_span_of_whole_years_and_the_time_lived_when_the_day_is_known(born, age, days_lived):
    who = crossed(person(birthDate=born), None, ())
    assert who.age_years == age
    assert who.lived_s == (None if days_lived is None else days_lived * 86_400.0 + 43_200.0)
    capped = deidentify(PatientSnapshot(person(birthDate=born), None, (), AT), rules(Mode.SAFE_HARBOR_RULES), {})
    if age is not None and age[1] >= 90:
        assert (capped.age_years, capped.lived_s, capped.age_capped) == ((age[0], 150), None, True)
    else:
        assert (capped.age_years, capped.lived_s, capped.age_capped) == (age, who.lived_s, False)


@pytest.mark.parametrize(("death", "is_dead"), [
    (True, True), (False, False), ("2026-03-01T12:00:00Z", True), ("2026-03-01T12:00:01Z", False), ("2026-03-01", True),
    ("2026-03-02", False), ("2026-03", True), ("2026-04", False), ("last week", True), (1, False),
])  # fmt: skip
def test_who_died_by_the_trigger_is_dead_and_what_cannot_be_read_is_a_death(death, is_dead):
    element = "deceasedDateTime" if isinstance(death, str) else "deceasedBoolean"
    assert crossed(person(**{element: death}), None, ()).deceased is is_dead


@pytest.mark.parametrize(("stated", "is_inactive"), [
    ({"active": False}, True), ({"active": True}, False), ({}, False), ({"link": [{"type": "replaced-by"}]}, True),
    ({"link": [{"type": "replaces"}]}, False), ({"active": False, "link": []}, True), ({"link": "x"}, False),
    ({"active": True, "link": [None, {"type": "replaced-by"}]}, True), ({"active": 0}, False),
])  # fmt: skip
def test_who_was_merged_away_or_put_aside_is_inactive(stated, is_inactive):
    assert crossed(person(**stated), None, ()).inactive is is_inactive


def test_a_reading_without_a_value_says_why_or_nothing():
    told = measured("8867-4", 88, "/min") | {"dataAbsentReason": {"coding": [{"code": "error"}]}}
    assert [(f.value, f.value_codes, f.trouble) for f in facts(told)] == [(None, (), None)]
    answer = observation("http://loinc.org|8867-4", valueCodeableConcept=concept("http://snomed.info/sct|248234008"))
    assert facts(answer)[0].value_codes == ("http://snomed.info/sct|248234008",)
    assert facts(answer | {"dataAbsentReason": {}})[0].value_codes == ()


@pytest.mark.parametrize(("when", "seconds"), [
    ({"effectivePeriod": {"start": "2026-03-01T11:00:00Z", "end": "2026-03-01T11:30:00Z"}}, -1_800.0),
    ({"effectivePeriod": {"start": "2026-03-01T11:00:00Z"}}, -3_600.0), ({"effectivePeriod": "x"}, None),
    ({"effectiveInstant": "2026-03-01T11:00:00Z"}, -3_600.0), ({"effectiveDateTime": "2026-03-01"}, None),
])  # fmt: skip
def test_a_reading_counts_at_its_moment_or_the_end_of_its_period(when, seconds):
    told = {k: v for k, v in measured("8867-4", 88, "/min").items() if k != "effectiveDateTime"} | when
    assert facts(told)[0].seconds == seconds


@pytest.mark.parametrize(
    ("issued", "recorded"), [("2026-03-01T11:00:00Z", -3_600.0), ("2026-03-01", -math.inf), (None, -math.inf)]
)
def test_when_a_reading_was_charted_is_known_with_a_time_of_day_only(issued, recorded):
    assert facts(measured("8867-4", 88, "/min") | {"issued": issued})[0].recorded == recorded


ALERT = {"system": "http://snomed.info/sct", "code": "248234008"}


@pytest.mark.parametrize("coding", [
    {**ALERT, "code": "John Smith"}, {**ALERT, "code": ""}, {**ALERT, "code": "a" * 33}, {**ALERT, "code": 248234008},
    {**ALERT, "code": None}, {**ALERT, "system": "urn:site"}, {**ALERT, "system": None}, {**ALERT, "system": ["x"]},
    {"code": "248234008"}, None, "248234008",
], ids=str)  # fmt: skip
def test_as_a_value_only_what_looks_like_a_code_of_a_known_system_crosses(coding):
    told = observation(
        "http://loinc.org|8867-4", valueCodeableConcept={"coding": [coding, ALERT], "text": "John Smith"}
    )
    assert facts(told)[0].value_codes == ("http://snomed.info/sct|248234008",)
    (alone,) = facts(observation("http://loinc.org|8867-4", valueCodeableConcept={"coding": [coding]}))
    assert (alone.value_codes, alone.trouble) == ((), "unmapped")


@pytest.mark.parametrize("odd", [None, "x", [], {"system": "http://loinc.org", "code": ["8867-4"]}, {"code": "8867-4"}])
def test_a_code_of_another_shape_is_none_and_hides_no_other(odd):
    told = measured("8867-4", 88, "/min")
    assert facts({**told, "code": {"coding": [odd]}}) == ()
    assert len(facts({**told, "code": {"coding": [odd, *told["code"]["coding"]]}})) == 1


@pytest.mark.parametrize(("changes", "value", "unit", "trouble"), [
    ({"interpretation": [concept("urn:x|<")]}, 88.0, "/min", "comparator"),
    ({"interpretation": [concept("urn:x|N"), concept("urn:x|>")]}, 88.0, "/min", "comparator"),
    ({"valueQuantity": amount(88, "/min") | {"comparator": "<"}}, 88.0, "/min", "comparator"),
    ({"valueQuantity": "88"}, None, None, "shape"), ({"valueQuantity": {"unit": "/min"}}, None, None, None),
    ({"valueQuantity": {"value": 88, "unit": []}}, 88.0, "unknown", None), ({"valueQuantity": {"value": 88, "unit": "/min"}}, 88.0, "/min", None),
    ({"_status": {}, "_issued": {}}, 88.0, "/min", None), ({"focus": []}, 88.0, "/min", "modifier"),
], ids=str)  # fmt: skip
def test_what_a_number_is_worth_depends_on_what_stands_beside_it(changes, value, unit, trouble):
    (fact,) = facts(measured("8867-4", 88, "/min") | changes)
    assert (fact.value, fact.unit, fact.trouble) == (value, unit, trouble)


@pytest.mark.parametrize(("gender", "birth", "sex"), [
    ("male", None, Sex.MALE), ("female", None, Sex.FEMALE), (None, "M", Sex.MALE), (None, "F", Sex.FEMALE), (None, None, Sex.UNKNOWN),
    ("male", "M", Sex.MALE), ("male", "F", Sex.CONTRADICTORY), ("M", None, Sex.MALE), ("MALE", None, Sex.UNKNOWN), (3, None, Sex.UNKNOWN),
])  # fmt: skip
def test_sex_is_one_of_four_words(gender, birth, sex):
    told = [None, "x", {"url": "urn:y", "valueCode": "M"}, *([{"url": BIRTH_SEX, "valueCode": birth}] if birth else [])]
    assert crossed(person(gender=gender, extension=told), None, ()).sex is sex
