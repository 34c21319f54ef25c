"""A diagnosis crosses with since when it is there, whether it still is, and what it proves."""

import math
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from sidecar.deid import deidentify
from sidecar.records import PatientSnapshot
from tests.unit.chart import AT, SCT, concept, person, rules
from tests.unit.kidney import CKD, condition

CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
VERIFIED = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
DAY_S = 86_400.0


def facts(at=AT, **stated):
    reads = {"Condition": frozenset({CKD})}
    return deidentify(PatientSnapshot(person(), None, ({**condition(CKD), **stated},), at), rules(), reads).facts


def fact(at=AT, **stated):
    (found,) = facts(at, **stated)
    return found


def status(code):
    return {"clinicalStatus": concept(code)}


def verified(*codes):
    return {"verificationStatus": concept(*codes)}


@pytest.mark.parametrize("code", ["active", "recurrence", "relapse"])
def test_an_active_diagnosis_is_there_and_one_of_another_status_is_not(code):
    assert fact(**status(f"{CLINICAL}|{code}")).trouble is None


@pytest.mark.parametrize("code", ["inactive", "remission", "resolved"])
def test_a_diagnosis_that_is_over_does_not_cross(code):
    assert facts(**status(f"{CLINICAL}|{code}")) == ()


@pytest.mark.parametrize("code", ["confirmed", "provisional", "differential", "unconfirmed"])
def test_only_what_is_more_than_a_suspicion_proves_something(code):
    found = fact(**verified(f"{VERIFIED}|{code}"))
    assert (found.trouble, found.confirmed) == (None, code == "confirmed")


def test_what_says_nothing_of_its_certainty_is_certain():
    assert (fact().trouble, fact().confirmed) == (None, True)


@pytest.mark.parametrize("code", ["refuted", "entered-in-error"])
def test_what_was_refuted_does_not_cross(code):
    assert facts(**verified(f"{VERIFIED}|{code}")) == ()
    assert facts(**verified(f"{VERIFIED}|confirmed", f"{VERIFIED}|{code}")) == ()


@pytest.mark.parametrize(
    "system", ["urn:x", SCT, VERIFIED, "http://terminology.hl7.org/CodeSystem/condition-clinical|"]
)
@pytest.mark.parametrize("code", ["active", "resolved"])
def test_a_clinical_status_of_another_system_is_none(system, code):
    assert fact(**status(f"{system}|{code}")).trouble == "status"


@pytest.mark.parametrize("system", ["urn:x", SCT, CLINICAL, "http://hl7.org/fhir/condition-ver-status"])
@pytest.mark.parametrize("code", ["confirmed", "refuted"])
def test_a_verification_of_another_system_is_none(system, code):
    assert fact(**verified(f"{system}|{code}")).trouble == "status"


def test_a_status_beside_others_of_other_systems_is_the_one_of_its_own():
    assert fact(**verified(f"{SCT}|refuted", f"{VERIFIED}|confirmed")).trouble is None
    assert facts(**verified(f"{SCT}|confirmed", f"{VERIFIED}|refuted")) == ()
    assert fact(clinicalStatus=concept(f"{CLINICAL}|active", "urn:x|resolved")).trouble is None


@pytest.mark.parametrize(
    "odd", [{"text": "active"}, {"coding": [{"system": CLINICAL, "code": ["active"]}]}, "active", []]
)
def test_a_status_that_cannot_be_read_is_unusable(odd):
    assert fact(clinicalStatus=odd).trouble == "status"


def local(text, zone="America/New_York"):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


@pytest.mark.parametrize(
    ("stated", "seconds", "began"),
    [
        ({"onsetDateTime": "2026-03-01T11:00:00Z"}, -3_600.0, -3_600.0),
        ({"onsetDateTime": "2026-02-28"}, None, -DAY_S / 2),
        ({"onsetDateTime": "2026-02"}, None, -DAY_S / 2),
        ({"onsetDateTime": "2025"}, None, -59.5 * DAY_S),
        ({"onsetPeriod": {"start": "2026-03-01T11:00:00Z", "end": "2026-03-01T11:30:00Z"}}, -3_600.0, -3_600.0),
        ({"onsetPeriod": {"end": "2026-03-01T11:30:00Z"}}, -1_800.0, None),
        ({"onsetPeriod": {"start": "2025"}}, None, -59.5 * DAY_S),
        ({"onsetPeriod": {}}, None, None),
        ({"onsetPeriod": "2025"}, None, None),
        ({"onsetString": "in spring"}, None, None),
        ({"recordedDate": "2026-03-01T11:00:00Z"}, None, -3_600.0),
        ({"recordedDate": "2026-02-28"}, None, -DAY_S / 2),
        ({"onsetDateTime": "2026-02-28", "recordedDate": "2026-03-01T11:00:00Z"}, None, -DAY_S / 2),
        ({"onsetDateTime": "2026-03-01T11:30:00Z", "recordedDate": "2026-03-01T11:00:00Z"}, -1_800.0, -3_600.0),
        ({}, None, None),
    ],
)
def test_it_is_there_since_the_latest_moment_that_its_earliest_date_may_mean(stated, seconds, began):
    found = fact(**stated)
    assert (found.seconds, found.began) == (seconds, began)


