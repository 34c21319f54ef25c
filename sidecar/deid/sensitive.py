"""What no rationale names: the tables `[sensitive]` of the policy. Pure.

By group, so that an officer decides on "mental health" and not on eighty codes. A code without a star is meant exactly;
"F10*" is how codes begin, and "F10..F16*" are seven such beginnings.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_RANGE = re.compile(r"(.*?)(\d+)\.\.\1(\d+)", re.ASCII)
_CODE = re.compile(r"[0-9A-Z][0-9A-Z.\-]*", re.ASCII)
_MOST = 100
"""Beginnings of one range: a typing error must not hold back half of a chart."""


@dataclass(frozen=True, slots=True, eq=False)
class Sensitive:
    """Security labels (`system|code`), and by system, codes and how codes begin, without dots and in capitals."""

    labels: frozenset[str] = frozenset()
    codes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    beginnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def lists(self, system: str, code: str) -> bool:
        """Whether `code` is one of those; EHRs write the codes of a classification with and without dots."""
        return code in self.codes.get(system, ()) or plain(code).startswith(self.beginnings.get(system, ()))

    def lists_all(self, wanted: Iterable[str]) -> bool:
        """Whether whatever has one of these codes ("system|code", "system|F10*") is listed; of no code it is not."""
        found = [each.rpartition("|") for each in wanted]
        return bool(found) and all(
            plain(code[:-1]).startswith(self.beginnings.get(system, ()))
            if code[-1:] == "*"
            else self.lists(system, code)
            for system, _, code in found
        )


def plain(code: str) -> str:
    """`code` as beginnings are compared."""
    return code.replace(".", "").upper()


def read_sensitive(written: object, problems: list[str]) -> Sensitive:
    """The tables of `[sensitive]`, as far as they are good; what is not adds to `problems`."""
    said: dict[str, Any] = dict(written) if isinstance(written, dict) else {"": written}
    labels, systems = _listed("labels", said.pop("labels", []), problems), said.pop("systems", {})
    if not isinstance(systems, dict):
        problems.append("deid rules: sensitive.systems must be a table of lists")
        return Sensitive()
    named = {name: _listed(f"systems.{name}", each, problems) for name, each in systems.items()}
    codes, beginnings = dict[str, set[str]](), dict[str, set[str]]()
    for group, table in said.items():
        for name, listed in _group(group, table, named, problems):
            exact = {code for code in listed if not code.endswith("*")}
            begins = [plain(each) for code in listed - exact for each in _spread(f"{group}.{name}", code, problems)]
            for system in named[name]:
                codes.setdefault(system, set()).update(exact)
                beginnings.setdefault(system, set()).update(begins)
    return Sensitive(
        frozenset(labels),
        {system: frozenset(each) for system, each in codes.items() if each},
        {system: tuple(sorted(each)) for system, each in beginnings.items() if each},
    )


def _group(
    group: str, table: object, systems: Mapping[str, set[str]], problems: list[str]
) -> Iterator[tuple[str, set[str]]]:
    if not isinstance(table, dict):
        problems.append(f"deid rules: sensitive.{group} must be a table of lists by the names in sensitive.systems")
        return
    for name, listed in table.items():
        if name not in systems:
            problems.append(f"deid rules: sensitive.{group}.{name}: sensitive.systems names no such system")
        else:
            yield name, _listed(f"{group}.{name}", listed, problems)


def _spread(where: str, written: str, problems: list[str]) -> list[str]:
    """The beginnings that "F10*" or "F10..F16*" stands for."""
    code = written.removesuffix("*")
    found = _RANGE.fullmatch(code)
    if found is not None and len(found[2]) == len(found[3]):
        numbers = range(int(found[2]), int(found[3]) + 1)
        if 1 < len(numbers) <= _MOST:
            return [f"{found[1]}{number:0{len(found[2])}}" for number in numbers]
    if not _CODE.fullmatch(code) or ".." in code:
        problems.append(f'deid rules: sensitive.{where}: {written}: write "F10*", or "F10..F16*" for seven, in order')
        return []
    return [code]


def _listed(where: str, listed: object, problems: list[str]) -> set[str]:
    if not isinstance(listed, list) or not all(isinstance(each, str) and each.strip("*") for each in listed):
        problems.append(f"deid rules: sensitive.{where} must be a list of strings")
        return set()
    if twice := sorted({each for each in listed if listed.count(each) > 1}):
        problems.append(f"deid rules: sensitive.{where} lists twice: {', '.join(twice)}")
    return set(listed)
