"""Ages that may show: none over 89, and none that with a year beside it makes one. Pure. 45 CFR 164.514(b)(2)(i)(C).

An age of 85 charted in 2015 says over 89 as plainly as a year of birth does.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from sidecar.deid.general.quantities import CAP_YEARS, OVER_89, Quantity, cap_range, is_number, time_unit, years_of
from sidecar.deid.general.tally import GENERALISED
from sidecar.deid.general.visit import Visit

_BELOW = ("<", "<=")
# Elements whose Range is an age, and not a range of anything that has a unit.
_RANGES = ("onsetRange", "abatementRange", "performedRange", "ageRange", "deceasedRange", "referenceRange.age")
# In place of a unit where an age is a bare number: years, as LOINC's codes of age have it.
_BARE = ("{count}", "{age}", "{years}", "1")
_YEAR = re.compile(r"(\d{4})(?:-\d\d(?:-\d\d(?:T.*)?)?)?", re.ASCII | re.DOTALL)
_FIRST_YEAR = 1850
# Strings that have the form of a year and are none.
_NO_DATES = frozenset({"id", "value", "code", "linkId", "postalCode", "reference", "url"})
# By these a resource can be dated from another one.
_LINKS = ("encounter", "context", "partOf", "basedOn", "hasMember", "derivedFrom")


def is_age_range(path: str) -> bool:
    """Whether the Range at `path` is one of ages."""
    return path.endswith(_RANGES)


def is_at_death(path: str) -> bool:
    """Whether the age at `path` is one at death: it stays what it is, however long ago that was."""
    return ".deceased" in path


class Ages:
    """Ages under `safe_harbor_rules`, by the facility's date `today`."""

    def __init__(self, today: date) -> None:
        self._over_in = today.year - CAP_YEARS

    def cap(self, years: float, kept: Quantity, visit: Visit) -> Quantity | None:
        """A time of `years` as it may be written: `kept`, 90 and more, or nothing where a limit would change sides."""
        if abs(years) < CAP_YEARS:
            return kept
        if years < 0 or kept.get("comparator") in _BELOW:
            return None
        visit.said = GENERALISED
        return dict(OVER_89)

    def of(self, years: float, kept: Quantity, visit: Visit) -> Quantity | None:
        """The same of somebody's age: nothing, where it would tell one over 89 with the years in its resource."""
        out = self.cap(years, kept, visit)
        return None if out is kept and self.tells(years, visit) else out

    def tells(self, years: float, visit: Visit) -> bool:
        """Whether somebody who was `years` old in the resource of `visit` may be over 89 today, as far as it shows.

        Without a date of its own it may be dated by what it points to, and then it is not known.
        """
        whole = (visit.container or visit).source
        written = [year for year in _years(whole) if year >= _FIRST_YEAR]
        if not written:
            return any(visit.source.get(name) for name in _LINKS)
        return min(written) - int(years) - 1 <= self._over_in

    def observed(self, source: Mapping[str, Any], visit: Visit) -> dict[str, Any]:
        """The value of a statement whose code is one of an age: an age, a range of ages, or nothing."""
        quantity, number, span = (source.get(f"value{kind}") for kind in ("Quantity", "Integer", "Range"))
        if isinstance(quantity, dict):
            kept = self._observed(quantity, visit)
            return {"valueQuantity": kept} if kept is not None else {}
        if number is not None:
            kept = self._observed({"value": number}, visit)
            return {"valueInteger": number} if kept == {"value": number} else {"valueQuantity": kept} if kept else {}
        if not isinstance(span, dict):
            return {}
        ends = [self._observed(end, visit) if isinstance(end := span.get(n), dict) else None for n in ("low", "high")]
        if any(end is None and name in span for name, end in zip(("low", "high"), ends, strict=True)):
            return {}
        capped = cap_range(*ends)
        return {"valueRange": capped} if capped is not None else {}

    def _observed(self, quantity: Mapping[str, Any], visit: Visit) -> Quantity | None:
        """An age is one in a unit of time, or as a bare number of years; in any other unit nobody knows what it is."""
        number, unit = quantity.get("value"), time_unit(quantity)
        words = [each for name in ("code", "unit") if (each := quantity.get(name)) is not None]
        if not is_number(number) or (unit is None and any(word not in _BARE for word in words)):
            return None
        years = years_of(quantity) if unit is not None else number
        comparator = {"comparator": quantity["comparator"]} if quantity.get("comparator") is not None else {}
        told = {"unit": unit, "system": OVER_89["system"], "code": unit} if unit is not None else {}
        kept = {"value": number} | comparator | told
        return self.of(years or 0.0, kept, visit)


def _years(value: object, name: str = "") -> Iterator[int]:
    """Every year of a date in a resource."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _years(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from _years(each, name)
    elif isinstance(value, str) and name not in _NO_DATES and (found := _YEAR.fullmatch(value)) is not None:
        yield int(found[1])
