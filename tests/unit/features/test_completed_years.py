"""Years by birthdays: the birthday itself counts, and nothing is guessed where the day is not known."""

import copy

import pytest

from tests.unit.equations import golden, of_bundle

BUNDLE = golden("cha2ds2_vasc-snomed.json")
"""A man with fibrillation, heart failure and an old infarction, looked at on 2 March 2026."""


def points(born):
    chart = copy.deepcopy(BUNDLE)
    next(e["resource"] for e in chart["entry"] if e["resource"]["resourceType"] == "Patient")["birthDate"] = born
    line = of_bundle("cha2ds2_vasc", chart)
    return line["contributions"].get("age"), line["reasons"]


@pytest.mark.parametrize(
    ("born", "expected"),
    [
        ("1961-03-03", 0), ("1961-03-02", 1), ("1951-03-03", 1), ("1951-03-02", 2), ("1930-01-01", 2),
        ("2008-03-02", 0), ("1955-06", 1),
    ],
)  # fmt: skip
def test_the_points_of_age_come_with_the_birthday(born, expected):
    assert points(born) == (expected, [])


def test_a_birth_date_without_its_day_gives_no_years_where_they_are_not_the_same_for_every_day():
    assert points("1961") == (None, ["imprecise:birth_date"])
    assert points("1961-03") == (None, ["imprecise:birth_date"])


def test_somebody_too_young_for_the_score_gets_none():
    assert points("2008-03-03") == (None, ["out_of_cohort:age"])
