"""Numbers with units: UCUM codes of a closed list, comparators, and ages of 90 and more as `>= 90 a`. Pure.

https://hl7.org/fhir/R4/datatypes.html#Quantity
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from sidecar.deid.general.tally import GENERALISED
from sidecar.deid.general.visit import Refused, Visit
from sidecar.deid.policy import Keep, Policy

UCUM = "http://unitsofmeasure.org"
COMPARATORS = frozenset({"<", "<=", ">=", ">"})
_BELOW = ("<", "<=")
UNKNOWN_UNIT = "unknown"
"""In place of a unit outside the list: the number is not a bare one, and must not be read as one."""
OVER_89 = {"value": 90, "comparator": ">=", "unit": "a", "system": UCUM, "code": "a"}
# No measurement of a patient; infinity and NaN are no numbers of JSON.
_LARGEST = 1e15
# How many make a year of at most 365.24 days, so that nobody of 90 is taken for younger.
_A_YEAR = {
    "a": 1, "y": 1, "yr": 1, "year": 1, "mo": 12, "month": 12, "wk": 52.177, "week": 52.177, "w": 52.177,
    "d": 365.24, "day": 365.24, "h": 8765.76, "hr": 8765.76, "hour": 8765.76,
    "min": 525945.6, "minute": 525945.6, "s": 31556736.0, "sec": 31556736.0, "second": 31556736.0,
}  # fmt: skip
CAP_YEARS = 90
Quantity = dict[str, Any]


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a decimal that a measurement can be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def years_of(quantity: Mapping[str, Any]) -> float | None:
    """How many years a duration or age is; None when its unit, in whatever words, is no time."""
    number = quantity.get("value")
    if not is_number(number):
        return None
    for written in (quantity.get("code"), quantity.get("unit")):
        if isinstance(written, str):
            word = written.strip().casefold()
            per_year = _A_YEAR.get(word) or _A_YEAR.get(word.removesuffix("s")) or _A_YEAR.get(word.removesuffix("_j"))
            if per_year is not None:
                return number / per_year
    return None


def quantity_of(policy: Policy, path: str, kind: str, *, capped: bool) -> Callable[[object, Visit], Quantity | None]:
    """The reader of one quantity of the R4 type `kind`, by the policy's table of that type.

    Raises (the reader):
        Refused: a comparator that R4 does not have.
    """
    table: Mapping[str, Keep] = policy.datatypes.get(kind) or policy.datatypes.get("Quantity") or {}
    if "value" not in table:
        return lambda _value, _visit: None
    units = policy.units
    comparators = COMPARATORS if getattr(table.get("comparator"), "do", None) == "keep" else frozenset[str]()

    def quantity(value: object, visit: Visit) -> Quantity | None:
        if not isinstance(value, dict):
            return None
        _check(value, path, comparators)
        number = value.get("value")
        if not is_number(number):
            return None
        years = years_of(value) if capped else 0
        if years is None and kind == "Age":
            return None
        if years is not None and abs(years) >= CAP_YEARS:
            visit.said = GENERALISED
            return dict(OVER_89) if years > 0 and value.get("comparator") not in _BELOW else None
        comparator = {"comparator": value["comparator"]} if value.get("comparator") is not None else {}
        return {"value": number} | comparator | _unit(value, units)

    return quantity


def _check(quantity: Mapping[str, Any], path: str, comparators: frozenset[str]) -> None:
    comparator = quantity.get("comparator")
    if comparator is not None and not (isinstance(comparator, str) and comparator in comparators):
        raise Refused(f"modifier:{path}.comparator")
    if quantity.get("modifierExtension") is not None:
        raise Refused(f"modifier:{path}.modifierExtension")


def _unit(quantity: Mapping[str, Any], units: frozenset[str]) -> dict[str, str]:
    """The UCUM code if the list has it; some EHRs write it in `unit` alone."""
    named = quantity.get("system") == UCUM
    written = quantity.get("code") if named else quantity.get("unit")
    if written is None:
        return {}
    if isinstance(written, str) and written in units:
        return {"unit": written, "system": UCUM, "code": written}
    return {"unit": UNKNOWN_UNIT}


def cap_range(low: Quantity | None, high: Quantity | None) -> dict[str, Quantity] | None:
    """A range of ages: what lies over 89 has no end, because R4 has no comparator in a range."""
    kept = {}
    if low is not None:
        kept["low"] = {k: v for k, v in low.items() if k != "comparator"}
    if high is not None and high.get("comparator") != ">=":
        kept["high"] = high
    return kept or None
