"""SMART system scopes, as the practice EHR reads and enforces them: v1 `.read`/`.write`, v2 `.cruds`.

Pure. Scopes for a part of a type (`?category=…`) are not known here and grant nothing.
https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html
"""

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

Permissions: TypeAlias = Mapping[str, frozenset[str]]
"""Letters of `cruds` by resource type; `*` is every type."""

_WORDS = {"read": frozenset("rs"), "write": frozenset("cud"), "*": frozenset("cruds")}
_V1 = re.compile(r"system/(\*|[A-Z][A-Za-z]+)\.(read|write|\*)")
_V2 = re.compile(r"system/(\*|[A-Z][A-Za-z]+)\.(?=[cruds])(c?r?u?d?s?)")
_LETTERS = {"GET": "r", "PUT": "u", "PATCH": "u", "DELETE": "d", "POST": "c"}


def parse(scope: str, *, v1_only: bool = False) -> Permissions:
    """What a scope parameter asks for or allows; scopes that are not understood are passed over."""
    found: dict[str, frozenset[str]] = {}
    for each in scope.split():
        if match := _V1.fullmatch(each):
            letters = _WORDS[match[2]]
        elif (match := _V2.fullmatch(each)) and not v1_only:
            letters = frozenset(match[2])
        else:
            continue
        found[match[1]] = found.get(match[1], frozenset()) | letters
    return found


def both(asked: Permissions, allowed: Permissions) -> Permissions:
    """What is asked for and allowed."""
    everywhere, wanted = allowed.get("*", frozenset()), asked.get("*", frozenset())
    found = {}
    for name in {*asked, *(allowed if wanted else ())}:
        letters = (asked.get(name, frozenset()) | wanted) & (allowed.get(name, frozenset()) | everywhere)
        if letters:
            found[name] = letters
    return found


def text(permissions: Permissions, *, v1: bool = False) -> str:
    """Render as a scope parameter."""
    return " ".join(
        f"system/{name}.{word}" for name in sorted(permissions) for word in _words(permissions[name], v1=v1)
    )


def _words(letters: frozenset[str], *, v1: bool) -> Iterable[str]:
    if v1:
        return [word for word in ("read", "write") if _WORDS[word] <= letters]
    return ["".join(letter for letter in "cruds" if letter in letters)]


def required(method: str, path: str) -> tuple[str, str]:
    """Return the type and the letter that a request below the base needs; a Bundle needs them all, on every type."""
    steps = [step for step in path.split("/") if step]
    if not steps:
        return "*", "cruds"
    if steps[-1].startswith("$"):
        return steps[0], "r"
    if steps[-1] == "_search" or (method == "GET" and (len(steps) == 1 or steps[1] == "_history")):
        return steps[0], "s"
    return steps[0], _LETTERS.get(method, "r")


def allow(granted: Permissions, type_name: str, letters: str) -> bool:
    """Tell whether `letters` on a type are granted."""
    return set(letters) <= granted.get(type_name, frozenset()) | granted.get("*", frozenset())
