"""Vector files of other people: units beside values, words for bands, null for no result; and hostile ones."""

import json
import re
import shutil

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from tests.unit.chart import NEWS2, REPO
from tests.unit.equations import score
from tests.unit.kidney import KFRE
from tests.unit.opaque import MANIFEST, SICK, install, probability

NORMAL = {
    "respiratory_rate": 16, "spo2": 97, "spo2_scale": 1, "on_oxygen": False, "systolic_bp": 120, "pulse": 70,
    "consciousness": "alert", "temperature": 37.0,
}  # fmt: skip
BLEEDING = (
    "hypertension_uncontrolled", "abnormal_renal_function", "abnormal_liver_function", "stroke", "bleeding_history",
    "labile_inr", "drugs_antiplatelet_nsaid", "alcohol_excess",
)  # fmt: skip
KIDNEY = {"age_years": 55, "male": 1, "egfr": 45, "uacr_mg_per_g": 120, "region": "north_america", "years": 2}


def check(tmp_path, folder, content):
    file = tmp_path / "vectors.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    done = CliRunner().invoke(main, ["models", "check", str(folder), "--vectors", str(file), "--json"])
    return done.exit_code, json.loads(done.stdout) if done.stdout else None, done.stderr


def one(inputs, **expected):
    return {"vectors": [{"inputs": inputs, "expected": expected}]}


def with_vectors(tmp_path, folder, table):
    """The model of `folder` with another [vectors] table."""
    copy = tmp_path / folder.parent.name / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / "manifest.toml").read_text(encoding="utf-8")
    before, _, after = text.partition("[vectors]")
    kept = re.search(r"(?ms)^(\[\[?(?!vectors)[a-z_.]+\]\]?.*)", after)
    (copy / "manifest.toml").write_text(before + table + (kept.group(1) if kept else ""), encoding="utf-8")
    return copy


UNITS = """[vectors]
inputs = { age = "age", female = "sex", creatinine = "creatinine", acr = "uacr", region = "region" }
units = { creatinine = "creatinine_unit", acr = "acr_unit" }
values = { female = { true = 0, false = 1 } }
[vectors.expected]
two = { of = "two_years", atol = 1e-9 }
five = { of = "five_years", atol = 1e-9 }
egfr = { of = "egfr", atol = 1e-4 }
"""


def test_a_value_is_read_in_the_unit_that_stands_beside_it(tmp_path):
    folder = with_vectors(tmp_path, KFRE, UNITS)
    who = {"age": 72, "female": True, "region": "other"}
    plain = {**who, "creatinine": 4.2, "acr": 884.0}
    said = [
        plain,
        {**plain, "creatinine_unit": None},
        {**plain, "creatinine_unit": "mg/dL", "acr_unit": "mg/g"},
        {**plain, "creatinine": 371.28, "creatinine_unit": "umol/L", "acr": 100, "acr_unit": "mg/mmol"},
        {**plain, "creatinine": 42, "creatinine_unit": "mg/L", "acr": 0.884, "acr_unit": "g/g"},
    ]
    content = {"vectors": [{"inputs": values, "expected": {"egfr": 10.6958}} for values in said]}
    code, found, why = check(tmp_path, folder, content)
    assert (code, found["agree"], why) == (0, 5, "")


def test_a_unit_that_no_source_reads_is_refused(tmp_path):
    folder = with_vectors(tmp_path, KFRE, UNITS)
    inputs = {"age": 70, "female": True, "region": "other", "creatinine": 2, "creatinine_unit": "g", "acr": 884}
    code, _, said = check(tmp_path, folder, one(inputs, egfr=30))
    assert code == 1
    assert "vector 1: creatinine: no source of creatinine reads the unit g" in said
    assert "reads the unit 7" in check(tmp_path, folder, one({**inputs, "creatinine_unit": 7}, egfr=30))[2]


