"""UCUM conversions for the units in use, as a fixed table. Pure.

https://ucum.org/ucum

A unit is never guessed: what the table does not hold is refused. A fraction ("1") is deliberately not "%":
0.40 of oxygen must not be read as 0.40 %.
"""

import re
from collections.abc import Callable

_ANNOTATION = re.compile(r"\{[^{}]*\}")
_LINEAR: dict[tuple[str, str], tuple[float, float]] = {
    ("[degF]", "Cel"): (5 / 9, -160 / 9),
    ("K", "Cel"): (1.0, -273.15),
    ("kPa", "mm[Hg]"): (7.500615758456564, 0.0),
    ("l/min", "L/min"): (1.0, 0.0),
    ("mL/min", "L/min"): (0.001, 0.0),
}


def plain(unit: str) -> str:
    """`unit` without UCUM annotations, which carry no meaning: `{beats}/min` is `/min`, `{score}` is `1`."""
    return _ANNOTATION.sub("", unit) or "1"


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
