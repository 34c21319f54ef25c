"""Dates under each mode: intervals stay exact, days and months do not show where only a year may."""

import json
import re
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import count, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.deid.general import KeyedNames, Mode
from tests.unit.deid.general import KEY, TODAY, Chart, bundle, engine, resources_of, say

SHIFT = KeyedNames(KEY).shift("p1")
ZONES = [timezone(timedelta(minutes=m)) for m in range(-14 * 60, 14 * 60 + 1, 15)]
MOVING, RELATIVE = engine(), engine(Mode.SAFE_HARBOR_RULES)
NUMBERS = count(1)  # a new patient for each example
SECONDS, DAYS = "urn:ehr-sidecar:relative-seconds", "urn:ehr-sidecar:relative-days"
moments = st.datetimes(datetime(1938, 1, 1), datetime(2026, 11, 24), timezones=st.sampled_from(ZONES))  # noqa: DTZ001


def reading(when, **more):
    subject = {"reference": "Patient/p1"}
    return {"resourceType": "Observation", "status": "final", "subject": subject, "effectiveDateTime": when, **more}


def when_of(out):
    return out.get("effectiveDateTime")


def beside(out, url=SECONDS, name="_effectiveDateTime"):
    """What stands in the extension `url` beside an element."""
    listed = out.get(name, {}).get("extension", ())
    return next((v for e in listed if e["url"] == url for k, v in e.items() if k != "url"), None)


@given(first=moments, second=moments)
@settings(max_examples=300)
def test_a_shift_keeps_every_interval_to_the_second_in_every_zone(first, second):
    one, two = (when_of(MOVING.resource(reading(m.isoformat()))) for m in (first, second))
    assert datetime.fromisoformat(two) - datetime.fromisoformat(one) == second - first
    assert datetime.fromisoformat(one) - first == SHIFT
    assert one.endswith("Z")


@given(first=moments, second=moments)
@settings(max_examples=300)
def test_relative_seconds_keep_every_interval_in_every_zone(first, second):
    about = {"reference": f"Patient/{next(NUMBERS)}"}
    one, two = (RELATIVE.resource(reading(m.isoformat(), subject=about)) for m in (first, second))
    apart = (second - first).total_seconds()
    assert beside(one) == 0
    assert beside(two) == pytest.approx(apart, abs=1e-6)
    assert (when_of(one), when_of(two)) == (first.isoformat()[:4], None)


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia"])
@pytest.mark.parametrize("mode", Mode)
def test_both_clock_changes_of_a_year_keep_hours_and_days_apart(zone, mode):
    """Two hours around each change, where an hour of the clock is missing or comes twice."""
    local = ZoneInfo(zone)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    hours = [start + timedelta(hours=h) for h in range(366 * 24)]
    changes = [
        h for h in hours if h.astimezone(local).utcoffset() != (h + timedelta(hours=1)).astimezone(local).utcoffset()
    ]
    judge = engine(mode)
    for change in changes:
        around = [change + timedelta(minutes=m) for m in range(-120, 181, 15)]
        outs = [judge.resource(reading(m.astimezone(local).isoformat())) for m in around]
        if mode is Mode.SAFE_HARBOR_RULES:
            apart = {b - a for a, b in pairwise(beside(o) for o in outs)}
        else:
            at = [datetime.fromisoformat(when_of(o)).astimezone(UTC) for o in outs]
            apart = {(b - a).total_seconds() for a, b in pairwise(at)}
        assert apart == {900.0}, (zone, change)
    assert len(changes) == (0 if zone == "Pacific/Apia" else 2)


@pytest.mark.parametrize("seed", [20261125])
def test_no_day_month_or_time_is_in_what_safe_harbor_gives_out(seed):
    """Every string of 2,000 clean random resources, in Bundles of one patient, is no date finer than a year."""
    say(f"seed {seed}")
    judge, chart, dates = engine(Mode.SAFE_HARBOR_RULES), Chart(seed), 0
    fine = re.compile(r"\d{4}-\d\d|\d\d:\d\d")
    for _ in range(2_000):
        source = chart.resource(clean=True)
        dates += len(fine.findall(json.dumps(source)))
        out = judge.resource(source)
        assert out is None or not fine.findall(
            re.sub(r"urn:uuid:[0-9a-f-]{36}|\"code\": \"\d{4,6}-\d\"", "", json.dumps(out))
        )
    assert dates > 5_000


