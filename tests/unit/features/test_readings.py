"""Which reading counts: the newest, never one that cannot be used in silence, never one from another observation set."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from sidecar.app import running_model
from sidecar.context import from_bundle
from sidecar.explanation import reason_in_words
from sidecar.pipeline import conclude
from sidecar.records import Outcome, PatientSnapshot
from sidecar.settings import ModelSettings
from tests.unit.chart import (
    AT,
    LOINC,
    amount,
    answered,
    bundle,
    concept,
    judge,
    judge_set,
    loaded,
    measured,
    model,
    observation,
    panel,
    person,
    rules,
    stay,
    vitals,
)

RR = f"{LOINC}|9279-1"
HOUR = timedelta(hours=1)
OLDER = measured("9279-1", 16, "/min", HOUR)


def rate(*readings):
    a = judge([*vitals(respiratory_rate=None).values(), *readings]).assessment
    return next(f.value for f in a.vector.features if f.name == "respiratory_rate"), a.reasons


def newer(**more):
    return observation(RR, **more)


def test_the_newest_reading_counts():
    assert rate(OLDER, measured("9279-1", 22, "/min")) == (22, ())


@pytest.mark.parametrize(
    ("unusable", "why"),
    [
        (newer(valueQuantity=amount(30, "/min") | {"comparator": "<"}), "comparator"),
        (newer(valueQuantity=amount(30, "/min"), interpretation=[concept("urn:x|>")]), "comparator"),
        (newer(valueQuantity={"value": 30}), "unit"),
        (newer(valueQuantity=amount(30, "/h")), "unit"),
        (newer(valueQuantity=amount(30, "{John Smith}/min")), "unit"),
        (newer(valueInteger=30), "unit"),
        (newer(valueQuantity=amount(81, "/min")), "implausible"),
        (newer(valueQuantity=amount(-1, "/min")), "implausible"),
        (newer(valueQuantity=amount(30, "/min"), status="unknown"), "status"),
        (newer(valueQuantity=amount(30, "/min"), focus=[{"reference": "Patient/fetus"}]), "modifier"),
        (newer(valueQuantity=amount(30, "/min"), modifierExtension=[{"url": "urn:x"}]), "modifier"),
        (newer(valueQuantity=amount(30, "/min"), implicitRules="urn:x"), "modifier"),
        (newer(valueQuantity={**amount(30, "/min"), "value": "30"}), "shape"),
        (newer(valueString="30"), "shape"),
        (newer(valueRange={"low": amount(28, "/min"), "high": amount(32, "/min")}), "shape"),
        (newer(valueCodeableConcept=concept(f"{LOINC}|LA6560-2")), "shape"),
        (newer(valueCodeableConcept={"text": "fast"}), "unmapped"),
    ],
)
def test_a_newer_reading_that_cannot_be_used_is_not_replaced_by_an_older_one(unusable, why):
    value, reasons = rate(OLDER, unusable)
    assert reasons == (f"{why}:respiratory_rate",)
    assert value != value  # noqa: PLR0124 -- NaN


@pytest.mark.parametrize(
    "void",
    [
        newer(valueQuantity=amount(30, "/min"), status="entered-in-error"),
        newer(valueQuantity=amount(30, "/min"), status="cancelled"),
        newer(status="registered"),
        newer(),
        newer(dataAbsentReason=concept("urn:x|not-performed")),
        newer(valueQuantity=amount(30, "/min"), dataAbsentReason=concept("urn:x|error")),
    ],
    ids=["entered-in-error", "cancelled", "registered", "no value", "absent", "absent with a value"],
)
def test_a_newer_reading_that_never_was_is_replaced_by_an_older_one(void):
    assert rate(OLDER, void) == (16, ())


@pytest.mark.parametrize("status", ["preliminary", "final", "amended", "corrected"])
def test_every_status_of_a_real_reading_is_used(status):
    assert rate(measured("9279-1", 22, "/min", status=status)) == (22, ())


@pytest.mark.parametrize("when", ["2026-03-01", "2026-03", "2026", "2026-03-01T12:00:00", "yesterday", 5, None])
def test_a_reading_without_a_time_of_day_and_zone_never_counts(when):
    assert rate(measured("9279-1", 22, "/min", effectiveDateTime=when))[1] == ("missing:respiratory_rate",)


def test_a_period_counts_at_its_end():
    whole = measured("9279-1", 22, "/min")
    del whole["effectiveDateTime"]
    whole["effectivePeriod"] = {"start": "2026-03-01T03:00:00Z", "end": "2026-03-01T11:59:00Z"}
    assert rate(whole) == (22, ())


def reasons_live(*readings):
    """Judged now, as a server does: what lies ahead is a fault of the chart, not something nobody knows yet."""
    chart = (*vitals(respiratory_rate=None).values(), *readings)
    return conclude(PatientSnapshot(person(), stay(), chart, AT), model(), rules()).assessment.reasons


def test_an_older_reading_never_stands_in_for_a_newer_one_charted_a_little_ahead():
    assert reasons_live(OLDER, measured("9279-1", 30, "/min", -timedelta(minutes=6))) == ("future:respiratory_rate",)


def test_a_reading_charted_more_than_a_day_ahead_is_a_slip_and_is_passed_over():
    assert reasons_live(OLDER, measured("9279-1", 30, "/min", -timedelta(days=2))) == ()


def test_a_bundle_judged_at_a_past_moment_does_not_know_what_came_after():
    assert rate(OLDER, measured("9279-1", 30, "/min", -timedelta(minutes=6))) == (16, ())


def test_only_future_readings_leave_the_input_missing_with_that_reason():
    assert rate(measured("9279-1", 30, "/min", -timedelta(minutes=6)))[1] == ("future:respiratory_rate",)


def test_a_reading_within_five_minutes_ahead_is_a_clock_that_runs_fast():
    assert rate(measured("9279-1", 30, "/min", -timedelta(minutes=5))) == (30, ())


@pytest.mark.parametrize(
    ("ago", "reasons"), [(timedelta(hours=4), ()), (timedelta(hours=4, seconds=1), ("stale:pulse",))]
)
def test_a_reading_is_usable_up_to_its_maximum_age_and_not_longer(ago, reasons):
    assert judge_set(pulse=measured("8867-4", 70, "/min", ago)).assessment.reasons == reasons


def site(**choices):
    return running_model(loaded(), ModelSettings.model_validate(choices))


def judge_at(running, readings):
    chart = bundle(person(), stay(), *readings)
    codes = running.loaded.manifest.observation_codes
    return conclude(from_bundle(chart, codes, AT, ZoneInfo("UTC")), running, rules()).assessment


def test_the_site_may_set_the_maximum_age_of_one_input():
    readings = vitals(pulse=measured("8867-4", 70, "/min", timedelta(minutes=31))).values()
    assert judge_at(site(max_age={"pulse": "30m"}), readings).reasons == ("stale:pulse",)
    assert judge_at(model(), readings).outcome is Outcome.SCORED


@pytest.mark.parametrize(("minutes", "reasons"), [(60, ()), (61, ("stale:pulse",))])
def test_an_input_further_behind_the_latest_than_the_spread_belongs_to_another_set(minutes, reasons):
    readings = vitals(pulse=measured("8867-4", 70, "/min", timedelta(minutes=minutes))).values()
    assert judge_at(site(spread="1h"), readings).reasons == reasons


def test_an_unusable_newer_reading_does_not_push_the_others_out_of_the_set():
    readings = [measured("8867-4", 70, "/min", HOUR * 2), newer(valueQuantity=amount(81, "/min"))]
    assert "stale:pulse" not in judge_at(site(spread="1h"), readings).reasons


@pytest.mark.parametrize("flip", [False, True])
def test_of_two_readings_of_one_moment_the_one_charted_later_counts(flip):
    first = measured("9279-1", 30, "/min", id="a", issued="2026-03-01T12:00:01Z")
    second = measured("9279-1", 16, "/min", id="b", issued="2026-03-01T12:00:09Z")
    assert rate(*((second, first) if flip else (first, second))) == (16, ())


@pytest.mark.parametrize("flip", [False, True])
def test_of_two_readings_of_one_moment_nothing_else_told_the_larger_counts(flip):
    pair = [measured("9279-1", 16, "/min", id="a"), measured("9279-1", 30, "/min", id="b")]
    assert rate(*(reversed(pair) if flip else pair)) == (30, ())


@pytest.mark.parametrize("flip", [False, True])
def test_of_two_readings_of_one_moment_an_unusable_one_makes_the_input_missing(flip):
    limit = measured("9279-1", 30, "/min", id="b")
    limit["valueQuantity"]["comparator"] = ">"
    pair = [measured("9279-1", 16, "/min", id="a"), limit]
    assert rate(*(reversed(pair) if flip else pair))[1] == ("comparator:respiratory_rate",)


def test_a_value_of_the_panel_itself_says_nothing_of_its_components():
    whole = {**panel(85), "valueString": "85/60"}
    assert judge_set(systolic_bp=whole).assessment.contributions["systolic_bp"] == 3


@pytest.mark.parametrize("element", ["focus", "modifierExtension"])
def test_a_modifier_of_the_panel_concerns_its_components(element):
    whole = {**panel(85), element: [{"reference": "Patient/fetus"}]}
    assert judge_set(systolic_bp=whole).assessment.reasons == ("modifier:systolic_bp",)


def test_a_component_without_a_value_is_missing_though_its_sibling_has_one():
    whole = panel(85)
    whole["component"][0] = {"code": whole["component"][0]["code"], "dataAbsentReason": concept("urn:x|error")}
    assert judge_set(systolic_bp=whole).assessment.reasons == ("missing:systolic_bp",)


def test_every_stored_reason_has_words():
    manifest = loaded().manifest
    words = ("missing", "stale", "implausible", "unit", "comparator", "future", "ambiguous", "unmapped", "status")
    for word in (*words, "modifier", "shape"):
        said = reason_in_words(f"{word}:pulse", manifest)
        assert "pulse" in said
        assert ":" not in said.replace("check patient:", "")


def test_a_code_of_another_system_is_another_observation():
    assert rate(answered("urn:oid:1.2.3|9279-1", "urn:x|y"))[1] == ("missing:respiratory_rate",)
