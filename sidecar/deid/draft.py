"""What the rules have gathered of one resource so far, and how codes and times are read into it. Pure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time

from sidecar.deid.rules import Rules
from sidecar.deid.times import instant
from sidecar.records import Sex

# What a code of a known system looks like. FHIR allows spaces in a code; no system we read has any, and a name does.
_CODE = re.compile(r"[A-Za-z0-9.\-]{1,32}")


@dataclass(slots=True)
class Draft:
    """What the rules have gathered of one resource so far."""

    at: datetime
    codes: tuple[str, ...] = ()
    seconds: float | None = None
    recorded: float = -math.inf
    began: float | None = None
    confirmed: bool = True
    stated: bool = False
    value: float | None = None
    unit: str | None = None
    value_codes: tuple[str, ...] = ()
    trouble: str | None = None
    void: bool = False
    absent: bool = False
    parts: list["Draft"] = field(default_factory=list)
    age: tuple[int, int] | None = None
    lived_s: float | None = None
    sexes: set[Sex] = field(default_factory=set)
    deceased: bool = False
    inactive: bool = False
    open: bool | None = None
    ended_at: float | None = None


def codings(concept: object, rules: Rules) -> tuple[str, ...]:
    """The `system|code` of the systems that may cross."""
    return tuple(
        f"{system}|{code}"
        for system, code in pairs(concept)
        if isinstance(system, str) and system in rules.systems and isinstance(code, str) and _CODE.fullmatch(code)
    )


def pairs(concept: object) -> list[tuple[object, object]]:
    """System and code of every coding, whatever they are."""
    codings = concept.get("coding") if isinstance(concept, Mapping) else None
    listed = codings if isinstance(codings, list) else ()
    return [(c.get("system"), c.get("code")) for c in listed if isinstance(c, Mapping)]


def seconds_to(draft: Draft, value: object) -> float | None:
    """The seconds from the trigger to the moment that `value` names; None without a time of day."""
    moment = instant(value)
    return None if moment is None else (moment - draft.at).total_seconds()


def midnight_s(draft: Draft, day: date) -> float:
    """The beginning of a local day, relative to the trigger: a difference of instants, whatever the clocks did."""
    return (datetime.combine(day, time(), draft.at.tzinfo) - draft.at.astimezone(UTC)).total_seconds()
