"""Read the allow-list. A rule that does not parse stops the start: a silently dead rule protects nobody. Pure."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from sidecar.deid.mode import Mode
from sidecar.errors import Misconfigured

ACTIONS = frozenset(
    {
        "abated", "abated_period", "absent", "age", "birth_sex", "charted", "clinical_status", "codes", "components",
        "deceased", "gender", "inactive", "limit", "merged", "number", "onset", "onset_period", "open_status",
        "open_until", "period", "quantity", "recorded", "refuse", "status", "time", "uninterpreted", "value_codes",
        "verification",
    }
)  # fmt: skip

_CODES = ("usable", "doubtful", "void")
# What a statement is about is read before anything else, and decides whether anything else is read.
_ABOUT = ("components", "codes")


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to one element. `usable`, `doubtful` and `void` are the codes of a status element."""

    do: str
    usable: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()
    void: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Sensitive:
    """What no rationale names: security labels (`system|code`), and by system, codes and how codes begin."""

    labels: frozenset[str] = frozenset()
    codes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    beginnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """The policy: element rules by resource type, the systems and units that may cross, the mode, the digest of it all.

    `of_component` are the rules of an Observation for each of its components, which have none of their own.
    """

    types: Mapping[str, Mapping[str, Rule]]
    of_component: Mapping[str, Rule]
    systems: frozenset[str]
    units: frozenset[str]
    sensitive: Sensitive
    mode: Mode
    digest: str


def load_rules(text: bytes | None = None, mode: Mode = Mode.KEYED_PSEUDONYMS) -> Rules:
    """The shipped policy, or the one in `text`, under a mode.

    Raises:
        Misconfigured: listing every rule that does not parse.
    """
    raw = text if text is not None else files("sidecar.deid").joinpath("rules.toml").read_bytes()
    try:
        content = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured([f"deid rules: not valid TOML: {error}"]) from None
    if content.pop("schema", None) != 1:
        raise Misconfigured(["deid rules: schema must be 1"])
    systems = frozenset(content.pop("systems", ()))
    units = frozenset(content.pop("units", ()))
    problems: list[str] = []
    sensitive = _sensitive(content.pop("sensitive", {}), problems)
    types = {name: _elements(name, table, problems) for name, table in content.items()}
    if problems:
        raise Misconfigured(problems)
    of_component = {name: rule for name, rule in types.get("Observation", {}).items() if rule.do != "components"}
    digest = hashlib.sha256(f"{mode}\n".encode() + raw).hexdigest()
    return Rules(types, of_component, systems, units, sensitive, mode, digest)


def _sensitive(table: object, problems: list[str]) -> Sensitive:
    said: dict[str, Any] = dict(table) if isinstance(table, dict) else {"": table}
    labels, codes, beginnings = said.pop("labels", []), said.pop("codes", {}), said.pop("beginnings", {})
    if said:
        problems.append(f"deid rules: sensitive: unknown key {', '.join(sorted(said))}")
    lists = [labels, *codes.values(), *beginnings.values()] if isinstance(codes | beginnings, dict) else [None]
    if not all(isinstance(each, list) and all(isinstance(code, str) and code for code in each) for each in lists):
        problems.append("deid rules: sensitive: labels is a list; codes and beginnings are lists by system")
        return Sensitive()
    return Sensitive(
        frozenset(labels),
        {system: frozenset(each) for system, each in codes.items()},
        {system: tuple(each) for system, each in beginnings.items()},
    )


def _elements(type_name: str, table: object, problems: list[str]) -> dict[str, Rule]:
    if not isinstance(table, dict):
        problems.append(f"deid rules: {type_name} must be a table of elements")
        return {}
    rules = {element: _rule(f"{type_name}.{element}", value, problems) for element, value in table.items()}
    does = [rule.do for rule in rules.values()]
    first = [action for action in _ABOUT if action in does]
    if does[: len(first)] != first:
        problems.append(f"deid rules: {type_name}: must begin with {', then '.join(first)}")
    return rules


def _rule(path: str, value: object, problems: list[str]) -> Rule:
    detail: dict[str, Any] = value if isinstance(value, dict) else {"do": value}
    action = detail.get("do")
    if action not in ACTIONS:
        problems.append(f"deid rules: {path}: unknown action; one of {', '.join(sorted(ACTIONS))}")
        return Rule("refuse")
    if extra := set(detail) - {"do", *_CODES}:
        problems.append(f"deid rules: {path}: unknown key {', '.join(sorted(extra))}")
    return Rule(action, *(frozenset(detail.get(name, ())) for name in _CODES))
