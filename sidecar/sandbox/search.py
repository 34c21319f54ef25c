"""Search: a query string becomes a `Search`, a `Search` selects versions from the chart.

Pure but for the chart it reads. A parameter this server does not know is left out of the self link, as R4
asks, or refused when the client asked for strictness. https://hl7.org/fhir/R4/search.html
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias
from urllib.parse import parse_qsl

from sidecar.sandbox.capability import Capabilities, includes_of
from sidecar.sandbox.chart import Chart, Version
from sidecar.sandbox.matching import Clause, compile_clause, value_span
from sidecar.sandbox.moments import BEGINNING
from sidecar.sandbox.outcome import refuse
from sidecar.sandbox.parameters import PARAMETERS, Parameter, parameters_of, values

DEFAULT_COUNT = 50
MAX_COUNT = 500

Pairs: TypeAlias = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Dialect:
    """What this server understands: its capabilities, and the base URL that makes a reference local.

    `base_url` is empty until the server has a port.
    """

    capabilities: Capabilities
    base_url: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """A search as understood: `kept` are the parameters that took part, for the self link."""

    type_name: str
    clauses: tuple[Clause, ...] = ()
    sort: tuple[tuple[str, bool], ...] = ()
    count: int = DEFAULT_COUNT
    count_only: bool = False
    elements: tuple[str, ...] = ()
    includes: tuple[Parameter, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()

    def matches(self, version: Version) -> bool:
        """Tell whether a living version satisfies every clause."""
        if version.resource is None:
            return False
        # A loop, not all(): polls by _lastUpdated look at every resource, and this is their innermost line.
        for clause in self.clauses:  # noqa: SIM110
            if not clause.matches(version):
                return False
        return True


def parse_search(type_name: str, pairs: Pairs, dialect: Dialect, *, strict: bool = False) -> Search:
    """Understand the parameters of a search on `type_name`.

    Raises:
        Refusal: 400, a value cannot be understood, or with `strict` a parameter is unknown.
    """
    search = Search(type_name)
    known = parameters_of(type_name, identifier_search=dialect.capabilities.identifier_search)
    for name, text in pairs:
        understood = _control(search, name, text, dialect) or _filter(search, known, (name, text), dialect)
        if understood is not None:
            search = replace(understood, kept=(*understood.kept, (name, text)))
        elif strict:
            raise refuse(400, "not-supported", f"unknown search parameter {name!r} for {type_name}")
    return search


def parse_filters(type_name: str, query: str, dialect: Dialect) -> Search:
    """Understand `query` where it must select, not page: If-None-Exist and Subscription.criteria.

    Raises:
        Refusal: 400, a parameter is unknown, unsupported or not a filter.
    """
    pairs = parse_qsl(query, keep_blank_values=True)
    search = parse_search(type_name, pairs, dialect, strict=True)
    if len(search.clauses) != len(pairs):
        raise refuse(400, "invalid", f"only filters can be used in {query!r}, no result parameters")
    return search


def select(search: Search, chart: Chart) -> list[Version]:
    """Return the living versions that match, in the order asked for (else as they were created)."""
    matches = [version for version in _candidates(search, chart) if search.matches(version)]
    for name, descending in reversed(search.sort):
        matches.sort(key=_sort_key(search.type_name, name, descending=descending), reverse=descending)
    return matches


def included(search: Search, page: Iterable[Version], chart: Chart) -> list[Version]:
    """Return the resources the page's matches refer to by the `_include` parameters, each once."""
    page = list(page)
    seen = {version.reference for version in page}
    result: list[Version] = []
    for version in page:
        for parameter in search.includes:
            for value in values(parameter, version.resource or {}):
                target = _target(value.get("reference", ""), parameter, chart)
                if target and target.reference not in seen:
                    seen.add(target.reference)
                    result.append(target)
    return result


