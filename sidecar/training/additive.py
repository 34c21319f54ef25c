"""Additive logistic models: the log odds are a constant and one term for each input, so the terms explain it exactly.

A term is a line with bends (`linear`) or a step function (`step`) of its input. Absence has a value of its own, or
makes the result not computable. Fitted by penalised maximum likelihood, and rounded, so that the same rows give the
same numbers wherever they are fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from sidecar.monitoring.performance import Floats

DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Shape:
    """How the term of an input may run, before it is fitted.

    `linear` bends at the places `at` and is level outside them; `step` changes at each of them; `codes` has a value for
    each of them, the first being the one that the others are compared with. With `missing`, absence gets a value.
    """

    name: str
    kind: Literal["linear", "step", "codes"]
    at: tuple[float, ...]
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """A fitted term. `linear` has a value at each of the places `at`; `step` one before them and one from each on.

    `missing` is its value where the input is NaN: NaN where that makes the result not computable.
    """

    name: str
    kind: Literal["linear", "step"]
    at: tuple[float, ...]
    values: tuple[float, ...]
    missing: float

    def of(self, x: Floats) -> Floats:
        """The term for each `x` [N], in log odds."""
        absent = np.isnan(x)
        known = np.where(absent, self.at[0], x)
        if self.kind == "linear":
            found = np.interp(known, self.at, self.values)
        else:
            found = np.array(self.values)[np.searchsorted(self.at, known, side="right")]
        return np.where(absent, self.missing, found)


@dataclass(frozen=True, slots=True)
class Additive:
    """A fitted model: `intercept` is the log odds at a sum of 0, which is the average of the rows it was fitted to."""

    terms: tuple[Term, ...]
    intercept: float

    def contributions(self, inputs: Floats) -> Floats:
        """The terms [N, P] of `inputs` [N, P]."""
        return np.column_stack([term.of(inputs[:, place]) for place, term in enumerate(self.terms)])

    def probability(self, inputs: Floats) -> Floats:
        """The probabilities [N]; NaN where a necessary input is."""
        with np.errstate(over="ignore"):
            odds: Floats = np.exp(self.contributions(inputs).sum(axis=1) + self.intercept)
            return 1 - 1 / (1 + odds)

    def recalibrated(self, intercept: float, slope: float) -> "Additive":
        """The same terms times `slope`, and the log odds moved by `intercept`: a regression on the logit, folded in."""
        terms = tuple(
            Term(t.name, t.kind, t.at, tuple(v * slope for v in t.values), t.missing * slope) for t in self.terms
        )
        return Additive(terms, self.intercept * slope + intercept)

    def rounded(self) -> "Additive":
        """Numbers of `DECIMALS` decimals: what another machine adds in another order ends in the same bytes."""
        terms = tuple(
            Term(t.name, t.kind, t.at, tuple(_rounded(v) for v in t.values), _rounded(t.missing)) for t in self.terms
        )
        return Additive(terms, _rounded(self.intercept))


class Basis:
    """The columns that shapes span over `inputs` [N, P], standardised by the rows they are made of."""

    def __init__(self, shapes: Sequence[Shape], inputs: Floats) -> None:
        self.shapes = tuple(shapes)
        self._means = [_mean(_raw(shape, inputs[:, place])) for place, shape in enumerate(self.shapes)]
        self.matrix = self.of(inputs)
        self.centre, self.scale = self.matrix.mean(axis=0), self.matrix.std(axis=0)
        self.scale[self.scale == 0] = 1.0

    def of(self, inputs: Floats) -> Floats:
        """The columns of other rows. Where an input is absent, its columns are at their mean."""
        found = []
        for place, shape in enumerate(self.shapes):
            x, columns = inputs[:, place], _raw(shape, inputs[:, place])
            found.append(np.where(np.isnan(columns), self._means[place], columns))
            if shape.missing:
                found.append(np.isnan(x).astype(np.float64)[:, np.newaxis])
        return np.column_stack(found)

    def terms(self, coefficients: Floats) -> tuple[Term, ...]:
        """The terms that `coefficients` of the unstandardised columns make, before they are centred."""
        found, at = [], 0
        for shape, means in zip(self.shapes, self._means, strict=True):
            own = coefficients[at : at + len(means)]
            absent = float(own @ means + coefficients[at + len(means)]) if shape.missing else float("nan")
            at += len(means) + shape.missing
            found.append(_term(shape, own, absent))
        return tuple(found)


def _raw(shape: Shape, x: Floats) -> Floats:
    """The columns [N, K] of one shape, NaN where the input is."""
    places = np.array(shape.at)
    found: Floats
    if shape.kind == "linear":
        low, high = places[:-1], places[1:]
        found = (np.clip(x[:, np.newaxis], low, high) - low) / (high - low)
    elif shape.kind == "step":
        found = (x[:, np.newaxis] >= places).astype(np.float64)
    else:
        found = (x[:, np.newaxis] == places[1:]).astype(np.float64)
    found[np.isnan(x)] = np.nan
    return found


def _mean(columns: Floats) -> Floats:
    known = ~np.isnan(columns[:, 0])
    found: Floats = columns[known].mean(axis=0) if known.any() else np.zeros(columns.shape[1])
    return found


def _term(shape: Shape, own: Floats, absent: float) -> Term:
    if shape.kind != "codes":
        values = (0.0, *np.cumsum(own).tolist())
        return Term(shape.name, shape.kind, shape.at, values, absent)
    by_code = dict(zip(shape.at, (0.0, *own.tolist()), strict=True))
    codes = sorted(by_code)
    edges = tuple((a + b) / 2 for a, b in pairwise(codes))
    return Term(shape.name, "step", edges, tuple(by_code[c] for c in codes), absent)


def fit(shapes: Sequence[Shape], inputs: Floats, outcome: Floats, weight: Floats, penalty: float) -> Additive:
    """Fit by maximum likelihood with a ridge of `penalty` for a row's average weight, each column standardised.

    The same rows give the same result to `DECIMALS` decimals: one thread, Newton's method until nothing moves.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 -- evaluating needs no library for training
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 -- the same

    basis = Basis(shapes, inputs)
    columns = (basis.matrix - basis.centre) / basis.scale
    with threadpool_limits(1):
        model = LogisticRegression(
            C=1 / (penalty * float(weight.sum())), solver="newton-cholesky", tol=1e-10, max_iter=200
        )
        model.fit(columns, outcome, sample_weight=weight)
    coefficients = model.coef_[0] / basis.scale
    terms = basis.terms(coefficients)
    start = float(model.intercept_[0] - basis.centre @ coefficients)
    return _centred(Additive(terms, start), inputs, weight)


