"""Shapley values of a graph that gives no terms, by antithetic permutations against stored prototypes.

Pure but for `run`. The value of a set of inputs is the mean, over the prototypes, of what the graph says with these
inputs as the patient's and the others as the prototype's. For each prototype the patient's inputs are put in its place
one after the other, in a random order and in its reverse, and each input is credited with what it changed. The changes
of an order sum to the difference of its two ends, so the values sum to the patient's probability less the prototypes'
mean, whatever the orders. Sampling: https://doi.org/10.1016/j.cor.2008.04.004; orders in pairs:
https://doi.org/10.48550/arXiv.2104.12199.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_ROWS = 4096
"""Of one run of the graph: what is in flight stays in the caches."""


@dataclass(frozen=True, slots=True)
class Shapley:
    """Values [F] that sum to the patient's probability less `baseline`, but for `residual`, which is rounding.

    `errors` [F] are standard errors over the prototypes: they hold what the orders leave open, and more.
    """

    probability: float
    baseline: float
    values: Any
    errors: Any
    residual: float


def shapley(run: Callable[[Any], Any], row: Any, prototypes: Any) -> Shapley:
    """Explain what `run`, from rows [N, F] to probabilities [N], says of `row` [F] beside `prototypes` [B, F].

    The same row and prototypes give the same values: the orders follow from their bytes.
    """
    count, width = prototypes.shape
    orders = _orders(row, prototypes)
    said = _run(run, _paths(row, prototypes, orders))
    changes = np.diff(said, axis=1)
    credited = np.empty_like(changes)
    np.put_along_axis(credited, orders, changes, axis=1)
    by_prototype = credited.reshape(2, count, width).mean(axis=0)
    values = by_prototype.mean(axis=0)
    errors = by_prototype.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full(width, np.nan)
    probability, baseline = float(said[0, -1]), float(said[:, 0].mean())
    return Shapley(probability, baseline, values, errors, probability - baseline - float(values.sum()))


def _orders(row: Any, prototypes: Any) -> Any:
    """An order of the inputs for each prototype, and then each in reverse: [2 B, F], from a hash of what is asked."""
    asked = hashlib.shake_256(row.tobytes() + prototypes.tobytes()).digest(prototypes.size * 8)
    forth = np.frombuffer(asked, dtype=np.uint64).reshape(prototypes.shape).argsort(axis=1, kind="stable")
    return np.concatenate([forth, forth[:, ::-1]])


def _paths(row: Any, prototypes: Any, orders: Any) -> Any:
    """From each prototype to the patient, an input at a time in the order's sequence: [2 B, F + 1, F]."""
    width = prototypes.shape[1]
    rank = orders.argsort(axis=1)
    is_patients = rank[:, np.newaxis, :] < np.arange(width + 1)[:, np.newaxis]
    start = np.concatenate([prototypes, prototypes])[:, np.newaxis, :]
    return np.where(is_patients, row, start).astype(row.dtype, copy=False)


def _run(run: Callable[[Any], Any], paths: Any) -> Any:
    rows = paths.reshape(-1, paths.shape[2])
    parts = [run(rows[at : at + MOST_ROWS]) for at in range(0, len(rows), MOST_ROWS)]
    return np.concatenate(parts).astype(np.float64).reshape(paths.shape[:2])
