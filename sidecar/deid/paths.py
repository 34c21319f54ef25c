"""FHIRPath of a manifest, compiled to plain Python over what the policy keeps of a resource. Pure.

Deny by default holds here too: an expression may name an element only if `[keep.*]` keeps it, and can come to nothing
but a number, a Quantity, or true or false. Codes may be compared with literals; dates may only be there or not; texts,
ids and references cannot be named at all. All of that is decided once, before a patient is looked at.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from sidecar.deid.definitions import Element, nearest, r4
from sidecar.deid.keeping import Keep
from sidecar.deid.rules import Rules
from sidecar.deid.values import LARGEST, is_compared, says_limit
from sidecar.manifest import PathRead, Wanted
from sidecar.manifest.fhirpath import SUPPORTED, Binary, Call, Literal, Node, Step, parse

Items: TypeAlias = list[Any]
Run: TypeAlias = Callable[[Items], Items]
_NUMBERS = frozenset({"decimal", "integer", "positiveInt", "unsignedInt"})
_TIMES = frozenset({"date", "dateTime", "instant", "time"})
_SIMPLE = frozenset({"boolean", "number", "text"})
_COMPARABLE: Mapping[str, frozenset[str]] = {
    "=": _SIMPLE, "!=": _SIMPLE, "and": frozenset({"boolean"}), "or": frozenset({"boolean"}),
}  # fmt: skip
_QUANTITIES = frozenset({"Quantity", "Age", "Count", "Distance", "Duration"})


class Odd(Exception):
    """What is charted is not of the form that the expression speaks of, or its number is only a limit: see `reason`."""

    def __init__(self, reason: str = "shape") -> None:
        super().__init__(reason)
        self.reason = reason


class _Type(NamedTuple):
    """What an expression comes to: "boolean", "number", "text", "time", or the name of an R4 type with its elements.

    An element of several types has no kind until `ofType` picks one: `choice` has its names in JSON by type, and `lost`
    says that one of them is not kept. `tables` are the policy's, by type.
    """

    kind: str
    tables: Mapping[str, Mapping[str, Keep]] = {}
    kept: Mapping[str, Keep] = {}
    elements: Mapping[str, Element] = {}
    choice: Mapping[str, str] = {}
    lost: bool = False
    root: bool = False


class Compiled(NamedTuple):
    """An expression, ready to run on a resource; `quantity` says that it comes to a Quantity.

    `names` are those of all elements in it, as FHIRPath calls them.
    """

    run: Run
    quantity: bool
    names: frozenset[str]

    def of(self, resource: Mapping[str, Any]) -> Any:
        """The one value, or None where there is none.

        Raises:
            Odd: there are several, what is charted is not of the form that R4 says, or a number is only a limit.
        """
        found = self.run([resource])
        if len(found) > 1:
            raise Odd
        return found[0] if found else None


def unreadable(rules: Rules, reads: Mapping[str, frozenset[str]]) -> list[str]:
    """A sentence for each expression of a manifest that means nothing in R4 or reads what the policy does not keep."""
    said = []
    for type_name, path in _paths(reads):
        try:
            compiled(rules, type_name, path.expression)
        except ValueError as problem:
            said.append(f'fhirpath "{path.expression}" of {type_name}: {problem}')
    return said


def _paths(reads: Mapping[str, frozenset[str]]) -> Iterable[tuple[str, PathRead]]:
    for type_name, wanted in reads.items():
        for path in wanted.paths if isinstance(wanted, Wanted) else ():
            yield type_name, path


@lru_cache(maxsize=512)
def compiled(rules: Rules, type_name: str, expression: str) -> Compiled:
    """`expression` on resources of a type, by a policy.

    Raises:
        ValueError: it is not of the supported part, or names what is not kept.
    """
    tables = rules.kept
    root = _Type(type_name, tables, tables.get(type_name, {}), r4().elements(type_name), root=True)
    parsed = parse(expression)
    found, run = _compile(parsed, root)
    if found.kind not in _QUANTITIES | {"boolean", "number"}:
        raise ValueError(f"comes to {found.kind or 'a choice of types'}, not to a number, a Quantity, or true or false")
    return Compiled(run, found.kind in _QUANTITIES, frozenset(_names(parsed)))


def _names(node: Node | None) -> Iterator[str]:
    """Every element that an expression names."""
    if isinstance(node, Step):
        yield node.name
        yield from _names(node.of)
    elif isinstance(node, Call):
        yield from (*_names(node.of), *_names(node.criteria))
    elif isinstance(node, Binary):
        yield from (*_names(node.left), *_names(node.right))


def _compile(node: Node, focus: _Type) -> tuple[_Type, Run]:
    if isinstance(node, Literal):
        kind = "text" if isinstance(node.value, str) else "boolean" if isinstance(node.value, bool) else "number"
        return _Type(kind), lambda _: [node.value]
    if isinstance(node, Step):
        return _step(node, focus)
    return _call(node, focus) if isinstance(node, Call) else _binary(node, focus)


def _step(node: Step, focus: _Type) -> tuple[_Type, Run]:
    if node.of is None and focus.root and node.name == focus.kind:
        return focus, lambda items: items
    before, run = (focus, _same) if node.of is None else _compile(node.of, focus)
    said = {n: n if e.choice is None else e.choice.removesuffix("[x]") for n, e in before.elements.items()}
    names = [n for n, word in said.items() if word == node.name]
    if not names:
        raise ValueError(f"R4 has no {node.name} of {before.kind}{nearest(node.name, said.values())}")
    if len(names) == 1:
        return _element(names[0], before, run)
    kinds = {before.elements[n].kind: n for n in names if n in before.kept and before.kept[n].do == "keep"}
    made = _Type("", before.tables, choice=kinds, lost=len(kinds) < len(names))
    told = _told(node.name, before, run)
    return made, lambda items: [value for n in names for value in _values(told(items), n)]


def _element(name: str, before: _Type, run: Run) -> tuple[_Type, Run]:
    """One element by its name in JSON."""
    keep, element = before.kept.get(name), before.elements[name]
    if keep is None or keep.do != "keep":
        raise ValueError(f"the de-identification policy does not keep {name} of {before.kind}")
    kind = _kind(keep.kind)
    if kind is None:
        raise ValueError(f"{name} of {before.kind} is a {keep.kind}, which no expression reads")
    if keep.table is not None:
        made = _Type(kind, before.tables, keep.table, element.parts)
    else:
        made = _Type(kind, before.tables, before.tables.get(kind, {}), r4().elements(kind))
    check, told = _CHECKS.get(kind, _is_object), _told(name, before, run)
    return made, lambda items: [check(value) for value in _values(told(items), name)]


def _told(name: str, before: _Type, run: Run) -> Run:
    """The items before the step to `name`; of those whose value is meant, what is said beside it counts first."""
    if before.kind in _QUANTITIES and name == "value":
        return lambda items: [_plain(item) for item in run(items)]
    if "dataAbsentReason" in before.elements and name.startswith("value"):
        return lambda items: [item for item in run(items) if _is_measured(item)]
    return run


def _plain(item: Any) -> Any:
    if is_compared(item):
        raise Odd("comparator")
    return item


def _is_measured(item: Any) -> bool:
    """Whether an Observation or a component has a value, and that is no mere limit."""
    if says_limit(item.get("interpretation")):
        raise Odd("comparator")
    return item.get("dataAbsentReason") is None and item.get("_dataAbsentReason") is None


def _call(node: Call, focus: _Type) -> tuple[_Type, Run]:
    before, run = (focus, _same) if node.of is None else _compile(node.of, focus)
    name = node.name
    if name == "ofType":
        return _of_type(node, before, focus)
    if before.lost:
        raise ValueError(f"some types of it are not kept; pick one by ofType(): {', '.join(sorted(before.choice))}")
    if node.criteria is not None:
        return _filtered(node, before, run)
    if name == "not" and before.kind != "boolean":
        raise ValueError("not() is of true and false")
    made = _AS_BEFORE.get(name)
    if made is not None or name == "index":
        index = int(node.argument) if name == "index" else 0
        cut = made or (lambda found: found[index : index + 1])
        return before, lambda items: cut(run(items))
    kind, fold = _FOLDS[name]
    return _Type(kind), lambda items: fold(run(items))


def _filtered(node: Call, before: _Type, run: Run) -> tuple[_Type, Run]:
    """`where(…)` and `exists(…)`: the items for which the criteria are true."""
    wanted, criteria = _compile(node.criteria or Literal(value=True), before._replace(root=False))
    if wanted.kind != "boolean":
        raise ValueError(f"what stands in {node.name}() must be true or false")

    def kept(items: Items) -> Items:
        return [item for item in run(items) if _one(criteria([item])) is True]

    return (_Type("boolean"), lambda items: [bool(kept(items))]) if node.name == "exists" else (before, kept)


def _of_type(node: Call, before: _Type, focus: _Type) -> tuple[_Type, Run]:
    if not before.choice or not isinstance(node.of, Step):
        raise ValueError("ofType() picks a type of an element that may be of several")
    name = before.choice.get(node.argument)
    if name is None:
        known = ", ".join(sorted(before.choice)) or "none"
        raise ValueError(f"{node.of.name} is no {node.argument} that is kept; of its types these are: {known}")
    inner, run = (focus, _same) if node.of.of is None else _compile(node.of.of, focus)
    return _element(name, inner, run)


def _binary(node: Binary, focus: _Type) -> tuple[_Type, Run]:
    (left, one), (right, other) = _compile(node.left, focus), _compile(node.right, focus)
    kinds = {left.kind, right.kind}
    if len(kinds) != 1 or not kinds <= _COMPARABLE.get(node.sign, {"number"}):
        sides = f"{left.kind or 'a choice'} {node.sign} {right.kind or 'a choice'}"
        raise ValueError(f"{sides} is not supported; {SUPPORTED}")
    does = _SIGNS[node.sign]
    return _Type("boolean"), lambda items: does(one(items), other(items))


def _kind(kind: str) -> str | None:
    """What a value of an R4 type is here; None for what may hold a name."""
    if kind in _NUMBERS:
        return "number"
    if kind in _TIMES:
        return "time"
    if kind in {"boolean", "code"}:
        return "boolean" if kind == "boolean" else "text"
    return kind if kind in r4().datatypes or kind == "BackboneElement" else None


def _same(items: Items) -> Items:
    return items


def _values(items: Items, name: str) -> Items:
    found: Items = []
    for item in items:
        value = item.get(name)
        if isinstance(value, list):
            found += [each for each in value if each is not None]
        elif value is not None:
            found.append(value)
    return found


def _is_number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST:
        return value
    raise Odd


def _is_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    raise Odd


def _is_text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    raise Odd


def _is_object(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    raise Odd


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "number": _is_number, "boolean": _is_boolean, "text": _is_text, "time": _is_text,
}  # fmt: skip


def _one(found: Items) -> Any:
    if len(found) > 1:
        raise Odd
    return found[0] if found else None


def _equal(left: Items, right: Items) -> Items:
    return [left == right] if left and right else []


def _unequal(left: Items, right: Items) -> Items:
    return [left != right] if left and right else []


def _and(left: Items, right: Items) -> Items:
    one, other = _one(left), _one(right)
    if one is False or other is False:
        return [False]
    return [] if one is None or other is None else [True]


def _or(left: Items, right: Items) -> Items:
    one, other = _one(left), _one(right)
    if one is True or other is True:
        return [True]
    return [] if one is None or other is None else [False]


def _ordered(holds: Callable[[float, float], bool]) -> Callable[[Items, Items], Items]:
    def compare(left: Items, right: Items) -> Items:
        one, other = _one(left), _one(right)
        return [] if one is None or other is None else [holds(one, other)]

    return compare


def _not(found: Items) -> Items:
    value = _one(found)
    return [] if value is None else [not value]


_SIGNS: Mapping[str, Callable[[Items, Items], Items]] = {
    "=": _equal, "!=": _unequal, "and": _and, "or": _or,
    "<": _ordered(lambda a, b: a < b), "<=": _ordered(lambda a, b: a <= b),
    ">": _ordered(lambda a, b: a > b), ">=": _ordered(lambda a, b: a >= b),
}  # fmt: skip
_AS_BEFORE: Mapping[str, Run] = {"first": lambda found: found[:1], "last": lambda found: found[-1:]}
_FOLDS: Mapping[str, tuple[str, Run]] = {
    "exists": ("boolean", lambda found: [bool(found)]),
    "empty": ("boolean", lambda found: [not found]),
    "count": ("number", lambda found: [len(found)]),
    "not": ("boolean", _not),
}
