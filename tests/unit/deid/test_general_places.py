"""Places: states and three digits where many live; cities and five digits only in a limited data set."""

import pytest

from sidecar.deid.general import Mode
from tests.unit.deid.general import engine, policy

# 45 CFR 164.514(b)(2)(i)(B): by the census of 2000, and by those of 2010 and 2020.
RESTRICTED = set(
    "036 059 063 102 202 203 204 205 369 556 692 753 772 790 821 823 830 831 878 879 884 890 893".split()  # noqa: SIM905
)
ENGINES = {mode: engine(mode) for mode in Mode}
HOME = {
    "use": "home",
    "line": ["1 Elm St"],
    "city": "Amherst",
    "district": "Hampshire",
    "state": "Massachusetts",
    "postalCode": "01002-1234",
    "country": "US",
}


def place(mode=Mode.SAFE_HARBOR_RULES, **address):
    out = ENGINES[mode].resource({"resourceType": "Patient", "id": "p", "address": [address]})
    return out.get("address", [None])[0]


@pytest.mark.parametrize("mode", [Mode.SAFE_HARBOR_RULES, Mode.KEYED_PSEUDONYMS])
def test_of_all_thousand_initial_digits_only_populous_and_populated_ones_show(mode):
    shown = set()
    for number in range(1_000):
        three = f"{number:03}"
        found = place(mode, postalCode=f"{three}45", country="US")["postalCode"]
        assert found in (three, "000")
        if found != "000":
            shown.add(three)
    assert shown == policy().populated_zip3 - RESTRICTED
    assert not shown & RESTRICTED
    assert 800 < len(shown) < 900


def test_in_a_limited_data_set_all_five_digits_and_the_city_stay():
    assert place(Mode.LIMITED_DATA_SET, **HOME) == {
        "use": "home", "city": "Amherst", "state": "MA", "postalCode": "01002", "country": "US",
    }  # fmt: skip
    for number in range(1_000):
        assert place(Mode.LIMITED_DATA_SET, postalCode=f"{number:03}45")["postalCode"] == f"{number:03}45"


def test_of_an_address_the_state_the_country_and_three_digits_stay():
    assert place(**HOME) == {"use": "home", "state": "MA", "postalCode": "010", "country": "US"}


@pytest.mark.parametrize(
    "code",
    ["1002", "010023", "01002-12", "O1002", "SW1A 1AA", "0100²", "٠١٠٠٢", "01002\n", " 01002", "", 1002, ["01002"]],
)
def test_a_postal_code_that_is_none_shows_nothing(code):
    assert place(postalCode=code, country="US")["postalCode"] == "000"


@pytest.mark.parametrize("country", ["DE", "GB", "Germany", "Mr Smith", 1])
def test_a_postal_code_of_another_country_does_not_cross(country):
    kept = place(postalCode="10115", country=country, state="MA", city="Berlin") or {}
    assert set(kept) <= {"country"}


@pytest.mark.parametrize(
    ("state", "kept"),
    [("MA", "MA"), ("massachusetts", "MA"), ("Puerto Rico", "PR"), ("Bavaria", None), ("Mr Smith", None), (5, None)],
)
def test_a_state_is_one_of_a_closed_list(state, kept):
    assert (place(state=state, country="US") or {}).get("state") == kept


def test_where_the_state_is_of_no_known_country_the_postal_code_may_be_of_another():
    assert place(state="Bavaria", postalCode="80331") is None
    assert place(postalCode="80331")["postalCode"] == "803"


def test_an_address_whose_use_is_not_understood_is_dropped():
    """ "old" turns a home into a former one; what another word does, nobody knows."""
    assert place(**{**HOME, "use": "old"})["use"] == "old"
    assert place(**{**HOME, "use": "haunted"}) is None


@pytest.mark.parametrize(
    "city",
    [
        "Amherst 12",
        "1 Elm St, Amherst",
        "<b>",
        "x" * 61,
        "Amherst\nSmith",
        5,
        "home of Mary Smith",
        "c/o Smith",
        "St. Louis",
        "Amherst  Smith",
        " Amherst",
        "Amherst-",
        "",
        "a@b",
    ],
)
def test_a_city_with_something_else_in_it_does_not_cross(city):
    assert "city" not in place(Mode.LIMITED_DATA_SET, city=city, state="MA")


@pytest.mark.parametrize(
    "city", ["Amherst", "New York City", "L'Aquila", "Stratford-upon-Avon", "Coeur d'Alene", "Málaga", "x" * 60]
)
def test_a_city_of_at_most_three_words_crosses_in_a_limited_data_set(city):
    assert place(Mode.LIMITED_DATA_SET, city=city, state="MA")["city"] == city
    assert "city" not in place(Mode.KEYED_PSEUDONYMS, city=city, state="MA")
