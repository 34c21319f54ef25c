"""What FHIR R4 has: the elements of the types that a model may read, by their names in JSON. Pure.

Read from `r4.json`, which `fhir_fixtures/make_r4.py` makes from the official definitions of 4.0.1.
https://hl7.org/fhir/R4/json.html
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

# They change what a statement means as much as the elements that R4 calls modifiers.
_AS_GOOD_AS_MODIFIERS = frozenset({"comparator", "dataAbsentReason", "doNotPerform", "focus", "verificationStatus"})


@dataclass(frozen=True, slots=True)
class Element:
    """One element as JSON names it: each choice of `value[x]` is one, and `choice` is "value[x]" then.

    `kind` is its data type, `codes` are those of the required value set of a code or concept, `parts` the elements of a
    backbone element. `same` is the path of another backbone element that it is like, such as
    "Observation.referenceRange". A `modifier` may turn the statement into its opposite.
    """

    kind: str
    many: bool = False
    modifier: bool = False
    codes: frozenset[str] = frozenset()
    parts: Mapping[str, "Element"] = field(default_factory=dict)
    same: str | None = None
    choice: str | None = None

    @property
    def backbone(self) -> bool:
        """Has it elements of its own?"""
        return self.kind == "BackboneElement"


@dataclass(frozen=True, slots=True)
class Type:
    """A resource type, a data type or one of those they inherit from: its own elements, and the type it is `of`."""

    elements: Mapping[str, Element]
    of: str | None


@dataclass(frozen=True, slots=True)
class Definitions:
    """R4, as far as the policy speaks of it."""

    resources: Mapping[str, Type]
    datatypes: Mapping[str, Type]
    abstract: Mapping[str, Type]

    def find(self, name: str) -> Type | None:
        """The type of that name."""
        return self.resources.get(name) or self.datatypes.get(name) or self.abstract.get(name)

    def line(self, name: str) -> list[str]:
        """A type and what it inherits from, the most general first: Element, Quantity, Age."""
        found = self.find(name)
        return [] if found is None else [*(self.line(found.of) if found.of else ()), name]

    def elements(self, name: str) -> dict[str, Element]:
        """All elements of a type, inherited ones first."""
        return {key: value for each in self.line(name) if (t := self.find(each)) for key, value in t.elements.items()}


@cache
def r4() -> Definitions:
    """The shipped definitions."""
    content = json.loads(files("sidecar.deid").joinpath("r4.json").read_bytes())
    codes = {name: frozenset(listed) for name, listed in content["codes"].items()}

    def types(part: str) -> dict[str, Type]:
        return {
            name: Type(dict(_elements(table["elements"], codes)), table.get("of"))
            for name, table in content[part].items()
        }

    return Definitions(types("resources"), types("datatypes"), types("abstract"))


def _elements(table: Mapping[str, Any], codes: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, Element]]:
    for name, spec in table.items():
        parts = dict(_elements(spec.get("elements", {}), codes))
        choice = name if name.endswith("[x]") else None
        for written in spec.get("types", ["BackboneElement"]):
            # R4 has backbone elements of the type Element inside data types (Timing.repeat); they are walked alike.
            kind = "BackboneElement" if parts else written
            yield (
                name.removesuffix("[x]") + written[0].upper() + written[1:] if choice else name,
                Element(
                    kind=kind,
                    many=spec.get("many", False),
                    modifier=spec.get("modifier", False) or name in _AS_GOOD_AS_MODIFIERS,
                    codes=codes.get(spec.get("codes", ""), frozenset()),
                    parts=parts,
                    same=spec.get("same"),
                    choice=choice,
                ),
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint to add to a problem: the known name that was probably meant, or nothing."""
    found = difflib.get_close_matches(name, sorted(known), n=1)
    return f'; did you mean "{found[0]}"?' if found else ""
