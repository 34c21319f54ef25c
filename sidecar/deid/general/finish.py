"""What a table cannot say element by element: that a value was there, that somebody died, that a condition ended. Pure.

Dropping these without a trace would turn a statement into its opposite.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.deid.general.codes import ABSENT
from sidecar.deid.general.quantities import CAP_YEARS, OVER_89, is_number, years_of
from sidecar.deid.general.tally import GENERALISED
from sidecar.deid.general.visit import Visit

Finish = Callable[[Mapping[str, Any], dict[str, Any], Visit], None]


def finishes(age_codes: frozenset[str] | None) -> Mapping[str, tuple[Finish, ...]]:
    """What is done at the end of a table, by its path. `age_codes`: of which no age over 89 may show."""
    of_value: tuple[Finish, ...] = (_mask_value,) if age_codes is None else (_age_cap(age_codes), _mask_value)
    return {
        "Observation": of_value,
        "Observation.component": of_value,
        "Condition": (_say_ended,),
        "Patient": (_say_dead,),
        "FamilyMemberHistory": (_say_dead,),
    }


def _lost(source: Mapping[str, Any], out: Mapping[str, Any], prefix: str) -> bool:
    """Whether a choice element was there and nothing of it is left."""
    there = any(name.startswith(prefix) and value is not None for name, value in source.items())
    return there and not any(name.startswith(prefix) for name in out)


def _mask_value(source: Mapping[str, Any], out: dict[str, Any], _: Visit) -> None:
    """A value that had to go is withheld, not missing."""
    if "dataAbsentReason" not in out and _lost(source, out, "value"):
        out["dataAbsentReason"] = {"coding": [{"system": ABSENT, "code": "masked"}]}


def _say_ended(source: Mapping[str, Any], out: dict[str, Any], _: Visit) -> None:
    """When it ended may not be said; that it ended may."""
    if _lost(source, out, "abatement"):
        out["abatementString"] = "masked"


def _say_dead(source: Mapping[str, Any], out: dict[str, Any], _: Visit) -> None:
    """The same of a death."""
    if _lost(source, out, "deceased"):
        out["deceasedBoolean"] = True


def _age_cap(age_codes: frozenset[str]) -> Finish:
    def cap(_: Mapping[str, Any], out: dict[str, Any], visit: Visit) -> None:
        """An age is an age in whatever unit, or in none."""
        codings = out.get("code", {}).get("coding", ())
        if not any(f"{coding['system']}|{coding['code']}" in age_codes for coding in codings):
            return
        quantity = out.get("valueQuantity") or {}
        number = out.get("valueInteger", quantity.get("value"))
        if is_number(number) and number >= CAP_YEARS and years_of(quantity) is None:
            out.pop("valueInteger", None)
            out["valueQuantity"] = dict(OVER_89)
            visit.tally.tell("Observation.value[x]", GENERALISED)

    return cap
