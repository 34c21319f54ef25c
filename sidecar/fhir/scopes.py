"""What we may do in the EHR: the scopes we need, the scopes we got, and what does not work without the rest. Pure.

Letters are SMART v2's: create, read, update, delete, search, in that order. We delete nothing.
https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sidecar.manifest import Manifest

Permissions = Mapping[str, frozenset[str]]
"""Letters by resource type; `*` is every type."""

_V1 = {"read": "rs", "write": "cud", "*": "cruds"}
_SCOPE = re.compile(r"system/(?P<type>\*|[A-Z][A-Za-z]{1,63})\.(?P<may>read|write|\*|c?r?u?d?s?)(?P<part>\?\S*)?")
_READ = "rs"
_KEPT = "crus"
_WRITTEN = ("Device", "Observation", "RiskAssessment")
_INTERACTIONS = {"c": "create", "r": "read", "u": "update", "d": "delete", "s": "search"}


@dataclass(frozen=True, slots=True)
class Missing:
    """One needed permission that was not granted, and what will not work."""

    type: str
    letter: str
    means: str

    @property
    def interaction(self) -> str:
        """FHIR's name of the interaction."""
        return _INTERACTIONS[self.letter]

    @property
    def scope(self) -> str:
        """The scope that would give it."""
        return f"system/{self.type}.{self.letter}"


def needed(manifests: Iterable[Manifest], *, writes: bool) -> Permissions:
    """The least that `manifests` run with: what they read, our Subscriptions, and with `writes` what we chart.

    Readings are read one by one (an event's focus, a re-check before a write) and searched (context, catch-up). What
    is written is read, searched and updated too: looked for before it is written again, and corrected.
    """
    letters = {name: set(_READ) for name in ("Patient", "Encounter")} | {"Subscription": set(_KEPT)}
    for manifest in manifests:
        for feature in manifest.features.values():
            for source in feature.sources:
                letters.setdefault(source.type, set()).update(_READ)
                if source.type.startswith("Medication"):
                    letters.setdefault("Medication", set()).update(_READ)
    for name in _WRITTEN if writes else ():
        letters.setdefault(name, set()).update(_KEPT)
    return {name: frozenset(found) for name, found in sorted(letters.items())}


def text(permissions: Permissions, *, v1: bool = False) -> str:
    """`permissions` as a scope parameter: `system/Patient.rs …`, or `system/Patient.read …` for a v1 server."""
    return " ".join(scope for name, letters in permissions.items() for scope in _scopes(name, letters, v1=v1))


def _scopes(name: str, letters: frozenset[str], *, v1: bool) -> list[str]:
    if not v1:
        return [f"system/{name}.{''.join(x for x in 'cruds' if x in letters)}"]
    return [f"system/{name}.{word}" for word in ("read", "write") if letters & set(_V1[word])]


def granted(scope: str) -> Permissions | None:
    """What a scope parameter allows; None when it has nothing of SMART's system scopes and so says nothing.

    A scope for a part of a type (`?category=…`) counts for nothing: what is left out of a search by it is not seen to
    be left out.
    """
    found: dict[str, set[str]] = {}
    for match in map(_SCOPE.fullmatch, scope.split()):
        if match is not None:
            may = "" if match["part"] else _V1.get(match["may"], match["may"])
            found.setdefault(match["type"], set()).update(may)
    return {name: frozenset(letters) for name, letters in found.items()} if found else None


def missing(wanted: Permissions, got: Permissions) -> tuple[Missing, ...]:
    """What of `wanted` is not in `got`."""
    everywhere = got.get("*", frozenset())
    return tuple(
        Missing(name, letter, _means(name, letter))
        for name, letters in wanted.items()
        for letter in "cruds"
        if letter in letters - got.get(name, frozenset()) - everywhere
    )


def _means(name: str, letter: str) -> str:
    if name == "Subscription":
        return "no notifications: events are found by the catch-up search only"
    if letter in _READ and name not in {"Device", "RiskAssessment"}:
        return f"nothing is assessed that needs {name}"
    if letter in _READ:
        return "what was written cannot be looked for or corrected: writes fail"
    return (
        "results are not written" if letter == "c" else "results are not corrected, or not written where PUT makes them"
    )
