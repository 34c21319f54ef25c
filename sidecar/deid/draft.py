"""How one snapshot is looked at, and what the rules have gathered of one resource so far. Pure."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any

import msgspec

from sidecar.deid.rules import Rules
from sidecar.deid.times import instant
from sidecar.manifest import ANY, Wanted
from sidecar.records import Sex

Reads = Mapping[str, frozenset[str]]
"""The codes (`system|code`) that a model reads, by resource type. A statement of no other code is looked at."""

WITH_VALUES = frozenset({"Observation", "Condition"})
"""The types whose statements have a value or say of themselves since when they are there."""

# What a code of a known system looks like. FHIR allows spaces in a code; no system we read has any, and a name does.
_CODE = re.compile(r"[A-Za-z0-9.\-]{1,32}")


class View:
    """A snapshot as one model may see it: by the policy, of what it reads, from the trigger.

    Each written time is parsed once, however many statements were charted at it. `stay` is the present stay as
    statements refer to it.
    """

    def __init__(self, rules: Rules, reads: Reads, at: datetime) -> None:
        self.rules, self.reads, self.at = rules, reads, at
        self.plain = {name for name, wanted in reads.items() if name in WITH_VALUES and type(wanted) is not Wanted}
        self.stay: str | None = None
        self._utc = at.astimezone(UTC)
        self._seconds: dict[str, float | None] = {}

    def seconds_to(self, value: object) -> float | None:
        """The seconds from the trigger to the moment that `value` names; None without a time of day."""
        if not isinstance(value, str):
            return None
        if value not in self._seconds:
            moment = instant(value)
            self._seconds[value] = None if moment is None else (moment - self._utc).total_seconds()
        return self._seconds[value]

    def midnight_s(self, day: date) -> float:
        """The beginning of a local day, relative to the trigger: a difference of instants, whatever the clocks did."""
        return (datetime.combine(day, time(), self.at.tzinfo) - self._utc).total_seconds()

    def codings(self, concept: object) -> tuple[str, ...]:
        """The `system|code` of the systems that may cross."""
        systems = self.rules.systems
        return tuple(
            f"{system}|{code}"
            for system, code in pairs(concept)
            if isinstance(system, str) and system in systems and isinstance(code, str) and _CODE.fullmatch(code)
        )

    def codes_of(self, concept: object, wanted: frozenset[str]) -> tuple[str, ...]:
        """Those of them that are `wanted`. Most statements of a chart end here."""
        if type(wanted) is Wanted:
            return self._declared(concept, wanted)
        listed = concept.get("coding") if type(concept) is dict else None
        found: tuple[str, ...] = ()
        for coding in listed if type(listed) is list else ():
            if type(coding) is dict and type(code := coding.get("code")) is str:
                system = coding.get("system")
                if (written := f"{system}|{code}") in wanted and system in self.rules.systems:
                    found += (written,)
        return found

    def _declared(self, concept: object, wanted: Wanted) -> tuple[str, ...]:
        """The codes of the manifest that stand for those of a concept: what is charted more finely does not cross."""
        found = [d for code in self.codings(concept) for d in wanted.declared(code)]
        return tuple(dict.fromkeys([*found, ANY] if ANY in wanted else found))


class Draft(msgspec.Struct):
    """What the rules have gathered of one resource so far. `wanted` are the codes that the model reads of its type.

    `aged` is what gives somebody's age, where the mode caps ages. `by_name` says that it counts only where its status
    is asked for, `of_stay` that it names the present stay.
    """

    view: View
    wanted: frozenset[str] = frozenset()
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
    unread: bool = False
    parts: tuple["Draft", ...] = ()
    age: tuple[int, int] | None = None
    age_capped: bool = False
    lived_s: float | None = None
    sexes: frozenset[Sex] = frozenset()
    deceased: bool = False
    inactive: bool = False
    open: bool | None = None
    ended_at: float | None = None
    days: int | None = None
    over: bool = False
    aged: Mapping[str, Any] | None = None
    of_stay: bool = False
    by_name: bool = False


def is_over(draft: Draft) -> None:
    """It was, and is not any more: void, unless the model asks for the history of what it is about."""
    wanted = draft.wanted
    draft.over = type(wanted) is Wanted and not wanted.history.isdisjoint(draft.codes)
    draft.void = draft.void or not draft.over


def pairs(concept: Any) -> list[tuple[Any, Any]]:
    """System and code of every coding, whatever they are."""
    listed = concept.get("coding") if isinstance(concept, dict) else None
    return [(c.get("system"), c.get("code")) for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
