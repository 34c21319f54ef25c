"""The LACE index as the publication has it, in plain Python.

`score` is what the graph is compared with (tests/unit/scoring): plain Python, written from the publication and not from
the graph. `build` makes `reference.json`, what the inputs are compared with for drift: no data, shares are assumed.
Replace it by your site's own.

Run `python models/lace/1.0.0/reference.py`; the same bytes come out every time. Then `sidecar models seal`.
"""

import hashlib
import sys
from pathlib import Path

import orjson

SIZE = 1000
SOURCE = "no patients: assumed shares of adult medical and surgical stays"
ASSUMED: dict[str, tuple[list[float], list[float]]] = {
    "length_of_stay": ([1, 2, 3, 4, 7, 14], [0.02, 0.13, 0.16, 0.15, 0.28, 0.16, 0.1]),
    "acute_admission": ([0.5], [0.4, 0.6]),
    "comorbidity": ([1, 2, 3, 4], [0.45, 0.15, 0.18, 0.08, 0.14]),
    "emergency_visits": ([1, 2, 3, 4], [0.6, 0.22, 0.1, 0.04, 0.04]),
}


def score(length_of_stay: float, acute: float, comorbidity: float, emergency_visits: float) -> float:
    """The points of whole days, 0 or 1, the index's own comorbidity score, and visits."""
    days = length_of_stay
    of_stay = 7 if days >= 14 else 5 if days >= 7 else 4 if days >= 4 else int(days)
    of_comorbidity = 5 if comorbidity >= 4 else int(comorbidity)
    return of_stay + 3 * acute + of_comorbidity + min(int(emergency_visits), 4)


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
