"""The statistics of the benchmarks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.ratios import alone, percentile, ratio

FIGURES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=20)


def test_a_ratio_is_of_each_round_and_not_of_the_medians():
    # The machine was ten times slower in the last two rounds. The medians' quotient would be 10.
    found = ratio([2.0, 20.0, 20.0], [1.0, 2.0, 40.0])

    assert (found.rounds, found.median, found.low, found.high) == ((2.0, 10.0, 0.5), 2.0, 0.5, 10.0)


def test_the_words_show_the_median_and_the_range():
    assert ratio([3.0, 4.0, 5.0], [2.0, 2.0, 2.0]).words == "2.00 (1.50 to 2.50)"


@given(FIGURES)
def test_a_side_compared_with_itself_is_one(figures: list[float]):
    found = ratio(figures, figures)

    assert (found.low, found.median, found.high) == (1.0, 1.0, 1.0)


@given(FIGURES)
def test_the_median_lies_in_the_range(figures: list[float]):
    found = alone(figures)

    assert found.low <= found.median <= found.high


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0])])
def test_rounds_that_do_not_belong_together_are_no_ratio(ours: list[float], theirs: list[float]):
    with pytest.raises(ValueError, match="each round"):
        ratio(ours, theirs)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_value_that_was_seen(share: float, expected: int):
    assert percentile(list(range(100, 0, -1)), share) == expected


@given(FIGURES, st.floats(0.01, 1.0))
def test_no_more_than_the_rest_pass_a_percentile(figures: list[float], share: float):
    limit = percentile(figures, share)

    assert limit in figures
    assert sum(f <= limit for f in figures) >= share * len(figures) - 1e-9


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_nothing_has_no_percentile(values: list[float], share: float):
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)
