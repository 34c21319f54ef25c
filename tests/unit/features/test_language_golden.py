"""Golden Bundles of the whole language: a stay with all that a model told at discharge reads, and what comes of it."""

import json
import math
from zoneinfo import ZoneInfo

import pytest

from sidecar.app import running_model
from sidecar.context import from_bundle
from sidecar.pipeline import conclude
from sidecar.scoring import load_model
from sidecar.settings import ModelSettings
from tests.unit.chart import AT, REPO, rules
from tests.unit.discharge import install

FIXTURES = REPO / "fhir_fixtures"
GOLDEN = sorted(path.name for path in (FIXTURES / "input").glob("discharge-*.json"))


def said(name, folder):
    """Outcome, reasons, score, and each feature with its value or why there is none."""
    running = running_model(load_model(install(folder)), ModelSettings())
    manifest = running.loaded.manifest
    chart = json.loads((FIXTURES / "input" / name).read_text(encoding="utf-8"))
    snapshot = from_bundle(chart, manifest.set_codes, AT, ZoneInfo("Europe/Berlin"), frozenset(manifest.cohort.stays))
    conclusion = conclude(snapshot, running, rules())
    a = conclusion.assessment
    return {
        "outcome": a.outcome.value,
        "reasons": list(a.reasons),
        "score": a.score,
        "features": {f.name: f.reason if math.isnan(f.value) else round(f.value, 6) for f in a.vector.features},
        "basis": sorted(reference.relative for reference in conclusion.evidence.basis),
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_chart_comes_to_its_golden_features(name, tmp_path):
    expected = (FIXTURES / "expected" / name).read_text(encoding="utf-8")
    assert said(name, tmp_path) == json.loads(expected)
