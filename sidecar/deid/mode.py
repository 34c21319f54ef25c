"""How much of times, ages and places may cross. Pure."""

from enum import StrEnum


class Mode(StrEnum):
    """What a site's privacy officer decided. Rules and measurements; none of them is a legal determination.

    `SAFE_HARBOR_RULES` follows 45 CFR 164.514(b)(2): random tokens, years, ages of 90 and more as one.
    `KEYED_PSEUDONYMS` keeps intervals and ages exact under keyed tokens; de-identified under HIPAA only by an expert's
    determination (164.514(b)(1)). `LIMITED_DATA_SET` keeps dates and towns (164.514(e)): still protected health
    information. Under the GDPR all three are pseudonymised personal data (Art. 4(5)).
    https://www.ecfr.gov/current/title-45/section-164.514
    """

    SAFE_HARBOR_RULES = "safe_harbor_rules"
    KEYED_PSEUDONYMS = "keyed_pseudonyms"
    LIMITED_DATA_SET = "limited_data_set"