def test_each_output_is_compared_by_its_name(tmp_path):
    folder = with_vectors(tmp_path, KFRE, UNITS.replace('creatinine = "creatinine"', 'egfr = "egfr"').replace('creatinine = "creatinine_unit", ', "").replace('egfr = { of = "egfr", atol = 1e-4 }\n', ""))  # fmt: skip
    inputs = {"age": 55, "female": False, "egfr": 45, "acr": 120, "region": "north_america"}
    assert check(tmp_path, folder, one(inputs, two=0.012470734342))[0] == 0
    code, _, said = check(tmp_path, folder, one(inputs, two=0.012470734342, five=0.0124707))
    assert code == 1
    assert "five is 0.0384" in said
    assert "two is" not in said


BANDS = """[vectors]
inputs = { respiratory_rate = "respiratory_rate", spo2 = "spo2", spo2_scale = "spo2_scale", on_oxygen = "on_oxygen", systolic_bp = "systolic_bp", pulse = "pulse", consciousness = "consciousness", temperature = "temperature" }
values = { consciousness = { alert = 0 } }
[vectors.expected]
group = { of = "risk", words = { calm = "low", ward = "low-medium", worst = "high" } }
score = { of = "total" }
"""


@pytest.mark.parametrize(
    ("changes", "said", "agrees"),
    [
        ({}, "calm", True),
        ({}, "low", True),
        ({}, "worst", False),
        ({"systolic_bp": 85}, "ward", True),
        ({"systolic_bp": 85, "respiratory_rate": 26, "temperature": 40.0}, "worst", True),
        ({"systolic_bp": None}, "calm", False),
        ({"systolic_bp": None}, None, True),
        ({}, None, False),
    ],
)
def test_the_band_of_a_total_is_compared_in_the_words_of_the_file(tmp_path, changes, said, agrees):
    folder = with_vectors(tmp_path, NEWS2, BANDS)
    assert (check(tmp_path, folder, one({**NORMAL, **changes}, group=said))[0] == 0) is agrees


@pytest.mark.parametrize("word", ["Calm", "LOW", "Low"])
def test_words_for_bands_compare_without_case(tmp_path, word):
    folder = with_vectors(tmp_path, NEWS2, BANDS.replace("calm =", "CALM ="))
    assert check(tmp_path, folder, one(NORMAL, group=word))[0] == 0


@pytest.mark.parametrize(
    ("word", "points"),
    [
        ("A", 0), ("alert", 0), ("Alert", 0), ("C", 3), ("V", 3), ("P", 3), ("U", 3), ("v", 3), ("confusion", 3),
        ("New confusion", 3), ("VOICE", 3), ("Pain", 3), ("unresponsive", 3), ("confusion-or-VPU", 3),
    ],
)  # fmt: skip
def test_consciousness_is_understood_in_the_words_and_letters_of_the_chart(tmp_path, word, points):
    assert check(tmp_path, NEWS2, one({**NORMAL, "consciousness": word}, score=points))[0] == 0


@pytest.mark.parametrize(("word", "points"), [("true", 2), ("True", 2), ("FALSE", 0), ("false", 0), (True, 2), (1, 2)])
def test_true_and_false_are_understood_as_words_where_an_input_is_yes_or_no(tmp_path, word, points):
    assert check(tmp_path, NEWS2, one({**NORMAL, "on_oxygen": word}, score=points))[0] == 0


def test_true_is_no_number_of_what_is_measured(tmp_path):
    code, _, said = check(tmp_path, NEWS2, one({**NORMAL, "pulse": "true"}, score=0))
    assert code == 1
    assert "vector 1: pulse: not a number" in said


def test_what_a_file_makes_of_true_comes_before_what_it_is_otherwise(tmp_path):
    for word, points in (("True", 1), ("false", 0)):
        inputs = {**dict.fromkeys(BLEEDING, False), "elderly_over_65": word}
        assert check(tmp_path, REPO / "models" / "has_bled", one(inputs, score=points))[0] == 0


