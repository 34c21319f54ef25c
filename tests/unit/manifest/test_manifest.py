"""A manifest is closed: what is not understood refuses the start, with its line and what was probably meant."""

import re

import pytest

from sidecar import manifest as manifests
from sidecar.errors import Misconfigured
from sidecar.manifest import Manifest, in_unit
from sidecar.toml import duration
from tests.unit.chart import NEWS2

TEXT = (NEWS2 / "manifest.toml").read_text(encoding="utf-8")


def problems(tmp_path, old, new):
    assert old in TEXT
    path = tmp_path / "manifest.toml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(Misconfigured) as refused:
        manifests.load(path)
    return path, refused.value.problems


def line_with(path, text):
    return next(n for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("old", "new", "meant"),
    [
        ('validity = "6h"', 'validty = "6h"', "validity"),
        ("room_air_when_undocumented]\ndefault = false", "room_air_when_undocumented]\ndefalt = false", "default"),
        ('unit = "/min"\nmax_age = "4h"', 'unit = "/min"\nmax_agee = "4h"', "max_age"),
        ('codes = ["http://loinc.org|9279-1"]', 'code = ["http://loinc.org|9279-1"]', "codes"),
        ("above = 21", "abov = 21", "above"),
        ("at_least = 7", "atleast = 7", "at_least"),
        ("urgent_at_least = 5", "urgent_atleast = 5", "urgent_at_least"),
        ("min_age_years = 16", "min_age_year = 16", "min_age_years"),
    ],
)
def test_a_typo_is_refused_with_its_line_and_the_nearest_name(tmp_path, old, new, meant):
    path, said = problems(tmp_path, old, new)
    key = new.splitlines()[-1].partition(" =")[0]
    typo = next(s for s in said if "unknown key" in s)
    assert typo.startswith(f"{path}:{line_with(path, f'{key} =')}: unknown key ")
    assert f'did you mean "{meant}"?' in typo


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('validity = "6h"', 'validity = "6 hours"', 'a duration is a number with a unit: "90s"'),
        ("schema = 1", "schema = 2", "schema"),
        ('kind = "points"', 'kind = "probability"', "kind"),
        ('version = "1.0.0"', 'version = "1"', "version"),
        ('file = "model.onnx"', 'file = "../model.onnx"', "graph.file"),
        ('codes = ["http://loinc.org|9279-1"]', 'codes = ["9279-1"]', "codes"),
        ('"pulse", "consciousness", "temperature",\n]', '"pulse", "consciousness", "fever",\n]', "no [features] table for: fever"),
        ('absent_switch = "room_air_when_undocumented"', 'absent_switch = "room_air"', "no [switches] table for: room_air"),
        ('{ points = "pulse"', '{ points = "heart"', "unknown points: heart"),
        ('when_feature = "spo2_scale", equals = 2', 'when_feature = "scale", equals = 2', "graph.features are: scale"),
        ("above = 21", "above = 21\nbelow = 5", "use one of values, above, below"),
        ('feature = "pregnant"', 'feature = "gravid"', "no [features] table for: gravid"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_and_says_what(tmp_path, old, new, said):
    path, problem = problems(tmp_path, old, new)
    assert all(p.startswith(str(path)) for p in problem)
    assert any(said in p for p in problem), problem


def test_points_that_are_no_input_of_the_graph_are_refused(tmp_path):
    _, said = problems(tmp_path, '"consciousness", "temperature"]', '"consciousness", "temperature", "pregnant"]')
    assert any("pregnant" in p for p in said)


def test_every_problem_is_listed_at_once(tmp_path):
    _, said = problems(tmp_path, 'validity = "6h"', 'validity = "6x"\nspred = "4h"\nmissing = 1')
    assert len(said) >= 3


@pytest.mark.parametrize("content", [b"schema = ", b"\xff\xfe"])
def test_what_is_not_toml_is_refused_by_file(tmp_path, content):
    path = tmp_path / "manifest.toml"
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match=re.escape(str(path))):
        manifests.load(path)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(Misconfigured, match="cannot be read"):
        manifests.load(tmp_path / "manifest.toml")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("4h", 14400), ("7d", 604800), ("1.5h", 5400)]
)
def test_a_duration_is_a_number_with_a_unit(text, seconds):
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize("value", [5, "5", "h", "-4h", "4 h", "4h30m", None, True])
def test_anything_else_is_no_duration(value):
    with pytest.raises(ValueError, match="a duration is a number with a unit"):
        duration(value)


def test_every_shipped_feature_names_its_codes_by_system():
    shipped = manifests.load(NEWS2 / "manifest.toml")
    assert all(code.startswith(("http://loinc.org|", "http://snomed.info/sct|", "urn:ehr-sidecar:code|")) for code in shipped.observation_codes)  # fmt: skip


def test_a_panel_triggers_the_model_as_its_components_do():
    shipped = manifests.load(NEWS2 / "manifest.toml")
    assert {"http://loinc.org|85354-9", "http://loinc.org|8480-6"} <= shipped.observation_codes
    assert "http://snomed.info/sct|72892002" in shipped.codes_of("Condition")


def test_a_manifest_does_not_change_after_reading():
    shipped = manifests.load(NEWS2 / "manifest.toml")
    with pytest.raises(ValueError, match="frozen"):
        shipped.title = "another"
    assert isinstance(shipped, Manifest)


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [(37.5, "Cel", "37.5 °C"), (120, "mm[Hg]", "120 mmHg"), (16, "/min", "16/min"), (97, "%", "97 %"), (2, "L/min", "2 L/min"), (15, "{score}", "15"), (1, "1", "1")],
)  # fmt: skip
def test_a_value_is_said_in_its_unit_as_a_clinician_writes_it(value, unit, said):
    assert in_unit(value, unit) == said
