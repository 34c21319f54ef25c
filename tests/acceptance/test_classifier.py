"""A hospital's own classifier, from the notification to the chart: written once, kept as it was concluded, drift seen."""

import hashlib
import json
import math
import shutil

import pytest
from msgspec.structs import replace
from prometheus_client import generate_latest

from sidecar import metrics
from sidecar.deid import load_rules
from sidecar.pipeline import conclude
from sidecar.records import PatientId, PatientSnapshot
from sidecar.sandbox.capability import ALL_TYPES, Capabilities
from sidecar.sandbox.ehr import PracticeEhr
from tests.acceptance.test_exact_age import numbers_in_the_open
from tests.harness import UNITS, house, now, reading, until
from tests.unit.chart import NEWS2
from tests.unit.opaque import FEATURES, MANIFEST, SICK, TYPICAL, classifier, install, probability
from tests.versions import carded

CODES = dict(zip(FEATURES, ("9279-1", "59408-5", "8480-6", "8867-4"), strict=True))
SITE = """version = "1.0.0"
promoted_by = "tests"
promoted_because = "tests"
debounce = "0.05s"
max_wait = "0.5s\""""
WITHIN_A_DAY = "early-warning-24-hours"


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder of models with this one in it, and a site that uses it."""
    root = tmp_path / "models"
    shutil.copytree(NEWS2, root / "news2" / "1.0.0", ignore=shutil.ignore_patterns("__pycache__"))
    reference = json.dumps(
        {"source": "made up", "features": {"pulse": {"edges": [60, 100], "counts": [10, 80, 10, 0]}}}
    ).encode()
    pinned = f'reference = "reference.json"\nreference_sha256 = "{hashlib.sha256(reference).hexdigest()}"\n[graph]'
    folder = install(root, classifier(), MANIFEST.replace("[graph]", pinned))
    (folder / "reference.json").write_bytes(reference)
    carded(folder)
    monkeypatch.setenv("SIDECAR__MODELS_DIR", str(root))
    monkeypatch.setitem(UNITS, "59408-5", "%")
    return root


def vitals(at, **changes):
    values = {**SICK, **changes}
    return [reading("p1", CODES[name], value, at) for name, value in values.items() if value is not None]


async def stored(site):
    found = await site.sidecar.rooms.archive.current(PatientId("p1"), "early_warning")
    assert found is not None
    return found


def predicted(site):
    return [p["probabilityDecimal"] for r in ours(site) for p in r.get("prediction", ())]


def ours(site):
    return [r for r in site.risk_assessments() if r["method"]["coding"][0]["code"] == "early_warning"]


@pytest.mark.usefixtures("models")
async def test_one_probability_with_its_changes_is_written_once_and_corrected_with_its_reading(tmp_path):
    async with house(tmp_path, models__early_warning=SITE) as site:
        await site.admit("p1")
        at = now(2)
        await site.chart(vitals(at))
        await site.settled()
        (made,) = ours(site)
        assert predicted(site) == [pytest.approx(probability(SICK) * 100, rel=1e-3)]
        assert made["prediction"][0]["rationale"].startswith(
            "by occlusion, one input at a time (not additive, not SHAP): "
        )
        assert "heart rate 120/min (+6.6 percentage points compared with 80/min)" in made["prediction"][0]["rationale"]

        (pulse,) = (r for r in vitals(at, pulse=70.0) if r["id"].split("-")[2] == "8867")
        await site.chart([pulse | {"status": "corrected"}])
        await until(lambda: ours(site)[0]["status"] == "corrected")
        assert predicted(site) == [pytest.approx(probability({**SICK, "pulse": 70.0}) * 100, rel=1e-3)]
        assert len(ours(site)) == 1


@pytest.mark.usefixtures("models")
async def test_what_was_stored_is_read_back_as_it_was_concluded_and_concluded_again_from_the_same_readings(tmp_path):
    async with house(tmp_path, models__early_warning=SITE) as site:
        await site.admit("p1")
        charted = vitals(now(2))
        await site.chart(charted)
        await site.settled()
        found = await stored(site)
        a = found.conclusion.assessment
        assert (a.score, dict(a.typical)) == (None, TYPICAL)
        changes = {n: probability(SICK) - probability({**SICK, n: TYPICAL[n]}) for n in FEATURES}
        assert a.contributions == pytest.approx(changes, abs=1e-6)

        read = tuple(site.ehr.read("Observation", r["id"]) for r in charted)
        person, stay = site.ehr.read("Patient", "p1"), site.ehr.read("Encounter", "e-p1")
        snapshot = PatientSnapshot(person, stay, read, found.conclusion.evidence.at)
        again = conclude(snapshot, site.sidecar.rooms.models["early_warning"], load_rules()).assessment
        assert _without_index(again) == _without_index(a)


def _without_index(a):
    features = [replace(f, index=None) for f in a.vector.features]
    return (
        features,
        a.vector.remarks,
        a.score,
        dict(a.contributions),
        dict(a.probabilities),
        dict(a.typical),
        a.outcome,
    )


@pytest.mark.usefixtures("models")
async def test_with_an_input_missing_nothing_is_charted_and_the_reason_is_stored(tmp_path):
    async with house(tmp_path, models__early_warning=SITE) as site:
        await site.admit("p1")
        await site.chart(vitals(now(2), spo2=None))
        await site.settled()
        assert ours(site) == []
        a = (await stored(site)).conclusion.assessment
        assert (a.outcome.value, a.reasons, dict(a.probabilities)) == ("not_scored", ("missing:spo2",), {})


async def test_what_an_exact_age_went_into_is_sealed_with_all_its_changes(tmp_path, models):
    folder = models / "early_warning" / "1.0.0"
    text, pulse = (
        (folder / "manifest.toml").read_text(),
        MANIFEST[MANIFEST.index("[features.pulse]") : MANIFEST.index("[[outputs]]")],
    )
    age = '[features.pulse]\nlabel = "age"\nunit = "a"\nderive = "age"\n\n'
    (folder / "manifest.toml").write_text(text.replace(pulse, age).replace("pulse = 80", "pulse = 120"))
    async with house(tmp_path, models__early_warning=SITE) as site:
        await site.admit("p1")
        await site.chart(vitals(now(2), pulse=None))
        await site.settled()
        a = (await stored(site)).conclusion.assessment
        telling = [*a.probabilities.values(), *a.contributions.values(), a.vector.features[3].value]
        assert (len(telling), 0.0 in telling, a.typical["pulse"]) == (6, False, 120.0)
        plain = await numbers_in_the_open(site)
        assert [n for n in telling if any(math.isclose(n, p, rel_tol=1e-4) for p in plain)] == []


@pytest.mark.usefixtures("models")
async def test_an_ehr_that_takes_observations_alone_gets_the_percentage_and_the_rationale(tmp_path):
    ehr = PracticeEhr(capabilities=Capabilities(types=ALL_TYPES - {"RiskAssessment"}))
    async with house(tmp_path, ehr, models__early_warning=SITE) as site:
        await site.admit("p1")
        await site.chart(vitals(now(2)))
        await site.settled()
        (made,) = (o for o in ehr.all("Observation") if o["code"]["coding"][0]["code"] == "early-warning")
        (component,) = made["component"]
        assert component["code"]["coding"][0]["code"] == WITHIN_A_DAY
        assert component["valueQuantity"]["value"] == pytest.approx(probability(SICK) * 100, rel=1e-3)
        assert "What it comes from: by occlusion" in made["note"][0]["text"]


@pytest.mark.usefixtures("models")
async def test_its_inputs_are_counted_into_the_bins_of_its_reference(tmp_path):
    async with house(tmp_path, models__early_warning=SITE) as site:
        before = counted("ge_100")
        await site.admit("p1")
        await site.chart(vitals(now(2)))
        await site.settled()
        assert counted("ge_100") > before


def counted(name):
    said = [f'{part}"' for part in (f'bin="{name}', 'feature="pulse', 'model="early_warning')]
    lines = generate_latest(metrics.REGISTRY).decode().splitlines()
    return sum(
        float(x.rsplit(" ", 1)[1])
        for x in lines
        if x.startswith("sidecar_") and "bin_obs" in x and all(p in x for p in said)
    )
