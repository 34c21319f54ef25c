"""MELD 3.0 as the publication and OPTN policy 9.1.D have it, in plain Python.

`score` is what the graph is compared with (tests/unit/scoring): plain Python, written from the publication and not from
the graph. `build` makes `reference.json`, what the inputs are compared with for drift: no data, shares are assumed.
Replace it by your site's own.

Run `python models/meld_3/1.0.0/reference.py`; the same bytes come out every time. Then `sidecar models seal`.
"""

import hashlib
import math
import sys
from pathlib import Path

import orjson

SIZE = 1000
SOURCE = "no patients: assumed shares of adults with cirrhosis"
ASSUMED: dict[str, tuple[list[float], list[float]]] = {
    "age": ([18, 40, 50, 60, 70], [0.01, 0.14, 0.2, 0.35, 0.25, 0.05]),
    "sex": ([0.5], [0.4, 0.6]),
    "bilirubin": ([1, 2, 5, 10], [0.15, 0.25, 0.3, 0.15, 0.15]),
    "sodium": ([125, 130, 137], [0.04, 0.16, 0.5, 0.3]),
    "inr": ([1, 1.5, 2, 3], [0.05, 0.45, 0.3, 0.15, 0.05]),
    "creatinine": ([1, 2, 3], [0.5, 0.35, 0.1, 0.05]),
    "dialysis": ([2], [0.95, 0.05]),
    "albumin": ([2, 2.5, 3, 3.5], [0.06, 0.2, 0.34, 0.28, 0.12]),
}


def score(  # noqa: PLR0913, PLR0917 -- the score's own inputs
    age: float,
    male: float,
    bilirubin: float,
    sodium: float,
    inr: float,
    creatinine: float,
    sessions: float,
    albumin: float,
) -> float:
    """The score of completed years, 0 or 1, mg/dL, mmol/L, mg/dL, dialysis sessions within a week, and g/dL."""
    return min(
        max(math.floor(unrounded(age, male, bilirubin, sodium, inr, creatinine, sessions, albumin) + 0.5), 6), 40
    )


def unrounded(  # noqa: PLR0913, PLR0917 -- the score's own inputs
    age: float,
    male: float,
    bilirubin: float,
    sodium: float,
    inr: float,
    creatinine: float,
    sessions: float,
    albumin: float,
) -> float:
    """The same before rounding and the limits of 6 and 40."""
    ln_bilirubin = math.log(max(bilirubin, 1.0))
    ln_creatinine = math.log(3.0 if sessions >= 2 else min(max(creatinine, 1.0), 3.0))
    low_sodium = 137 - min(max(sodium, 125), 137)
    low_albumin = 3.5 - min(max(albumin, 1.5), 3.5)
    found = 1.33 if age < 18 or not male else 0.0
    found += 4.56 * ln_bilirubin + 0.82 * low_sodium - 0.24 * low_sodium * ln_bilirubin
    found += 9.09 * math.log(max(inr, 1.0)) + 11.14 * ln_creatinine
    return found + 1.85 * low_albumin - 1.83 * low_albumin * ln_creatinine + 6


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
