"""The CHA2DS2-VASc score as the publication has it, in plain Python.

`score` is what the graph is compared with (tests/unit/scoring): plain Python, written from the publication and not from
the graph. `build` makes `reference.json`, what the inputs are compared with for drift: no data, shares are assumed.
Replace it by your site's own.

Run `python models/cha2ds2_vasc/1.0.0/reference.py`; the same bytes come out every time. Then `sidecar models seal`.
"""

import hashlib
import sys
from pathlib import Path

import orjson

SIZE = 1000
SOURCE = "no patients: assumed shares of adults with atrial fibrillation"
ASSUMED: dict[str, tuple[list[float], list[float]]] = {
    "congestive_heart_failure": ([0.5], [0.7, 0.3]),
    "hypertension": ([0.5], [0.3, 0.7]),
    "age": ([55, 65, 75, 85], [0.08, 0.17, 0.3, 0.3, 0.15]),
    "diabetes": ([0.5], [0.75, 0.25]),
    "stroke": ([0.5], [0.85, 0.15]),
    "vascular_disease": ([0.5], [0.75, 0.25]),
    "sex": ([0.5], [0.45, 0.55]),
}


def score(  # noqa: PLR0913, PLR0917 -- the score's own inputs
    heart_failure: float, hypertension: float, age: float, diabetes: float, stroke: float, vascular: float, male: float
) -> float:
    """The points of answers of 0 or 1 and of completed years."""
    of_age = 2 if age >= 75 else 1 if age >= 65 else 0
    return heart_failure + hypertension + of_age + diabetes + 2 * stroke + vascular + (1 - male)


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
