"""The simplified HOSPITAL score as the publication has it, in plain Python.

`score` is what the graph is compared with (tests/unit/scoring): plain Python, written from the publication and not from
the graph. `build` makes `reference.json`, what the inputs are compared with for drift: no data, shares are assumed.
Replace it by your site's own.

Run `python models/hospital_simplified/1.0.0/reference.py`; the same bytes come out every time. Then seal the folder.
"""

import hashlib
import sys
from pathlib import Path

import orjson

SIZE = 1000
SOURCE = "no patients: assumed shares of medical stays"
ASSUMED: dict[str, tuple[list[float], list[float]]] = {
    "haemoglobin": ([8, 10, 12, 14], [0.06, 0.2, 0.3, 0.3, 0.14]),
    "cancer": ([0.5], [0.85, 0.15]),
    "sodium": ([130, 135, 145], [0.04, 0.16, 0.77, 0.03]),
    "urgent_admission": ([0.5], [0.4, 0.6]),
    "admissions": ([2, 6], [0.75, 0.2, 0.05]),
    "length_of_stay": ([5], [0.55, 0.45]),
}


def score(  # noqa: PLR0913, PLR0917 -- the score's own inputs
    haemoglobin: float, cancer: float, sodium: float, urgent: float, admissions: float, days: float
) -> float:
    """The points of g/dL, mmol/L, answers of 0 or 1, and counts."""
    points = (haemoglobin < 12) + 2 * cancer + (sodium < 135) + urgent
    points += 5 if admissions > 5 else 2 if admissions >= 2 else 0
    return points + (2 if days >= 5 else 0)


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
