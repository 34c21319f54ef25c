"""Event numbers: a hole is seen and closed, order does not matter, and a count that goes down is doubted."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from sidecar.intake.numbers import MOST_AHEAD, Numbers

FRESH = Numbers(mark=0)


def told(numbers: Numbers, *each: int, at: float = 0.0) -> Numbers:
    for n in each:
        numbers = numbers.heard([n], max(n, numbers.told), at)
    return numbers


@given(st.integers(1, 60).flatmap(lambda n: st.permutations(range(1, n + 1))))
def test_whatever_the_order_nothing_is_missing_once_all_were_heard(order):
    after = told(FRESH, *order)
    assert (after.missing, after.mark, after.ahead) == (None, len(order), ())


@given(st.sets(st.integers(1, 60), min_size=1))
def test_exactly_what_was_not_heard_is_missing(heard):
    numbers, missing = told(FRESH, *sorted(heard)), set()
    while numbers.missing is not None:
        first, last = numbers.missing
        missing |= set(range(first, last + 1))
        numbers = numbers.heard(range(first, last + 1), None, 1.0)
    assert missing == set(range(1, max(heard) + 1)) - heard


@given(st.lists(st.integers(1, 40), min_size=1), st.randoms(use_true_random=False))
def test_repeats_change_nothing(heard, rng):
    once = told(FRESH, *heard)
    again = rng.choice(heard)
    repeated = once.heard([again], once.told, 9.0)
    assert (repeated.mark, repeated.ahead, repeated.told, repeated.doubt) == (once.mark, once.ahead, once.told, None)


@given(st.lists(st.integers(1, 40)), st.integers(0, 40))
def test_what_is_stored_is_what_is_read(heard, since):
    numbers = told(FRESH, *heard).heard([], since, 3.0)
    assert Numbers.from_json(orjson.loads(orjson.dumps(numbers.to_json()))) == numbers


def test_a_heartbeat_that_counts_further_tells_of_a_hole_at_the_end():
    after = told(FRESH, 1, 2).heard([], 4, 7.0)
    assert (after.missing, after.hole_at) == ((3, 4), 7.0)


def test_an_older_hole_keeps_its_age_and_a_new_one_begins_anew():
    first = FRESH.heard([2], 2, 1.0)
    assert first.heard([3], 3, 5.0).hole_at == 1.0
    assert first.heard([1], 2, 5.0).hole_at is None
    assert FRESH.heard([2, 4], 4, 1.0).heard([1], 4, 5.0).hole_at == 5.0


def test_a_late_notification_that_fills_a_hole_is_no_restart():
    after = FRESH.heard([1], 1, 0.0).heard([3], 3, 0.0).heard([2], 2, 0.0)
    assert (after.doubt, after.mark) == (None, 3)


def test_a_count_that_went_down_is_doubted_and_nothing_else_changes():
    before = told(FRESH, 1, 2, 3)
    for after in (before.heard([], 0, 1.0), before.heard([1], 1, 1.0)):
        assert after.doubt in {0, 1}
        assert (after.mark, after.told) == (3, 3)


def test_a_server_that_began_anew_is_followed_from_its_new_count():
    after = told(FRESH, 1, 2, 3).heard([], 0, 1.0).counted(0, 2.0)
    assert (after.mark, after.told, after.doubt, after.missing) == (0, 0, None, None)
    assert told(after, 1, 2).mark == 2


def test_a_doubt_that_the_server_does_not_share_is_dropped():
    after = told(FRESH, 1, 2, 3).heard([1], 1, 1.0).counted(5, 2.0)
    assert (after.doubt, after.mark, after.missing) == (None, 3, (4, 5))


def test_the_first_notification_of_an_adopted_subscription_sets_the_mark():
    after = Numbers().heard([17], 17, 0.0)
    assert (after.mark, after.missing) == (17, None)


def test_a_search_covers_every_event_up_to_the_count():
    after = FRESH.heard([], 6, 0.0, covered=True)
    assert (after.mark, after.missing) == (6, None)


def test_a_closed_hole_leaves_nothing_missing():
    after = FRESH.heard([9], 9, 0.0).closed()
    assert (after.mark, after.ahead, after.missing) == (9, (), None)


def test_what_is_kept_beyond_a_hole_is_bounded():
    numbers = FRESH
    for start in range(2, 3 * MOST_AHEAD, 500):
        numbers = numbers.heard(range(start, start + 500), start + 499, 0.0)
        assert len(numbers.ahead) <= MOST_AHEAD
    assert numbers.missing == (1, 1)