def test_two_moments_a_minute_apart_do_not_tell_that_it_was_new_years_eve():
    judge = engine(Mode.SAFE_HARBOR_RULES)
    eve, morning = (judge.resource(reading(w)) for w in ("2023-12-31T23:59:30Z", "2024-01-01T00:00:30Z"))
    assert (when_of(eve), beside(eve)) == ("2023", 0)
    assert (when_of(morning), beside(morning)) == (None, 60)


@pytest.mark.parametrize("written", ["2011", "2011-08"])
def test_a_part_of_a_date_is_not_moved_but_masked(written):
    out = engine().resource(reading(written))
    assert when_of(out) is None
    assert beside(out, "http://hl7.org/fhir/StructureDefinition/data-absent-reason") == "masked"
    assert when_of(engine(Mode.SAFE_HARBOR_RULES).resource(reading(written))) == "2011"
    assert when_of(engine(Mode.LIMITED_DATA_SET).resource(reading(written))) == written


@pytest.mark.parametrize(
    "written",
    [
        "2011-13-01", "2011-02-30", "2011-08-24T25:00:00Z", "2011-08-24T12:00:00+15:00", "yesterday", "2011-08-24 12:00", "20110824", 2011, ["2011"],
        "2011-08-24T12:00:00Z\n", "٢٠١١-08-24", "0000-01-01", "2011-08-24T12:00:00.Z", {"value": "2011"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", Mode)
def test_what_is_no_date_of_fhir_does_not_cross(mode, written):
    out = engine(mode).resource(reading(written))
    assert when_of(out) is None
    assert "2011" not in json.dumps(out)


def test_digits_beyond_a_millionth_of_a_second_do_not_cross():
    out = engine(Mode.LIMITED_DATA_SET).resource(reading("2011-08-24T12:00:00.1234565558975276Z"))
    assert when_of(out) == "2011-08-24T12:00:00.123456Z"


def test_a_shift_over_29_february_and_the_ends_of_the_calendar():
    judge = engine()
    for day in ("2024-02-29", "2023-02-28", "1900-03-01"):
        assert date.fromisoformat(when_of(judge.resource(reading(day)))) - date.fromisoformat(day) == SHIFT
    assert when_of(judge.resource(reading("0001-01-01"))) is None or SHIFT.days > 0
    assert when_of(judge.resource(reading("9999-12-31"))) is None or SHIFT.days < 0


def test_an_instant_stays_an_instant_or_is_none():
    shifted = engine().resource(reading("2024-05-01T08:00:00Z", issued="2024-05-01T09:00:00.250Z"))
    assert shifted["issued"].endswith("T09:00:00.250Z")
    year = engine(Mode.SAFE_HARBOR_RULES).resource(reading("2024-05-01T08:00:00Z", issued="2024-05-01T09:00:00.250Z"))
    assert "issued" not in year
    assert beside(year, SECONDS, "_issued") == 3600.25
    first = engine(Mode.SAFE_HARBOR_RULES).resource(reading(None, issued="2024-05-01T09:00:00.250Z"))
    assert "issued" not in first
    assert beside(first, "urn:ehr-sidecar:year", "_issued") == "2024"
    assert beside(first, SECONDS, "_issued") == 0


def test_a_day_is_so_many_days_from_the_day_of_the_first_moment():
    judge = engine(Mode.SAFE_HARBOR_RULES)
    judge.resource(reading("2024-05-01T23:30:00-05:00"))
    day = judge.resource(reading("2024-05-11"))
    assert (when_of(day), beside(day), beside(day, DAYS)) == (None, None, 10)


def test_two_patients_have_nothing_in_common():
    judge = engine(Mode.SAFE_HARBOR_RULES)
    for patient in ("p1", "p2"):
        first = judge.resource(reading(f"2024-05-0{patient[1]}T08:00:00Z", subject={"reference": f"Patient/{patient}"}))
        assert beside(first) == 0
    assert KeyedNames(KEY).shift("p1") != KeyedNames(KEY).shift("p2")


@pytest.mark.parametrize(
    "subject",
    [None, {"display": "Mr Smith"}, {"reference": "Group/1"}, {"reference": "#nobody"}, {"reference": "Smith"}],
)
def test_dates_of_nobody_have_neither_a_shift_nor_a_year_nor_a_distance(subject):
    """What points to them may have a distance, and a year beside it would tell a day."""
    for mode in (Mode.KEYED_PSEUDONYMS, Mode.SAFE_HARBOR_RULES):
        out = engine(mode).resource(reading("2024-05-01T08:00:00Z", subject=subject))
        assert (when_of(out), beside(out)) == (None, None)
        assert beside(out, "http://hl7.org/fhir/StructureDefinition/data-absent-reason") == "masked"


def test_one_shift_for_a_patient_and_everything_about_them():
    """The Patient, a reading, what a reading contains, an appointment, and what says nothing in a Bundle of one patient."""
    who = {"resourceType": "Patient", "id": "p1", "birthDate": "1970-01-01", "deceasedDateTime": "2020-01-01"}
    about = {"reference": "Patient/p1"}
    inside = {"resourceType": "Specimen", "id": "s", "receivedTime": "2020-01-01"}
    visit = {
        "resourceType": "Appointment",
        "status": "booked",
        "created": "2020-01-01",
        "participant": [{"actor": about, "status": "accepted"}],
    }
    alone = {"resourceType": "Procedure", "status": "completed", "performedDateTime": "2020-01-01"}
    policy_holder = {
        "resourceType": "Coverage",
        "status": "active",
        "beneficiary": about,
        "period": {"start": "2020-01-01"},
    }
    out = engine().resource(bundle(who, reading("2020-01-01", contained=[inside]), visit, alone, policy_holder))
    moved = re.findall(r"20\d\d-\d\d-\d\d", json.dumps(out))
    assert moved == [(date(2020, 1, 1) + SHIFT).isoformat()] * 6
    assert resources_of(out)[0]["birthDate"] == (date(1970, 1, 1) + SHIFT).isoformat()


@given(st.lists(st.dates(date(1900, 1, 1), date(2027, 1, 1)), min_size=2, max_size=30))
@settings(max_examples=200)
def test_no_two_distances_of_a_patient_lie_further_apart_than_89_years(days):
    about = {"reference": f"Patient/{next(NUMBERS)}"}
    outs = [RELATIVE.resource(reading(f"{day}T12:00:00Z", subject=about)) for day in days]
    distances = [d for out in outs if (d := beside(out)) is not None]
    assert max(distances) - min(distances) < 89 * 365.25 * 86_400
    years = [int(y) for out in outs if (y := when_of(out)) is not None]
    assert all(year >= TODAY.year - 89 for year in years)
    assert len([out for out in outs if when_of(out) is not None and beside(out) is not None]) <= 1


def test_a_list_of_dates_keeps_its_order_and_what_stands_beside_each():
    timing = {"event": ["2024-05-01T08:00:00Z", "2024-05", "2024-05-02T08:00:00Z"]}
    source = reading("2024-05-01T08:00:00Z", effectiveTiming=timing)
    del source["effectiveDateTime"]
    out = engine(Mode.SAFE_HARBOR_RULES).resource(source)["effectiveTiming"]
    assert out["event"] == ["2024", None, None]
    assert [e["extension"][0].get("valueDecimal") for e in out["_event"]] == [0, None, 86_400]
    moved = engine().resource(source)["effectiveTiming"]
    assert moved["event"][1] is None
    assert moved["_event"][1]["extension"][0]["valueCode"] == "masked"
