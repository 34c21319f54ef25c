"""The policy file, read and held against R4: what becomes of each element, and what the path reads. Pure.

Deny by default, and in writing: every element of R4 is kept, refused or omitted with a reason. Whatever is named that
R4 does not have, or is not named at all, stops the start, and all problems are listed at once.
"""

import difflib
import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from sidecar.deid.definitions import Definitions, Element, r4
from sidecar.deid.rules import Rule, Rules, of_component, read_tables
from sidecar.errors import Misconfigured

SCHEMA = 2
# Primitive types whose values say nothing but what they mean. A code does when R4 has a list of its codes.
_PLAIN = frozenset(
    {"boolean", "code", "date", "dateTime", "decimal", "instant", "integer", "positiveInt", "unsignedInt"}
)
# Words for one element only: what they come to, and where they may stand. The rest of the words fit any element.
_ONLY_AT = {
    "birth": ("birth", "Patient.birthDate"),
    "death": ("death", "Patient.deceasedDateTime"),
    "place": ("place", "Patient.address"),
    "relink": ("relink", "Bundle.entry.fullUrl"),
    "token": ("keep", "Resource.id", "Reference.reference"),
    "of_system": ("keep", "Coding.code"),
    "type_name": ("keep", "Reference.type"),
    "by_url": ("", "DomainResource.extension"),
}
# The extensions that can be read, and how: the codes of OMB categories; one of the codes M, F and UNK.
_US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
_EXTENSIONS = {f"{_US_CORE}race": "omb", f"{_US_CORE}ethnicity": "omb", f"{_US_CORE}birthsex": "code"}
_LISTS = ("systems", "units", "unit_systems", "age_codes", "link_ids", "parameters")
_LISTABLE = frozenset({"code", "string", "uri"})
_TOP = frozenset({*_LISTS, "schema", "why", "zip3", "read", "keep"})
_RANGE = re.compile(r"(\d{3})(?:-(\d{3}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Keep:
    """What happens to one element.

    `do` is "keep", "refuse", "birth", "death", "place" or "relink". `kind` is the name of its R4 data type, "code" or
    "BackboneElement" or "Resource" among them; what is looked up in a list of the policy is a "code" here. `many` says
    that it is a list in R4. `codes` are all values that may cross: those that R4 has for a code with a required value
    set, or those of the list. `table` are the elements of a backbone element. Of a `modifier` nothing may be lost: what
    is not understood of it refuses the resource.
    """

    do: str
    kind: str
    many: bool = False
    codes: frozenset[str] = frozenset()
    table: Mapping[str, "Keep"] | None = None
    modifier: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """The general allow-list: tables by resource type and by data type, and what may cross besides.

    `types` and `datatypes` are keyed by the JSON name of an element (`valueQuantity`), inherited ones included; an
    element that is not there is dropped. `extensions` maps the URL of an extension that may cross to "omb" or "code".
    `omitted` lists by path (`Observation`, `Observation.component`, `Quantity`) what is dropped on purpose, and `why`
    gives the reason by the path of the element. `age_codes` are the codes ("system|code") of Observations whose number
    is an age.
    """

    types: Mapping[str, Mapping[str, Keep]]
    datatypes: Mapping[str, Mapping[str, Keep]]
    omitted: Mapping[str, frozenset[str]]
    extensions: Mapping[str, str]
    systems: frozenset[str]
    units: frozenset[str]
    restricted_zip3: frozenset[str]
    populated_zip3: frozenset[str]
    digest: str
    age_codes: frozenset[str] = frozenset()
    why: Mapping[str, str] = field(default_factory=dict)


def load_policy(text: bytes | None = None) -> Policy:
    """The general allow-list of the shipped policy, or of the one in `text`.

    Raises:
        Misconfigured: listing every problem at once.
    """
    return _load(text)[1]


def load_rules(text: bytes | None = None) -> Rules:
    """What the path may read by the shipped policy, or by the one in `text`.

    Raises:
        Misconfigured: listing every problem of the policy at once.
    """
    return _load(text)[0]


def _load(text: bytes | None) -> tuple[Rules, Policy]:
    raw = text if text is not None else files("sidecar.deid").joinpath("rules.toml").read_bytes()
    try:
        content = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured([f"deid rules: not valid TOML: {error}"]) from None
    if content.get("schema") != SCHEMA:
        raise Misconfigured([f"deid rules: schema must be {SCHEMA}"])
    problems = [f"deid rules: unknown key {key}" for key in sorted(set(content) - _TOP)]
    lists = {name: _listed(name, content.get(name), problems) for name in _LISTS}
    zip3 = _table("zip3", content.get("zip3"), {"restricted", "populated"}, problems)
    tables = _Tables(r4(), lists, content.get("why"), problems)
    tables.read(content.get("keep"))
    types = read_tables(content.get("read"), problems)
    problems.extend(_read_and_not_kept(types, tables))
    digest = hashlib.sha256(raw).hexdigest()
    policy = Policy(
        types={name: tables.kept[name] for name in r4().resources if name in tables.kept},
        datatypes={name: tables.kept[name] for name in r4().datatypes if name in tables.kept},
        omitted={path: frozenset(reasons) for path, reasons in tables.omitted.items()},
        extensions=tables.extensions,
        systems=lists["systems"],
        units=lists["units"],
        restricted_zip3=_prefixes("zip3.restricted", zip3.get("restricted"), problems),
        populated_zip3=_prefixes("zip3.populated", zip3.get("populated"), problems),
        digest=digest,
        age_codes=lists["age_codes"],
        why={f"{path}.{name}": why for path, reasons in tables.omitted.items() for name, why in reasons.items()},
    )
    if problems:
        raise Misconfigured(problems)
    return Rules(types, of_component(types), lists["systems"], lists["units"], digest), policy


def _listed(name: str, written: object, problems: list[str]) -> frozenset[str]:
    if not isinstance(written, list) or not all(isinstance(each, str) and each for each in written):
        problems.append(f"deid rules: {name} must be a list of strings")
        return frozenset()
    if twice := sorted({each for each in written if written.count(each) > 1}):
        problems.append(f"deid rules: {name} lists twice: {', '.join(twice)}")
    return frozenset(written)


def _table(name: str, written: object, keys: set[str], problems: list[str]) -> dict[str, Any]:
    if not isinstance(written, dict) or set(written) != keys:
        problems.append(f"deid rules: {name} must be a table with {' and '.join(sorted(keys))}, and nothing else")
        return {}
    return written


def _prefixes(name: str, written: object, problems: list[str]) -> frozenset[str]:
    """Three-digit prefixes, of which "010-012" stands for three."""
    found: set[str] = set()
    for each in written if isinstance(written, list) else ():
        match = _RANGE.fullmatch(each) if isinstance(each, str) else None
        first, last = (match[1], match[2] or match[1]) if match else ("1", "0")
        if first > last:
            problems.append(f'deid rules: {name}: write "036", or "010-012" for three, in order')
        else:
            found |= {f"{number:03}" for number in range(int(first), int(last) + 1)}
    if not found:
        problems.append(f"deid rules: {name} must be a list of three-digit prefixes")
    return frozenset(found)


def _read_and_not_kept(types: Mapping[str, Mapping[str, Rule]], tables: "_Tables") -> Iterator[str]:
    """What the path reads and the general form drops: the two would tell different stories of one chart."""
    for name, rules in types.items():
        component = tables.kept.get(f"{name}.component", {})
        in_component = tables.omitted.get(f"{name}.component", {})
        for element, rule in rules.items():
            where = f"deid rules: read.{name}.{element}"
            if rule.do == "birth_sex":
                if "code" not in tables.extensions.values():
                    yield f"{where}: read, but keep.extension has no us-core-birthsex"
            elif rule.do != "uninterpreted" and element not in tables.kept.get(name, {}):
                yield f"{where}: read, but not kept; keep it, or do not read it"
            if rule.do != "uninterpreted" and element in in_component and element not in component:
                yield f"{where}: read of a component, but not kept in keep.{name}.component"


class _Tables:
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
        for name in {*tables} - {*self._known.resources} - wanted:
            self._tell(name, f"no type that the policy knows{_near(name, {*self._known.resources, *wanted})}")
        for name in [*self._known.resources, *self._known.abstract, *self._known.datatypes]:
            found = self._known.find(name)
            if name in tables and name in omitted:
                self._tell(name, "is omitted as a whole, and has a table")
            elif name in tables and found is not None and (found.elements or name in self._known.resources):
                self._read_table(name, tables[name], found.elements)
            elif name not in omitted and name not in self._known.datatypes:
                self._tell(name, "has no table; write one, or list it in keep.omit")
        self._check_datatypes(wanted)
        self._inherit()
        if stray := sorted({*self._why} ^ self._reasons):
            self._problems.append(f"deid rules: why: each reason is explained once and used: {', '.join(stray)}")

    def _tell(self, path: str, problem: str) -> None:
        self._problems.append(f"deid rules: keep.{path}: {problem}")

    def _extensions(self, written: object) -> None:
        for url, word in written.items() if isinstance(written, dict) else ():
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
        table = {name: value for name, value in written.items() if name not in ("keep", "omit")}
        for name in self._names(path, written.get("keep", [])):
            if name in table:
                self._tell(f"{path}.{name}", "is named twice")
            table[name] = "keep"
        omitted = self._omit(path, written.get("omit", {}), elements)
        self.omitted[path] = omitted
        for name, value in table.items():
            where = f"{path}.{name}"
            if name not in elements:
                self._tell(where, f"R4 has no such element{_near(name, elements)}")
            elif name in omitted:
                self._tell(where, "is named twice, in omit too")
            elif (keep := self._keep(where, value, elements[name])) is not None:
                kept[name] = keep
        for name, element in elements.items():
            if name not in table and name not in omitted:
                self._tell(f"{path}.{name}", f"R4 has it ({element.kind}), and it is named nowhere; keep it or omit it")

    def _names(self, path: str, listed: object) -> list[str]:
        if isinstance(listed, list) and all(isinstance(name, str) for name in listed):
            for name in {name for name in listed if listed.count(name) > 1}:
                self._tell(f"{path}.{name}", "is named twice")
            return listed
        self._tell(path, 'keep must be a list of elements: keep = ["status"]')
        return []

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
            self._tell(where, f"R4 has no {written or 'such element'}{_near(written, elements)}")
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
            self._tell(path, f"a {kind} may name a person; omit it")
        elif element.same is not None:
            self._like.append((path, element.same))
            table = self.kept.setdefault(element.same, {})
            return Keep("keep", kind, element.many, table=table, modifier=element.modifier)
        else:
            self._uses.setdefault(path.partition(".")[0], set()).add(kind)
            return Keep("keep", kind, element.many, element.codes, modifier=element.modifier)
        return None

    def _of_a_list(self, path: str, name: object, element: Element) -> Keep | None:
        if element.kind not in _LISTABLE:
            self._tell(path, f"a {element.kind} cannot be looked up in a list; keep, refuse or omit it")
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


def _near(name: str, known: Any) -> str:
    found = difflib.get_close_matches(name, list(known), n=1)
    return f'; did you mean "{found[0]}"?' if found else ""
