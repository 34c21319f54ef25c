"""One resource as it is walked: whose it is, what its references mean, and what is said about it. Pure."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sidecar.deid.general.names import Names
from sidecar.deid.general.references import Key, Scope
from sidecar.deid.general.tally import Tally

DEEPEST = 32
"""Resources within resources, and items within items; more of them is an attack or a mistake."""

_ABOUT = ("subject", "patient", "beneficiary")


class Refused(Exception):
    """The resource means something that is not interpreted. `reason` names an element path and no value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RefusedEntry(Refused):
    """The entry of a Bundle means something that is not interpreted; the others are not concerned."""


class Visit:
    """A resource, in the Bundle it was found in.

    `done` is what was done so far, in resources of the types `passed`; it counts when this one is not refused.
    `said` is what a leaf did to its value when that is not what its kind says; whoever asked takes it away.
    `kind` is the R4 type of the date that is being written, `entry` the resource of the entry that is being walked,
    `inside` what is left of the resources contained in this one.
    """

    __slots__ = (
        "_owner", "_owner_known", "_shift", "contained", "container", "depth", "done", "entry", "inside", "key", "kind",
        "names", "passed", "said", "scope", "source", "tally",
    )  # fmt: skip

    def __init__(self, source: Mapping[str, Any], scope: Scope, names: Names, tally: Tally) -> None:
        self.source, self.scope, self.names, self.tally = source, scope, names, tally
        self.key: Key | None = None
        self.entry: Key | None = None
        self.inside: list[dict[str, Any]] = []
        self.container: Visit | None = None
        self.contained: dict[str, Key] = {}
        self.depth = 0
        self.done: list[tuple[str, str]] = []
        self.passed: list[str] = []
        self.said: str | None = None
        self.kind = ""
        self._owner: str | None = None
        self._owner_known = False
        self._shift: timedelta | None = None

    def inner(self, source: Mapping[str, Any], scope: Scope | None = None) -> "Visit":
        """The visit of a resource inside this one."""
        visit = Visit(source, scope or self.scope, self.names, self.tally)
        visit.depth = self.depth
        visit.deeper()
        return visit

    def tell(self, path: str, what: str) -> None:
        """The element at `path` was `what`."""
        self.done.append((path, what))

    def deeper(self) -> None:
        """One more level of what may contain itself.

        Raises:
            Refused: too deep.
        """
        self.depth += 1
        if self.depth > DEEPEST:
            raise Refused("depth")

    def key_of(self, reference: Mapping[str, Any]) -> Key | None:
        """The resource that `reference` means, among those contained or in the Bundle."""
        written = reference.get("reference")
        if isinstance(written, str) and written.startswith("#"):
            holder = self.container or self
            return holder.contained.get(written) if written != "#" else holder.key
        return self.scope.key(reference)

    def owner(self) -> str | None:
        """The logical id of the Patient whom this is about; None when that is nobody for certain."""
        if not self._owner_known:
            self._owner, self._owner_known = self._about(), True
        return self._owner

    def _about(self) -> str | None:
        source = self.source
        if source.get("resourceType") == "Patient" and self.container is None:
            return self.key[1] if self.key is not None else None
        named = [reference for name in _ABOUT if isinstance(reference := source.get(name), dict)]
        said = [*named, *_actors(source.get("participant"))]
        if said:
            keys = {key for reference in said if (key := self.key_of(reference)) is not None}
            patients = {logical_id for type_name, logical_id in keys if type_name == "Patient"}
            return patients.pop() if len(patients) == 1 else None
        if self.container is not None:
            return self.container.owner()
        return self.scope.patient[1] if self.scope.patient is not None else None

    def shift(self) -> timedelta | None:
        """By how much the dates of this patient move; None when nobody knows whose they are."""
        owner = self.owner()
        if self._shift is None and owner is not None:
            self._shift = self.names.shift(owner)
        return self._shift


def _actors(participants: object) -> list[Mapping[str, Any]]:
    """Who takes part in an Appointment."""
    listed = participants if isinstance(participants, list) else ()
    return [a for p in listed if isinstance(p, dict) and isinstance(a := p.get("actor"), dict)]
