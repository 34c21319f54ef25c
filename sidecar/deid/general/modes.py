"""The three ways to de-identify. What each is and is not: `DECISIONS.md`. Pure."""

from enum import StrEnum


class Mode(StrEnum):
    """What becomes of dates, ages and places. Names, identifiers, text and unknown elements go in each of them."""

    SAFE_HARBOR_RULES = "safe_harbor_rules"
    """Years, ages up to 89, states and three digits of a ZIP, after the list of 45 CFR 164.514(b)(2)."""
    KEYED_PSEUDONYMS = "keyed_pseudonyms"
    """All dates of a patient moved by the same secret number of days; places as above."""
    LIMITED_DATA_SET = "limited_data_set"
    """Dates, cities and five digits of a ZIP stay, after 45 CFR 164.514(e). Still protected health information."""
