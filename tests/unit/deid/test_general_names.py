"""Pseudonyms and shifts: one for each, without pattern, and nothing without the key."""

import re
from collections import Counter
from datetime import timedelta

import pytest

from sidecar.deid.general import Engine, KeyedNames, Mode, VaultNames
from sidecar.errors import Misconfigured
from tests.unit.deid.general import KEY, TODAY, Drawer, policy, say

PATIENTS = 36_500


def both():
    return KeyedNames(KEY), VaultNames(Drawer())


def test_a_token_is_128_bits_and_the_same_whenever_it_is_asked_for():
    for names in both():
        token = names.token("Patient", "p1")
        assert re.fullmatch("[0-9a-f]{32}", token)
        assert token == names.token("Patient", "p1")
        assert token != names.token("Patient", "p2")
        assert token != names.token("Encounter", "p1")


def test_a_hundred_thousand_ids_have_a_hundred_thousand_tokens():
    for names in both():
        tokens = {names.token("Patient", str(n)) for n in range(50_000)} | {
            names.token("Encounter", str(n)) for n in range(50_000)
        }
        assert len(tokens) == 100_000


def test_another_key_gives_other_tokens_and_other_shifts():
    one, other = KeyedNames(KEY), KeyedNames(KEY[::-1])
    same = [n for n in range(2_000) if one.token("Patient", str(n)) == other.token("Patient", str(n))]
    assert not same
    # 1 in 730 agree by chance; 20 of 2,000 would be seven times that.
    assert sum(one.shift(str(n)) == other.shift(str(n)) for n in range(2_000)) < 20


def test_a_vault_finds_its_names_again_and_another_vault_has_others():
    drawer = Drawer()
    first = VaultNames(drawer)
    token, shift = first.token("Patient", "p1"), first.shift("p1")
    again = VaultNames(drawer)
    assert (again.token("Patient", "p1"), again.shift("p1")) == (token, shift)
    assert VaultNames(Drawer()).token("Patient", "p1") != token


def test_a_shift_is_whole_days_never_none_and_at_most_a_year():
    for names in both():
        shifts = [names.shift(str(n)) for n in range(5_000)]
        assert all(s == timedelta(days=s.days) and 1 <= abs(s.days) <= 365 for s in shifts)
        assert names.shift("7") == shifts[7]


def test_shifts_are_uniform_over_a_year_either_way():
    """Chi-square with 729 degrees of freedom: 50 expected a day; above 841 at p = 0.0025, below 612 at p = 0.001."""
    for names in both():
        counts = Counter(names.shift(str(n)).days for n in range(PATIENTS))
        assert set(counts) == {d for d in range(-365, 366) if d}
        expected = PATIENTS / 730
        chi_square = sum((found - expected) ** 2 / expected for found in counts.values())
        say(f"{type(names).__name__}: chi-square {chi_square:.0f} with 729 degrees of freedom")
        assert 580 < chi_square < 880


@pytest.mark.parametrize("key", [b"", b"k" * 31])
def test_a_short_key_is_refused(key):
    with pytest.raises(Misconfigured, match="32 random bytes"):
        KeyedNames(key)


def test_safe_harbor_takes_no_names_that_are_derived_from_a_key():
    with pytest.raises(Misconfigured, match="random tokens"):
        Engine(policy(), Mode.SAFE_HARBOR_RULES, KeyedNames(KEY), TODAY)


def weak_shift(resource_id, key):
    """The shift of a well-known tool: a polynomial hash of id and key, modulo 101, less 50 days."""
    return polynomial(resource_id + key, 101) - 50


def polynomial(text, modulus):
    value = 0
    for letter in text:
        value = (value * 131 + ord(letter)) % modulus
    return value


def explaining(known, space):
    """By brute force: all polynomial shifts over `space` days, whatever the key, that explain the known ones.

    The key's length is a factor and the key itself a summand, so a candidate is two numbers.
    """
    hashed = {i: polynomial(i, space) for i in known}
    return [
        (factor, summand)
        for factor in range(space)
        for summand in range(space)
        if all((hashed[i] * factor + summand) % space - space // 2 == offset for i, offset in known.items())
    ]


def test_three_known_shifts_tell_nothing_of_the_others_and_do_of_a_weak_shift():
    """The published attack. The reproduction of the weak shift gives everybody away; ours gives nobody."""
    assert weak_shift("example", "123") == 41  # as the tool's own test data has it
    ids = [f"patient-{n * 7919 % 100_003}" for n in range(2_000)]

    def recovered(real, space):
        """How many of the others each candidate gets right."""
        candidates = explaining({i: real[i] for i in ids[:3]}, space)
        guess = lambda i, f, s: (polynomial(i, space) * f + s) % space - space // 2  # noqa: E731
        return [sum(guess(i, *candidate) == real[i] for i in ids[3:]) for candidate in candidates]

    weak = recovered({i: weak_shift(i, "a secret key") for i in ids}, 101)
    names = KeyedNames(KEY)
    ours = {i: names.shift(i).days for i in ids}
    best = max([*recovered(ours, 101), *recovered(ours, 731)], default=0)
    say(f"weak shift: {len(weak)} candidate, {max(weak)} of 1,997 recovered; ours: {best} of 1,997")
    assert weak == [1_997]
    # One in 730 is right by chance: 2.7 of them.
    assert best < 20


def test_the_direction_of_one_patients_shift_tells_nothing_of_the_next_ones():
    names = KeyedNames(KEY)
    seen = Counter((names.shift(f"a{n}").days > 0, names.shift(f"b{n}").days > 0) for n in range(20_000))
    assert all(4_700 < count < 5_300 for count in seen.values())