def _centred(model: Additive, inputs: Floats, weight: Floats) -> Additive:
    """The same model with terms that are 0 on average; a term that has no value for absence counts where it has one."""
    terms, moved = [], 0.0
    for term, found in zip(model.terms, model.contributions(inputs).T, strict=True):
        known = ~np.isnan(found)
        mean = float(np.average(found[known], weights=weight[known]))
        terms.append(Term(term.name, term.kind, term.at, tuple(v - mean for v in term.values), term.missing - mean))
        moved += mean
    return Additive(tuple(terms), model.intercept + moved)


def quantiles(x: Floats, count: int, decimals: int) -> tuple[float, ...]:
    """`count` places for bends between the 2nd and the 98th percentile of what is known of `x`, without repeats.

    They are two at least, as a line needs.
    """
    found = np.unique(np.round(np.nanquantile(x, np.linspace(0.02, 0.98, count)), decimals))
    return tuple(float(v) for v in (found if len(found) > 1 else [found[0], found[0] + 10.0**-decimals]))


def patient_folds(patients: npt.NDArray[np.str_] | Floats, count: int, seed: int) -> npt.NDArray[np.int64]:
    """A fold from 0 to `count` - 1 for each row: all rows of a patient in one, patients at random by `seed`."""
    known, member = np.unique(patients, return_inverse=True)
    dealt = np.arange(len(known)) % count
    np.random.default_rng(seed).shuffle(dealt)
    return dealt[member]


def _rounded(value: float) -> float:
    """Without a sign of zero, which would depend on what was rounded away."""
    return round(value, DECIMALS) + 0.0
