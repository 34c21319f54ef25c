"""The HAS-BLED score as the publication has it, in plain Python.

`score` is what the graph is compared with (tests/unit/scoring): plain Python, written from the publication and not from
the graph. `build` makes `reference.json`, what the inputs are compared with for drift: no data, shares are assumed.
Replace it by your site's own.

Run `python models/has_bled/1.0.0/reference.py`; the same bytes come out every time. Then `sidecar models seal`.
"""

import hashlib
import sys
from pathlib import Path

import orjson

SIZE = 1000
SOURCE = "no patients: assumed shares of adults with atrial fibrillation"
ASSUMED: dict[str, tuple[list[float], list[float]]] = {
    "hypertension": ([0.5], [0.9, 0.1]),
    "renal": ([0.5], [0.94, 0.06]),
    "liver": ([0.5], [0.98, 0.02]),
    "stroke": ([0.5], [0.85, 0.15]),
    "bleeding": ([0.5], [0.8, 0.2]),
    "labile_inr": ([0.5], [0.9, 0.1]),
    "age": ([55, 66, 75, 85], [0.08, 0.2, 0.27, 0.3, 0.15]),
    "drugs": ([0.5], [0.7, 0.3]),
    "alcohol": ([0.5], [0.96, 0.04]),
}


def score(  # noqa: PLR0913, PLR0917 -- the score's own inputs
    hypertension: float,
    renal: float,
    liver: float,
    stroke: float,
    bleeding: float,
    labile_inr: float,
    age: float,
    drugs: float,
    alcohol: float,
) -> float:
    """The points of answers of 0 or 1 and of completed years."""
    return hypertension + renal + liver + stroke + bleeding + labile_inr + (age > 65) + drugs + alcohol


def build() -> bytes:
    """The file: each input's share in its bins; the last, of missing values, is empty."""
    features = {
        name: {"edges": edges, "counts": [round(SIZE * share) for share in (*shares, 0.0)]}
        for name, (edges, shares) in ASSUMED.items()
    }
    return orjson.dumps({"source": SOURCE, "features": features}, option=orjson.OPT_INDENT_2) + b"\n"


if __name__ == "__main__":
    content = build()
    Path(__file__).with_name("reference.json").write_bytes(content)
    sys.stdout.write(f"reference.json {len(content)} bytes sha256 {hashlib.sha256(content).hexdigest()}\n")