@pytest.mark.parametrize(
    ("stated", "recorded"),
    [
        ({"recordedDate": "2026-03-01T11:00:00Z"}, -3_600.0),
        ({"recordedDate": "2026-02-28"}, -math.inf),
        ({}, -math.inf),
    ],
)
def test_when_it_was_charted_is_known_only_with_a_time_of_day(stated, recorded):
    assert fact(**stated).recorded == recorded


def test_a_day_ends_at_the_facilitys_midnight():
    at = local("2026-03-01T12:00:00")
    assert fact(at, onsetDateTime="2026-02-28").began == -DAY_S / 2
    assert fact(at, onsetDateTime="2026-03-01").began == DAY_S / 2


@pytest.mark.parametrize(
    ("begins", "there"),
    [
        ((AT + timedelta(seconds=3_600)).isoformat(), True),
        ((AT + timedelta(seconds=3_601)).isoformat(), False),
        ("2026-03-01", True),
        ("2026-03-02", False),
        ("2026-03", True),
        ("2026-04", False),
        ("2026", True),
        ("2027", False),
    ],
)
@pytest.mark.parametrize("as_period", [False, True])
def test_what_begins_later_is_not_there_yet(begins, there, as_period):
    assert bool(facts(**({"onsetPeriod": {"start": begins}} if as_period else {"onsetDateTime": begins}))) is there


def test_the_end_of_an_onset_lies_nowhere_ahead():
    assert facts(onsetPeriod={"end": "2027-01-01T00:00:00Z"}) != ()


ENDS = [
    ("2026-03-01T11:59:59Z", "over"),
    ("2026-03-01T12:00:00Z", "over"),
    ("2026-03-01T12:00:01Z", "ahead"),
    ("2026-02-28", "over"),
    ("2026-03-01", "over"),
    ("2026-03-02", "ahead"),
    ("2026-02", "over"),
    ("2026-03", "nobody knows"),
    ("2026-04", "ahead"),
    ("2025", "over"),
    ("2026", "nobody knows"),
    ("2027", "ahead"),
    ("in spring", "nobody knows"),
    (None, "nobody knows"),
]


@pytest.mark.parametrize(("end", "where"), ENDS)
@pytest.mark.parametrize("element", ["abatementDateTime", "abatementPeriod", "start"])
def test_what_has_ended_does_not_cross_and_where_that_is_unclear_it_is_unusable(element, end, where):
    if end is None and element == "abatementDateTime":
        return
    stated = {"abatementDateTime": end} if element == "abatementDateTime" else {
        "abatementPeriod": {"start": end} if element == "start" else {"start": "1999", "end": end} if end else {}
    }  # fmt: skip
    found = facts(**stated)
    assert [f.trouble for f in found] == {"over": [], "ahead": [None], "nobody knows": ["status"]}[where]


@pytest.mark.parametrize(("end", "where"), [each for each in ENDS if each[0]])
def test_what_has_ended_and_is_said_to_be_active_is_unusable(end, where):
    found = fact(**status(f"{CLINICAL}|active"), abatementDateTime=end)
    assert found.trouble == (None if where == "ahead" else "status")


@pytest.mark.parametrize(
    "end", [{"abatementAge": {"value": 50}}, {"abatementString": "masked"}, {"abatementRange": {}}]
)
def test_an_end_that_is_no_date_is_unusable(end):
    assert fact(**end).trouble == "status"


def test_a_period_that_is_none_ends_nothing():
    assert fact(abatementPeriod="2020").trouble is None


def test_a_date_that_cannot_be_read_leaves_what_another_says():
    assert fact(onsetDateTime="2026-02-28", recordedDate="last year").began == -DAY_S / 2


def test_a_status_that_cannot_be_read_hides_no_modifier_of_the_code():
    modified = {"code": {**concept(CKD), "modifierExtension": [{"url": "urn:x"}]}}
    assert fact(**modified, **status("urn:x|active")).trouble == "modifier"
    assert fact(**modified, abatementDateTime="in spring").trouble == "modifier"


@pytest.mark.parametrize("more", [
    {"onsetDateTime": "2026-02-01T00:00:00Z"}, {"onsetDateTime": "2026-02"}, {"onsetPeriod": {"start": "2026"}},
    {"abatementDateTime": "2026-02-01"}, {"abatementDateTime": "2030"}, {"verificationStatus": concept(f"{VERIFIED}|confirmed")},
    {"recordedDate": "2026-02-01"},
])  # fmt: skip
def test_what_is_over_stays_over_whatever_its_dates_say(more):
    assert facts(**status(f"{CLINICAL}|resolved"), **more) == ()
