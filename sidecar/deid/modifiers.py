"""What says that a statement means something else than it seems to. Pure.

https://hl7.org/fhir/R4/conformance-rules.html#isModifier
"""

from collections.abc import Mapping
from typing import Any

from sidecar.deid.draft import Draft
from sidecar.deid.rules import MEANT, Rule

_DEEPEST = 20


def is_modified(value: Mapping[str, Any], depth: int = 0) -> bool:
    """Whether anything in an element says that it means something else than it seems to.

    R4 has modifiers in some elements only, but whoever writes one in another means it no less. Deeper than any element
    of R4 goes, nobody knows what is meant.
    """
    if value.get("modifierExtension") is not None or depth > _DEEPEST:
        return True
    for each in value.values():
        kind = type(each)
        if kind is dict:
            if is_modified(each, depth + 1):
                return True
        elif kind is list:
            for one in each:
                if type(one) is dict and is_modified(one, depth + 1):
                    return True
    return False


def silent(draft: Draft, table: Mapping[str, Rule], resource: Mapping[str, Any]) -> None:
    """What has an extension in the place of its value: a death at an unknown time is a death, a status is unknown."""
    for name, rule in table.items():
        if rule.do in MEANT and resource.get(name) is None and resource.get(f"_{name}") is not None:
            if rule.do == "deceased":
                draft.deceased = True
            else:
                draft.trouble = draft.trouble or "modifier"
