"""What is asked of stays: windows by the present one, its length in days of the facility, earlier ones, its urgency."""

import math

import pytest

from tests.unit.chart import measured, observation
from tests.unit.language import ACT, ACT_PRIORITY, INPATIENT, all_told, manifest, procedure, told, visit

LOS = {"derive": "length_of_stay", "unit": "d"}
PRIOR = {"derive": "prior_admissions", "window": "365d"}
ED = {"derive": "ed_visits", "window": "183d"}
URGENT = {"derive": "urgent_admission"}
HERE = visit("e1", "2026-02-26T08:00:00Z")
LEFT = visit("e1", "2026-02-20T08:00:00Z", "2026-02-25T10:00:00Z")


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("2026-02-26T08:00:00Z", None, 3), ("2026-02-26T23:50:00Z", "2026-02-27T00:10:00Z", 1), ("2026-02-26T00:10:00Z", "2026-02-26T23:50:00Z", 0),
        ("2026-02-20", "2026-02-25", 5), ("2026-02-20T08:00:00Z", "2026-03-05T08:00:00Z", 9), ("2026-03-01T11:00:00Z", None, 0),
    ],
)  # fmt: skip
def test_a_stay_is_as_long_as_the_days_of_the_calendar_it_took_so_far(start, end, days):
    assert told(LOS, visit("e1", start, end)).value == days


@pytest.mark.parametrize(("tz", "days"), [("UTC", 1), ("America/New_York", 0), ("Asia/Tokyo", 0), ("Europe/Berlin", 1)])
def test_days_are_those_of_the_facility(tz, days):
    assert told(LOS, visit("e1", "2026-02-26T22:30:00Z", "2026-02-27T03:30:00Z"), tz=tz).value == days


@pytest.mark.parametrize(("start", "end"), [("2025-10-25", "2025-10-27"), ("2025-03-29", "2025-03-31")])
def test_a_day_on_which_the_clocks_change_is_one_day(start, end):
    found = told(LOS, visit("e1", f"{start}T12:00:00+01:00", f"{end}T12:00:00+01:00"), tz="Europe/Berlin")
    assert found.value == 2


@pytest.mark.parametrize("start", ["2026", "2026-02", "never", None])
def test_a_stay_whose_beginning_is_not_known_to_the_day_has_no_length(start):
    found = told(LOS, visit("e1", start, "2026-02-25T10:00:00Z"))
    assert (math.isnan(found.value), found.reason) == (True, "imprecise:x")


def test_without_a_stay_of_its_kind_there_is_no_length():
    assert told(LOS, visit("e1", "2026-02-26T08:00:00Z", kind="AMB")).reason == "missing:encounter"


def test_the_newest_stay_of_its_kind_is_the_present_one_whatever_came_after():
    clinic = visit("e2", "2026-02-28T08:00:00Z", "2026-02-28T09:00:00Z", kind="AMB")
    found = told(LOS, LEFT, clinic, visit("e0", "2026-01-01T08:00:00Z", "2026-01-02T08:00:00Z"))
    assert (found.value, found.seconds) == (5, -(4 * 86400 + 2 * 3600))


@pytest.mark.parametrize("status", ["planned", "cancelled", "entered-in-error"])
def test_a_stay_that_never_was_is_not_the_present_one(status):
    assert told(LOS, LEFT, visit("e2", "2026-02-28T08:00:00Z", status=status)).value == 5


def test_a_stay_that_ended_too_long_ago_is_stale():
    assert told({**LOS, "max_age": "2d"}, LEFT).reason == "stale:x"


def test_admissions_before_the_stay_are_counted_and_others_are_not():
    chart = [
        HERE, visit("a1", "2025-06-01T08:00:00Z", "2025-06-03T08:00:00Z"), visit("a2", "2025-12-01T08:00:00Z", "2025-12-02T08:00:00Z", kind="ACUTE"),
        visit("old", "2024-06-01T08:00:00Z", "2024-06-03T08:00:00Z"), visit("clinic", "2025-07-01T08:00:00Z", "2025-07-01T09:00:00Z", kind="AMB"),
        visit("never", "2025-08-01T08:00:00Z", "2025-08-02T08:00:00Z", status="cancelled"),
        visit("part", "2025-06-02T08:00:00Z", "2025-06-03T08:00:00Z", partOf={"reference": "Encounter/a1"}),
    ]  # fmt: skip
    found = told(PRIOR, *chart)
    assert found.value == 2
    assert len({found.index, *found.others}) == 2


def test_with_no_earlier_stay_the_count_is_zero():
    assert told(PRIOR, HERE).value == 0


def test_an_earlier_stay_of_unknown_status_makes_the_count_unknown():
    odd = visit("a1", "2025-06-01T08:00:00Z", "2025-06-03T08:00:00Z", status="unknown")
    assert told(PRIOR, HERE, odd).reason == "status:x"


def test_a_transfer_is_not_an_admission_before():
    before = visit("a1", "2026-02-20T08:00:00Z", "2026-02-26T07:30:00Z")
    assert told(PRIOR, HERE, before).value == 0


def test_the_emergency_visit_that_led_to_the_stay_is_none_before_it():
    index = visit("v1", "2026-02-26T02:00:00Z", "2026-02-26T08:00:00Z", kind="EMER")
    earlier = visit("v2", "2026-01-10T02:00:00Z", "2026-01-10T08:00:00Z", kind="EMER")
    long_ago = visit("v3", "2025-06-10T02:00:00Z", "2025-06-10T08:00:00Z", kind="EMER")
    assert told(ED, HERE, index, earlier, long_ago).value == 1


