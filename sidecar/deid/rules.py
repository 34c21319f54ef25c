"""What the path reads of a chart: the tables `[read.*]` of the policy, each element with its action. Pure.

A rule that does not parse, or names what R4 does not have, stops the start: a silently dead rule protects nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.deid.definitions import Element, nearest, r4
from sidecar.deid.keeping import Keep
from sidecar.deid.mode import Mode
from sidecar.deid.sensitive import Sensitive

_ANY = frozenset[str]()
_TIMES = frozenset({"dateTime", "instant"})
_CONCEPT, _PERIOD = frozenset({"CodeableConcept"}), frozenset({"Period"})

# Every action, and the data types that it can read.
ACTIONS: Mapping[str, frozenset[str]] = {
    "abated": frozenset({"Age", "Range", "dateTime", "string"}),
    "abated_period": _PERIOD,
    "absent": _CONCEPT,
    "came_and_went": frozenset({"BackboneElement"}),
    "age": frozenset({"date"}),
    "birth_sex": frozenset({"Extension"}),
    "booked": _TIMES,
    "booked_until": _TIMES,
    "charted": _TIMES,
    "clinical_status": _CONCEPT,
    "codes": _CONCEPT,
    "coding": frozenset({"Coding"}),
    "components": frozenset({"BackboneElement"}),
    "deceased": frozenset({"boolean", "dateTime"}),
    "gender": frozenset({"code"}),
    "happened": _TIMES,
    "happened_period": _PERIOD,
    "inactive": frozenset({"boolean"}),
    "kinds": _CONCEPT,
    "limit": _CONCEPT,
    "merged": frozenset({"BackboneElement"}),
    "must_not": frozenset({"boolean"}),
    "number": frozenset({"integer", "positiveInt", "unsignedInt"}),
    "onset": _TIMES,
    "onset_period": _PERIOD,
    "open_status": frozenset({"code"}),
    "open_until": _PERIOD,
    "part": frozenset({"Reference"}),
    "period": _PERIOD,
    "quantity": frozenset({"Quantity"}),
    "recorded": _TIMES,
    "refuse": _ANY,
    "standing": frozenset({"code"}),
    "status": frozenset({"code"}),
    "status_word": frozenset({"code"}),
    "time": _TIMES,
    "uninterpreted": _ANY,
    "value_codes": _CONCEPT,
    "verification": _CONCEPT,
    "weaker": frozenset({"boolean"}),
}

MEANT = frozenset(
    {
        "absent",
        "clinical_status",
        "deceased",
        "inactive",
        "must_not",
        "open_status",
        "refuse",
        "standing",
        "status",
        "status_word",
        "verification",
        "weaker",
    }
)
"""Actions on what changes the meaning of the rest: without a value, `_name` says that there is one and not which."""

_CODES = ("usable", "doubtful", "over", "void")
_HL7 = "http://terminology.hl7.org/CodeSystem/"
_SYSTEMS = {
    "Condition.clinicalStatus": f"{_HL7}condition-clinical",
    "Condition.verificationStatus": f"{_HL7}condition-ver-status",
    "AllergyIntolerance.clinicalStatus": f"{_HL7}allergyintolerance-clinical",
    "AllergyIntolerance.verificationStatus": f"{_HL7}allergyintolerance-verification",
}
# What a statement is about is read before anything else, and decides whether anything else is read.
_ABOUT = ("components", "codes")


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to one element. `usable`, `doubtful`, `over` and `void` are the codes of a status element.

    `system` is the one that the required binding of a coded status names: a code of any other says nothing.
    """

    do: str
    usable: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()
    over: frozenset[str] = frozenset()
    void: frozenset[str] = frozenset()
    system: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """What the path may read: element rules by resource type, systems and units, what is sensitive, mode and digest.

    `of_component` are the rules of an Observation for each of its components, which have none of their own. `kept` are
    the tables `[keep.*]`, by type: a value that FHIRPath finds is found among what they keep.
    `age_codes` are those of statements about an age.
    """

    types: Mapping[str, Mapping[str, Rule]]
    of_component: Mapping[str, Rule]
    systems: frozenset[str]
    units: frozenset[str]
    sensitive: Sensitive
    siblings: frozenset[str]
    mode: Mode
    digest: str
    kept: Mapping[str, Mapping[str, Keep]] = field(default_factory=dict)
    age_codes: frozenset[str] = frozenset()


