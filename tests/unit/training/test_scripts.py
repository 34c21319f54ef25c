"""The training scripts on small made-up files: the same bytes again, figures as JSON alone, and what bad files are told."""

import json
import subprocess
import sys

import pytest

from sidecar.commands.models_seal import seal
from sidecar.commands.models_vectors import tally_of
from sidecar.scoring import load_model
from tests.unit.training.generated import REPO, appointments, diabetes, ward

FIGURES = {"auroc", "ap", "brier", "calibration_slope", "calibration_intercept", "calibration_in_the_large", "o_e"}
MADE = {"readmission_30d": ("csv", diabetes), "sepsis_hourly": ("psv", ward), "no_show": ("ndjson", appointments)}
SHIPPED = ["readmission_30d", "sepsis_hourly"]


def script(model):
    return REPO / "models" / model / "1.0.0" / "train.py"


def run(model, *arguments):
    command = [sys.executable, script(model), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd="/")


def made(model, folder, seed=1, suffix=""):
    ending, make = MADE[model]
    return make(folder / f"{model}-{seed}.{ending}{suffix}", seed)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", list(MADE))
def test_training_twice_gives_the_same_bytes_and_a_report(model, tmp_path):
    data = made(model, tmp_path, suffix=".gz")
    for name in ("one", "two"):
        done = run(model, "train", "--data", data, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        assert "model.onnx" in done.stderr
    files = {p.name for p in (tmp_path / "one").iterdir()}
    assert files >= {"model.onnx", "vectors.json", "reference.json", "report.json"}
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    report = json.loads((tmp_path / "one" / "report.json").read_text())
    assert set(report["held_out"]["intervals"]) == FIGURES
    low, high = report["cross_validated"]["intervals"]["auroc"]
    assert low < report["cross_validated"]["auroc"] < high


@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", SHIPPED)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_evaluate_prints_nothing_but_the_figures_of_the_shipped_graph(model, suffix, tmp_path):
    done = run(model, "evaluate", "--data", made(model, tmp_path, 2, suffix), "--json", "--draws", 100)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert set(found["intervals"]) == FIGURES
    assert not FIGURES - set(found)
    shipped = load_model(script(model).parent)
    assert found["model"]["sha256"] == shipped.manifest.graph.sha256
    assert found["rows"] == found["n"] + found["not_scored"] + found["not_of_the_cohort"]
    assert set(found["subgroups"]) >= {"sex", "age"}
    assert done.stdout == run(model, "evaluate", "--data", made(model, tmp_path, 2, suffix), "--draws", 100).stdout


@pytest.mark.timeout(300)
def test_a_site_trains_its_own_no_show_model_seals_it_and_holds_it_against_another_year(tmp_path):
    folder = tmp_path / "no_show" / "1.0.0"
    assert run("no_show", "train", "--data", made("no_show", tmp_path), "--out", folder).returncode == 0
    seal(folder)
    model = load_model(folder)
    tally = tally_of(model, folder / "vectors.json")
    assert (tally.agree, tally.total) == (200, 200)
    done = run("no_show", "evaluate", "--data", made("no_show", tmp_path, 2), "--model", folder, "--draws", 50)
    assert json.loads(done.stdout)["auroc"] > 0.55


def test_no_weights_of_no_show_are_shipped():
    assert sorted(p.name for p in script("no_show").parent.iterdir() if p.is_file()) == [
        "manifest.template.toml",
        "train.py",
    ]


BAD = [
    ("readmission_30d", "", "is empty"),
    ("readmission_30d", "patient_nbr;readmitted\n1;NO\n", "divided by a semicolon, and must be by a comma"),
    ("sepsis_hourly", "patient|HR\np1|80\n", "lacks the columns O2Sat, Temp"),
    ("sepsis_hourly", "patient,HR\np1,80\n", "divided by a comma, and must be by a vertical bar"),
    ("no_show", '{"resourceType": "Patient"}\n', "line 1 is no Appointment"),
    ("no_show", "start,end\n", "line 1 is no JSON"),
]


@pytest.mark.parametrize(("model", "content", "said"), BAD)
def test_a_file_of_another_format_is_told_what_is_wrong_with_it(model, content, said, tmp_path):
    path = tmp_path / "file.txt"
    path.write_text(content)
    command = ("train", "--data", path, "--out", tmp_path / "x") if model == "no_show" else ("evaluate", "--data", path)
    done = run(model, *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("model", "take"),
    [("readmission_30d", lambda row: row.endswith("NO")), ("sepsis_hourly", lambda row: row.endswith("|0"))],
)
def test_a_file_with_one_outcome_alone_is_refused(model, take, tmp_path):
    path = made(model, tmp_path)
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *(row for row in rows if take(row))]) + "\n")
    done = run(model, "evaluate", "--data", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "every row has the outcome 0" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], "must count the hours"),
        (lambda rows: [*rows, rows[0]], "must stand together"),
    ],
)
def test_hours_out_of_order_are_refused_as_the_newest_value_would_be_a_later_one(change, said, tmp_path):
    path = made("sepsis_hourly", tmp_path)
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *change(rows)]) + "\n")
    assert said in run("sepsis_hourly", "evaluate", "--data", path).stderr


def test_a_changed_graph_is_not_evaluated(tmp_path):
    folder = tmp_path / "readmission_30d" / "1.0.0"
    folder.mkdir(parents=True)
    for file in script("readmission_30d").parent.rglob("*.*"):
        if file.is_file() and "__pycache__" not in file.parts:
            target = folder / file.relative_to(script("readmission_30d").parent)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    done = run("readmission_30d", "evaluate", "--data", made("readmission_30d", tmp_path), "--model", folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "not the reviewed file" in done.stderr
