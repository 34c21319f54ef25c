"""Look-ups in a shared database, many in one round trip: those of one kind that gather while the last are on their way.

A look-up begins after it was asked for, never before: what was committed by then is in it.
https://www.postgresql.org/docs/current/queries-table-expressions.html#QUERIES-LATERAL
"""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sidecar.store.engine import MAX_GROUP, Job, Row, Statement, Step, settle

TYPES = {
    "assessment_id": "text", "before": "int8", "claim": "text", "digest": "text", "id": "text", "identity": "bytea",
    "model": "text", "now": "float8", "number": "int8", "patient_key": "bytea", "resource_key": "bytea",
    "since": "float8", "source": "text", "until": "float8",
}  # fmt: skip
"""Of the parameters of quick statements, by their names."""

_PARAMETER = re.compile(r":(\w+)")
Fetch = Callable[[str, Sequence[Any], float], Awaitable[Sequence[Mapping[str, Any]]]]


@lru_cache(maxsize=64)
def of_many(statement: Statement) -> tuple[str, tuple[str, ...]]:
    """The statement for many asked at once, each parameter an array; and the names in that order."""
    names = tuple(dict.fromkeys(_PARAMETER.findall(statement.sql)))
    arrays = ", ".join(f"${n}::{TYPES[name]}[]" for n, name in enumerate(names, start=1))
    one = _PARAMETER.sub(r"asked.\1", statement.sql)
    sql = (
        f"SELECT asked.asked_n, found.* FROM unnest({arrays}) WITH ORDINALITY AS asked ({', '.join(names)}, asked_n) "  # noqa: S608 -- constants
        f"CROSS JOIN LATERAL ({one}) AS found"
    )
    return sql, names


class Lookups:
    """Asked from any loop, answered on the store's own. `fetch(sql, arguments, within_s)` runs one query there."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spawn: Callable[[Any], None], fetch: Fetch) -> None:
        self._loop, self._spawn, self._fetch = loop, spawn, fetch
        self._asked: dict[Statement, list[Job]] = {}
        self._turn = threading.Lock()

    async def ask(self, statement: Statement, parameters: Row) -> list[Row]:
        """Its rows.

        Raises:
            NotStored: the database cannot be read.
        """
        done: asyncio.Future[list[list[Row]]] = asyncio.get_running_loop().create_future()
        of_many(statement)  # a parameter without a type fails its caller
        job = Job((Step(statement, (parameters,)),), done)
        with self._turn:
            gathering = self._asked.get(statement)
            if gathering is not None:
                gathering.append(job)
            else:
                self._asked[statement] = [job]
        if gathering is None:
            self._loop.call_soon_threadsafe(lambda: self._spawn(self._answer(statement)))
        return (await done)[0]

    async def _answer(self, statement: Statement) -> None:
        while jobs := self._next(statement):
            try:
                rows = await self._rows(statement, jobs)
            except Exception as error:  # noqa: BLE001 -- whatever it is, those who asked must hear of it
                for job in jobs:
                    job.result = error
            else:
                for job, found in zip(jobs, rows, strict=True):
                    job.result = [found]
            settle(jobs)

    def _next(self, statement: Statement) -> list[Job]:
        """What has gathered; when nothing has, the next to ask begins anew."""
        with self._turn:
            jobs, self._asked[statement] = self._asked[statement][:MAX_GROUP], self._asked[statement][MAX_GROUP:]
            if not jobs:
                del self._asked[statement]
            return jobs

    async def _rows(self, statement: Statement, jobs: Sequence[Job]) -> list[list[Row]]:
        sql, names = of_many(statement)
        asked = [job.steps[0].rows[0] for job in jobs]
        found = await self._fetch(sql, [[row[name] for row in asked] for name in names], statement.within_s)
        rows: list[list[Row]] = [[] for _ in jobs]
        for row in found:
            values = dict(row)
            rows[values.pop("asked_n") - 1].append(values)
        return rows
