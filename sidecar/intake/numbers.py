"""What the event numbers of a Subscription say: nothing is missing, something is late, or the server began anew. Pure.

Numbers never decide whether an event is recorded, only whether others are missing. They start at 1 with the
Subscription, and some servers forget them with a restart, or count within each notification only.
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/errors.html
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

MOST_AHEAD = 5_000
"""Numbers kept beyond a hole. Those forgotten count as missing, and are asked for again: harmless."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """`mark`: every event up to it is accounted for; None until the first is known.

    `ahead` are those heard beyond the mark, `told` the highest that the server said to exist, `hole_at` when the
    present hole was first seen. `doubt` is a count that went down, until the server was asked whether it began anew.
    """

    mark: int | None = None
    ahead: tuple[int, ...] = ()
    told: int = 0
    hole_at: float | None = None
    doubt: int | None = None

    @property
    def missing(self) -> tuple[int, int] | None:
        """The first and last number of the hole, None when there is none."""
        if self.mark is None or self.mark >= self.told:
            return None
        return self.mark + 1, min(self.ahead, default=self.told + 1) - 1

    def heard(self, numbers: Iterable[int], since: int | None, at: float, *, covered: bool = False) -> "Numbers":
        """After a notification. `covered` says that a search from the watermark will find all events up to `since`.

        The first notification of a Subscription that was not followed before sets the mark.
        """
        told = tuple(numbers)
        top = max((*told, since or 0))
        if self.mark is None:
            return replace(self, mark=top, told=top)
        news = {n for n in told if n > self.mark} - set(self.ahead)
        if since is not None and since < self.told and not news:
            return replace(self, doubt=since)
        if covered:
            news |= set(range(self.mark + 1, top + 1)) if top - self.mark <= MOST_AHEAD else set()
        return _with(replace(self, told=max(self.told, top)), news, at)

    def counted(self, since: int, at: float) -> "Numbers":
        """After the server was asked how many events there are. Fewer than it told before: it began anew."""
        if since < self.told:
            return replace(self, mark=since, told=since, ahead=(), hole_at=None, doubt=None)
        return _with(replace(self, told=since, doubt=None), set(), at)

    def closed(self) -> "Numbers":
        """After everything up to `told` was fetched or will be found by a search."""
        return replace(self, mark=self.told, ahead=(), hole_at=None)

    def to_json(self) -> dict[str, Any]:
        """The form that is stored."""
        return {
            "mark": self.mark, "ahead": list(self.ahead), "told": self.told, "hole_at": self.hole_at,
            "doubt": self.doubt,
        }  # fmt: skip

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**stored | {"ahead": tuple(stored["ahead"])})


def _with(numbers: Numbers, news: set[int], at: float) -> Numbers:
    """With `news` heard at `at`: the mark moves to the next hole."""
    mark, ahead = numbers.mark or 0, set(numbers.ahead) | news
    while mark + 1 in ahead:
        mark += 1
    left = tuple(sorted(n for n in ahead if n > mark)[:MOST_AHEAD])
    same_hole = mark == numbers.mark and numbers.hole_at is not None
    hole_at = None if mark >= numbers.told else numbers.hole_at if same_hole else at
    return replace(numbers, mark=mark, ahead=left, hole_at=hole_at)
