"""What was done to how many elements, by element path. No value of a payload is ever in it. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

KEPT, REPLACED, GENERALISED, DROPPED = "kept", "replaced", "generalised", "dropped"


@dataclass(frozen=True, slots=True)
class Done:
    """One rule at work: the element's path (`Observation.component.code`) and what became of it."""

    path: str
    what: str


class Tally:
    """Counts for an officer.

    `counts` is keyed by element path and `kept` (as it was), `replaced` (a token, a moved date), `generalised` (a year,
    a state, 90+) or `dropped`. Names that R4 does not have are payload and are counted as `?`. `resources` counts the
    types of the resources that were passed, `refused` the reasons of those that were not, of which nothing else counts.
    With `listing`, `steps` has every single step in order, until it is cleared.
    """

    def __init__(self, *, listing: bool = False) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[str] = Counter()
        self.resources: Counter[str] = Counter()
        self.steps: list[Done] | None = [] if listing else None

    def add(self, done: Iterable[tuple[str, str]], passed: Iterable[str]) -> None:
        """Count what was done, by path, in resources of the types `passed` that were given out."""
        self.counts.update(done)
        self.resources.update(passed)
        if self.steps is not None:
            self.steps += [Done(path, what) for path, what in done]
