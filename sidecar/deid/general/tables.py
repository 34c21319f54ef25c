"""The policy, compiled once into one function a table, so that a resource costs some tens of microseconds. Pure.

What is not in a table is dropped, whatever it is; what is in it is written anew, never passed through.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from sidecar.deid.general.ages import Ages
from sidecar.deid.general.finish import finishes
from sidecar.deid.general.leaves import Leaves, Read
from sidecar.deid.general.moments import MASKED, Moved, Plain, read
from sidecar.deid.general.names import Names, VaultNames
from sidecar.deid.general.persons import Births
from sidecar.deid.general.references import Key, Scope, Types
from sidecar.deid.general.tally import DROPPED, GENERALISED, KEPT, REPLACED
from sidecar.deid.general.visit import Refused, RefusedEntry, Visit
from sidecar.deid.general.years import Years, unchanged
from sidecar.deid.mode import Mode
from sidecar.deid.policy import Keep, Policy
from sidecar.errors import Misconfigured

Step = Callable[[Any, Visit, dict[str, Any]], None]
Walk = Callable[[Mapping[str, Any], Visit], dict[str, Any]]
_DATES = frozenset({"date", "dateTime", "instant"})
_REPLACED = frozenset({"id", "Reference"})


class Tables:
    """One function for each table of `policy`, for one mode.

    Raises:
        Misconfigured: `safe_harbor_rules` with names that are not drawn at random and kept in a vault.
    """

    def __init__(self, policy: Policy, mode: Mode, today: date, names: Names) -> None:
        capped = mode is Mode.SAFE_HARBOR_RULES
        if capped and not isinstance(names, VaultNames):
            raise Misconfigured(["deid: safe_harbor_rules needs random tokens with a vault, not keyed ones"])
        self.types = Types.of(policy)
        self._policy = policy
        ages = Ages(today) if capped else None
        self._years = Years(today, names) if capped and isinstance(names, VaultNames) else None
        self._moments = self._years or (Moved() if mode is Mode.KEYED_PSEUDONYMS else Plain())
        self._births = Births(self._moments, today)
        self._leaves = Leaves(policy, mode, ages)
        self._finishes = finishes(policy, mode, ages)
        self._nameless = itertools.count()
        self._places: dict[int, str] = {}
        self._making: dict[int, list[Walk]] = {}
        self._walks = {name: self._resource_table(name, table) for name, table in policy.types.items()}

    def whole(self, visit: Visit) -> dict[str, Any]:
        """`run` for a resource that stands alone: what was met of a patient in it is kept, or taken back.

        Raises:
            Refused: as below.
        """
        back = self._mark()
        try:
            out = self.run(visit)
        except BaseException:
            back()
            raise
        if self._years is not None:
            self._years.settle()
        return out

    def _mark(self) -> Callable[[], None]:
        return self._years.mark() if self._years is not None else unchanged

    def run(self, visit: Visit) -> dict[str, Any]:
        """The de-identified form of the resource of `visit`.

        Raises:
            Refused: it has no table, or means something that is not interpreted.
        """
        source = visit.source
        type_name = source.get("resourceType")
        walk = self._walks.get(type_name) if isinstance(type_name, str) else None
        if walk is None:
            named = isinstance(type_name, str) and type_name in self.types.named
            raise Refused(f"type:{type_name if named else '?'}")
        if type_name == "Bundle":
            visit.scope = Scope(self.types, source, visit.scope)
        elif source.get("contained") is not None and visit.container is None:
            self._contained(visit, source["contained"])
        out = {"resourceType": type_name, **walk(source, visit)}
        visit.passed.append(str(type_name))
        return out

    def _contained(self, visit: Visit, listed: object) -> None:
        """Walk what `visit` contains first: a reference to what is not left has to go."""
        held = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        own = "/".join(visit.key) if visit.key is not None else f"?{next(self._nameless)}"
        keys = [self._key_inside(own, each) for each in held]
        named = Counter(each["id"] for each, key in zip(held, keys, strict=True) if key is not None)
        visit.contained = {f"#{e['id']}": k for e, k in zip(held, keys, strict=True) if k and named[e["id"]] == 1}
        for each, key in zip(held, keys, strict=True):
            inner = visit.inner(each)
            inner.key, inner.container = key, visit
            kept = self._passed(inner, visit)
            if kept is not None:
                visit.inside.append(kept)
            elif key is not None:
                visit.contained.pop(f"#{each['id']}", None)

    def _key_inside(self, own: str, resource: Mapping[str, Any]) -> Key | None:
        name, type_name = resource.get("id"), resource.get("resourceType")
        if isinstance(name, str) and isinstance(type_name, str) and type_name in self.types.passed:
            return type_name, f"{own}#{name}"
        return None

    def _passed(self, inner: Visit, visit: Visit) -> dict[str, Any] | None:
        """A resource within another: when it is refused, the rest is not."""
        back = self._mark()
        try:
            out = self.run(inner)
        except Refused as refused:
            back()
            visit.tally.refused[refused.reason] += 1
            return None
        visit.done += inner.done
        visit.passed += inner.passed
        return out

    def _resource_table(self, type_name: str, table: Mapping[str, Keep]) -> Walk:
        steps = self._steps(type_name, table)
        steps["resourceType"] = _nothing
        if "contained" in table and self._policy.extensions:  # a DomainResource
            by_url = Keep("keep", "Extension", many=True)
            steps["extension"] = self._step(f"{type_name}.extension", "extension", by_url)
        return self._walk(type_name, type_name, steps)

    def _table(self, path: str, place: str, table: Mapping[str, Keep]) -> Walk:
        """The function of a nested table, known in the policy as `place` or as the first like it.

        One that contains itself calls itself.
        """
        place = self._places.setdefault(id(table), place)
        around = self._making.get(id(table))
        if around is not None:
            return _deeper(around)
        made = self._making[id(table)] = []
        steps = self._steps(path, table, place)
        made.append(self._walk(path, place, steps))
        del self._making[id(table)]
        return made[0]

    def _walk(self, path: str, place: str, steps: dict[str, Step]) -> Walk:
        steps.setdefault("modifierExtension", _refuse(f"{path}.modifierExtension"))
        step_of = steps.get
        omitted = self._policy.omitted.get(place, frozenset())
        named = {name: f"{path}.{name}" for name in omitted} | {
            f"_{name}": f"{path}._{name}" for name in steps if name[0] != "_"
        }
        unknown = f"{path}.?"
        ends = self._finishes.get(place, ())

        def walk(source: Mapping[str, Any], visit: Visit) -> dict[str, Any]:
            out: dict[str, Any] = {}
            for name, value in source.items():
                step = step_of(name)
                if step is None:
                    visit.tell(named.get(name, unknown), DROPPED)
                elif value is not None:
                    step(value, visit, out)
            for end in ends:
                end(source, out, visit)
            return out

        return walk

    def _steps(self, path: str, table: Mapping[str, Keep], place: str = "") -> dict[str, Step]:
        """The steps of a table. What stands beside a modifier may say that it is not known, or more than it says."""
        steps = {name: self._step(f"{path}.{name}", name, keep, place) for name, keep in table.items()}
        beside = [name for name, keep in table.items() if keep.modifier and keep.do != "death"]
        return {f"_{name}": _refuse(f"{path}.{name}") for name in beside} | steps

    def _step(self, path: str, name: str, keep: Keep, place: str = "") -> Step:
        """What one element becomes."""
        own = {"refuse": _refuse, "relink": self._leaves.relink, "deleted": self._leaves.deleted}.get(keep.do)
        if own is not None:
            return own(path)
        if keep.do in ("birth", "death") or keep.kind in _DATES:
            return self._date(path, name, keep)
        if name == "contained":
            return self._held(path)
        if keep.do in ("place", "labels"):
            read_it, verb = (self._leaves.place, GENERALISED) if keep.do == "place" else (self._leaves.meta, KEPT)
            return self._put(path, name, read_it, keep, verb)
        verb = REPLACED if keep.kind in _REPLACED else KEPT
        return self._put(path, name, self._read(path, name, keep, place), keep, verb)

    def _read(self, path: str, name: str, keep: Keep, place: str) -> Read:
        if keep.kind == "Resource":
            return self._of_entry if path == "Bundle.entry.resource" else self._resource
        if keep.table is not None:
            of_element = self._table(path, f"{place or path.rpartition('.')[0]}.{name}", keep.table)
            return _entry(of_element, self._mark) if path == "Bundle.entry" else _of_dict(of_element)
        leaf = self._leaves.of(path, name, keep)
        if leaf is not None:
            return leaf
        walk = self._walk(path, keep.kind, self._datatype(path, keep.kind))
        return self._leaves.whole(keep.kind, walk) or _of_dict(walk)

    def _datatype(self, path: str, kind: str) -> dict[str, Step]:
        table = self._policy.datatypes.get(kind) or {}
        return self._steps(path, table, kind)

    def _resource(self, value: object, visit: Visit) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            return None
        inner = visit.inner(value)
        own, type_name = value.get("id"), value.get("resourceType")
        inner.key = (type_name, own) if isinstance(own, str) and isinstance(type_name, str) else None
        return self._passed(inner, visit)

    def _of_entry(self, value: object, visit: Visit) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            return None
        inner = visit.inner(value)
        inner.key = visit.entry
        return self._passed(inner, visit)

    def _held(self, path: str) -> Step:
        def step(value: Any, visit: Visit, out: dict[str, Any]) -> None:
            lost = (len(value) if isinstance(value, list) else 1) - len(visit.inside)
            for kept in visit.inside:
                out.setdefault("contained", []).append(kept)
                visit.tell(path, KEPT)
            for _ in range(lost):
                visit.tell(path, DROPPED)

        return step

    def _put(self, path: str, name: str, read_one: Read, keep: Keep, verb: str) -> Step:
        """Write what `read_one` makes of the element, or of each in its list."""
        must, many = keep.modifier, keep.many

        def one(value: Any, visit: Visit) -> Any:
            kept = read_one(value, visit)
            if kept is None and must:
                raise Refused(f"modifier:{path}")
            visit.tell(path, (visit.said or verb) if kept is not None else DROPPED)
            visit.said = None
            return kept

        def single(value: Any, visit: Visit, out: dict[str, Any]) -> None:
            kept = one(value, visit)
            if kept is not None:
                out[name] = kept

        def each(value: Any, visit: Visit, out: dict[str, Any]) -> None:
            if not isinstance(value, list):
                one(None, visit)
                return
            kept = [k for v in value if (k := one(v, visit)) is not None]
            if kept:
                out[name] = kept

        return each if many else single

    def _date(self, path: str, name: str, keep: Keep) -> Step:
        moments = self._births if keep.do == "birth" else self._moments
        kind = keep.kind

        def step(value: Any, visit: Visit, out: dict[str, Any]) -> None:
            written = read(value, kind)
            visit.kind = kind
            did = moments.put(out, name, written, visit) if written is not None else None
            if did is None:
                out[f"_{name}"] = MASKED
            visit.tell(path, did or DROPPED)

        return _of_each(step, name) if keep.many else step


def _of_each(step: Step, name: str) -> Step:
    """A list of primitives, with the list of what stands beside them."""

    def steps(value: Any, visit: Visit, out: dict[str, Any]) -> None:
        listed = []
        for each in value if isinstance(value, list) else (None,):
            made: dict[str, Any] = {}
            step(each, visit, made)
            listed.append(made)
        for key in (name, f"_{name}"):
            if any(key in made for made in listed):
                out[key] = [made.get(key) for made in listed]

    return steps


def _refuse(path: str) -> Step:
    def step(_value: Any, _visit: Visit, _out: dict[str, Any]) -> None:
        raise Refused(f"modifier:{path}")

    return step


def _nothing(_value: Any, _visit: Visit, _out: dict[str, Any]) -> None:
    """The type of a resource has been read."""


def _deeper(made: list[Walk]) -> Walk:
    def walk(source: Mapping[str, Any], visit: Visit) -> dict[str, Any]:
        visit.deeper()
        out = made[0](source, visit)
        visit.depth -= 1
        return out

    return walk


def _of_dict(walk: Walk) -> Read:
    """An element that has elements, if any of them is left."""
    return lambda value, visit: (walk(value, visit) or None) if isinstance(value, dict) else None


def _entry(walk: Walk, mark: Callable[[], Callable[[], None]]) -> Read:
    """An entry of a Bundle, without which a refused resource leaves nothing."""

    def read_entry(value: Any, visit: Visit) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            return None
        visit.entry = visit.scope.key_of_entry(value)
        done, passed, back = len(visit.done), len(visit.passed), mark()
        try:
            kept = walk(value, visit)
        except RefusedEntry as refused:
            back()
            del visit.done[done:], visit.passed[passed:]
            visit.tally.refused[refused.reason] += 1
            return None
        finally:
            visit.entry = None
        return None if "resource" in value and "resource" not in kept else kept or None

    return read_entry
