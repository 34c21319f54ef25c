"""Under the rules of Safe Harbor ages of 90 and more are one; a model that needs more says so instead of guessing."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from sidecar.context import from_bundle
from sidecar.deid import Mode, deidentify, load_rules
from sidecar.explanation import reason_in_words
from sidecar.pipeline import conclude
from sidecar.records import Outcome, PatientSnapshot
from tests.unit.chart import AT, bundle, model, person, rules, stay, vitals
from tests.unit.kidney import acr, chronic, creatinine, kfre, running

STRICT = rules(Mode.SAFE_HARBOR_RULES)


def clean(born, policy=STRICT, at=AT):
    return deidentify(PatientSnapshot(person(birthDate=born), None, (), at), policy, {})


def kidney(born, policy):
    chart = bundle(person(birthDate=born, gender="male"), chronic(), creatinine(2), acr())
    return conclude(
        from_bundle(chart, kfre().manifest.set_codes, AT, ZoneInfo("UTC")), running("other"), policy
    ).assessment


@pytest.mark.parametrize(
    ("at", "born", "age"),
    [
        ("2026-03-01T12:00:00+00:00", "1936-03-02", (89, 89)), ("2026-03-01T12:00:00+00:00", "1936-03-01", (90, 150)),
        ("2026-02-28T23:59:00+00:00", "1936-02-29", (89, 89)), ("2026-03-01T00:00:00+00:00", "1936-02-29", (90, 150)),
        ("2026-02-28T20:00:00-10:00", "1936-03-01", (89, 89)), ("2026-03-01T13:00:00+14:00", "1936-03-01", (90, 150)),
        ("2026-03-01T12:00:00+00:00", "1936", (89, 150)), ("2026-03-01T12:00:00+00:00", "1936-03", (89, 150)),
        ("2026-03-01T12:00:00+00:00", "1937", (88, 89)), ("2026-03-01T12:00:00+00:00", "1900-01-01", (90, 150)),
    ],
)  # fmt: skip
def test_the_cap_begins_on_the_local_day_of_the_ninetieth_birthday_and_where_nobody_knows_the_day(at, born, age):
    crossed = clean(born, at=datetime.fromisoformat(at))
    assert (crossed.age_years, crossed.age_capped) == (age, age[1] == 150)


def test_no_age_of_ninety_or_more_can_be_told_from_another():
    crossed = {clean(date(born, 1, 1).isoformat()) for born in range(1880, 1937)}
    assert len(crossed) == 1


def test_other_modes_let_the_exact_age_cross():
    for mode in (Mode.KEYED_PSEUDONYMS, Mode.LIMITED_DATA_SET):
        crossed = clean("1930-01-01", rules(mode))
        assert (crossed.age_years, crossed.age_capped, crossed.lived_s is None) == ((96, 96), False, False)


def test_a_model_that_needs_an_exact_age_gives_no_result_where_it_is_capped_and_says_why():
    capped, exact = kidney("1930-01-01", STRICT), kidney("1930-01-01", rules())
    assert (capped.outcome, set(capped.reasons)) == (Outcome.NOT_SCORED, {"deid:age_capped"})
    assert "90 or older" in reason_in_words("deid:age_capped", kfre().manifest)
    assert exact.outcome is Outcome.SCORED
    assert kidney("1940-01-01", STRICT).probabilities == kidney("1940-01-01", rules()).probabilities


def test_a_model_that_asks_only_for_adults_scores_whoever_is_ninety():
    chart = bundle(person(birthDate="1930-01-01"), stay(), *vitals().values())
    snapshot = from_bundle(chart, model().loaded.manifest.set_codes, AT, UTC)
    assert conclude(snapshot, model(), STRICT).assessment.outcome is Outcome.SCORED


def test_the_digest_on_every_assessment_tells_the_mode():
    assert len({load_rules(mode=mode).digest for mode in Mode}) == 3
