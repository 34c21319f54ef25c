"""The tables `[keep.*]` of the policy, read and held against R4: what becomes of each element. Pure.

Deny by default, and in writing: every element of R4 is kept, refused or omitted with a reason. Whatever is named that
R4 does not have, or is not named at all, is a problem, and so is a rule that would keep what can hold a name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.deid.definitions import Definitions, Element, nearest

# Primitive types whose values say nothing but what they mean. A code does when R4 has a list of its codes.
_PLAIN = frozenset(
    {"boolean", "code", "date", "dateTime", "decimal", "instant", "integer", "positiveInt", "unsignedInt"}
)
# Words for one element only: what they come to, and where they may stand. The rest of the words fit any element.
_ONLY_AT = {
    "birth": ("birth", "Patient.birthDate"),
    "deleted": ("deleted", "Bundle.entry.request"),
    "death": ("death", "Patient.deceasedDateTime"),
    "place": ("place", "Patient.address"),
    "relink": ("relink", "Bundle.entry.fullUrl"),
    "token": ("keep", "Resource.id", "Reference.reference"),
    "labels": ("labels", "Resource.meta"),
    "of_system": ("keep", "Coding.code"),
    "type_name": ("keep", "Reference.type"),
    "ucum": ("keep", "Quantity.system"),
    "by_url": ("", "DomainResource.extension"),
}
# Data types that cross in one way only, so that their tables say what happens and choose nothing.
_FIXED: Mapping[str, Mapping[str, object]] = {
    "CodeableConcept": {"coding": "keep"},
    "Coding": {"system": {"listed": "systems"}, "code": "of_system"},
    "Quantity": {
        "value": "keep",
        "comparator": "keep",
        "unit": {"listed": "units"},
        "system": "ucum",
        "code": {"listed": "units"},
    },
    "Reference": {"reference": "token", "type": "type_name"},
}
# Dates of birth and death are no dates like others: they tell an age over 89.
_NO_DATES_LIKE_OTHERS = frozenset(
    {
        "Patient.birthDate",
        "Patient.deceasedDateTime",
        "FamilyMemberHistory.bornDate",
        "FamilyMemberHistory.bornPeriod",
        "FamilyMemberHistory.deceasedDate",
    }
)
# The extensions that can be read, and how: the codes of OMB categories; one of the codes M, F and UNK.
_US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
_EXTENSIONS = {f"{_US_CORE}race": "omb", f"{_US_CORE}ethnicity": "omb", f"{_US_CORE}birthsex": "code"}
_LISTABLE = frozenset({"code", "string", "uri"})


@dataclass(frozen=True, slots=True)
class Keep:
    """What happens to one element.

    `do` is "keep", "refuse", "birth", "death", "place", "relink", "deleted" or "labels". `kind` is the name of its R4
    data type, "code" or "BackboneElement" or "Resource" among them; what is looked up in a list of the policy is a
    "code" here. `many` says that it is a list in R4. `codes` are all values that may cross: those that R4 has for a
    code with a required value set, or those of the list. `table` are the elements of a backbone element. Of a
    `modifier` nothing may be lost: what is not understood of it refuses the resource.
    """

    do: str
    kind: str
    many: bool = False
    codes: frozenset[str] = frozenset()
    table: Mapping[str, "Keep"] | None = None
    modifier: bool = False


class Tables:
    """The tables `[keep.*]`, by path: "Observation", "Observation.component", "Quantity".

    `kept` and `omitted` have the inherited elements too, once all is read.
    """

    def __init__(
        self, known: Definitions, lists: Mapping[str, frozenset[str]], why: object, problems: list[str]
    ) -> None:
        self.kept: dict[str, dict[str, Keep]] = {}
        self.omitted: dict[str, dict[str, str]] = {}
        self.extensions: dict[str, str] = {}
        self._known, self._lists, self._problems = known, lists, problems
        self._why = {key: text for key, text in why.items() if isinstance(text, str)} if isinstance(why, dict) else {}
        self._uses: dict[str, set[str]] = {}
        self._like: list[tuple[str, str]] = []
        self._reasons: set[str] = set()

    def read(self, written: object) -> None:
        """Read all tables; what is wrong with them is told."""
        tables = dict(written) if isinstance(written, dict) else {}
        self._extensions(tables.pop("extension", None))
        omitted = self._omit("", tables.pop("omit", {}), {name: Element("Resource") for name in self._known.resources})
        wanted = {n for n, t in {**self._known.datatypes, **self._known.abstract}.items() if t.elements}
        for name in sorted({*tables} - {*self._known.resources} - wanted):
            self._tell(name, f"no type that the policy knows{nearest(name, {*self._known.resources, *wanted})}")
        for name in [*self._known.resources, *self._known.abstract, *self._known.datatypes]:
            found = self._known.find(name)
            if name in tables and name in omitted:
                self._tell(name, "is omitted as a whole, and has a table")
            elif name in tables and found is not None and (found.elements or name in self._known.resources):
                self._read_table(name, tables[name], found.elements)
            elif name not in omitted and name not in self._known.datatypes:
                self._tell(name, "has no table; write one, or list it in keep.omit")
        self._check_datatypes(wanted)
        of_all = "DomainResource"
        if self.extensions and "extension" in {**self.kept.get(of_all, {}), **self.omitted.get(of_all, {})}:
            self._tell("DomainResource.extension", 'must be "by_url", as keep.extension names some')
        self._inherit()
        if stray := sorted({*self._why} ^ self._reasons):
            self._problems.append(f"deid rules: why: each reason is explained once and used: {', '.join(stray)}")

    def _tell(self, path: str, problem: str) -> None:
        self._problems.append(f"deid rules: keep.{path}: {problem}")

    def _extensions(self, written: object) -> None:
        if not isinstance(written, dict):
            self._tell("extension", "must be a table of URLs")
            return
        for url, word in written.items():
            if _EXTENSIONS.get(url) != word:
                known = ", ".join(f'"{each}" = "{does}"' for each, does in _EXTENSIONS.items())
                self._tell("extension", f"only {known} can be read")
            else:
                self.extensions[url] = word

    def _read_table(self, path: str, written: object, elements: Mapping[str, Element]) -> None:
        kept = self.kept.setdefault(path, {})
        if not isinstance(written, dict):
            self._tell(path, "must be a table of elements")
            return
        table = self._written(path, written)
        omitted = self.omitted[path] = self._omit(path, written.get("omit", {}), elements)
        for name in sorted(table.keys() - elements.keys()):
            self._tell(f"{path}.{name}", f"R4 has no such element{nearest(name, elements)}")
        for name, element in elements.items():
            where = f"{path}.{name}"
            if name in table and name in omitted:
                self._tell(where, "is named twice, in omit too")
            elif name in table and (keep := self._keep(where, table[name], element)) is not None:
                kept[name] = keep
            elif name not in table and name not in omitted:
                self._tell(where, f"R4 has it ({element.kind}), and it is named nowhere; keep it or omit it")

    def _written(self, path: str, table: Mapping[str, object]) -> dict[str, object]:
        """What is written of each element that is not omitted; those in the list `keep` are kept."""
        found = {name: value for name, value in table.items() if name not in ("keep", "omit")}
        listed = table.get("keep", [])
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            self._tell(path, 'keep must be a list of elements: keep = ["status"]')
            listed = []
        for name in listed:
            if name in found:
                self._tell(f"{path}.{name}", "is named twice")
            found[name] = "keep"
        if found != _FIXED.get(path, found):
            self._tell(path, f"crosses in one way only, which is {_FIXED[path]}; omit the rest")
        return found

    def _omit(self, path: str, written: object, elements: Mapping[str, Element]) -> dict[str, str]:
        """The elements that are left out, each with its reason in words."""
        omitted: dict[str, str] = {}
        where = f"{path}.omit" if path else "omit"
        for reason, names in written.items() if isinstance(written, dict) else [("", None)]:
            if not isinstance(names, list) or not names:
                self._tell(where, 'must be lists of elements by reason: omit.text = ["note"]')
                continue
            self._reasons.add(reason)
            for name in names:
                for each in self._choices(f"{where}.{reason}", name, elements):
                    if each in omitted:
                        self._tell(f"{where}.{reason}", f"{each} is named twice")
                    omitted[each] = self._why.get(reason, "")
        return omitted

    def _choices(self, where: str, name: object, elements: Mapping[str, Element]) -> list[str]:
        """The element of that name; all of `value[x]` by that one name."""
        written = name if isinstance(name, str) else ""
        found = [each for each, element in elements.items() if written in (each, element.choice)]
        if not found:
            self._tell(where, f"R4 has no {written or 'such element'}{nearest(written, elements)}")
        for each in found:
            if elements[each].modifier:
                self._tell(where, f"{each} changes what a statement means; keep it, or refuse the resource")
        return found

    def _keep(self, path: str, value: object, element: Element) -> Keep | None:
        """The rule of an element, or None, with what is wrong with it."""
        if isinstance(value, dict) and element.parts:
            self._read_table(path, value, element.parts)
            return Keep("keep", element.kind, element.many, table=self.kept[path], modifier=element.modifier)
        if isinstance(value, dict) and set(value) == {"listed"}:
            return self._of_a_list(path, value["listed"], element)
        if value == "keep":
            return self._as_it_is(path, element)
        does, *where = _ONLY_AT.get(value, ("",)) if isinstance(value, str) else ("",)
        if path in where and not does:  # its rules are elsewhere
            return None
        if value == "refuse" or path in where:
            return Keep(does or "refuse", element.kind, element.many, modifier=element.modifier)
        words = ["keep", "refuse", *(word for word, (_, *places) in _ONLY_AT.items() if path in places)]
        self._tell(path, f"not a word for this element; one of {', '.join(words)}, or omit it")
        return None

    def _as_it_is(self, path: str, element: Element) -> Keep | None:
        """Kept by its data type, if it is one that may be."""
        kind = element.kind
        fine = kind in _PLAIN or kind in self._known.datatypes or kind == "Resource" or element.same is not None
        if element.parts:
            self._tell(path, "has elements of its own: give it a table, in which each is named")
        elif kind == "code" and not element.codes:
            self._tell(path, "a code of no list in R4, so it may say anything; omit it, or { listed = ... }")
        elif not fine:
            self._tell(path, f"nothing of type {kind} can be kept; omit it")
        elif path in _NO_DATES_LIKE_OTHERS:
            self._tell(
                path, "tells an age, so it is no date like others; omit it, or say birth or death of a Patient's"
            )
        elif element.same is not None:
            self._like.append((path, element.same))
            table = self.kept.setdefault(element.same, {})
            return Keep("keep", kind, element.many, table=table, modifier=element.modifier)
        else:
            self._uses.setdefault(path.partition(".")[0], set()).add(kind)
            codes = element.codes if kind == "code" else frozenset[str]()
            return Keep("keep", kind, element.many, codes, modifier=element.modifier)
        return None

    def _of_a_list(self, path: str, name: object, element: Element) -> Keep | None:
        if element.kind not in _LISTABLE:
            self._tell(path, f"nothing of type {element.kind} can be looked up in a list; keep, refuse or omit it")
        elif not isinstance(name, str) or name not in self._lists:
            self._tell(path, f"there is no such list; one of {', '.join(sorted(self._lists))}")
        else:
            return Keep("keep", "code", element.many, self._lists[name], modifier=element.modifier)
        return None

    def _check_datatypes(self, wanted: set[str]) -> None:
        """Every data type that is kept has its table, and no other has."""
        used: set[str] = set()
        todo = {kind for name in self._known.resources for kind in self._uses.get(name, ())}
        while todo:
            name = todo.pop()
            if name in self._known.datatypes and name not in used:
                used.add(name)
                todo |= {*self._known.line(name), *self._uses.get(name, ())}
        for name in sorted(wanted & self._known.datatypes.keys()):
            if name in used and name not in self.kept:
                self._tell(name, "has no table, and elements of this type are kept; write one")
            if name in self.kept and name not in used:
                self._tell(name, "has a table, and no element of this type is kept; remove it")
        for path, like in self._like:
            if like not in self.omitted:
                self._tell(path, f"is like {like}, which is not kept; keep both or omit both")

    def _inherit(self) -> None:
        """Give every table the elements that R4 lets its type inherit; Age and its kin are Quantities throughout."""
        own, left = {path: dict(kept) for path, kept in self.kept.items()}, dict(self.omitted)
        for name in self._known.datatypes:
            if not self._known.datatypes[name].elements and self._known.datatypes[name].of in own:
                self.kept.setdefault(name, {})
        for path, kept in self.kept.items():
            line = self._known.line(path) or ["Element", "BackboneElement", path]
            inherited = {key: keep for each in line for key, keep in own.get(each, {}).items()}
            kept.clear()
            kept.update(inherited)
            self.omitted[path] = {key: why for each in line for key, why in left.get(each, {}).items()}
