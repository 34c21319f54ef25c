"""The commands take a classifier's folder as they take any other."""

import json

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from tests.unit.chart import bundle, person, stay
from tests.unit.opaque import FEATURES, SICK, TYPICAL, install, probability, readings

NAMES = dict(zip(("rr", "spo2", "sbp", "hr"), FEATURES, strict=True))


def check(tmp_path, *vectors):
    file = tmp_path / "vectors.json"
    file.write_text(json.dumps({"model": "early_warning", "vectors": vectors}))
    folder = tmp_path / "early_warning" / "1.0.0"
    done = CliRunner().invoke(main, ["models", "check", str(folder), "--vectors", str(file), "--json"])
    return done.exit_code, json.loads(done.stdout), done.stderr


def a_vector(**changes):
    values = {**{short: SICK[name] for short, name in NAMES.items()}, **changes}
    known = {name: values.get(short, SICK[name]) for short, name in NAMES.items()}
    return {"inputs": {**values, "hours": 24}, "expected": {"risk": probability(known)}}


def test_vectors_are_checked_through_the_graph(tmp_path):
    install(tmp_path)
    code, found, said = check(tmp_path, a_vector(), a_vector(hr=70), a_vector(rr=22, spo2=96))
    assert (code, found["agree"], found["total"], said) == (0, 3, 3, "")
    assert found["worst"] < 1e-6


def test_a_vector_with_an_input_left_out_does_not_agree_although_trees_would_answer(tmp_path):
    install(tmp_path)
    incomplete = a_vector()
    del incomplete["inputs"]["hr"]
    code, found, said = check(tmp_path, a_vector(), incomplete)
    assert (code, found["agree"], found["total"]) == (1, 1, 2)
    assert "vector 2: risk is nan" in said


def score(tmp_path, *resources):
    install(tmp_path)
    content = json.dumps(bundle(person(), stay(), *resources)).encode()
    done = CliRunner().invoke(
        main, ["score", "-", "--model", "early_warning", "--models-dir", str(tmp_path)], input=content
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_bundle_gives_the_probability_the_changes_and_what_write_back_would_chart(tmp_path):
    line = score(tmp_path, *readings())
    assert (line["outcome"], line["score"], line["at_least"], line["risk"]) == ("scored", None, None, None)
    assert line["probabilities"] == {"within_a_day": pytest.approx(probability(SICK), abs=1e-6)}
    assert (set(line["contributions"]), line["typical"]) == (set(FEATURES), TYPICAL)
    made, risk = line["resources"]
    assert (made["resourceType"], risk["resourceType"]) == ("Device", "RiskAssessment")
    assert risk["prediction"][0]["rationale"].startswith("by occlusion")


def test_a_bundle_with_an_input_missing_gives_the_reason_and_nothing_to_chart(tmp_path):
    line = score(tmp_path, *readings(spo2=None))
    assert (line["outcome"], line["reasons"], line["resources"]) == ("not_scored", ["missing:spo2"], [])
    assert (line["probabilities"], line["contributions"]) == ({}, {})
