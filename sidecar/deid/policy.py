"""The policy file: what a resource is reduced to, and what the path reads. Pure.

One file and one digest for both. Whatever is wrong with it stops the start, and all problems are listed at once.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

from sidecar.deid.definitions import r4
from sidecar.deid.keeping import Keep, Tables
from sidecar.deid.mode import Mode
from sidecar.deid.rules import Rule, Rules, of_component, read_tables, siblings
from sidecar.deid.sensitive import Sensitive, read_sensitive
from sidecar.errors import Misconfigured

__all__ = ["Keep", "Policy", "load_policy", "load_rules"]

SCHEMA = 2
_LISTS = ("systems", "own_codes", "units", "age_codes", "birth_codes", "link_ids", "parameters")
_TOP = frozenset({*_LISTS, "schema", "why", "zip3", "sensitive", "read", "keep"})
# Dropped by its table, and the general engine says all the same that it was there.
_SAID_OTHERWISE = frozenset({"Condition.abatementString"})
_RANGE = re.compile(r"(\d{3})(?:-(\d{3}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Policy:
    """The general allow-list: tables by resource type and by data type, and what may cross besides.

    `types` and `datatypes` are keyed by the JSON name of an element (`valueQuantity`), inherited ones included; an
    element that is not there is dropped. `extensions` maps the URL of an extension that may cross to "omb" or "code".
    `omitted` lists by path (`Observation`, `Observation.component`, `Quantity`) what is dropped on purpose, and `why`
    gives the reason by the path of the element. `age_codes` are the codes ("system|code") of Observations whose number
    is an age, `birth_codes` of those whose value is a date or a year of birth; `labels` are the security labels that
    may cross; `own_codes` are all codes of urn:ehr-sidecar:code.
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
    birth_codes: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
    own_codes: frozenset[str] = frozenset()
    why: Mapping[str, str] = field(default_factory=dict)


def load_policy(text: bytes | None = None) -> Policy:
    """The general allow-list of the shipped policy, or of the one in `text`.

    Raises:
        Misconfigured: listing every problem at once.
    """
    return (_shipped() if text is None else _load(text))[1]


def load_rules(text: bytes | None = None, mode: Mode = Mode.KEYED_PSEUDONYMS) -> Rules:
    """What the path may read by the shipped policy, or by the one in `text`, under a mode. The digest is of both.

    Raises:
        Misconfigured: listing every problem of the policy at once.
    """
    rules = (_shipped() if text is None else _load(text))[0]
    digest = hashlib.sha256(f"{mode}|{rules.digest}".encode()).hexdigest()
    return replace(rules, mode=mode, digest=digest)


@cache
def _shipped() -> tuple[Rules, Policy]:
    return _load(files("sidecar.deid").joinpath("rules.toml").read_bytes())


def _load(raw: bytes) -> tuple[Rules, Policy]:
    try:
        content = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured([f"deid rules: not valid TOML: {error}"]) from None
    if content.get("schema") != SCHEMA:
        raise Misconfigured([f"deid rules: schema must be {SCHEMA}"])
    problems = [f"deid rules: unknown key {key}" for key in sorted(set(content) - _TOP)]
    lists = {name: _listed(name, content.get(name), problems) for name in _LISTS}
    zip3 = _table("zip3", content.get("zip3"), {"restricted", "populated"}, problems)
    tables = Tables(r4(), lists, content.get("why"), problems)
    tables.read(content.get("keep"))
    types = read_tables(content.get("read"), problems)
    sensitive = read_sensitive(content.get("sensitive", {}), problems)
    problems.extend(_of_no_system(lists, sensitive))
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
        birth_codes=lists["birth_codes"],
        labels=sensitive.labels,
        own_codes=lists["own_codes"],
        why={f"{path}.{name}": why for path, reasons in tables.omitted.items() for name, why in reasons.items()},
    )
    if problems:
        raise Misconfigured(problems)
    systems, units, rest = lists["systems"], lists["units"], (Mode.KEYED_PSEUDONYMS, digest)
    rules = Rules(types, of_component(types), systems, units, sensitive, siblings(types), *rest, tables.kept)
    return replace(rules, age_codes=lists["age_codes"]), policy


def _listed(name: str, written: object, problems: list[str]) -> frozenset[str]:
    if not isinstance(written, list) or not all(isinstance(each, str) and each for each in written):
        problems.append(f"deid rules: {name} must be a list of strings")
        return frozenset()
    if twice := sorted({each for each in written if written.count(each) > 1}):
        problems.append(f"deid rules: {name} lists twice: {', '.join(twice)}")
    return frozenset(written)


def _of_no_system(lists: Mapping[str, frozenset[str]], sensitive: Sensitive) -> Iterator[str]:
    """Codes that would never be found, because their system may not cross."""
    named = [(name, lists[name]) for name in ("age_codes", "birth_codes")]
    for name, listed in (*named, ("sensitive.labels", sensitive.labels)):
        for each in sorted(listed):
            if each.rpartition("|")[0] not in lists["systems"]:
                yield f"deid rules: {name}: {each}: must be a listed system, a bar and a code"
    for name, tables in (("codes", sensitive.codes), ("beginnings", sensitive.beginnings)):
        for system in tables.keys() - lists["systems"]:
            yield f"deid rules: sensitive.{name}: {system} is none of the systems"


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


def _read_and_not_kept(types: Mapping[str, Mapping[str, Rule]], tables: Tables) -> Iterator[str]:
    """What the path reads and the general form drops: the two would tell different stories of one chart."""
    for name, rules in types.items():
        component = tables.kept.get(f"{name}.component", {})
        in_component = tables.omitted.get(f"{name}.component", {})
        for element, rule in rules.items():
            where = f"deid rules: read.{name}.{element}"
            if rule.do == "birth_sex":
                if "code" not in tables.extensions.values():
                    yield f"{where}: read, but keep.extension has no us-core-birthsex"
            elif (
                rule.do != "uninterpreted"
                and f"{name}.{element}" not in _SAID_OTHERWISE
                and element not in tables.kept.get(name, {})
            ):
                yield f"{where}: read, but not kept; keep it, or do not read it"
            if rule.do != "uninterpreted" and element in in_component and element not in component:
                yield f"{where}: read of a component, but not kept in keep.{name}.component"
