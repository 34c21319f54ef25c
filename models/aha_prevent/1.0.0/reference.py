"""The PREVENT base equations as the publication has them, in plain Python.

`score` is what the graph is compared with (tests/unit/scoring): plain Python, written from the publication and not from
the graph. `build` makes `reference.json`, what the inputs are compared with for drift: no data, shares are assumed.
Replace it by your site's own.

Run `python models/aha_prevent/1.0.0/reference.py`; the same bytes come out every time. Then `sidecar models seal`.
"""

import hashlib
import importlib.util
import math
import sys
from pathlib import Path

import orjson

SIZE = 1000
SOURCE = "no patients: assumed shares of adults without cardiovascular disease"
ASSUMED: dict[str, tuple[list[float], list[float]]] = {
    "age": ([40, 50, 60, 70], [0.2, 0.22, 0.24, 0.22, 0.12]),
    "sex": ([0.5], [0.55, 0.45]),
    "total_cholesterol": ([160, 200, 240], [0.18, 0.42, 0.3, 0.1]),
    "hdl_cholesterol": ([40, 50, 60], [0.18, 0.3, 0.27, 0.25]),
    "systolic_bp": ([110, 120, 130, 140, 160], [0.14, 0.22, 0.25, 0.2, 0.15, 0.04]),
    "diabetes": ([0.5], [0.88, 0.12]),
    "smoking": ([0.5], [0.86, 0.14]),
    "bmi": ([25, 30, 35], [0.32, 0.36, 0.22, 0.1]),
    "egfr": ([30, 45, 60, 90], [0.01, 0.03, 0.08, 0.45, 0.43]),
    "bp_treated": ([0.5], [0.67, 0.33]),
    "statin": ([0.5], [0.75, 0.25]),
}
OUTCOMES = ("total_cvd", "ascvd", "heart_failure", "chd", "stroke")


def _published(years: int) -> dict[str, list[float]]:
    """The published coefficients, which `build.py` quotes: by term, for each outcome women and men."""
    spec = importlib.util.spec_from_file_location("aha_prevent_build", Path(__file__).with_name("build.py"))
    if spec is None or spec.loader is None:
        raise FileNotFoundError("build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table: str = module.YEARS_10 if years == 10 else module.YEARS_30
    rows = (line.split() for line in table.strip().splitlines())
    return {name: [float(number) for number in numbers] for name, *numbers in rows}


TABLES = {years: _published(years) for years in (10, 30)}


def score(  # noqa: PLR0913, PLR0917 -- the equations' own inputs
    age: float,
    male: float,
    total: float,
    hdl: float,
    sbp: float,
    diabetes: float,
    smoking: float,
    bmi: float,
    egfr: float,
    treated: float,
    statin: float,
) -> dict[str, float]:
    """Every probability that is defined at that age, of completed years, mg/dL, mm[Hg], kg/m2 and answers of 0 or 1."""
    by_age = (age - 55) / 10
    terms = {
        "age": by_age,
        "age_age": by_age**2,
        "non_hdl": (total - hdl) * 0.02586 - 3.5,
        "hdl": (hdl * 0.02586 - 1.3) / 0.3,
        "sbp_low": (min(sbp, 110) - 110) / 20,
        "sbp_high": (max(sbp, 110) - 130) / 20,
        "diabetes": diabetes,
        "smoking": smoking,
        "bmi_low": (min(bmi, 30) - 25) / 5,
        "bmi_high": (max(bmi, 30) - 30) / 5,
        "egfr_low": (min(egfr, 60) - 60) / -15,
        "egfr_high": (max(egfr, 60) - 90) / -15,
        "bp_treated": treated,
        "statin": statin,
        "constant": 1.0,
    }
    terms |= {"treated_sbp": treated * terms["sbp_high"], "treated_non_hdl": statin * terms["non_hdl"]}
    for name, of in {"sbp": "sbp_high", "smoke": "smoking", "egfr": "egfr_low"}.items():
        terms[f"age_{name}"] = by_age * terms[of]
    for name in ("non_hdl", "hdl", "diabetes", "bmi_high"):
        terms[f"age_{name}"] = by_age * terms[name]
    found = {}
    for years, table in TABLES.items():
        for outcome, name in enumerate(OUTCOMES):
            odds = math.fsum(numbers[2 * outcome + int(male)] * terms[term] for term, numbers in table.items())
            if years == 10 or age < 60:
                found[f"{name}_{years}yr"] = 1 / (1 + math.exp(-odds))
    return found


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
