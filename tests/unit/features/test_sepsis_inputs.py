"""The inputs of sepsis_hourly, as an intensive care chart holds them."""

import math
from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.explanation import conclude
from sidecar.records import FeatureVector, Outcome
from sidecar.scoring import load_model
from tests.unit.chart import measured, person
from tests.unit.language import all_told, visit

MODEL = load_model(Path(__file__).parents[3] / "models" / "sepsis_hourly" / "1.0.0")
NEEDED = ("pulse", "spo2", "temperature", "systolic_bp", "respiratory_rate")
STAY = visit("e1", "2026-02-27T08:00:00Z")
HOUR = timedelta(hours=1)


def vitals(ago=timedelta(0)):
    return [
        measured("8867-4", 112, "/min", ago), measured("59408-5", 93, "%", ago), measured("8310-5", 101.3, "[degF]", ago),
        measured("8480-6", 94, "mm[Hg]", ago), measured("9279-1", 26, "/min", ago),
    ]  # fmt: skip


def told(*charted):
    return all_told(MODEL.manifest, STAY, *charted, who=person(gender="female"))


def score(found):
    return MODEL.score(FeatureVector(tuple(found[n] for n in MODEL.manifest.graph.features)))


def test_five_vital_signs_are_enough_and_every_contribution_is_told_and_sums_to_the_total():
    found = told(*vitals())
    assert [n for n in MODEL.manifest.graph.features if found[n].reason] == []
    assert math.isnan(found["lactate"].value)
    said = score(found)
    assert 0 < said.probabilities["six_hours"] < 1
    vector = FeatureVector(tuple(found[n] for n in MODEL.manifest.graph.features))
    concluded = conclude(MODEL.manifest, vector, said)
    assert concluded.outcome is Outcome.SCORED
    assert math.fsum(concluded.contributions.values()) == pytest.approx(said.total, abs=1e-12)


@pytest.mark.parametrize("gone", range(5))
def test_without_one_of_the_five_there_is_no_score_and_it_is_said_which(gone):
    charted = vitals()
    del charted[gone]
    found = told(*charted)
    assert [found[n].reason for n in NEEDED if found[n].reason] == [f"missing:{n}" for n in NEEDED if found[n].reason]
    assert math.isnan(score(found).probabilities["six_hours"])


@pytest.mark.parametrize(
    ("code", "value", "unit", "name", "wanted"),
    [
        ("2524-7", 27, "mg/dL", "lactate", 2.997), ("2160-0", 2, "mg/dL", "creatinine", 2), ("14682-9", 176.8, "umol/L", "creatinine", 2),
        ("14749-6", 10, "mmol/L", "glucose", 180.16), ("6690-2", 14_500, "/uL", "leukocytes", 14.5), ("777-3", 90, "10*9/L", "platelets", 90),
        ("718-7", 101, "g/L", "haemoglobin", 10.1), ("14631-6", 34.2, "umol/L", "bilirubin", 2), ("2744-1", 7.31, "[pH]", "ph", 7.31),
        ("2019-8", 6, "kPa", "paco2", 45.00372), ("3255-7", 3.1, "g/L", "fibrinogen", 310), ("89579-7", 250, "ng/L", "troponin_i", 0.25),
    ],
)  # fmt: skip
def test_results_are_read_in_the_units_of_real_charts(code, value, unit, name, wanted):
    assert told(*vitals(), measured(code, value, unit, HOUR))[name].value == pytest.approx(wanted, rel=1e-4)


def test_a_result_of_last_week_counts_and_one_of_ten_days_ago_is_absent():
    for days, known in ((6, True), (10, False), (30, False)):
        found = told(*vitals(), measured("2524-7", 4, "mmol/L", timedelta(days=days)))["lactate"]
        assert (found.reason, math.isnan(found.value)) == (None, not known)


def test_a_result_that_cannot_be_read_is_not_taken_as_absent():
    found = told(*vitals(), measured("2524-7", 4, "furlong", HOUR))["lactate"]
    assert found.reason == "unit:lactate"


def test_means_and_extremes_are_known_when_somebody_looks_later_than_the_reading():
    found = told(*vitals(timedelta(minutes=10)), measured("8867-4", 90, "/min", 4 * HOUR))
    summaries = [n for n in MODEL.manifest.graph.features if n.endswith(("_mean_8h", "_max_24h", "_min_24h"))]
    assert len(summaries) == 12
    assert found["pulse_mean_8h"].value == 101
    assert [n for n in summaries if n.startswith(NEEDED) and math.isnan(found[n].value)] == []


def test_means_and_extremes_are_of_their_hours():
    found = told(
        *vitals(),
        *vitals(30 * HOUR),
        measured("8867-4", 150, "/min", 20 * HOUR),
        measured("8867-4", 90, "/min", 4 * HOUR),
    )
    assert (found["pulse"].value, found["pulse_mean_8h"].value, found["pulse_max_24h"].value) == (112, 101, 150)
