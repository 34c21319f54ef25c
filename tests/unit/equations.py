"""The published equations as the folder has them: loaded once, scored on rows, and asked of a Bundle."""

import importlib.util
import json
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo

from sidecar.app import running_model
from sidecar.commands.score import line_of
from sidecar.deid import load_rules
from sidecar.records import Feature, FeatureVector
from sidecar.scoring import open_folder
from sidecar.settings import ModelSettings
from tests.unit.chart import REPO

NAMES = ("lace", "hospital_score", "hospital_simplified", "cha2ds2_vasc", "has_bled", "meld_3", "aha_prevent")
FIXTURES = REPO / "fhir_fixtures"
AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
LONDON = ZoneInfo("Europe/London")


def folder(name):
    """The version that ships."""
    return REPO / "models" / name / "1.0.0"


@cache
def loaded(name):
    """The model, verified and warm."""
    return open_folder(folder(name))


@cache
def script(name, kind):
    """A folder's `build.py` or `reference.py` as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_{kind}", folder(name) / f"{kind}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def score(name, *values):
    """What the graph says of one row."""
    model = loaded(name)
    row = zip(model.manifest.graph.features, values, strict=True)
    return model.score(FeatureVector(tuple(Feature(n, float(v), "1") for n, v in row)))


@cache
def running(name, *, decided=False):
    """The model as a site runs it; `decided` turns each of its switches on."""
    model = loaded(name)
    return running_model(model, ModelSettings(switches=dict.fromkeys(model.manifest.switches, decided)))


@cache
def _rules():
    return load_rules()


def of_bundle(name, bundle, *, decided=False, at=AT):
    """The line that `sidecar score` prints of a Bundle, the digest of the manifest replaced by its name."""
    model = running(name, decided=decided)
    said = json.dumps(line_of(bundle, model, _rules(), at, LONDON))
    digest = model.loaded.digest
    for part in (digest, digest[:40], digest[:12]):
        said = said.replace(part, "MANIFEST-DIGEST")
    return json.loads(said)


def golden(name):
    """A golden input by its file's name, which begins with the model's."""
    return json.loads((FIXTURES / "input" / name).read_text(encoding="utf-8"))


def goldens(name):
    """The golden inputs of a model."""
    return sorted(path.name for path in (FIXTURES / "input").glob(f"{name}-*.json"))
