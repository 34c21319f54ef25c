"""Rows in every table with sealed columns, many at once, and a look at all of them: for rotation and forgetting."""

import asyncio
from collections.abc import Iterator
from typing import Any

from sidecar.errors import SidecarError
from sidecar.store import Cipher, Statement, Step, Store, row_key
from sidecar.store.inventory import SEALED, SealedColumn
from sidecar.store.schema import metadata

PORTION = 1000


def values(number: int) -> dict[str, dict[str, Any]]:
    """The keys of one row in each table; `number` tells rows apart."""
    who = f"patient-{number:07}".encode()
    identity = f"identity-{number:07}".encode()
    return {
        "event": {"focus_key": f"focus-{number:07}".encode()},
        "work": {"patient_key": who, "model": "m"},
        "assessment": {"id": f"{number:07}.1", "identity": identity, "revision": 1, "patient_key": who},
        "effect": {"identity": identity},
    }


def plain(sealed: SealedColumn, number: int) -> bytes:
    """What is in a column of a row before it is sealed; evidence is as long as it usually is."""
    return f"{sealed.place}:{number:07}".encode() * (40 if sealed.column == "evidence" else 1)


def _filled(table: str, row: dict[str, Any]) -> dict[str, Any]:
    kinds = {"TEXT": "x", "BLOB": b"x", "FLOAT": 0.0}
    needed = {c.name: kinds.get(str(c.type), 0) for c in metadata.tables[table].columns if not c.nullable}
    if table == "event":
        needed.pop("id")
    return needed | row


async def fill(store: Store, cipher: Cipher, count: int) -> int:
    """`count` rows of each table; how many sealed values that makes."""
    for start in range(0, count, PORTION):
        steps = []
        numbers = range(start, min(start + PORTION, count))
        for table in dict.fromkeys(s.table for s in SEALED):
            rows = []
            for number in numbers:
                row = values(number)[table]
                if table == "event":
                    row |= {
                        "dedupe_key": row["focus_key"],
                        "state": "done",
                        "done_at": 1.0,
                        "focus_type": "Observation",
                    }
                for sealed in (s for s in SEALED if s.table == table):
                    bound = row_key(*(row[name] for name in sealed.row))
                    row[sealed.column] = cipher.seal(sealed.place, bound, plain(sealed, number))
                rows.append(_filled(table, row))
            names = list(rows[0])
            sql = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{n}' for n in names)})"
            steps.append(Step(Statement(f"fill_{table}", sql), rows))
        await store.commit(*steps)
    return count * len(SEALED)


def _one(sealed: SealedColumn) -> Statement:
    names = ", ".join(dict.fromkeys((*sealed.row, sealed.column)))
    where = " AND ".join(f"{name} = :{name}" for name in sealed.row)
    return Statement(f"one_{sealed.place}", f"SELECT {names} FROM {sealed.table} WHERE {where}")


class Reader:
    """Reads values over and over, as a server with a ring of its own does, and counts what did not open."""

    def __init__(self, store: Store, cipher: Cipher, count: int) -> None:
        self._store, self._cipher, self._count = store, cipher, count
        self.read = 0
        self.failed: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        for number in self._numbers():
            if stop.is_set():
                return
            for sealed in SEALED:
                if sealed.table != "event":  # has no index on what it is bound to
                    await self._look(sealed, number)
            await asyncio.sleep(0)

    def _numbers(self) -> Iterator[int]:
        while True:
            yield from (n * 7919 % self._count for n in range(self._count))

    async def _look(self, sealed: SealedColumn, number: int) -> None:
        keys = {name: values(number)[sealed.table][name] for name in sealed.row}
        (row,) = await self._store.read(_one(sealed), **keys)
        try:
            opened = self._cipher.open(sealed.place, sealed.row_key(row), bytes(row[sealed.column]))
        except SidecarError as error:
            self.failed.append(f"{sealed.place}: {error.reason}")
        else:
            if opened != plain(sealed, number):
                self.failed.append(f"{sealed.place}: another value")
        self.read += 1


async def keys_in_use(store: Store, cipher: Cipher) -> dict[int, int]:
    """How many values each key has sealed; each of them opens as what it was."""
    counts: dict[int, int] = {}
    for sealed in SEALED:
        names = ", ".join(dict.fromkeys((*sealed.row, sealed.column)))
        sql = f"SELECT {names} FROM {sealed.table} WHERE {sealed.column} IS NOT NULL"
        for row in await store.read(Statement("all", sql)):
            value = bytes(row[sealed.column])
            assert cipher.open(sealed.place, sealed.row_key(row), value).startswith(f"{sealed.place}:".encode())
            counts[value[0]] = counts.get(value[0], 0) + 1
    return counts
