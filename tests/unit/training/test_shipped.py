"""The trained models as they ship: frozen answers, contributions, what their reports and cards say, and the real data."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest

from sidecar.commands.models_vectors import tally_of
from sidecar.scoring import load_model
from sidecar.training.shipped import Shipped
from tests.unit.training.generated import REPO

SHARED = REPO.parent / "shared" / "data"
DATA = {
    "readmission_30d": SHARED / "diabetes130" / "diabetic_data.csv.gz",
    "sepsis_hourly": SHARED / "physionet2019" / "training_setB_subset.psv.gz",
}
# What is known of these data: AUROC of a logistic model, average precision.
KNOWN = {"readmission_30d": (0.657, 0.195), "sepsis_hourly": (0.806, 0.060)}
MODELS = list(KNOWN)


def folder(model):
    return REPO / "models" / model / "1.0.0"


def report(model):
    return json.loads((folder(model) / "report.json").read_text())


def rows(model):
    """The inputs and the frozen answers of the vectors."""
    loaded = load_model(folder(model))
    vectors = json.loads((folder(model) / "vectors.json").read_text())["vectors"]
    inputs = [[v["inputs"].get(n, math.nan) for n in loaded.manifest.graph.features] for v in vectors]
    said = [math.nan if v["expected"]["probability"] is None else v["expected"]["probability"] for v in vectors]
    return np.array(inputs, dtype=float), np.array(said)


@pytest.mark.parametrize("model", MODELS)
def test_the_graph_says_what_the_training_code_said_absence_included(model):
    tally = tally_of(load_model(folder(model)), folder(model) / "vectors.json")
    assert (tally.agree, tally.total) == (200, 200)
    assert tally.worst < 1e-9
    inputs, said = rows(model)
    assert np.isnan(inputs).any()
    assert np.isnan(said).any()
    assert np.abs(Shipped(folder(model)).probability(inputs) - said)[~np.isnan(said)].max() < 1e-9


@pytest.mark.parametrize("model", MODELS)
def test_what_a_site_recalibrates_is_evaluated_and_vectors_still_hold_the_trained_models_answers(model, tmp_path):
    own = tmp_path / model / "1.0.0"
    shutil.copytree(folder(model), own, ignore=shutil.ignore_patterns("__pycache__"))
    text = (own / "manifest.toml").read_text()
    own_numbers = "recalibration = { intercept = -0.4, slope = 0.8, date = 2026-05-01, n = 1234 }"
    (own / "manifest.toml").write_text(text.replace("[[outputs]]\n", f"[[outputs]]\n{own_numbers}\n"))
    tally = tally_of(load_model(own), own / "vectors.json")
    assert (tally.agree, tally.total) == (200, 200)
    inputs, said = rows(model)
    inputs, said = inputs[~np.isnan(said)], said[~np.isnan(said)]
    wanted = 1 / (1 + np.exp(0.4 - 0.8 * np.log(said / (1 - said))))
    assert Shipped(own).probability(inputs) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_contributions_sum_to_the_score_and_one_row_gets_what_many_get(model):
    shipped, (inputs, said) = Shipped(folder(model)), rows(model)
    totals, terms, probabilities = shipped.run(inputs)
    known = ~np.isnan(said)
    assert terms[known].sum(axis=1) == pytest.approx(totals[known], abs=1e-9)
    alone = np.array([shipped.probability(row[np.newaxis])[0] for row in inputs[:20]])
    assert alone == pytest.approx(probabilities[:20], abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("model", MODELS)
def test_on_patients_held_out_it_is_not_below_what_is_known_and_the_slope_may_be_1(model):
    for part in (report(model)["held_out"], report(model)["cross_validated"]):
        for figure, known in zip(("auroc", "ap"), KNOWN[model], strict=True):
            assert part["intervals"][figure][1] >= known
        low, high = part["intervals"]["calibration_slope"]
        assert low <= 1 <= high


@pytest.mark.parametrize("model", MODELS)
def test_the_card_says_the_figures_of_the_report(model):
    card = (folder(model) / "card.toml").read_text().replace(" \\\n", " ")
    for part in (report(model)["held_out"], report(model)["cross_validated"]):
        for figure, name in (
            ("auroc", "AUROC"),
            ("ap", "average precision"),
            ("calibration_slope", "calibration slope"),
        ):
            low, high = part["intervals"][figure]
            assert f"{name} {part[figure]:.3f} ({low:.3f} to {high:.3f})" in card
    for named in ("CC BY 4.0", "recalibrat"):
        assert named in card


def test_the_sepsis_report_tells_what_care_process_would_be_worth_and_what_alerts_cost():
    found = report("sepsis_hourly")
    assert found["variants_held_out"]["with_care_process"]["auroc"] > found["held_out"]["auroc"]
    assert found["held_out"]["partial_news2"]["auroc"] < found["held_out"]["intervals"]["auroc"][0]
    assert [a["hours_flagged"] for a in found["cross_validated"]["alerts"]] == [0.01, 0.02, 0.05, 0.1]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", MODELS)
def test_evaluate_on_the_real_data_gives_the_known_figures(model):
    if not DATA[model].is_file():
        pytest.skip(f"missing: {DATA[model]}")
    command = [sys.executable, folder(model) / "train.py", "evaluate", "--data", DATA[model], "--draws", "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["intervals"]["auroc"][1] >= KNOWN[model][0]
    assert found["n"] == report(model)["rows"]
    assert found["not_scored"] + found["n"] + found["not_of_the_cohort"] == found["rows"]
