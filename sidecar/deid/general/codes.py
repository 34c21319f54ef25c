"""Codes, not prose: codings of known systems whose codes are that system's, or look like it; no display, text, version.

Pure. https://hl7.org/fhir/R4/datatypes.html#CodeableConcept
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sidecar.deid.forms import form_of
from sidecar.deid.policy import Policy

# Off the scale of the device, in whatever system: dropping it would turn a limit into a measurement.
_LIMITS = {"<", ">"}
# What an interpretation in words may say and leave the number beside it a measurement.
_PLAIN = {
    "", "a", "aa", "h", "hh", "hu", "l", "ll", "lu", "n", "high", "low", "normal", "abnormal", "critical",
    "critical high", "critical low", "critically high", "critically low", "critical abnormal",
    "critically abnormal", "significantly high", "significantly low", "very high", "very low", "elevated",
    "increased", "decreased", "within normal limits", "within normal range", "wnl", "above normal", "below normal",
    "high normal", "low normal", "in range", "hoch", "niedrig", "erhöht", "erniedrigt", "normwertig", "auffällig",
    "unauffällig", "élevé", "bas", "anormal", "alto", "bajo", "basso", "normale", "laag", "hoog",
}  # fmt: skip
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"

# Concepts that R4 lets be of one system only: the same word in another says another thing.
_STATED = "http://terminology.hl7.org/CodeSystem/"
REQUIRED = {
    "Condition.clinicalStatus": f"{_STATED}condition-clinical",
    "Condition.verificationStatus": f"{_STATED}condition-ver-status",
    "AllergyIntolerance.clinicalStatus": f"{_STATED}allergyintolerance-clinical",
    "AllergyIntolerance.verificationStatus": f"{_STATED}allergyintolerance-verification",
}
_OMB_SYSTEM = "urn:oid:2.16.840.1.113883.6.238"
_NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
_OMB = {
    *((_OMB_SYSTEM, c) for c in ("1002-5", "2028-9", "2054-5", "2076-8", "2106-3", "2131-1", "2135-2", "2186-5")),
    (_NULL_FLAVOR, "UNK"),
    (_NULL_FLAVOR, "ASKU"),
}
_BIRTH_SEXES = {"M", "F", "UNK"}
Concept = dict[str, Any]


def coding_of(policy: Policy) -> Callable[[object], Concept | None]:
    """The reader of one Coding: system and code, or nothing."""
    systems = {system: form_of(system, policy.units, policy.own_codes) for system in policy.systems}

    def coding(value: object) -> Concept | None:
        if not isinstance(value, dict):
            return None
        system, code = value.get("system"), value.get("code")
        if not isinstance(system, str) or not isinstance(code, str):
            return None
        looks_right = systems.get(system)
        return {"system": system, "code": code} if looks_right is not None and looks_right(code) else None

    return coding


def concept_of(policy: Policy, only: str | None = None) -> Callable[[object], Concept | None]:
    """The reader of one CodeableConcept: its codings that may stay, or nothing. `only`: those of one system."""
    coding = coding_of(policy if only is None else replace(policy, systems=frozenset({only})))

    def concept(value: object) -> Concept | None:
        listed = value.get("coding") if isinstance(value, dict) else None
        if not isinstance(listed, list):
            return None
        kept = [k for each in listed if (k := coding(each)) is not None]
        return {"coding": kept} if kept else None

    return concept


def interpretation_of(policy: Policy) -> Callable[[object], Concept | None]:
    """The same for an interpretation, where "<" and ">" stay whoever's code they are, or as the whole of its text."""
    coding = coding_of(policy)

    def concept(value: object) -> Concept | None:
        listed = value.get("coding") if isinstance(value, dict) else None
        kept = []
        for each in listed if isinstance(listed, list) else ():
            code = each.get("code") if isinstance(each, dict) else None
            limit = {"system": INTERPRETATION, "code": code} if isinstance(code, str) and code in _LIMITS else None
            if (found := limit or coding(each)) is not None:
                kept.append(found)
        said = (word.strip() for word in _words(value))
        more = [{"system": INTERPRETATION, "code": code} for code in dict.fromkeys(said) if code in _LIMITS]
        kept += [each for each in more if each not in kept]
        return {"coding": kept} if kept else None

    return concept


def is_plain(interpretation: object) -> bool:
    """Whether all that an interpretation says in words is high, low or normal; so says one without a word."""
    return all(" ".join(word.casefold().split()) in _PLAIN for word in _words(interpretation))


def _words(concept: object) -> list[str]:
    """The text of a concept, and what its codings show."""
    if not isinstance(concept, dict):
        return []
    listed = concept.get("coding")
    shown = [each.get("display") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return [word for word in (concept.get("text"), *shown) if isinstance(word, str)]


def absence_of(policy: Policy) -> Callable[[object], Concept | None]:
    """The same for why a value is absent: without a code that may stay it is absent all the same."""
    concept = concept_of(policy)

    def absence(value: object) -> Concept:
        return concept(value) or {"coding": [{"system": ABSENT, "code": "unknown"}]}

    return absence


def labels_of(policy: Policy) -> Callable[[object], Concept | None]:
    """The reader of `meta`: its security labels that the policy lists, by code."""
    labels = policy.labels

    def meta(value: object) -> Concept | None:
        said = value.get("security") if isinstance(value, dict) else None
        kept = []
        for each in said if isinstance(said, list) else ():
            system, code = (each.get("system"), each.get("code")) if isinstance(each, dict) else (None, None)
            if isinstance(system, str) and isinstance(code, str) and f"{system}|{code}" in labels:
                kept.append({"system": system, "code": code})
        return {"security": kept} if kept else None

    return meta


def extension_of(policy: Policy) -> Callable[[object], Concept | None]:
    """The reader of one extension of a resource: of those that the policy names, by closed lists of codes."""
    readers: Mapping[str, Callable[[Concept], Concept | None]] = {"omb": _omb, "code": _birth_sex}
    named = {url: readers[how] for url, how in policy.extensions.items()}

    def extension(value: object) -> Concept | None:
        url = value.get("url") if isinstance(value, dict) else None
        read = named.get(url) if isinstance(url, str) else None
        content = read(value) if read is not None and isinstance(value, dict) else None
        return {"url": url, **content} if content is not None else None

    return extension


def _omb(extension: Concept) -> Concept | None:
    """The categories of the US census; detailed ones are small groups, and the text is text."""
    parts = extension.get("extension")
    kept = []
    for part in parts if isinstance(parts, list) else ():
        coding = part.get("valueCoding") if isinstance(part, dict) and part.get("url") == "ombCategory" else None
        if isinstance(coding, dict) and isinstance(code := coding.get("code"), str):
            system = coding.get("system")
            if isinstance(system, str) and (system, code) in _OMB:
                kept.append({"url": "ombCategory", "valueCoding": {"system": system, "code": code}})
    return {"extension": kept} if kept else None


def _birth_sex(extension: Concept) -> Concept | None:
    code = extension.get("valueCode")
    return {"valueCode": code} if isinstance(code, str) and code in _BIRTH_SEXES else None