def test_the_region_is_understood_without_case(tmp_path):
    assert check(tmp_path, KFRE, one({**KIDNEY, "region": "North_America"}, risk=0.0124707))[0] == 0


def test_only_what_was_published_rounded_may_differ_by_half_of_its_last_digit(tmp_path):
    person = {"sex": "Male", "age": 50, "tc": 200, "hdl": 50, "sbp": 120, "dm": "false", "smk": False, "bmi": 25}
    person |= {"egfr": 90, "bp": False, "st": False}
    risk = score("aha_prevent", 50, 1, 200, 50, 120, 0, 0, 25, 90, 0, 0).probabilities["total_cvd_10yr"]
    near = {round(risk, 3): True, round(risk, 3) + 0.001: False, risk: True, risk + 9e-7: True, risk + 2e-6: False}
    for expected, agrees in near.items():
        found = check(tmp_path, REPO / "models" / "aha_prevent", one(person, total_cvd_10yr=expected))
        assert (expected, found[0] == 0) == (expected, agrees)


def test_a_band_that_is_no_word_is_refused(tmp_path):
    folder = with_vectors(tmp_path, NEWS2, BANDS)
    assert "group: not a word" in check(tmp_path, folder, one(NORMAL, group=3))[2]


def test_words_for_bands_that_there_are_not_are_refused(tmp_path):
    folder = with_vectors(tmp_path, NEWS2, BANDS.replace('"low"', '"lowest"'))
    code, _, said = check(tmp_path, folder, one(NORMAL, group="low"))
    assert code == 2
    assert "vectors name what the manifest does not have: lowest" in said


@pytest.mark.parametrize("band", [("review", 0), ("", 1)])
def test_the_band_of_a_probability_is_compared_and_none_is_a_band_too(tmp_path, band):
    text = MANIFEST.replace(
        "expected = {{ risk",
        'expected = {{ group = {{ of = "risk", words = {{ act = "review", rest = "" }} }}, risk',
    )
    folder = install(tmp_path, None, text)
    values = SICK if band[0] else {**SICK, "respiratory_rate": 16.0, "spo2": 97.0, "systolic_bp": 130.0, "pulse": 80.0}
    assert (probability(values) >= 0.2) is bool(band[0])
    inputs = dict(zip(("rr", "spo2", "sbp", "hr"), values.values(), strict=True))
    assert check(tmp_path, folder, one(inputs, group="act" if band[0] else "rest"))[0] == 0
    assert check(tmp_path, folder, one(inputs, group="rest" if band[0] else "act"))[0] == 1


@pytest.mark.parametrize(
    "outside",
    [
        {"age_years": 17.9},
        {"egfr": 9.9},
        {"egfr": 60},
        {"uacr_mg_per_g": 0.01},
        {"uacr_mg_per_g": None},
        {"male": None},
    ],
    ids=["a child", "below the range", "above it", "implausible", "missing", "sex unknown"],
)
def test_null_is_expected_of_patients_whom_the_model_is_not_for(tmp_path, outside):
    assert check(tmp_path, KFRE, one({**KIDNEY, **outside}, risk=None))[:2] == (
        0, {"model": "kfre_4var", "agree": 1, "total": 1, "worst": 0.0, "ignored": []},
    )  # fmt: skip


def test_null_does_not_agree_with_a_result(tmp_path):
    code, found, said = check(tmp_path, KFRE, one(KIDNEY, risk=None))
    assert (code, found["agree"], found["worst"]) == (1, 0, None)
    assert "vector 1: risk is 0.0124707" in said


def test_a_number_tests_the_equation_and_it_is_said_that_the_path_gives_no_result(tmp_path):
    vector = one({**KIDNEY, "egfr": 5, "years": 2}, risk=0.893)
    vector["vectors"][0]["expected"]["atol"] = 1
    code, _, said = check(tmp_path, KFRE, vector)
    assert code == 0
    assert "1 of 1 are of patients whom the model is not for" in said


