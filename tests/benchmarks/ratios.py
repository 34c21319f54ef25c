"""Figures of alternating rounds, as ratios within each round. Pure.

Noise of the machine that lasts longer than a round is in both of its sides, so the ratios are compared and not the
medians of either side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of per-round ratios, their range, and each round's own."""

    median: float
    low: float
    high: float
    rounds: tuple[float, ...]

    @property
    def words(self) -> str:
        """As a table shows it."""
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """What a round of ours was of the same round of theirs.

    Raises:
        ValueError: no rounds, sides of different length, or a yardstick that measured nothing.
    """
    if not ours or len(ours) != len(theirs) or any(t <= 0 for t in theirs):
        raise ValueError("each round needs a figure of both sides, and the yardstick's above zero")
    return alone([one / other for one, other in zip(ours, theirs, strict=True)])


def alone(rounds: Sequence[float]) -> Ratio:
    """A figure that needs no yardstick."""
    return Ratio(median(rounds), min(rounds), max(rounds), tuple(rounds))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not pass (nearest rank).

    Raises:
        ValueError: no values, or a share outside (0, 1].
    """
    if not values or not 0 < share <= 1:
        raise ValueError("a percentile needs values and a share in (0, 1]")
    return sorted(values)[math.ceil(share * len(values)) - 1]
