"""The values that FHIRPath finds in a statement, held to the rules that any other value is held to. Pure.

An expression may go anywhere in a resource, so a modifier anywhere in it counts, and so does what says that a number is
only a limit, is absent, or is an age that may not cross.
"""

from collections.abc import Mapping
from typing import Any

from sidecar.deid import statements
from sidecar.deid.ages import CAPPED, tells_by_path
from sidecar.deid.draft import Draft
from sidecar.deid.modifiers import is_modified
from sidecar.deid.paths import Odd, compiled
from sidecar.deid.rules import Rule
from sidecar.deid.values import quantity
from sidecar.manifest import ANY, PathRead, Wanted
from sidecar.records import Fact

# Troubles of the whole statement; any other concerns one value, and a panel's own value says nothing of its components.
WHOLE = {"modifier", "status"}
_NO_RULE = Rule("quantity")


def by_path(index: int, resource: Mapping[str, Any], draft: Draft) -> tuple[Fact, ...]:
    """A fact for each expression, by the code that stands for it."""
    wanted = draft.wanted
    if type(wanted) is not Wanted or not wanted.paths:
        return ()
    kind, found = str(resource.get("resourceType")), []
    modified = is_modified(resource)
    for path in wanted.paths:
        if (ANY not in path.of or draft.by_name) and path.of.isdisjoint(draft.codes):
            continue
        part = Draft(draft.view, codes=(path.key,), trouble="modifier" if modified else None)
        _read(part, resource, path, draft)
        found.append(
            Fact(
                index, kind, part.codes, draft.seconds, part.value, part.unit, (), part.trouble, draft.recorded,
                draft.began, draft.confirmed, statements.ended(draft), draft.days, draft.over, draft.of_stay,
            )
        )  # fmt: skip
    return tuple(found)


def _read(part: Draft, resource: Mapping[str, Any], path: PathRead, whole: Draft) -> None:
    try:
        expression = compiled(part.view.rules, str(resource.get("resourceType")), path.expression)
        part.trouble = part.trouble or _of_whole(whole, resource, expression.names)
        value = None if part.trouble == CAPPED else expression.of(resource)
    except Odd as odd:
        part.trouble = part.trouble or odd.reason
        return
    except ValueError:
        part.trouble = part.trouble or "shape"
        return
    if expression.quantity and value is not None:
        quantity(part, value, _NO_RULE)
    elif value is not None:
        part.value, part.unit = float(value), "{count}"


def _of_whole(whole: Draft, resource: Mapping[str, Any], names: frozenset[str]) -> str | None:
    """The trouble of the statement that is also one of what an expression over elements of these names finds."""
    if whole.trouble in WHOLE:
        return whole.trouble
    if whole.trouble == "comparator" and "value" in names:
        return whole.trouble
    return CAPPED if tells_by_path(whole, resource, names) else None
