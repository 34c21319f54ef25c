"""UCUM conversions for the units in use, as a fixed table. Pure.

https://ucum.org/ucum

A unit is never guessed: what the table does not hold is refused. A fraction ("1") is deliberately not "%":
0.40 of oxygen must not be read as 0.40 %.
"""

import re
from collections.abc import Callable

_ANNOTATION = re.compile(r"\{[^{}]*\}")
EGFR = "mL/min/{1.73_m2}"
# Other spellings of one unit: UCUM's own, and what EHRs write where they fill only `unit`.
_SPELT = {
    **{
        f"{ml}/min/{area}": EGFR
        for ml in ("mL", "ml")
        for area in (
            "{1.73_m2}", "{1.73m2}", "{1.73 m2}", "1.73m2", "1.73 m2", "1.73_m2", "1.73m*2", "1.73.m2", "1.73m²",
            "1.73 m²", "1.73m^2", "1.73 m^2",
        )
    },
    "mg/dl": "mg/dL",
    "mg/l": "mg/L",
    "umol/l": "umol/L",
    "µmol/L": "umol/L",
    "μmol/L": "umol/L",
    "µmol/l": "umol/L",
    "μmol/l": "umol/L",
    "mmol/l": "mmol/L",
    "l/min": "L/min",
    "ml/min": "mL/min",
    "kg/m²": "kg/m2",
    "lb": "[lb_av]", "lbs": "[lb_av]", "in": "[in_i]",
    "g/dl": "g/dL", "g/l": "g/L", "mEq/L": "meq/L", "10*9/L": "10*3/uL", "10^9/L": "10*3/uL",
    "x10^9/L": "10*3/uL", "10^3/uL": "10*3/uL", "K/uL": "10*3/uL", "10*6/mL": "10*3/uL", "{cells}/uL": "/uL",
    "10*6/L": "/uL", "10*3/mL": "/uL", "10*12/L": "10*6/uL",
}  # fmt: skip
# Only what holds for every substance. Between mass and amount lies the substance: that factor is the manifest's.
_LINEAR: dict[tuple[str, str], tuple[float, float]] = {
    ("[degF]", "Cel"): (5 / 9, -160 / 9),
    ("K", "Cel"): (1.0, -273.15),
    ("[lb_av]", "kg"): (0.45359237, 0.0),
    ("[oz_av]", "kg"): (0.028349523125, 0.0),
    ("g", "kg"): (0.001, 0.0),
    ("[in_i]", "cm"): (2.54, 0.0),
    ("[ft_i]", "cm"): (30.48, 0.0),
    ("m", "cm"): (100.0, 0.0),
    ("mm", "cm"): (0.1, 0.0),
    ("[in_i]", "m"): (0.0254, 0.0),
    ("[ft_i]", "m"): (0.3048, 0.0),
    ("cm", "m"): (0.01, 0.0),
    ("mm", "m"): (0.001, 0.0),
    ("g/L", "g/dL"): (0.1, 0.0),
    ("mg/dL", "g/dL"): (0.001, 0.0),
    ("mg/mL", "g/dL"): (0.1, 0.0),
    ("g/dL", "g/L"): (10.0, 0.0),
    ("mg/mL", "g/L"): (1.0, 0.0),
    ("g/dL", "mg/dL"): (1000.0, 0.0),
    ("ug/mL", "mg/dL"): (0.1, 0.0),
    ("ug/dL", "mg/dL"): (0.001, 0.0),
    ("mg/dL", "mg/L"): (10.0, 0.0),
    ("ug/mL", "mg/L"): (1.0, 0.0),
    ("umol/L", "mmol/L"): (0.001, 0.0),
    ("/uL", "10*3/uL"): (0.001, 0.0),
    ("10*3/uL", "/uL"): (1000.0, 0.0),
    ("/uL", "10*6/uL"): (1e-6, 0.0),
    ("kPa", "mm[Hg]"): (7.500615758456564, 0.0),
    ("mL/min", "L/min"): (0.001, 0.0),
    ("mg/L", "mg/dL"): (0.1, 0.0),
    ("g/L", "mg/dL"): (100.0, 0.0),
    ("mmol/L", "umol/L"): (1000.0, 0.0),
    ("ug/mg", "mg/g"): (1.0, 0.0),
    ("ug/g", "mg/g"): (0.001, 0.0),
    ("g/g", "mg/g"): (1000.0, 0.0),
    ("g/kg", "mg/g"): (1.0, 0.0),
    ("g/mol", "mg/mmol"): (1.0, 0.0),
    ("mg/mol", "mg/mmol"): (0.001, 0.0),
}


def plain(unit: str) -> str:
    """`unit` in one spelling, without UCUM annotations: `{beats}/min` is `/min`, `{score}` is `1`.

    Annotations carry no meaning, but for one by agreement: `mL/min/{1.73_m2}` is indexed to body surface, and is kept.
    """
    return _SPELT.get(unit) or _ANNOTATION.sub("", unit) or "1"


def converter(written: str | None, wanted: str) -> Callable[[float], float] | None:
    """How to turn a value in `written` into one in `wanted`, or None when that is not known to be safe.

    A missing unit is accepted only where the wanted one is unity (a scale's points have no unit to forget).
    """
    target = plain(wanted)
    source = plain(written) if written is not None else None
    if source == target or (source is None and target == "1"):
        return float
    line = _LINEAR.get((source or "", target))
    if line is None:
        return None
    factor, offset = line
    return lambda value: value * factor + offset
