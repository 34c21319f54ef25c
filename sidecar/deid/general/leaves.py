"""What becomes of a value by its R4 data type. Pure. https://hl7.org/fhir/R4/datatypes.html."""

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.deid.general.ages import Ages, is_age_range, is_at_death
from sidecar.deid.general.codes import (
    REQUIRED,
    absence_of,
    coding_of,
    concept_of,
    extension_of,
    interpretation_of,
    labels_of,
)
from sidecar.deid.general.places import Places
from sidecar.deid.general.quantities import cap_range, is_number, quantity_of
from sidecar.deid.general.references import Key, Types, method_of
from sidecar.deid.general.tally import DROPPED, REPLACED
from sidecar.deid.general.visit import RefusedEntry, Visit
from sidecar.deid.mode import Mode
from sidecar.deid.policy import Keep, Policy
from sidecar.errors import Misconfigured

Read = Callable[[Any, Visit], Any]
"""The new value of an element, or None when nothing of it may stay."""

_QUANTITIES = frozenset({"Quantity", "SimpleQuantity", "MoneyQuantity", "Age", "Count", "Distance", "Duration"})
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")
_INTEGERS = {"integer": (-(2**31), 2**31 - 1), "unsignedInt": (0, 2**31 - 1), "positiveInt": (1, 2**31 - 1)}