@pytest.mark.parametrize(
    "content",
    [
        b'{"vectors": [' + b"[" * 100_000,
        b'{"vectors": [NaN]}',
        b"\xff\xfe",
        b'{"vectors": [{"inputs": {}, "expected": {}}',
        b"",
    ],
    ids=["deep", "not a number", "no text", "cut", "empty"],
)
def test_what_is_no_json_is_refused_by_the_files_name(tmp_path, content):
    code, found, said = check(tmp_path, KFRE, content)
    assert (code, found) == (2, None)
    assert "vectors.json: cannot be read as JSON" in said


@pytest.mark.parametrize(
    "vector",
    [
        None, 7, "x", [], {"inputs": None, "expected": {}}, {"inputs": {}, "expected": None}, {"inputs": KIDNEY, "expected": {}},
        {"inputs": {**KIDNEY, "egfr": {}}, "expected": {"risk": 0.1}},
        {"inputs": {**KIDNEY, "egfr": []}, "expected": {"risk": 0.1}},
        {"inputs": {**KIDNEY, "region": ["other"]}, "expected": {"risk": 0.1}},
        {"inputs": {**KIDNEY, "years": {}}, "expected": {"risk": 0.1}},
        {"inputs": {**KIDNEY, "years": None}, "expected": {"risk": 0.1}},
        {"inputs": {**KIDNEY, "egfr": 1e308}, "expected": {"risk": 0.1}},
        {"inputs": {**KIDNEY, "uacr_mg_per_g": -1}, "expected": {"risk": 0.1}},
        {"inputs": KIDNEY, "expected": {"risk": 0.0124707, "atol": "wide"}},
        {"inputs": KIDNEY, "expected": {"risk": 0.0124707, "atol": -1}},
        {"inputs": KIDNEY, "expected": {"risk": 0.0124707, "atol": None}},
        {"inputs": KIDNEY, "expected": {"risk": {}}},
        {"inputs": {"sex": "male", "age_years": 50, "creatinine_mg_dl": 0}, "expected": {"egfr": 1}},
        {"inputs": {"sex": "male", "age_years": 50, "creatinine_mg_dl": -1}, "expected": {"egfr": 1}},
        {"inputs": {"sex": "male", "age_years": 1e308, "creatinine_mg_dl": 1}, "expected": {"egfr": 1}},
    ],
)  # fmt: skip
def test_a_vector_of_any_form_is_told_with_a_reason_and_stops_no_other(tmp_path, vector):
    good = {"inputs": KIDNEY, "expected": {"risk": 0.0124707}}
    code, found, said = check(tmp_path, KFRE, {"vectors": [good, vector, good]})
    assert (code, found["agree"], found["total"]) == (1, 2, 3)
    assert said.startswith("vector 2: ")


def test_what_a_file_says_reaches_the_terminal_as_text_only(tmp_path):
    code, found, said = check(tmp_path, KFRE, one({**KIDNEY, "\x1b[2J\x07": 1}, **{"\x1b]0;x": 1, "risk": 0.1}))
    assert code == 1
    assert "\x1b" not in said
    assert found["ignored"] == ["expected.\x1b]0;x"]


@pytest.mark.parametrize("inputs", ["unit", "values"])
def test_a_table_that_speaks_of_an_input_there_is_not_is_refused(tmp_path, inputs):
    wrong = UNITS.replace("units = { creatinine", "units = { sodium").replace("values = { female", "values = { woman" if inputs == "values" else "values = { female")  # fmt: skip
    code, _, said = check(tmp_path, with_vectors(tmp_path, KFRE, wrong), one(KIDNEY, egfr=1))
    assert code == 2
    assert "vectors name what the manifest does not have: sodium" in said
