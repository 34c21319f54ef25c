"""A classifier explained by Shapley values: from its folder to what a clinician reads."""

import hashlib
import json
import math
import re

import pytest

from sidecar.app import running_model
from sidecar.errors import Misconfigured
from sidecar.explanation import rationale
from sidecar.scoring import load_model
from sidecar.settings import ModelSettings
from sidecar.writeback import note
from tests.unit.opaque import (
    FEATURES,
    MANIFEST,
    SICK,
    STUMPS,
    classifier,
    install,
    judge,
    probability,
    readings,
    vector,
)

ROWS = [[12, 99, 150, 60], [16, 97, 120, 80], [18, 96, 125, 90], [22, 94, 110, 105], [28, 89, 92, 128]]


def folder(root, content=None, *, pinned=True):
    """The early warning with prototypes in the place of typical values."""
    said = json.dumps({"features": FEATURES, "rows": ROWS} if content is None else content)
    text = re.sub(r"(?s)method = .+?\}\}\n", 'method = "shapley"\nprototypes = "prototypes.json"\n', MANIFEST)
    pins = f'\n[files]\n"prototypes.json" = "{hashlib.sha256(said.encode()).hexdigest()}"\n' if pinned else ""
    found = install(root, classifier(STUMPS), text + pins)
    if pinned:
        (found / "prototypes.json").write_text(said, encoding="utf-8")
    return found


def mean():
    return math.fsum(probability(dict(zip(FEATURES, row, strict=True))) for row in ROWS) / len(ROWS)


def test_the_values_of_a_score_sum_to_the_probability_less_the_prototypes_mean(tmp_path):
    score = load_model(folder(tmp_path)).score(vector(SICK))

    assert score.probabilities["within_a_day"] == pytest.approx(probability(SICK), abs=1e-6)
    assert score.baseline == pytest.approx(mean(), abs=1e-6)
    assert math.fsum(score.changes.values()) == pytest.approx(probability(SICK) - mean(), abs=1e-6)
    assert score.changes["respiratory_rate"] > score.changes["pulse"] > 0
    assert score.error > 0


def test_a_patient_of_whom_an_input_is_missing_is_not_scored(tmp_path):
    score = load_model(folder(tmp_path)).score(vector(SICK | {"pulse": math.nan}))

    assert math.isnan(score.probabilities["within_a_day"])
    assert score.changes == {}


def test_a_clinician_reads_from_where_each_input_moves_the_probability_and_how_sure_that_is(tmp_path):
    model = running_model(load_model(folder(tmp_path)), ModelSettings())

    conclusion = judge(*readings(), model=model)

    manifest = model.loaded.manifest
    said = rationale(conclusion.assessment, manifest)
    assert said.startswith(f"by Shapley values, from {mean() * 100:.1f} %, the mean of the model's prototypes: ")
    assert re.search(r"respiratory rate 26/min \(\+\d+\.\d percentage points\)", said)
    assert re.search(r"; standard error at most \d+$", said)
    assert note.SHAPLEY in note.text(conclusion, manifest, "final", ())
    assert note.OCCLUSION not in note.text(conclusion, manifest, "final", ())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"features": FEATURES, "rows": ROWS[:1]}, "rows"),
        ({"features": FEATURES[::-1], "rows": ROWS}, "must be as graph.features are"),
        ({"features": FEATURES, "rows": [row[:3] for row in ROWS]}, "must be as graph.features are"),
        ({"features": FEATURES, "rows": [[*ROWS[0][:3], None], *ROWS]}, "rows"),
        ({"features": FEATURES, "rows": [[*ROWS[0][:3], 1e300], *ROWS]}, "too large"),
        ([], "prototypes.json"),
    ],
    ids=["one row", "another order", "short rows", "no number", "a number too large", "no object"],
)
def test_prototypes_that_are_not_of_the_graph_refuse_the_folder(tmp_path, content, said):
    with pytest.raises(Misconfigured) as error:
        load_model(folder(tmp_path, content))
    assert said in " ".join(error.value.problems)


def test_prototypes_that_no_digest_pins_refuse_the_folder(tmp_path):
    with pytest.raises(Misconfigured, match="not among the manifest"):
        load_model(folder(tmp_path, pinned=False))


def test_each_method_takes_its_own_and_not_the_others(tmp_path):
    for change in ('method = "shapley"', 'method = "occlusion"\nprototypes = "prototypes.json"'):
        with pytest.raises(Misconfigured, match="neither takes the other's"):
            load_model(
                install(tmp_path / change[-6:-1].strip(), None, MANIFEST.replace('method = "occlusion"', change))
            )
