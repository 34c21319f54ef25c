"""`sidecar models check` says how many vectors agree, ends with 0 only if all do, and never hides what it did not use."""

import copy
import json

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from tests.unit.kidney import KFRE

INPUTS = {"age_years": 55, "male": 1, "egfr": 45, "uacr_mg_per_g": 120, "region": "north_america", "years": 2}
GOOD = {"model": "kfre_4var", "notes": "", "vectors": [{"inputs": INPUTS, "expected": {"risk": 0.0124707}, "source": "x"}]}  # fmt: skip


def check(tmp_path, content, folder=KFRE):
    file = tmp_path / "vectors.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    done = CliRunner().invoke(main, ["models", "check", str(folder), "--vectors", str(file), "--json"])
    return done.exit_code, json.loads(done.stdout) if done.stdout else None, done.stderr


def changed(**vector):
    content = copy.deepcopy(GOOD)
    for part, update in vector.items():
        content["vectors"][0][part] = {**content["vectors"][0].get(part, {}), **update} if isinstance(update, dict) else update  # fmt: skip
    return content


def test_a_vector_that_agrees_is_counted_and_the_command_ends_with_zero(tmp_path):
    code, found, said = check(tmp_path, GOOD)
    assert (code, said) == (0, "")
    assert (found["model"], found["agree"], found["total"], found["ignored"]) == ("kfre_4var", 1, 1, [])
    assert found["worst"] < 1e-6


def test_the_folder_of_the_model_means_its_newest_version(tmp_path):
    assert check(tmp_path, GOOD, KFRE.parent)[0] == 0


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        ({"expected": {"risk": 0.0125}}, "risk is 0.0124707"),
        ({"inputs": {"years": 3}}, "no output with the horizon 3"),
        ({"inputs": {"region": "atlantis"}}, "region: not a number"),
        ({"inputs": {"smoker": True}}, "inputs that [vectors] does not name: smoker"),
        ({"inputs": {"egfr": "many"}}, "egfr: not a number"),
        ({"expected": {"risk": "low"}}, "risk: not a number"),
        ({"inputs": 3}, "inputs and expected must be objects"),
        ({"expected": {"egfr": 45}}, "given and expected, which tests nothing: egfr"),
    ],
)
def test_a_vector_that_does_not_agree_or_cannot_be_run_is_said_and_the_command_fails(tmp_path, vector, said):
    code, found, why = check(tmp_path, changed(**vector))
    assert (code, found["agree"], found["total"]) == (1, 0, 1)
    assert f"vector 1: {said}" in why


def test_a_missing_input_is_no_number_and_does_not_agree(tmp_path):
    content = copy.deepcopy(GOOD)
    del content["vectors"][0]["inputs"]["region"]
    code, found, _ = check(tmp_path, content)
    assert (code, found["agree"], found["worst"]) == (1, 0, None)


def test_a_vector_brings_its_own_tolerance(tmp_path):
    assert check(tmp_path, changed(expected={"risk": 0.0125, "atol": 1e-4}))[0] == 0


def test_what_is_not_compared_is_listed(tmp_path):
    content = {**changed(expected={"rounded": 1}, weight=2), "licence": "x"}
    code, found, said = check(tmp_path, content)
    assert (code, found["ignored"]) == (0, ["expected.rounded", "licence", "weight"])
    assert "not compared, because [vectors] does not name it: expected.rounded" in said


def test_a_vector_with_nothing_to_compare_does_not_agree(tmp_path):
    content = copy.deepcopy(GOOD)
    content["vectors"][0]["expected"] = {"rounded": 1}
    assert check(tmp_path, content)[0] == 1


def test_no_vectors_are_no_agreement(tmp_path):
    assert check(tmp_path, {**GOOD, "vectors": []})[0] == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"vectors": 3}', "null"])
def test_a_file_that_holds_no_vectors_is_refused_by_name(tmp_path, content):
    code, found, said = check(tmp_path, content)
    assert (code, found) == (2, None)
    assert "vectors.json" in said


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    assert check(tmp_path, GOOD, tmp_path)[0] == 2