def _candidates(search: Search, chart: Chart) -> list[Version]:
    """Narrow by the clause that leaves least to look at; the clauses then decide."""
    narrowed: list[list[Version]] = []
    for clause in search.clauses:
        if clause.ids is not None:
            alive = (chart.alive(search.type_name, logical_id) for logical_id in clause.ids)
            narrowed.append([version for version in alive if version])
        elif clause.keys is not None:
            narrowed.append(chart.narrowed(search.type_name, clause.keys))
    return min(narrowed, key=len) if narrowed else chart.living(search.type_name)


def _target(reference: str, parameter: Parameter, chart: Chart) -> Version | None:
    type_name, _, logical_id = reference.partition("/_history/")[0].rpartition("/")
    type_name = type_name.rpartition("/")[-1]
    return chart.alive(type_name, logical_id) if type_name in parameter.targets else None


def _sort_key(
    type_name: str,
    name: str,
    *,
    descending: bool,
) -> Callable[[Version], tuple[bool, datetime]]:
    """Sort by time; what has no date comes last either way."""
    if name == "_lastUpdated":
        return lambda version: (False, version.at)
    parameter = PARAMETERS[type_name][name]

    def key(version: Version) -> tuple[bool, datetime]:
        spans = [value_span(value) for value in values(parameter, version.resource or {})]
        if not spans:
            return (not descending, BEGINNING)
        # A period counts from its start either way: open stays would otherwise all be equal, and come in any order.
        moments = [span.low for span in spans]
        return (descending, max(moments)) if descending else (False, min(moments))

    return key


def _filter(
    search: Search,
    known: dict[str, Parameter],
    pair: tuple[str, str],
    dialect: Dialect,
) -> Search | None:
    name, text = pair
    bare, _, modifier = name.partition(":")
    if bare.partition(".")[0] in known and "." in name:
        raise refuse(400, "not-supported", f"chained search {name!r} is not supported")
    if bare not in known:
        return None
    clause = compile_clause(known[bare], modifier, text, dialect.base_url)
    return replace(search, clauses=(*search.clauses, clause))


def _control(search: Search, name: str, text: str, dialect: Dialect) -> Search | None:
    """Understand the parameters that shape the result instead of selecting."""
    if name == "_count":
        return _counted(search, text)
    if name == "_sort":
        return replace(search, sort=_sorting(search.type_name, text))
    if name == "_elements":
        return replace(search, elements=tuple(filter(None, text.split(","))))
    if name == "_summary":
        return _summarised(search, text)
    if name == "_include" and dialect.capabilities.include:
        return replace(search, includes=(*search.includes, _include(search.type_name, text)))
    if name == "_format" and "json" not in text:
        raise refuse(406, "not-supported", f"this server speaks JSON only, not {text!r}")
    return search if name in {"_format", "_pretty"} else None


def _counted(search: Search, text: str) -> Search:
    if not text.isdecimal():
        raise refuse(400, "invalid", f"_count must be a whole number, not {text!r}")
    if int(text) == 0:
        return replace(search, count_only=True)
    return replace(search, count=min(int(text), MAX_COUNT))


def _summarised(search: Search, text: str) -> Search:
    if text not in {"count", "false"}:
        raise refuse(400, "not-supported", f"_summary={text} is not supported, only count")
    return replace(search, count_only=text == "count")


def _sorting(type_name: str, text: str) -> tuple[tuple[str, bool], ...]:
    keys = []
    for each in text.split(","):
        name = each.removeprefix("-")
        if name != "_lastUpdated" and (name != "date" or "date" not in PARAMETERS[type_name]):
            raise refuse(400, "not-supported", f"{type_name} cannot be sorted by {name!r}")
        keys.append((name, each.startswith("-")))
    return tuple(keys)


def _include(type_name: str, text: str) -> Parameter:
    source, _, rest = text.partition(":")
    name, _, target = rest.partition(":")
    if f"{source}:{name}" not in includes_of(type_name):
        raise refuse(400, "not-supported", f"_include={text} is not supported on {type_name}")
    parameter = PARAMETERS[type_name][name]
    return replace(parameter, targets=(target,)) if target else parameter
