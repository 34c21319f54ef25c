"""What both engines share: statements, steps, and the promises of a store.

A transaction is a value: a tuple of `Step`s. It is all or nothing, also when it shares a commit with others. `commit`
returns only after the data is on disk: only then may a notification be acknowledged. `sidecar.store.sqlite` has one
writer thread a file, `sidecar.store.postgres` a few connections to a database that other processes share.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any
from uuid import uuid4

from sidecar.errors import NotStored

HEAD = "0008"
"""The newest migration; alembic is imported only when the schema is not there yet."""

NEWER = "made by another version of the sidecar; install that version or newer"
MAX_GROUP = 512
SKIP_LOCKED = "/* FOR UPDATE SKIP LOCKED */"
"""Passes over rows that another transaction holds: SQL on PostgreSQL, a comment on SQLite with its one writer."""

COMMAND_S, SLOW_S, URGENT_S = 10.0, 60.0, 2.5
"""The longest that a verb waits for a shared database: usually, for long searches, and for what cannot wait."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Statement:
    """A named piece of SQL with `:named` parameters, the same on either engine.

    `wakes` names what becomes claimable by it. `sort_by` names the parameters by which many rows are sorted where
    others write too: all then take their locks in one order. A `shared` statement is for such a database only.
    `within_s` is the longest to wait for one: with `URGENT_S`, on a connection of its own, behind nothing else.
    A `quick` one looks up a few rows by an index: where the database is a file it is answered in place, since a change
    of thread costs five times the look-up. `many` is the same statement for many rows at once, whose values, by the
    names in `columns`, stand for `{rows}`: SQLite runs it without taking turns with the rest of the process each row.
    One that is not `durable` writes what is found again anyway, such as a claim: with a file, what a power failure (and
    no crash) undoes need not be waited for. It is never undone before, or without, what was written later.
    A transaction whose first statement `leads` may go step by step beside others of the same statements, of which it
    then is a part: none of its steps reads what another's later step writes, unless they share the value of a parameter
    that a statement names as `apart`. Those never go together.
    """

    name: str
    sql: str
    wakes: str = ""
    sort_by: tuple[str, ...] = ()
    shared: bool = False
    within_s: float = COMMAND_S
    quick: bool = False
    durable: bool = True
    many: str = ""
    columns: tuple[str, ...] = ()
    leads: bool = False
    apart: str = ""

    @cached_property
    def returns(self) -> bool:
        """Whether rows come back."""
        return "RETURNING" in self.sql or self.sql.lstrip().startswith("SELECT")

    @lru_cache(maxsize=256)  # noqa: B019 -- statements are constants of the process
    def of_rows(self, count: int) -> str:
        """`many` with positional parameters for `count` rows."""
        row = f"({', '.join('?' * len(self.columns))})"
        return self.many.format(rows=", ".join([row] * count))


@dataclass(frozen=True, slots=True)
class Step:
    """One statement with its rows. `expect` is the number of rows it must touch; else the claim was lost."""

    statement: Statement
    rows: Sequence[Row] = ({},)
    expect: int | None = None


@dataclass(slots=True, eq=False)
class Job:
    """A transaction on its way through an engine, and who waits for it on which loop."""

    steps: tuple[Step, ...]
    done: "asyncio.Future[list[list[Row]]] | None" = None
    result: list[list[Row]] | Exception | None = None

    @property
    def within_s(self) -> float:
        """The longest that it may take."""
        return max((step.statement.within_s for step in self.steps), default=COMMAND_S)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """Where its caller waits."""
        return None if self.done is None else self.done.get_loop()

    @property
    def is_durable(self) -> bool:
        """Whether its caller must wait for the disk."""
        return any(step.statement.durable for step in self.steps)

    @property
    def led(self) -> tuple[Statement, ...]:
        """The statements that it can run beside others of the same, step by step; none when it cannot."""
        steps = self.steps
        fits = bool(steps) and steps[0].statement.leads and all(_is_steady(step) for step in steps)
        return tuple(step.statement for step in steps) if fits else ()

    @property
    def keys(self) -> frozenset[object]:
        """What another must not share to go with it."""
        named = ((step.statement.apart, step.rows) for step in self.steps if step.statement.apart)
        return frozenset(row[name] for name, rows in named for row in rows)

    @property
    def kind(self) -> tuple[Statement, ...]:
        """The statements that it can run together with those of others of its kind; none when it cannot.

        Nothing comes back, nothing is expected, and where there are several, each is for many rows: in any order.
        """
        steps = self.steps
        if any(step.expect is not None or step.statement.returns for step in steps):
            return ()
        return tuple(s.statement for s in steps) if len(steps) == 1 or all(s.statement.many for s in steps) else ()


def _is_steady(step: Step) -> bool:
    """Whether nothing is read of what comes back, and one row says whether the claim was lost."""
    nothing_back = step.statement.shared or not step.statement.returns
    return nothing_back and (step.expect is None or (step.expect == 1 and len(step.rows) == 1))


def merged(jobs: Sequence[Job]) -> Job:
    """Many transactions of the same statements as one, for which nobody waits."""
    return Job(tuple(_together(same) for same in zip(*(job.steps for job in jobs), strict=True)))


def _together(same: Sequence[Step]) -> Step:
    rows = [row for step in same for row in step.rows]
    return Step(same[0].statement, rows, None if same[0].expect is None else len(rows))


def settle(jobs: Iterable[Job]) -> None:
    """Tell the callers, from another thread, what became of their transactions: with one wake-up for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        if job.loop is not None:
            by_loop.setdefault(job.loop, []).append(job)
    for loop, its in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop that waited has ended
            loop.call_soon_threadsafe(_tell, its)


def _tell(jobs: Iterable[Job]) -> None:
    for job in jobs:
        if job.done is None or job.done.done():  # nobody waits any more
            continue
        if isinstance(job.result, Exception):
            job.done.set_exception(job.result)
        else:
            job.done.set_result(job.result or [])


class Store(ABC):
    """An open database. Every verb is a coroutine; blocking work happens on threads of its own.

    `alone` says that no other process can write. `owner` names this process in the claims that it makes.
    """

    alone: bool

    def __init__(self) -> None:
        self.owner = uuid4().hex
        self._closed = False

    def fresh_claim(self) -> str:
        """A token for one claim that names its process, so that others can free it when the process is gone."""
        return self.owner + uuid4().hex

    @abstractmethod
    async def commit(self, *steps: Step) -> list[list[Row]]:
        """Run `steps` as one durable transaction; rows returned, step by step.

        Raises:
            ClaimLost: a step touched another number of rows than expected; nothing of the transaction remains.
            Retryable: the data contradicts it, and would again.
            NotStored: not known to be committed: the disk is full, the database is away, or the store is closed.
                Every verb of the rooms may be repeated after it.
        """

    @abstractmethod
    async def read(self, statement: Statement, **parameters: object) -> list[Row]:
        """Rows of a SELECT, never behind a writer; what was committed before is in them.

        Raises:
            NotStored: the database cannot be read, or is closed.
        """

    def listen(self, heard: Callable[[frozenset[str]], None]) -> None:  # noqa: B027 -- nobody else to listen to
        """Call `heard` on the running loop with what other processes made claimable (`Statement.wakes`)."""

    @abstractmethod
    def close(self) -> None:
        """Finish what was handed in, then close. Blocks; call it from another thread than the loop's."""

    def _must_be_open(self) -> None:
        if self._closed:
            raise NotStored("store:closed")