def read_tables(written: object, problems: list[str]) -> dict[str, dict[str, Rule]]:
    """The rules of `[read.*]`, as far as they are good; every other one adds to `problems`."""
    if not isinstance(written, dict):
        problems.append("deid rules: read must be a table of resource types")
        return {}
    return {name: _elements(name, table, problems) for name, table in written.items()}


def siblings(types: Mapping[str, Mapping[str, Rule]]) -> frozenset[str]:
    """The `_name`s of all elements whose meaning is not lost when their value is."""
    return frozenset(f"_{name}" for table in types.values() for name, rule in table.items() if rule.do in MEANT)


def of_component(types: Mapping[str, Mapping[str, Rule]]) -> dict[str, Rule]:
    """The rules of an Observation that its components have too."""
    return {name: rule for name, rule in types.get("Observation", {}).items() if rule.do != "components"}


def _elements(type_name: str, table: object, problems: list[str]) -> dict[str, Rule]:
    where = f"deid rules: read.{type_name}"
    if type_name not in r4().resources:
        problems.append(f"{where}: no resource type that the policy knows{nearest(type_name, r4().resources)}")
        return {}
    if not isinstance(table, dict):
        problems.append(f"{where} must be a table of elements")
        return {}
    known = r4().elements(type_name)
    problems.extend(
        f"{where}.{name}: R4 has no such element{nearest(name, known)}" for name in table if name not in known
    )
    rules = {name: _rule(f"{where}.{name}", value, known.get(name), problems) for name, value in table.items()}
    does = [rule.do for rule in rules.values()]
    first = [action for action in _ABOUT if action in does]
    if does[: len(first)] != first:
        problems.append(f"{where}: must begin with {', then '.join(first)}")
    problems.extend(
        f"{where}.{name}: changes what a statement means, so it must be read; refuse it at least"
        for name, element in known.items()
        if element.modifier and name not in table
    )
    return rules


def _rule(where: str, value: object, element: Element | None, problems: list[str]) -> Rule:
    detail: dict[str, Any] = value if isinstance(value, dict) else {"do": value}
    action = detail.get("do")
    if not isinstance(action, str) or action not in ACTIONS:
        problems.append(f"{where}: unknown action; one of {', '.join(sorted(ACTIONS))}")
        return Rule("refuse")
    kinds = ACTIONS[action]
    if element is not None and kinds and element.kind not in kinds:
        problems.append(f"{where}: {action} cannot read {element.kind}, only {', '.join(sorted(kinds))}")
    if extra := set(detail) - {"do", *_CODES}:
        problems.append(f"{where}: unknown key {', '.join(sorted(extra))}")
    lists = {name: _codes(f"{where}.{name}", detail.get(name, []), element, problems) for name in _CODES}
    system = _SYSTEMS.get(where.removeprefix("deid rules: read."), "")
    if action in {"clinical_status", "verification"} and not system:
        problems.append(f"{where}: {action} reads one of {', '.join(_SYSTEMS)}")
    return Rule(action, system=system, **lists)


def _codes(where: str, listed: object, element: Element | None, problems: list[str]) -> frozenset[str]:
    if not isinstance(listed, list) or not all(isinstance(code, str) for code in listed):
        problems.append(f"{where}: must be a list of codes")
        return frozenset()
    if element is not None and element.codes and (stray := set(listed) - element.codes):
        problems.append(f"{where}: R4 has no {', '.join(sorted(stray))}; one of {', '.join(sorted(element.codes))}")
    return frozenset(listed)
