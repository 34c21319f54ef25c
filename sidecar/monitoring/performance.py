"""How well probabilities fit what came after: discrimination and calibration, with intervals. Pure.

Figures are weighted, so that a bootstrap of patients is a change of weights: a patient drawn twice counts twice with
all their rows. Intervals are the 2.5th and 97.5th percentiles over the draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FIGURES = (
    "auroc",
    "ap",
    "brier",
    "calibration_slope",
    "calibration_intercept",
    "calibration_in_the_large",
    "o_e",
)
_CERTAIN = 1e-12
_STEPS = 60
_FAR = 1.0
"""The longest step: Newton's method overshoots where nearly every probability is 0 or 1."""
_ENOUGH = 0.9
"""The share of draws in which a figure must exist for its interval to be told."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval; the ends are NaN where too few draws gave one."""

    value: float
    low: float
    high: float

    def said(self) -> dict[str, float | None]:
        """For JSON: NaN is null."""
        named = {"value": self.value, "low": self.low, "high": self.high}
        return {name: (None if np.isnan(value) else round(value, 6)) for name, value in named.items()}


class Predictions:
    """Outcomes [N] of 0 and 1 with their probabilities [N], sorted once for any number of weights.

    Raises:
        ValueError: no rows, or something that is not a number.
    """

    def __init__(self, outcome: Floats, probability: Floats) -> None:
        if not len(outcome) or not np.isfinite(probability).all() or not np.isfinite(outcome).all():
            raise ValueError("figures need rows, each with an outcome and a probability")
        self._order = np.argsort(probability, kind="stable")
        self._y, self._p = outcome[self._order], probability[self._order]
        inside = np.clip(self._p, _CERTAIN, 1 - _CERTAIN)
        self._logit = np.log(inside / (1 - inside))
        self._starts = np.flatnonzero(np.r_[True, self._p[1:] != self._p[:-1]])
        self._line, self._shift = (0.0, 1.0), 0.0

    def figures(self, weight: Floats | None = None) -> dict[str, float]:
        """Every figure of `FIGURES`; NaN where only one outcome has weight.

        The intercept is that of the regression which gives the slope; in the large, it is the one at a slope of 1.
        """
        w = np.ones(len(self._y)) if weight is None else weight[self._order]
        ill, well = float((w * self._y).sum()), float((w * (1 - self._y)).sum())
        found = dict.fromkeys(FIGURES, float("nan"))
        if ill + well > 0:
            found["brier"] = float((w * (self._p - self._y) ** 2).sum()) / (ill + well)
            found["o_e"] = ill / float((w * self._p).sum())
        if ill > 0 and well > 0:
            found["auroc"], found["ap"] = self._ranking(w, ill, well)
            found["calibration_intercept"], found["calibration_slope"] = self._recalibrated(w)
            found["calibration_in_the_large"] = self._in_the_large(w)
        return found

    def _ranking(self, w: Floats, ill: float, well: float) -> tuple[float, float]:
        """Ties count half in the area, and stand together in the precision."""
        up = np.add.reduceat(w * self._y, self._starts)
        down = np.add.reduceat(w * (1 - self._y), self._starts)
        area = float((up * (np.cumsum(down) - down / 2)).sum()) / (ill * well)
        above = np.cumsum(up[::-1])
        flagged = above + np.cumsum(down[::-1])
        precision = np.divide(above, flagged, out=np.zeros_like(above), where=flagged > 0)
        return area, float((up[::-1] * precision).sum()) / ill

    def _recalibrated(self, w: Floats) -> tuple[float, float]:
        """Intercept and slope of the logistic regression of the outcome on the logit, by Newton's method."""
        a, b = self._line
        for _ in range(_STEPS):
            p = _logistic(a + b * self._logit)
            gap, spread = w * (self._y - p), w * p * (1 - p)
            by = spread * self._logit
            g0, g1 = float(gap.sum()), float((gap * self._logit).sum())
            h00, h01, h11 = float(spread.sum()), float(by.sum()), float((by * self._logit).sum())
            determinant = h00 * h11 - h01 * h01
            if determinant <= _CERTAIN * h00 * h11:
                return float("nan"), float("nan")
            da, db = (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant
            shorter = min(1.0, _FAR / max(abs(da), abs(db), _FAR))
            a, b = a + da * shorter, b + db * shorter
            if abs(da) + abs(db) < 1e-8:
                return a, b
        return float("nan"), float("nan")

    def _in_the_large(self, w: Floats) -> float:
        a = self._shift
        for _ in range(_STEPS):
            p = _logistic(a + self._logit)
            spread = float((w * p * (1 - p)).sum())
            if spread <= 0:
                break
            step = min(max(float((w * (self._y - p)).sum()) / spread, -_FAR), _FAR)
            a += step
            if abs(step) < 1e-8:
                return a
        return float("nan")

    def begin_here(self, found: Mapping[str, float]) -> None:
        """Look for the calibration of other weights near `found`, which saves half of the time."""
        line = found["calibration_intercept"], found["calibration_slope"]
        if not np.isnan(line).any() and not np.isnan(found["calibration_in_the_large"]):
            self._line, self._shift = line, found["calibration_in_the_large"]


def _logistic(logit: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-np.clip(logit, -500, 500)))
    return found


def with_intervals(
    outcome: Floats, probability: Floats, clusters: npt.NDArray[Any], *, draws: int, seed: int
) -> dict[str, Interval]:
    """Every figure with its interval, over `draws` bootstrap samples of whole `clusters` (patients)."""
    predictions = Predictions(outcome, probability)
    whole = predictions.figures()
    predictions.begin_here(whole)
    _, member = np.unique(clusters, return_inverse=True)
    count, random = int(member.max()) + 1, np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in FIGURES}
    for _ in range(draws):
        times = np.bincount(random.integers(0, count, count), minlength=count).astype(np.float64)
        for name, value in predictions.figures(times[member]).items():
            drawn[name].append(value)
    return {name: _interval(value, drawn[name]) for name, value in whole.items()}


def _interval(value: float, draws: list[float]) -> Interval:
    known = [d for d in draws if not np.isnan(d)]
    if np.isnan(value) or not known or len(known) < _ENOUGH * len(draws):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def said(found: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    """Figures for JSON."""
    return {name: interval.said() for name, interval in found.items()}