class Leaves:
    """The readers of data types that have no table of their own, or more of a meaning than a table."""

    def __init__(self, policy: Policy, mode: Mode, ages: Ages | None) -> None:
        self._policy, self._types, self._ages = policy, Types.of(policy), ages
        self._coding, self._concept = coding_of(policy), concept_of(policy)
        self._special = {"interpretation": interpretation_of(policy), "dataAbsentReason": absence_of(policy)}
        read_extension = extension_of(policy)
        self._extension: Read = lambda value, _: read_extension(value)
        read_meta = labels_of(policy)
        self.meta: Read = lambda value, _: read_meta(value)
        places = Places(policy, exact=mode is Mode.LIMITED_DATA_SET)
        self.place: Read = lambda value, _: places.address(value)

    def of(self, path: str, name: str, keep: Keep) -> Read | None:
        """The reader of one element; None for a data type that is a table.

        Raises:
            Misconfigured: a type of which nothing may be kept.
        """
        kind = keep.kind
        if kind in _QUANTITIES:
            return self._quantity(path, "Age" if is_age_range(path.rpartition(".")[0]) else kind)
        if kind == "CodeableConcept":
            return self._concepts(path, name)
        if kind == "code":
            codes = keep.codes
            return lambda value, _: value if isinstance(value, str) and value in codes else None
        if kind in _INTEGERS:
            return _integers(*_INTEGERS[kind])
        simple: dict[str, Read] = {
            "boolean": lambda value, _: value if isinstance(value, bool) else None,
            "decimal": lambda value, _: value if is_number(value) else None,
            "Coding": lambda value, _: self._coding(value),
            "Reference": self._reference(path),
            "Extension": self._extension,
            "id": _own_token,
        }
        if kind not in simple and kind not in self._policy.datatypes:
            raise Misconfigured([f"deid rules: {path}: nothing of the type {kind} can be kept"])
        return simple.get(kind)

    def whole(self, kind: str, walk: Callable[[Mapping[str, Any], Visit], dict[str, Any]]) -> Read | None:
        """The reader of what means something else with a part missing; None for any other data type."""
        if kind not in ("Range", "Ratio"):
            return None
        capped = self._ages is not None and kind == "Range"

        def read(value: Any, visit: Visit) -> dict[str, Any] | None:
            if not isinstance(value, dict):
                return None
            kept = walk(value, visit)
            if any(name in value and name not in kept for name in ("low", "high", "numerator", "denominator")):
                return None
            return (cap_range(kept.get("low"), kept.get("high")) if capped else kept) or None

        return read

    def _quantity(self, path: str, kind: str) -> Read:
        if (ages := self._ages) is None:
            return quantity_of(self._policy, path, kind, None)
        told = path.startswith(("Observation.", "QuestionnaireResponse.")) and ".value" in path
        is_age = kind == "Age" and not is_at_death(path)
        return quantity_of(self._policy, path, kind, ages.of if is_age else ages.perhaps if told else ages.cap)

    def _concepts(self, path: str, name: str) -> Read:
        concept = self._special.get(name, self._concept)
        if (only := REQUIRED.get(path)) is not None:
            concept = concept_of(self._policy, only)

        def read(value: Any, visit: Visit) -> dict[str, Any] | None:
            kept = concept(value)
            if isinstance(value, dict):
                if "text" in value:
                    visit.tell(f"{path}.text", DROPPED)
                listed = value.get("coding")
                lost = (len(listed) if isinstance(listed, list) else 0) - len(kept["coding"] if kept else ())
                for _ in range(lost):
                    visit.tell(f"{path}.coding", DROPPED)
            return kept

        return read

    def _reference(self, path: str) -> Read:
        named = self._types.named

        def read(value: Any, visit: Visit) -> dict[str, Any] | None:
            if not isinstance(value, dict):
                return None
            for name in ("display", "identifier"):
                if name in value:
                    visit.tell(f"{path}.{name}", DROPPED)
            key, written = visit.key_of(value), value.get("reference")
            if key is None and written != "#":
                return None
            kept = {"reference": _text(key, written, visit)}
            type_name = value.get("type")
            if isinstance(type_name, str) and type_name in named:
                kept["type"] = type_name
            return kept

        return read

    def relink(self, path: str) -> Callable[[Any, Visit, dict[str, Any]], None]:
        """The step that writes the fullUrl of an entry."""

        def step(_value: Any, visit: Visit, out: dict[str, Any]) -> None:
            if visit.entry is None:
                visit.tell(path, DROPPED)
                return
            out["fullUrl"] = urn(visit.names.token(*visit.entry))
            visit.tell(path, REPLACED)

        return step

    def deleted(self, path: str) -> Callable[[Any, Visit, dict[str, Any]], None]:
        """The step that says of a request that it deletes, and what: without it the resource would still be there.

        Raises (the step):
            RefusedEntry: what kind of a request it is cannot be read, or what it deletes, or it is said in two ways.
        """

        def step(value: Any, visit: Visit, out: dict[str, Any]) -> None:
            method = method_of(value)
            if method not in _METHODS or (method == "DELETE" and visit.entry is None):
                raise RefusedEntry(f"modifier:{path}")
            if method == "DELETE" and visit.entry is not None:
                type_name, _ = visit.entry
                out["request"] = {"method": method, "url": f"{type_name}/{visit.names.token(*visit.entry)}"}
            visit.tell(path, REPLACED if method == "DELETE" else DROPPED)

        return step


def _integers(least: int, most: int) -> Read:
    return lambda value, _: (
        value if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most else None
    )


def _own_token(value: Any, visit: Visit) -> str | None:
    """The token of the resource that is walked. An id that is no string is nobody's."""
    return visit.names.token(*visit.key) if isinstance(value, str) and visit.key is not None else None


def _text(key: Key | None, written: object, visit: Visit) -> str:
    """The reference to `key`: within the resource, within the Bundle, or by type and token."""
    if key is None:
        return "#"
    token = visit.names.token(*key)
    if isinstance(written, str) and written.startswith("#"):
        return f"#{token}" if written != "#" else "#"
    return urn(token) if visit.scope.holds(key) else f"{key[0]}/{token}"


def urn(token: str) -> str:
    """A token as a URI that resolves within a Bundle. https://hl7.org/fhir/R4/bundle.html#references."""
    return f"urn:uuid:{token[:8]}-{token[8:12]}-{token[12:16]}-{token[16:20]}-{token[20:]}"
