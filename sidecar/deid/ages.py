"""Ages that a statement gives, under the rules of Safe Harbor: none of 90 or more crosses. Pure.

An age with a time beside it tells the age of today, so it counts by what the patient would be now.
https://www.ecfr.gov/current/title-45/section-164.514 (b)(2)(i)(C)
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.deid.draft import Draft
from sidecar.deid.general.quantities import CAP_YEARS, is_number, time_unit, years_of
from sidecar.deid.mode import Mode

CAPPED = "deid:age_capped"
"""The trouble of an age that may not cross."""
_A_YEAR_S = 365.24 * 86_400
# What an expression calls an element that is an age or a range of ages, by the names it has in JSON.
_AGES: Mapping[str, tuple[str, ...]] = {
    "onset": ("onsetAge", "onsetRange"),
    "abatement": ("abatementAge", "abatementRange"),
    "performed": ("performedAge", "performedRange"),
}
_OBSERVED = ("valueQuantity", "valueInteger", "valueRange")
# In place of a unit where an age is a bare number: years, as LOINC's codes of age have it.
_BARE = (None, "{count}", "{age}", "{years}", "1")


def is_age(draft: Draft, concept: object) -> bool:
    """Whether a statement is about somebody's age, and the mode lets no age of 90 or more cross."""
    rules = draft.view.rules
    return rules.mode is Mode.SAFE_HARBOR_RULES and not rules.age_codes.isdisjoint(draft.view.codings(concept))


def tells(source: Mapping[str, Any], whole: Draft) -> bool:
    """Whether the value of a statement about an age tells, or may tell, one of 90 or more."""
    given = [name for name in source if name.startswith("value")]
    if any(name not in _OBSERVED for name in given):
        return True
    return any(_is_over(q, whole, bare=True) for name in given for q in _quantities(source[name]))


def tells_by_path(whole: Draft, resource: Mapping[str, Any], names: frozenset[str]) -> bool:
    """Whether an expression over elements of these names reads such an age."""
    if whole.view.rules.mode is not Mode.SAFE_HARBOR_RULES:
        return False
    ages = (resource[n] for word in names & _AGES.keys() for n in _AGES[word] if n in resource)
    if any(_is_over(q, whole, bare=False) for age in ages for q in _quantities(age)):
        return True
    parts = [resource, *_objects(resource.get("component"))] if resource.get("resourceType") == "Observation" else ()
    if "value" in names and any(tells(part, whole) for part in parts if is_age(whole, part.get("code"))):
        return True
    ranges = (r for part in parts for r in _objects(part.get("referenceRange")) if "age" in names and "age" in r)
    return any(_is_over(q, whole, bare=False) for each in ranges for q in _quantities(each["age"]))


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _quantities(value: object) -> Iterator[object]:
    """The ends of a Range, or a value as it is."""
    if isinstance(value, dict) and ("low" in value or "high" in value):
        yield from (value[end] for end in ("low", "high") if end in value)
    else:
        yield value


def _is_over(value: object, whole: Draft, *, bare: bool) -> bool:
    """Whether an age is, or was so long ago that it is by now, 90 or more; what cannot be read may be."""
    written: Mapping[str, Any] = value if isinstance(value, dict) else {"value": value}
    number = written.get("value")
    if not is_number(number):
        return True
    unit = time_unit(written)
    if unit is None and not (bare and all(written.get(n) in _BARE for n in ("code", "unit"))):
        return True
    years = number if unit is None else years_of(written)
    return years is None or years + _years_since(whole) >= CAP_YEARS


def _years_since(whole: Draft) -> float:
    """The years since the earliest time of a statement, and up to one more that an age does not count; 0 if undated."""
    told = [s for s in (whole.seconds, whole.began, whole.recorded, whole.ended_at) if s is not None]
    dated = [s for s in told if math.isfinite(s)]
    since = -min(dated, default=0.0) / _A_YEAR_S
    return math.floor(since) + 1.0 if since >= 1 else 0.0
