"""Addresses: what of a place may stay. Pure. 45 CFR 164.514(b)(2)(i)(B) and (e)(2)(ii).

State and country are free text in FHIR, so only names of closed lists stay, as their codes.
"""

import re
from collections.abc import Mapping
from typing import Any

from sidecar.deid.policy import Policy

_STATES = """
AL Alabama|AK Alaska|AZ Arizona|AR Arkansas|CA California|CO Colorado|CT Connecticut|DE Delaware|
DC District of Columbia|FL Florida|GA Georgia|HI Hawaii|ID Idaho|IL Illinois|IN Indiana|IA Iowa|KS Kansas|KY Kentucky|
LA Louisiana|ME Maine|MD Maryland|MA Massachusetts|MI Michigan|MN Minnesota|MS Mississippi|MO Missouri|MT Montana|
NE Nebraska|NV Nevada|NH New Hampshire|NJ New Jersey|NM New Mexico|NY New York|NC North Carolina|ND North Dakota|
OH Ohio|OK Oklahoma|OR Oregon|PA Pennsylvania|RI Rhode Island|SC South Carolina|SD South Dakota|TN Tennessee|TX Texas|
UT Utah|VT Vermont|VA Virginia|WA Washington|WV West Virginia|WI Wisconsin|WY Wyoming|AS American Samoa|GU Guam|
MP Northern Mariana Islands|PR Puerto Rico|VI Virgin Islands
"""
_NAMED = dict(line.strip().split(" ", 1)[::-1] for line in _STATES.split("|"))
STATES = {written.casefold(): code for name, code in _NAMED.items() for written in (name, code)}
"""Two letters for each way to write a state or territory of the United States, in lower case."""
_US = {"us", "usa", "united states", "united states of america", "840"}
# ISO 3166-1 alpha-2. A name of a country in words is payload and goes.
_ISO = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC
CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD
GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH
KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW
MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC
SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY
UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
COUNTRIES = frozenset(_ISO.split())
_USES = {"home", "work", "temp", "old", "billing"}
_ZIP = re.compile(r"(\d{3})\d{2}(?:-\d{4})?", re.ASCII)
# At most three words: more of them are a sentence, or an address.
_WORD = r"[^\W\d_]+(?:['\-][^\W\d_]+)*"
_CITY = re.compile(rf"{_WORD}(?: {_WORD}){{0,2}}")
HIDDEN_ZIP = "000"


class Places:
    """Addresses by the policy: `exact` keeps city and five digits of a ZIP, for a limited data set."""

    def __init__(self, policy: Policy, *, exact: bool) -> None:
        self._shown = policy.populated_zip3 - policy.restricted_zip3
        self._exact = exact

    def address(self, value: object) -> dict[str, Any] | None:
        """State, country and part of the ZIP; None when none of it can stay.

        A `use` that is not of R4 says something that nobody can read ("old" is one of them): nothing stays.
        """
        if not isinstance(value, dict):
            return None
        use = value.get("use")
        if use is not None and not (isinstance(use, str) and use in _USES):
            return None
        country, state = _country(value.get("country")), _state(value)
        american = country == "US" or (value.get("country") is None and (state or value.get("state") is None))
        kept: dict[str, Any] = {}
        if self._exact and isinstance(city := value.get("city"), str) and len(city) <= 60 and _CITY.fullmatch(city):
            kept["city"] = city
        if american and state:
            kept["state"] = state
        if american and value.get("postalCode") is not None:
            kept["postalCode"] = self.zip(value["postalCode"])
        if country:
            kept["country"] = country
        return ({"use": use} if use else {}) | kept if kept else None

    def zip(self, value: object) -> str:
        """Three digits where more than 20,000 people live for certain, five in a limited data set; else 000."""
        found = _ZIP.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            return HIDDEN_ZIP
        if self._exact:
            return found[0][:5]
        return found[1] if found[1] in self._shown else HIDDEN_ZIP


def _country(value: object) -> str | None:
    written = value.strip() if isinstance(value, str) else ""
    if written.casefold() in _US:
        return "US"
    return written.upper() if written.upper() in COUNTRIES else None


def _state(address: Mapping[str, Any]) -> str | None:
    written = address.get("state")
    return STATES.get(written.strip().casefold()) if isinstance(written, str) else None
