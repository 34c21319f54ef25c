"""What was done to how many elements, by element path. No value of a payload is ever in it. Pure."""

from collections import Counter
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
    a state, 90+) or `dropped`. Names that R4 does not have are payload and are counted as `?`. `refused` counts the
    reasons of resources that were not passed, `resources` the types of those that were.
    With `listing`, `steps` has every single step in order, until it is cleared.
    """

    def __init__(self, *, listing: bool = False) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[str] = Counter()
        self.resources: Counter[str] = Counter()
        self.steps: list[Done] | None = [] if listing else None

    def tell(self, path: str, what: str) -> None:
        """One element at `path` was `what`."""
        self.counts[path, what] += 1
        if self.steps is not None:
            self.steps.append(Done(path, what))
