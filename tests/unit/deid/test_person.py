"""Of a person there crosses a sex from a closed set, an age, and since when a condition is there. Nothing else."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from sidecar.deid import deidentify
from sidecar.records import PatientSnapshot, Sex
from tests.unit.chart import AT, SCT, person, rules
from tests.unit.deid.test_canaries import CANARY, said
from tests.unit.kidney import acr, condition, creatinine, egfr, judge_ckd, running

BIRTH_SEX = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex"
RACE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"


def clean(patient, *resources, at=AT):
    return deidentify(PatientSnapshot(patient, None, resources, at), rules(), running().extractor.reads)


def test_no_extension_but_birth_sex_crosses_and_of_that_only_its_code():
    marked = {"url": BIRTH_SEX, "valueCode": "F", "id": CANARY, "extension": [{"url": CANARY, "valueString": CANARY}]}
    race = {"url": RACE, "extension": [{"url": "text", "valueString": CANARY}]}
    crossed = clean(person(gender="female", extension=[marked, race, {"url": BIRTH_SEX, "valueCode": CANARY}]))
    assert crossed.sex is Sex.CONTRADICTORY
    assert CANARY.casefold() not in said(crossed)


def test_a_gender_that_is_no_code_crosses_as_unknown():
    crossed = clean(person(gender=CANARY))
    assert crossed.sex is Sex.UNKNOWN
    assert CANARY.casefold() not in said(crossed)


def test_no_planted_identifier_is_in_what_a_probability_model_computes_or_says():
    patient = person(gender="male", name=[{"text": CANARY}], extension=[{"url": RACE, "valueString": CANARY}])
    marked = {"note": [{"text": CANARY}], "performer": [{"display": CANARY}]}
    a = judge_ckd(creatinine(2, **marked), {**acr(), **marked}, patient=patient).assessment
    assert a.probabilities
    assert CANARY.casefold() not in said(a) + said(a.vector)
    assert not [date for date in ("1950", "2026", "05-04") if date in said(a)]


@pytest.mark.parametrize("born", ["1950", "1950-05", None, "x"])
def test_without_the_day_of_birth_no_exact_age_crosses(born):
    assert clean(person(birthDate=born)).lived_s is None


def test_an_exact_age_counts_instants_whatever_the_clocks_did():
    zone = ZoneInfo("Europe/London")
    winter, summer = (datetime(2026, month, 1, 12, tzinfo=UTC).astimezone(zone) for month in (3, 7))
    lived = [clean(person(birthDate="1950-01-04"), at=at).lived_s for at in (winter, summer)]
    assert lived[1] - lived[0] == (summer - winter.astimezone(UTC)).total_seconds()


@pytest.mark.parametrize(
    ("known", "days_ago"),
    [
        ({"onsetDateTime": "2026-02-01"}, 27.5), ({"onsetDateTime": "2026-01"}, 28.5), ({"onsetDateTime": "2025"}, 59.5),
        ({"recordedDate": "2026-02-01"}, 27.5), ({"onsetDateTime": "2026-02-28T12:00:00Z"}, 1), ({"onsetPeriod": {"start": "2025-12"}}, 59.5),
        ({"onsetDateTime": "2026-02-01", "recordedDate": "2026-02-10"}, 27.5), ({"onsetDateTime": "2025", "recordedDate": "2025-06-01"}, 272.5),
    ],
)  # fmt: skip
def test_a_condition_is_there_since_the_latest_moment_that_its_dates_may_mean(known, days_ago):
    (fact,) = clean(person(), condition(f"{SCT}|709044004", **known)).facts
    assert fact.began == -timedelta(days=days_ago).total_seconds()


def test_a_reading_has_no_beginning():
    assert clean(person(), egfr()).facts[0].began is None
