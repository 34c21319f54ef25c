"""Build `reference.json`: how the inputs are distributed in the synthetic ward, in the score's own bands.

A placeholder until a site puts its own there: the people are generated (see fhir_fixtures/README.md), so
drift against it says how a site differs from the practice ward, not that a model went stale.

Run `python models/news2/1.0.0/reference.py`; the same bytes come out every time. Then put the printed digest into the
manifest as `reference_sha256`.
"""

import hashlib
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from sidecar.app import shipped
from sidecar.context import from_bundle
from sidecar.deid import deidentify, load_rules
from sidecar.features import Extractor, SiteChoices
from sidecar.manifest import load
from sidecar.monitoring import Bins
from sidecar.records import FeatureVector

HERE = Path(__file__).parent
EDGES: dict[str, list[float]] = {
    "respiratory_rate": [8.5, 11.5, 20.5, 24.5],
    "spo2": [91.5, 93.5, 95.5],
    "spo2_scale": [1.5],
    "on_oxygen": [0.5],
    "systolic_bp": [90.5, 100.5, 110.5, 219.5],
    "pulse": [40.5, 50.5, 90.5, 110.5, 130.5],
    "consciousness": [0.5],
    "temperature": [35.05, 36.05, 38.05, 39.05],
}


def vectors() -> Iterator[FeatureVector]:
    """The inputs at the end of each charting record (readings less than five minutes apart) of every stay."""
    manifest = load(HERE / "manifest.toml")
    extractor = Extractor(manifest, SiteChoices(switches={"room_air_when_undocumented": True}))
    rules, utc = load_rules(), ZoneInfo("UTC")
    for path in sorted(shipped("ward").glob("stay-*.json")):
        bundle = orjson.loads(path.read_bytes())
        times = sorted({datetime.fromisoformat(t) for t in _times(bundle)})
        ends = [a for a, b in pairwise(times) if (b - a).total_seconds() > 300] + times[-1:]
        for end in ends:
            snapshot = from_bundle(bundle, manifest.set_codes, end, utc)
            yield extractor.run(deidentify(snapshot, rules, extractor.reads))[0]


def _times(bundle: dict[str, Any]) -> Iterator[str]:
    for entry in bundle["entry"]:
        moment = entry["resource"].get("effectiveDateTime")
        if moment:
            yield moment


def build() -> bytes:
    """The file."""
    empty = {name: Bins(tuple(edges), {}, 0) for name, edges in EDGES.items()}
    counts = {name: dict.fromkeys(bins.names, 0) for name, bins in empty.items()}
    for vector in vectors():
        for feature in vector.features:
            counts[feature.name][empty[feature.name].of(feature.value)] += 1
    features = {name: {"edges": EDGES[name], "counts": list(counts[name].values())} for name in EDGES}
    source = "the synthetic practice ward (fhir_fixtures/ward), charting records, room air when undocumented"
    return orjson.dumps({"source": source, "features": features}, option=orjson.OPT_INDENT_2) + b"\n"


if __name__ == "__main__":
    content = build()
    (HERE / "reference.json").write_bytes(content)
    sys.stdout.write(f"reference.json {len(content)} bytes sha256 {hashlib.sha256(content).hexdigest()}\n")
