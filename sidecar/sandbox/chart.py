"""The chart: every version of every resource, in memory, with all-or-nothing changes.

Synchronous on purpose: nothing awaits between a check and the write that relies on it, so conditional
creates cannot race (https://hl7.org/fhir/R4/http.html#ccreate). Whoever listens hears of a version only once
it is final.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from sidecar.sandbox.moments import Span, instant, milliseconds
from sidecar.sandbox.outcome import Resource

INDEXED = (("identifier",), ("subject",), ("encounter",), ("for",))
"""The elements a search can narrow by before it looks at whole resources."""


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """One version of one resource; `resource` is None when this version is its deletion."""

    type_name: str
    logical_id: str
    number: int
    moment: Span
    method: str
    resource: Resource | None
    body: bytes

    @property
    def at(self) -> datetime:
        """The instant it was stored, as `meta.lastUpdated` says it."""
        return self.moment.low

    @property
    def reference(self) -> str:
        """The relative reference, without a version."""
        return f"{self.type_name}/{self.logical_id}"

    @property
    def etag(self) -> str:
        """The weak ETag R4 asks for."""
        return f'W/"{self.number}"'


def bare_id(reference: str) -> str:
    """Return the logical id at the end of a relative, absolute or versioned reference."""
    return reference.partition("/_history/")[0].rpartition("/")[-1]


def _keys(resource: Resource | None) -> set[str]:
    """Return the index keys of a resource: ids it refers to, identifier values it carries."""
    keys: set[str] = set()
    for (element,) in INDEXED:
        value: Any = (resource or {}).get(element)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                keys.add(bare_id(str(each["reference"])) if "reference" in each else str(each.get("value")))
    return keys


class Chart:
    """Versions by (type, id); the newest one counts, older ones stay readable."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        """Open an empty chart; `clock` (aware) gives `meta.lastUpdated`."""
        self.clock = clock
        self.listener: Callable[[Version], None] | None = None
        self._versions: dict[tuple[str, str], list[Version]] = {}
        self._living: dict[str, dict[str, Version]] = {}
        self._index: dict[tuple[str, str], dict[str, None]] = {}
        self._journal: list[Version] = []
        self._atomic = False
        self._last_id = 0

    def put(self, type_name: str, logical_id: str, resource: Resource, method: str = "PUT") -> Version:
        """Store `resource` as the next version, stamped with id and meta; the chart keeps the dict."""
        number = len(self.versions(type_name, logical_id)) + 1
        moment = self._moment()
        meta = {**resource.get("meta", {}), "versionId": str(number), "lastUpdated": instant(moment.low)}
        stamped = {"resourceType": type_name, "id": logical_id, "meta": meta}
        stamped |= {name: value for name, value in resource.items() if name not in stamped}
        version = Version(type_name, logical_id, number, moment, method, stamped, orjson.dumps(stamped))
        return self._append(version)

    def delete(self, type_name: str, logical_id: str) -> Version:
        """Store the deletion of a living resource as its next version."""
        number = len(self.versions(type_name, logical_id)) + 1
        return self._append(
            Version(type_name, logical_id, number, self._moment(), "DELETE", None, b""),
        )

    def current(self, type_name: str, logical_id: str) -> Version | None:
        """Return the newest version, which may be a deletion; None when the id was never used."""
        versions = self._versions.get((type_name, logical_id))
        return versions[-1] if versions else None

    def alive(self, type_name: str, logical_id: str) -> Version | None:
        """Return the newest version unless it is a deletion."""
        return self._living.get(type_name, {}).get(logical_id)

    def versions(self, type_name: str, logical_id: str) -> Sequence[Version]:
        """Return every version, oldest first."""
        return self._versions.get((type_name, logical_id), [])

    def living(self, type_name: str) -> list[Version]:
        """Return the current version of every living resource of a type, oldest resource first."""
        return list(self._living.get(type_name, {}).values())

    def narrowed(self, type_name: str, keys: Iterable[str]) -> list[Version]:
        """Return at least every living resource of a type that carries one of the index `keys`."""
        ids: dict[str, None] = {}
        for key in keys:
            ids |= self._index.get((type_name, key), {})
        living = self._living.get(type_name, {})
        return [living[logical_id] for logical_id in ids]

    def journal(self, type_name: str) -> list[Version]:
        """Return every version of every resource of a type, in the order they were stored."""
        return [version for version in self._journal if version.type_name == type_name]

    def new_id(self, type_name: str) -> str:
        """Return an id no resource of the type ever had; deterministic for a given order of writes."""
        while True:
            self._last_id += 1
            candidate = f"s{self._last_id}"
            if self.current(type_name, candidate) is None:
                return candidate

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Keep all changes made inside, or none when it raises; listeners hear of them at the end."""
        start = len(self._journal)
        self._atomic = True
        try:
            yield
        except BaseException:
            self._undo(start)
            raise
        finally:
            self._atomic = False
        for version in self._journal[start:]:
            self._tell(version)

    def _moment(self) -> Span:
        low = milliseconds(self.clock())
        return Span(low, low + timedelta(milliseconds=1))

    def _append(self, version: Version) -> Version:
        self._journal.append(version)
        self._versions.setdefault((version.type_name, version.logical_id), []).append(version)
        self._show(version)
        if not self._atomic:
            self._tell(version)
        return version

    def _show(self, version: Version) -> None:
        """Make `version` the one that reads and searches see."""
        living = self._living.setdefault(version.type_name, {})
        before = living.get(version.logical_id)
        old, new = _keys(before.resource if before else None), _keys(version.resource)
        for key in old - new:
            self._index[version.type_name, key].pop(version.logical_id, None)
        for key in new - old:
            self._index.setdefault((version.type_name, key), {})[version.logical_id] = None
        if version.resource is None:
            living.pop(version.logical_id, None)
        else:
            living[version.logical_id] = version

    def _undo(self, start: int) -> None:
        undone = {version.type_name for version in self._journal[start:]}
        while len(self._journal) > start:
            version = self._journal.pop()
            versions = self._versions[version.type_name, version.logical_id]
            versions.pop()
            gone = Version(version.type_name, version.logical_id, 0, version.moment, "DELETE", None, b"")
            self._show(versions[-1] if versions else gone)
            if not versions:
                del self._versions[version.type_name, version.logical_id]
        # Undoing a deletion showed the resource as if it were the youngest; give everything its place again.
        for type_name in undone:
            living = self._living[type_name]
            ids = [logical_id for of_type, logical_id in self._versions if of_type == type_name]
            self._living[type_name] = {each: living[each] for each in ids if each in living}

    def _tell(self, version: Version) -> None:
        if self.listener is not None:
            self.listener(version)