@pytest.mark.parametrize(
    ("stay", "visits", "value", "reason"),
    [
        ({"priority": "UR"}, [], 1, None), ({"priority": "EM"}, [], 1, None), ({"priority": "EL"}, [], 0, None), ({}, [], None, "missing:x"),
        ({}, [("2026-02-26T02:00:00Z", "2026-02-26T07:59:00Z")], 1, None), ({}, [("2026-02-20T02:00:00Z", "2026-02-20T08:00:00Z")], None, "missing:x"),
        ({"priority": "EL"}, [("2026-02-26T02:00:00Z", "2026-02-26T08:00:00Z")], None, "contradictory:x"), ({"source": "emd"}, [], 1, None),
        ({"source": "gp"}, [], None, "missing:x"), ({"priority": "EL", "source": "emd"}, [], None, "contradictory:x"),
    ],
)  # fmt: skip
def test_an_admission_is_urgent_by_what_it_says_or_by_the_visit_it_came_out_of(stay, visits, value, reason):
    more = {}
    if "priority" in stay:
        more["priority"] = {"coding": [{"system": ACT_PRIORITY, "code": stay["priority"]}]}
    if "source" in stay:
        system = "http://terminology.hl7.org/CodeSystem/admit-source"
        more["hospitalization"] = {"admitSource": {"coding": [{"system": system, "code": stay["source"]}]}}
    chart = [visit("e1", "2026-02-26T08:00:00Z", **more)]
    chart += [visit(f"v{n}", start, end, kind="EMER") for n, (start, end) in enumerate(visits)]
    found = told(URGENT, *chart)
    assert (None if math.isnan(found.value) else found.value, found.reason) == (value, reason)


HB = {"unit": "g/dL", "from": [{"codes": ["http://loinc.org|718-7"]}], "anchor": "encounter"}


def hb(value, when, **more):
    return {**measured("718-7", value, "g/dL"), "effectiveDateTime": when, "id": f"o{when[5:13]}", **more}


DURING = [
    hb(9.0, "2026-02-19T08:00:00Z"), hb(11.0, "2026-02-20T09:00:00Z"), hb(14.0, "2026-02-22T09:00:00Z"), hb(12.0, "2026-02-25T09:00:00Z"),
    hb(7.0, "2026-02-26T09:00:00Z"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("select", "value"),
    [
        ("latest", 12),
        ("first", 11),
        ("min", 11),
        ("max", 14),
        ("mean", 37 / 3),
        ("count", 3),
        ("delta", 1),
        ("sum", 37),
    ],
)
def test_of_the_present_stay_only_what_was_during_it_counts(select, value):
    assert told({**HB, "select": select}, LEFT, *DURING).value == pytest.approx(value)


def test_before_the_stay_is_before_it():
    assert told({**HB, "select": "latest", "window": "30d"}, LEFT, *DURING).value == 9


def test_a_newer_reading_of_the_stay_that_cannot_be_used_is_not_replaced_by_an_older_one():
    newest = hb(11.0, "2026-02-25T09:30:00Z")
    newest["valueQuantity"]["comparator"] = "<"
    assert told({**HB, "select": "latest"}, LEFT, *DURING, newest).reason == "comparator:x"
    assert told({**HB, "select": "min"}, LEFT, *DURING, newest).reason == "comparator:x"


def test_any_procedure_of_the_stay_counts_and_none_before():
    spec = {"from": [{"type": "Procedure", "codes": ["*|*"]}], "select": "any", "anchor": "encounter"}
    code = "http://snomed.info/sct|80146002"
    assert told(spec, LEFT, procedure(code, "2026-02-21T08:00:00Z")).value == 1
    assert told(spec, LEFT, procedure(code, "2026-02-11T08:00:00Z")).value == 0
    assert told(spec, LEFT, procedure("urn:local|x", "2026-02-22")).value == 1
    assert told(spec, LEFT, procedure(code, "2026-02-20")).reason == "imprecise:x"


def test_the_time_and_the_sources_of_a_stay_are_told():
    declared = manifest({"days": LOS, "prior": PRIOR, "hb": {**HB, "select": "latest"}})
    found = all_told(declared, LEFT, *DURING)
    assert declared.members == {"days", "hb"}
    assert (found["days"].index, found["prior"].index) != (None, None)


def test_duration_is_the_time_that_periods_cover_together():
    spec = {
        "from": [{"type": "Encounter", "codes": [f"{ACT}|IMP"]}],
        "select": "duration",
        "unit": "d",
        "window": "365d",
    }
    chart = [
        visit("a1", "2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"), visit("a2", "2026-01-02T00:00:00Z", "2026-01-04T00:00:00Z"),
        visit("a3", "2026-02-28T12:00:00Z"),
    ]  # fmt: skip
    assert told(spec, *chart).value == pytest.approx(4)


def test_a_feature_of_the_stay_needs_to_know_which_stays_there_are():
    with pytest.raises(ValueError, match="say in \\[cohort\\] which stays there are"):
        manifest({"x": LOS}, cohort={"exclude": []})


def test_a_reading_without_a_time_of_day_is_in_no_stay():
    dated = observation("http://loinc.org|718-7", valueQuantity=hb(9, "2026-02-21T08:00:00Z")["valueQuantity"])
    dated["effectiveDateTime"] = "2026-02-21"
    assert told({**HB, "select": "latest"}, LEFT, dated).reason == "missing:x"


def test_what_a_model_of_a_stay_waits_for_is_the_stay():
    declared = manifest({"days": LOS, "prior": PRIOR})
    assert declared.awaited["Encounter"] == frozenset(INPATIENT)
