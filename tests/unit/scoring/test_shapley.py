"""Shapley values by antithetic permutations: what they must sum to, and that they find what enumeration finds."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.scoring.shapley import shapley

SEED = 20261125


def curved(rows: Any) -> Any:
    """A probability with interactions: nothing that a sum of terms could say."""
    x = np.nan_to_num(rows.astype(np.float64), nan=0.5)
    return 1 / (1 + np.exp(-(x[:, 0] * x[:, 1] - np.abs(x[:, 2]) + 0.5 * x[:, 3] * x[:, 0] * x[:, 2])))


def enumerated(run: Any, row: Any, prototypes: Any) -> list[float]:
    """Every set of inputs, weighed as Shapley does."""
    width = len(row)

    def worth(chosen: tuple[int, ...]) -> float:
        rows = prototypes.copy()
        rows[:, list(chosen)] = row[list(chosen)]
        return float(run(rows).mean())

    found = []
    for one in range(width):
        others = [f for f in range(width) if f != one]
        found.append(
            sum(
                math.factorial(size) * math.factorial(width - size - 1) / math.factorial(width)
                * (worth((*chosen, one)) - worth(chosen))
                for size in range(width)
                for chosen in itertools.combinations(others, size)
            )
        )  # fmt: skip
    return found


def some(count: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(SEED)
    return rng.normal(size=4).astype(np.float32), rng.normal(size=(count, 4)).astype(np.float32)


numbers = st.floats(-5, 5, width=32) | st.just(math.nan)


@given(st.lists(numbers, min_size=4, max_size=4), st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=1))
def test_values_sum_to_the_difference_from_the_prototypes_mean(patient: list[float], others: list[list[float]]) -> None:
    row, prototypes = np.array(patient, np.float32), np.array(others, np.float32)

    found = shapley(curved, row, prototypes)

    assert found.probability == pytest.approx(float(curved(row[None])[0]), abs=1e-12)
    assert found.baseline == pytest.approx(float(curved(prototypes).mean()), abs=1e-12)
    assert found.values.sum() + found.baseline == pytest.approx(found.probability, abs=1e-12)
    assert abs(found.residual) < 1e-12


def test_many_prototypes_find_what_enumeration_finds_within_four_standard_errors() -> None:
    row, prototypes = some(800)

    found = shapley(curved, row, prototypes)

    exact = enumerated(curved, row, prototypes)
    assert np.all(np.abs(found.values - exact) < 4 * found.errors + 1e-9), SEED
    assert np.max(found.errors) < 0.02


def test_an_input_that_changes_nothing_is_credited_with_nothing() -> None:
    row, prototypes = some(50)
    row[3] = 0

    found = shapley(lambda rows: curved(rows * np.array([1, 1, 1, 0], np.float32)), row, prototypes)

    assert found.values[3] == 0
    assert found.errors[3] == 0


def test_the_same_patient_is_explained_by_the_same_numbers_and_another_by_other_orders() -> None:
    row, prototypes = some(50)

    first, again = shapley(curved, row, prototypes), shapley(curved, row.copy(), prototypes.copy())

    assert first.values.tolist() == again.values.tolist()
    assert first.errors.tolist() == again.errors.tolist()


def test_more_rows_than_a_run_takes_are_run_in_parts_with_the_same_result() -> None:
    row, prototypes = some(600)  # 600 x 2 x 5 rows
    sizes = []

    def counted(rows: Any) -> Any:
        sizes.append(len(rows))
        return curved(rows)

    found = shapley(counted, row, prototypes)

    assert sizes == [4096, 1904]
    assert abs(found.residual) < 1e-12
