"""Numbers with units: UCUM codes of a closed list, comparators, and ages of 90 and more as `>= 90 a`. Pure.

https://hl7.org/fhir/R4/datatypes.html#Quantity
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from sidecar.deid.general.visit import Refused, Visit
from sidecar.deid.policy import Keep, Policy

UCUM = "http://unitsofmeasure.org"
COMPARATORS = frozenset({"<", "<=", ">=", ">"})
UNKNOWN_UNIT = "unknown"
"""In place of a unit outside the list: the number is not a bare one, and must not be read as one."""
OVER_89 = {"value": 90, "comparator": ">=", "unit": "a", "system": UCUM, "code": "a"}
# No measurement of a patient; infinity and NaN are no numbers of JSON.
_LARGEST = 1e15
# How many make a year of at most 365.24 days, so that nobody of 90 is taken for younger.
_A_YEAR = {"a": 1, "mo": 12, "wk": 52.177, "d": 365.24, "h": 8765.76, "min": 525945.6, "s": 31556736.0}
# Units of time in the words of EHRs, in lower case and without the s of a plural.
_WORDS = {
    "a": ["a", "a_j", "a_g", "a_t", "y", "Y", "yr", "y.", "yr.", "year", "year old", "yo", "y/o", "y.o.", "annu",
          "jahr", "jahre", "an", "ans", "año", "ano", "anno", "anni", "jaar", "år"],
    "mo": ["mo", "mo_j", "mo_g", "mo_s", "mon", "mth", "month", "monat", "monate", "moi", "me", "mese", "maand"],
    "wk": ["wk", "w", "week", "woche", "wochen", "semaine", "semana"],
    "d": ["d", "day", "tag", "tage", "jour", "dia", "día", "dag"],
    "h": ["h", "hr", "hour", "stunde", "stunden"],
    "min": ["min", "minute"],
    "s": ["s", "sec", "second"],
}  # fmt: skip
_UCUM_OF = {word: code for code, words in _WORDS.items() for word in words}
CAP_YEARS = 90
Quantity = dict[str, Any]


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a decimal that a measurement can be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def time_unit(quantity: Mapping[str, Any]) -> str | None:
    """The UCUM code of the unit of time that `quantity` names, in whatever words; None when it names none."""
    for written in (quantity.get("code"), quantity.get("unit")):
        if isinstance(written, str):
            word = written.strip()
            word = word.casefold() if len(word) > 1 else word  # W is a watt
            if (code := _UCUM_OF.get(word) or _UCUM_OF.get(word.removesuffix("s"))) is not None:
                return code
    return None


def years_of(quantity: Mapping[str, Any]) -> float | None:
    """How many years a duration or age is; None when its unit, in whatever words, is no time."""
    number, unit = quantity.get("value"), time_unit(quantity)
    return number / _A_YEAR[unit] if unit is not None and is_number(number) else None


def quantity_of(
    policy: Policy, path: str, kind: str, cap: Callable[[float, Quantity, Visit], Quantity | None] | None
) -> Callable[[object, Visit], Quantity | None]:
    """The reader of one quantity of the R4 type `kind`, by the policy's table of that type.

    What is a time goes through `cap`, if there is one, with its years. An Age has a unit of time, or is none.

    Raises (the reader):
        Refused: a comparator that R4 does not have.
    """
    table: Mapping[str, Keep] = policy.datatypes.get(kind) or policy.datatypes.get("Quantity") or {}
    if "value" not in table:
        return lambda _value, _visit: None
    units = policy.units
    comparators = COMPARATORS if getattr(table.get("comparator"), "do", None) == "keep" else frozenset[str]()
    unit_of = _unit_of_time if kind == "Age" else _unit

    def quantity(value: object, visit: Visit) -> Quantity | None:
        if not isinstance(value, dict):
            return None
        _check(value, path, comparators)
        number = value.get("value")
        if not is_number(number):
            return None
        comparator = {"comparator": value["comparator"]} if value.get("comparator") is not None else {}
        unit = unit_of(value, units)
        if unit is None:
            return None
        kept = {"value": number} | comparator | unit
        years = years_of(value) if cap is not None else None
        return kept if cap is None or years is None else cap(years, kept, visit)

    return quantity


def _check(quantity: Mapping[str, Any], path: str, comparators: frozenset[str]) -> None:
    comparator = quantity.get("comparator")
    unread = comparator is not None and not (isinstance(comparator, str) and comparator in comparators)
    if unread or quantity.get("_comparator") is not None:
        raise Refused(f"modifier:{path}.comparator")
    if quantity.get("modifierExtension") is not None:
        raise Refused(f"modifier:{path}.modifierExtension")


def _unit(quantity: Mapping[str, Any], units: frozenset[str]) -> dict[str, str] | None:
    """The UCUM code if the list has it; some EHRs write it in `unit` alone."""
    named = quantity.get("system") == UCUM
    written = quantity.get("code") if named else quantity.get("unit")
    if written is None:
        return {}
    if isinstance(written, str) and written in units:
        return {"unit": written, "system": UCUM, "code": written}
    return {"unit": UNKNOWN_UNIT}


def _unit_of_time(quantity: Mapping[str, Any], _: frozenset[str]) -> dict[str, str] | None:
    code = time_unit(quantity)
    return {"unit": code, "system": UCUM, "code": code} if code is not None else None


def cap_range(low: Quantity | None, high: Quantity | None) -> dict[str, Quantity] | None:
    """A range of ages: what lies over 89 has no end, because R4 has no comparator in a range."""
    kept = {}
    if low is not None:
        kept["low"] = {k: v for k, v in low.items() if k != "comparator"} if low == OVER_89 else low
    if high is not None and high != OVER_89:
        kept["high"] = high
    return kept or None
