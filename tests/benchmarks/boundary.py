"""What de-identification and its evidence cost: `python -m tests.benchmarks.boundary EVENTS MODELS`.

One chart of 50 readings, of which the model reads 26, is de-identified again and again; the labels of what was used are
gathered, and the assessment is sealed and made ready to be stored. In one process, without the rest of an event around
it: caches are warmer than in a server.
"""

import sys
import time
from pathlib import Path

import orjson

from sidecar.app import running_model
from sidecar.deid import deidentify, inherited, is_sensitive, load_rules
from sidecar.evidence import Archive
from sidecar.pipeline import conclude
from sidecar.records import Arm, PatientSnapshot
from sidecar.scoring import load_models
from sidecar.settings import ModelSettings
from sidecar.store import SqliteStore, load_keys, new_keys
from tests.benchmarks import payloads
from tests.benchmarks.payloads import Chart


def measure(events: int, models: Path) -> dict[str, float]:
    """Microseconds of CPU an event, in three parts."""
    (name,) = (folder.name for folder in models.iterdir())
    model, rules = running_model(load_models(models, {name: None})[name], ModelSettings()), load_rules()
    chart = Chart(payloads.EPOCH, "http://127.0.0.1/fhir")
    readings = tuple(orjson.loads(orjson.dumps(chart.reading("p1", k))) for k in range(chart.size))
    snapshot = PatientSnapshot(payloads.patient("p1"), None, readings, payloads.EPOCH)
    conclusion = conclude(snapshot, model, rules)
    used = [readings[f.index] for f in conclusion.assessment.vector.features if f.index is not None]
    new_keys(models.parent / "keys.toml")
    store = SqliteStore(f"sqlite:///{models.parent}/sidecar.db")
    archive = Archive(store, load_keys(models.parent / "keys.toml"))

    def labels() -> None:
        inherited([snapshot.patient, *used])
        for resource in used:
            is_sensitive(resource, rules)

    parts = {
        "deidentify": lambda: deidentify(snapshot, rules, model.extractor.reads),
        "labels": labels,
        "evidence": lambda: archive.store(conclusion, None, "final", Arm.CHAMPION),
    }
    found = {}
    for part, run in parts.items():
        run()
        began = time.process_time()
        for _ in range(events):
            run()
        found[part] = (time.process_time() - began) / events * 1e6
    store.close()
    return found | {"cpu_us_per_event": sum(found.values())}


if __name__ == "__main__":
    count, place = sys.argv[1:]
    sys.stdout.write(orjson.dumps(measure(int(count), Path(place))).decode() + "\n")
