"""What of a value may be computed with: a number and its unit, and what makes of a number a mere limit. Pure."""

from collections.abc import Mapping
from typing import Any

from sidecar.deid.draft import Draft, pairs
from sidecar.deid.rules import Rule, Rules

UCUM = "http://unitsofmeasure.org"
LARGEST = 1e15
"""No measurement of a patient; also shuts out infinity, NaN and integers too long for a float."""
# Off the scale of the device: the number beside it is a limit. http://hl7.org/fhir/R4/valueset-observation-interpretation.html
_LIMITS = {"<", ">"}
# An interpretation in words that say where a number lies, and nothing of its being a limit.
_PLAIN = {
    "h", "hh", "hu", "l", "ll", "lu", "n", "a", "aa", "high", "low", "normal", "abnormal", "critical", "critical high",
    "critical low", "critically high", "critically low", "very high", "very low", "within normal limits", "wnl",
}  # fmt: skip


def quantity(draft: Draft, value: Any, _: Rule) -> None:
    """A number with its unit; beside a comparator it is a limit."""
    if not isinstance(value, dict):
        draft.trouble = draft.trouble or "shape"
        return
    if is_compared(value):
        draft.trouble = draft.trouble or "comparator"
    written = value.get("value")
    if written is None:
        return
    _take_number(draft, written)
    draft.unit = _unit(value, draft.view.rules)


def is_compared(value: Mapping[str, Any]) -> bool:
    """Whether the number of a Quantity is only a limit, or may be one."""
    return value.get("comparator") is not None or value.get("_comparator") is not None


def number(draft: Draft, value: Any, _: Rule) -> None:
    """A bare number is a count."""
    _take_number(draft, value)
    draft.unit = "{count}"


def limit(draft: Draft, value: Any, _: Rule) -> None:
    """An interpretation that makes of the number a limit."""
    if says_limit(value):
        draft.trouble = draft.trouble or "comparator"


def says_limit(interpretations: Any) -> bool:
    """Whether one of them says, or in words that nobody reads may say, that the number is a limit."""
    return any(_is_limit(each) for each in interpretations) if isinstance(interpretations, list) else False


def _is_limit(concept: object) -> bool:
    codes = [code for _system, code in pairs(concept) if isinstance(code, str)]
    if codes or not isinstance(concept, dict):
        return not _LIMITS.isdisjoint(codes)
    listed = concept.get("coding")
    shown = [c.get("display") for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    words = [" ".join(w.casefold().split()) for w in (concept.get("text"), *shown) if isinstance(w, str)]
    return any(word and word not in _PLAIN for word in words)


def _unit(written: Mapping[str, Any], rules: Rules) -> str | None:
    """The UCUM code, from a closed list: a code may carry text in braces, and some EHRs fill only `unit`."""
    unit = written.get("code") if written.get("system") == UCUM else written.get("unit")
    if unit is None:
        return None
    return unit if isinstance(unit, str) and unit in rules.units else "unknown"


def _take_number(draft: Draft, written: object) -> None:
    if isinstance(written, int | float) and not isinstance(written, bool) and abs(written) < LARGEST:
        draft.value = float(written)
    else:
        draft.trouble = draft.trouble or "shape"
