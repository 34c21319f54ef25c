"""What a code of a known system looks like, so that a name, a date or a number of a record in its place is found. Pure.

Systems that R4 defines, and our own, are closed lists; SNOMED CT and LOINC have check digits; the others have a form,
and what is unknown of a system must at least look like nothing else. A number that happens to fit is still taken for a
code.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from importlib.resources import files

OWN = "urn:ehr-sidecar:code"
IsCode = Callable[[str], bool]

_SHORTEST, _LONGEST = 2, 20
_TELEPHONE_DIGITS = 7
_LARGEST_RXCUI = 2_999_999
_DEVICE_CODES = range(131_072, 589_824)
# Social security numbers, telephone numbers, dates, ZIPs and addresses of machines, as they are written.
_OTHER = re.compile(
    r"\d{3}-\d{2}-\d{4}|(?:1-)?\d{3}-\d{3}-\d{4}|\d{3}-\d{4}|\d{4}-\d\d(?:-\d\d)?|\d\d[-.]\d\d[-.]\d{2,4}"
    r"|(?:19|20)\d\d|\d{5}(?:-\d{4})?|\d{6}|(?:\d+\.){3}\d+",
    re.ASCII,
)
_PLAIN = re.compile(r"[A-Za-z0-9.\-]+", re.ASCII)
# Letters, and a number that is long enough to be one of a person.
_LABELLED = re.compile(r"\D*\d{7,}\D*", re.ASCII)
# A North American telephone number has the length of a drug code without its hyphens.
_TELEPHONE = re.compile(r"1[2-9]\d{9}", re.ASCII)

_ICD_10 = r"[A-Z]\d[0-9A-Z](?:\.?[0-9A-Z]{1,4})?"
_ATC = r"[A-Z](?:\d\d(?:[A-Z](?:[A-Z](?:\d\d)?)?)?)?"
_ICD_10_PCS = r"(?=.*\d)(?:0|(?=.*[A-Z])[1-9BCDFGHX])[0-9A-HJ-NP-Z]{6}"
_HCPCS = r"[A-V]\d{4}"
_FORMS = {
    "http://hl7.org/fhir/sid/cvx": r"\d{1,3}",
    "http://hl7.org/fhir/sid/icd-10": _ICD_10,
    "http://hl7.org/fhir/sid/icd-10-cm": _ICD_10,
    "http://hl7.org/fhir/sid/icd-10-pcs": _ICD_10_PCS,
    "http://www.cms.gov/Medicare/Coding/ICD10": f"{_ICD_10}|{_ICD_10_PCS}",
    "http://hl7.org/fhir/sid/icd-9-cm": r"(?:\d{3}|V\d\d|E\d{3})(?:\.\d{1,2})?|\d\d\.\d{1,2}",
    "http://id.who.int/icd/release/11/mms": r"[0-9A-X][A-HJ-NP-Z]\d[0-9A-Z](?:\.[0-9A-Z]{1,2})?",
    "http://fhir.de/CodeSystem/bfarm/icd-10-gm": r"[A-Z]\d\d(?:\.[0-9]{1,2})?",
    "http://fhir.de/CodeSystem/bfarm/ops": r"[1-9]-\d\d[0-9a-z](?:\.[0-9a-z]{1,2})?",
    "http://hl7.org/fhir/sid/icpc-2": r"[A-Z]\d\d",
    "http://www.ama-assn.org/go/cpt": r"\d{4}[0-9AFMTU]",
    "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets": _HCPCS,
    "https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets/Alpha-Numeric-HCPCS.html": _HCPCS,
    "http://terminology.hl7.org/CodeSystem/icd-o-3": r"C\d\d(?:\.\d)?|\d{4}/\d",
    "http://www.whocc.no/atc": _ATC,
    "http://fhir.de/CodeSystem/bfarm/atc": _ATC,
    "http://hl7.org/fhir/sid/ndc": r"\d{4,5}-\d{3,4}-\d{1,2}|\d{11}",
    "http://fdasis.nlm.nih.gov": r"(?=.*\d)(?=.*[A-Z])(?!.*\d{7})[0-9A-Z]{10}",
    "http://hl7.org/fhir/ndfrt": r"N0000\d{6}",  # with other digits first it may be a telephone number
    "http://www.nubc.org/patient-discharge": r"\d\d",
    "https://www.nubc.org/CodeSystem/PatDischargeStatus": r"\d\d",
}
_RACE = re.compile(r"[12]\d{3}-\d", re.ASCII)
_LOINC = re.compile(r"(?:\d{1,7}|L[AGLP]\d{1,7})-\d", re.ASCII)
# Issued with another check digit than the one it should have: the inhaled concentration of oxygen.
_AS_ISSUED = frozenset({"3150-6"})
# A concept of the international edition, or of an extension, which is named by seven of the digits.
_SNOMED = re.compile(r"[1-9]\d{2,14}00\d|[1-9]\d{7,14}10\d", re.ASCII)
_DIGITS = re.compile(r"[1-9]\d{0,8}", re.ASCII)
# https://confluence.ihtsdotools.org/display/DOCRELFMT/Appendix+B+-+Check-digit+Computation: multiplication and
# permutation of the dihedral group of ten.
_TIMES = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_TURNED = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)


@cache
def form_of(system: str, units: frozenset[str], own: frozenset[str]) -> IsCode:
    """Whether a text looks like a code of `system`; of UCUM, `units` are all there are, and of our system `own`."""
    if system == "http://unitsofmeasure.org":
        return units.__contains__
    if system == OWN:
        return own.__contains__
    if (listed := _defined().get(system)) is not None:
        return listed.__contains__
    if (known := _CHECKED.get(system)) is not None:
        return known
    if (form := _FORMS.get(system)) is not None:
        fits = re.compile(form, re.ASCII).fullmatch
        return lambda code: fits(code) is not None and _TELEPHONE.fullmatch(code) is None
    return looks_like_a_code


def looks_like_a_code(code: str) -> bool:
    """Whether `code` may be one of a system that nothing is known of: no word, and no number that people have."""
    return (
        _SHORTEST <= len(code) <= _LONGEST
        and _PLAIN.fullmatch(code) is not None
        and any(letter.isdigit() for letter in code)
        and _OTHER.fullmatch(code) is None
        and _LABELLED.fullmatch(code) is None
        and sum(letter.isdigit() for letter in code) <= _TELEPHONE_DIGITS + 1
    )


@lru_cache(maxsize=8192)
def is_snomed(code: str) -> bool:
    """Whether `code` is an identifier of a SNOMED CT concept: its partition and its Verhoeff check digit say so."""
    if _SNOMED.fullmatch(code) is None:
        return False
    check = "0"
    for place, digit in enumerate(reversed(code)):
        check = _TIMES[int(check)][int(_TURNED[place % 8][int(digit)])]
    return check == "0"


@lru_cache(maxsize=8192)
def is_loinc(code: str) -> bool:
    """Whether `code` is a LOINC number, of a term, a part or an answer, with its check digit."""
    return _LOINC.fullmatch(code) is not None and (_luhn(code) or code in _AS_ISSUED)


def _luhn(code: str) -> bool:
    """Modulus 10, where a letter counts by its place in ASCII after 0. https://loinc.org/kb/users-guide/."""
    body, _, check = code.rpartition("-")
    values = [ord(letter) - ord("0") for letter in reversed(body)]
    total = sum(2 * v - v // 5 * 9 if place % 2 == 0 else v for place, v in enumerate(values))
    return -total % 10 == int(check)


def _is_race(code: str) -> bool:
    return _RACE.fullmatch(code) is not None and _luhn(code)


def _is_rxnorm(code: str) -> bool:
    return _DIGITS.fullmatch(code) is not None and int(code) <= _LARGEST_RXCUI


def _is_device(code: str) -> bool:
    """Metrics and units of IEEE 11073, by their numbers."""
    return _DIGITS.fullmatch(code) is not None and int(code) in _DEVICE_CODES


_CHECKED: Mapping[str, IsCode] = {
    "http://loinc.org": is_loinc,
    "http://snomed.info/sct": is_snomed,
    "https://dmd.nhs.uk": is_snomed,
    "http://www.nlm.nih.gov/research/umls/rxnorm": _is_rxnorm,
    "urn:iso:std:iso:11073:10101": _is_device,
    "urn:oid:2.16.840.1.113883.6.24": _is_device,
    "urn:oid:2.16.840.1.113883.6.238": _is_race,
}


@cache
def _defined() -> Mapping[str, frozenset[str]]:
    """All codes of the systems that R4 defines, by system."""
    content = json.loads(files("sidecar.deid").joinpath("code_systems.json").read_bytes())
    return {system: frozenset(codes) for system, codes in content.items()}
