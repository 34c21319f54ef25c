"""Security labels: what a result inherits from what it rests on, and which inputs no rationale names. Pure.

The labels of a result go back into the chart they came from, so all are inherited; of confidentiality the highest
counts. Many charts have no labels, so lists of codes say the same, as far as lists can.
https://hl7.org/fhir/R4/security-labels.html
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from sidecar.deid.draft import pairs
from sidecar.deid.rules import Rules
from sidecar.deid.sensitive import Sensitive

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
# References, quantities, periods, identifiers, meta and narrative: no coding of a condition is in any of these types.
_NO_CODE = frozenset({
    "meta", "text", "identifier", "subject", "patient", "encounter", "performer", "recorder", "asserter", "requester",
    "valueQuantity", "valueRange", "valuePeriod", "effectivePeriod", "period", "device", "specimen", "basedOn",
})  # fmt: skip
_ASCENDING = "ULMNRV"


def inherited(resources: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The labels (`system|code`) of what rests on `resources`, in a fixed order, with the highest confidentiality."""
    return joined(_labels(resource) for resource in resources)


def joined(labels: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Several results' labels as one's."""
    found = {label for each in labels for label in each}
    degrees = {label for label in found if label.startswith(CONFIDENTIALITY + "|")}
    highest = max(degrees, key=lambda label: _ASCENDING.find(label[-1]), default=None)
    kept = sorted(found - degrees)
    return tuple([highest, *kept] if highest else kept)


def is_sensitive(resource: Mapping[str, Any], rules: Rules) -> bool:
    """Whether naming `resource` in a rationale would reveal a condition that the policy holds back.

    Every coding in it counts: one of several that mean the same, a category, a component, an answer, a reason.
    """
    meta = resource.get("meta")
    if isinstance(meta, dict) and "security" in meta and not rules.sensitive.labels.isdisjoint(_labels(resource)):
        return True
    return _holds_told(resource, rules.sensitive)


def _holds_told(resource: Mapping[str, Any], sensitive: Sensitive) -> bool:
    # A stack and no recursion: how deep a chart is nested is not ours to say.
    stack: list[Any] = [resource]
    while stack:
        for name, value in stack.pop().items():
            if type(value) is str or name in _NO_CODE:
                continue
            for each in value if type(value) is list else (value,):
                if type(each) is dict:
                    if _tells(each, sensitive):
                        return True
                    if "coding" not in each:
                        stack.append(each)
    return False


def _tells(said: dict[str, Any], sensitive: Sensitive) -> bool:
    """Whether a concept, or a coding by itself, is listed."""
    codings = said.get("coding", [said])
    for coding in codings if type(codings) is list else ():
        if type(coding) is dict:
            system, code = coding.get("system"), coding.get("code")
            if type(system) is str and type(code) is str and _is_listed(system, code, sensitive):
                return True
    return False


@lru_cache(maxsize=4096)
def _is_listed(system: str, code: str, sensitive: Sensitive) -> bool:
    return sensitive.lists(system, code)


def _labels(resource: Mapping[str, Any]) -> list[str]:
    meta = resource.get("meta")
    said = meta.get("security") if isinstance(meta, dict) else None
    if said is None:
        return []
    return [f"{s or ''}|{c}" for s, c in pairs({"coding": said}) if (s is None or _is_label(s)) and _is_label(c)]


def _is_label(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= 200 and "|" not in text and text.isprintable()
