"""Build `reference.json`: how the inputs would be distributed around the equation's own centring.

A placeholder until a site puts its own there. No patients: the means are the published centring (age 70.36 years,
eGFR 36.11, ln ACR 5.137, 56.42 % men); the spreads are assumed. Drift against it says how a site differs from the
cohorts the equation came from, not that a model went stale.

Run `python models/kfre_4var/1.0.0/reference.py`; the same bytes come out every time. Then put the printed digest into
the manifest as `reference_sha256`.
"""

import hashlib
import math
import sys
from pathlib import Path
from statistics import NormalDist

import orjson

from sidecar.monitoring import Bins

HERE = Path(__file__).parent
SIZE = 1000
EDGES: dict[str, list[float]] = {
    "age": [40, 50, 60, 70, 80, 90],
    "sex": [0.5],
    "egfr": [15, 30, 45],
    "uacr": [30, 300, 1000, 3000],
}
AGE = NormalDist(70.36, 13)
EGFR = NormalDist(36.11, 12)
LN_ACR = NormalDist(5.137, 1.9)
MEN = 0.5642


def values() -> dict[str, list[float]]:
    """`SIZE` evenly spaced quantiles of each input, inside the cohort's limits."""
    at = [(i + 0.5) / SIZE for i in range(SIZE)]
    return {
        "age": [max(AGE.inv_cdf(q), 18.0) for q in at],
        "sex": [float(q < MEN) for q in at],
        "egfr": [min(max(EGFR.inv_cdf(q), 10.0), 59.0) for q in at],
        "uacr": [math.exp(LN_ACR.inv_cdf(q)) for q in at],
    }


def build() -> bytes:
    """The file."""
    found = values()
    features = {}
    for name, edges in EDGES.items():
        bins = Bins(tuple(edges), {}, 0)
        counts = dict.fromkeys(bins.names, 0)
        for value in found[name]:
            counts[bins.of(value)] += 1
        features[name] = {"edges": edges, "counts": list(counts.values())}
    source = "no patients: quantiles around the published centring, with assumed spreads"
    return orjson.dumps({"source": source, "features": features}, option=orjson.OPT_INDENT_2) + b"\n"


if __name__ == "__main__":
    content = build()
    (HERE / "reference.json").write_bytes(content)
    sys.stdout.write(f"reference.json {len(content)} bytes sha256 {hashlib.sha256(content).hexdigest()}\n")
