"""Alerts per 100 patient-days: escalations over calendar days on which patients were looked at."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sidecar.rollout import Alerts, Seen

BANDS = ("low", "low-medium", "medium", "high")
DAY = date(2026, 11, 1)


def counted(*seen: tuple[str, int, int | None]) -> Alerts:
    alerts = Alerts(BANDS)
    for patient, day, level in seen:
        alerts.add(Seen(patient.encode(), DAY + timedelta(days=day), level))
    return alerts


def test_a_band_that_lasts_calls_once_and_a_higher_one_again():
    alerts = counted(("p", 0, 2), ("p", 0, 2), ("p", 0, 3), ("p", 1, 3))
    assert alerts.to_json()["alerts"] == 2
    assert alerts.patient_days == 2
    assert alerts.rate(1) == 100.0
    assert alerts.rate(3) == 50.0


def test_a_patient_who_got_better_and_worse_again_calls_again():
    assert counted(("p", 0, 2), ("p", 0, 0), ("p", 0, 2)).to_json()["alerts"] == 2


def test_the_lowest_band_calls_nobody_and_each_patient_is_counted_apart():
    alerts = counted(("p", 0, 0), ("q", 0, 1), ("r", 0, 1))
    assert alerts.to_json()["alerts"] == 2
    assert alerts.patients == 3
    assert alerts.rate(1) == 200 / 3


def test_a_look_without_a_result_counts_as_a_day_and_forgets_nothing():
    alerts = counted(("p", 0, 2), ("p", 1, None), ("p", 2, 2))
    assert (alerts.patient_days, alerts.not_scored, alerts.to_json()["alerts"]) == (3, 1, 1)


def test_a_report_of_nobody_has_no_rate():
    said = counted().to_json()
    assert said["alerts_per_100_patient_days"] is None
    assert said["per_100_patient_days_from_band"] == dict.fromkeys(BANDS[1:])


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.integers(0, 5), st.none() | st.integers(0, 3)), max_size=60))
def test_fewer_call_from_a_higher_band_and_never_more_than_there_are_results(seen):
    alerts = counted(*sorted(seen, key=lambda each: each[0]))
    rates = [alerts.rate(level) or 0.0 for level in (1, 2, 3)]
    assert rates == sorted(rates, reverse=True)
    assert alerts.to_json()["alerts"] <= alerts.results
    assert alerts.patient_days == len({(patient, day) for patient, day, _ in seen})
