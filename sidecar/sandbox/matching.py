"""One search parameter with its wanted values, compiled to a test on a version.

Pure. Values of one parameter are alternatives (OR); `search` ANDs the clauses.
https://hl7.org/fhir/R4/search.html#token and #date and #reference
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from sidecar.sandbox.chart import INDEXED, Version, bare_id
from sidecar.sandbox.moments import PREFIXES, Span, compares, period_span, span
from sidecar.sandbox.outcome import Refusal, refuse
from sidecar.sandbox.parameters import ID, LAST_UPDATED, Parameter, tokens, values

ValueTest: TypeAlias = Callable[[Any], bool]

_COMMA = re.compile(r"(?<!\\),")
_BAR = re.compile(r"(?<!\\)\|")
_ESCAPE = re.compile(r"\\([,|$\\])")


@dataclass(frozen=True, slots=True)
class Clause:
    """A parameter with its wanted values: `matches` decides, `keys` (if any) narrow what to look at."""

    parameter: Parameter
    matches: Callable[[Version], bool]
    keys: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None


def unescape(text: str) -> str:
    r"""Undo R4's escaping of `,`, `|`, `$` and `\` in a search value."""
    return _ESCAPE.sub(r"\1", text)


def compile_clause(parameter: Parameter, modifier: str, text: str, base_url: str) -> Clause:
    """Compile `parameter[:modifier]=text`.

    Raises:
        Refusal: 400, the value or the modifier is not one this server understands.
    """
    if not text:
        raise _bad(parameter, "has no value")
    if modifier == "missing":
        return _missing(parameter, text)
    allowed = {"token": ("", "not"), "reference": ("", *parameter.targets)}.get(parameter.kind, ("",))
    if modifier not in allowed:
        raise _bad(parameter, f"does not support the modifier :{modifier}")
    alternatives = _COMMA.split(text)
    if parameter is LAST_UPDATED:
        return Clause(parameter, _last_updated_test([_date_wanted(parameter, each) for each in alternatives]))
    if parameter is ID:
        return _by_id(parameter, modifier, frozenset(alternatives))
    tests = [_value_test(parameter, modifier, each, base_url) for each in alternatives]
    if modifier == "not":
        return Clause(parameter, lambda version: not _any(parameter, tests, version))
    return Clause(
        parameter,
        lambda version: _any(parameter, tests, version),
        _narrowing(parameter, alternatives),
    )


def _bad(parameter: Parameter, problem: str) -> Refusal:
    return refuse(400, "invalid", f"search parameter {parameter.name} {problem}")


def _any(parameter: Parameter, tests: list[ValueTest], version: Version) -> bool:
    if version.resource is None:
        return False
    return any(test(value) for value in values(parameter, version.resource) for test in tests)


def _missing(parameter: Parameter, text: str) -> Clause:
    if text not in {"true", "false"}:
        raise _bad(parameter, ":missing is true or false")
    wanted = text == "true"
    return Clause(
        parameter,
        lambda version: (next(values(parameter, version.resource or {}), None) is None) is wanted,
    )


def _by_id(parameter: Parameter, modifier: str, ids: frozenset[str]) -> Clause:
    if modifier == "not":
        return Clause(parameter, lambda version: version.logical_id not in ids)
    return Clause(parameter, lambda version: version.logical_id in ids, ids=tuple(sorted(ids)))


def _narrowing(parameter: Parameter, alternatives: list[str]) -> tuple[str, ...] | None:
    """Return the index keys one of which a match must carry; None when no index helps."""
    if len(parameter.paths) != 1 or parameter.paths[0] not in INDEXED:
        return None
    if parameter.kind == "reference":
        return tuple(bare_id(unescape(each)) for each in alternatives)
    keys = tuple(unescape(_BAR.split(each)[-1]) for each in alternatives)
    return keys if all(keys) else None


def _value_test(parameter: Parameter, modifier: str, text: str, base_url: str) -> ValueTest:
    if parameter.kind == "token":
        return _token_test(parameter, text)
    if parameter.kind == "reference":
        return _reference_test(parameter, modifier, unescape(text), base_url)
    if parameter.kind == "date":
        return _date_test(*_date_wanted(parameter, text))
    wanted = unescape(text)
    if parameter.kind == "uri":
        return lambda value: bool(value == wanted)
    return lambda value: str(value).casefold().startswith(wanted.casefold())


def _token_test(parameter: Parameter, text: str) -> ValueTest:
    """`code` in any system, `system|code`, `|code` in no system, `system|` any code."""
    parts = [unescape(part) for part in _BAR.split(text)]
    if len(parts) > 2 or not any(parts):
        raise _bad(parameter, f"wants code or system|code, not {text!r}")
    implied, code = parameter.system, parts[-1]
    if len(parts) == 1:
        return lambda value: any(found == code for _, found in tokens(value, implied))
    system = parts[0] or None
    if not code:
        return lambda value: any(found == system for found, _ in tokens(value, implied))
    return lambda value: (system, code) in tokens(value, implied)


def _local(reference: str, base_url: str) -> str:
    """Cut our own base and the version off a reference; a foreign URL stays a URL."""
    relative = reference.removeprefix(f"{base_url}/") if base_url else reference
    return relative.partition("/_history/")[0]


def _reference_test(parameter: Parameter, modifier: str, text: str, base_url: str) -> ValueTest:
    wanted = _local(text, base_url)
    named = (modifier,) if modifier else parameter.targets
    whole = "/" in wanted

    def test(value: Any) -> bool:
        reference = value.get("reference") if isinstance(value, dict) else None
        if not isinstance(reference, str):
            return False
        have = _local(reference, base_url)
        if "://" in have:
            return have == wanted
        type_name, _, logical_id = have.rpartition("/")
        return type_name in named and (have == wanted if whole else logical_id == wanted)

    return test


def _date_wanted(parameter: Parameter, text: str) -> tuple[str, Span]:
    prefix = text[:2] if text[:2].isalpha() else "eq"
    if prefix not in PREFIXES:
        raise _bad(parameter, f"does not support the prefix {prefix!r}")
    try:
        return prefix, span(text.removeprefix(prefix) if text[:2].isalpha() else text)
    except ValueError as error:
        raise _bad(parameter, str(error)) from error


def value_span(value: Any) -> Span:
    """Return the span of a date, dateTime, instant or Period.

    Raises:
        ValueError: it is none of these.
    """
    return period_span(value) if isinstance(value, dict) else span(value)


def _date_test(prefix: str, wanted: Span) -> ValueTest:
    return lambda value: compares(prefix, wanted, value_span(value))


def _last_updated_test(alternatives: list[tuple[str, Span]]) -> Callable[[Version], bool]:
    def test(version: Version) -> bool:
        return any(compares(prefix, wanted, version.moment) for prefix, wanted in alternatives)

    if len(alternatives) > 1:
        return test
    ((prefix, wanted),) = alternatives
    return lambda version: compares(prefix, wanted, version.moment)
