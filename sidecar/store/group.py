"""Group commit on one SQLite connection: what has gathered is run in place and committed at once, on a thread.

Statements run where they were asked for, on the event loop's own thread: each takes some microseconds, and handing the
interpreter back and forth between two threads for each of them cost five times as much. Only the commit, which waits
for the disk, and what may take long run on the writer's thread. While it waits, the next group gathers.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import groupby

from sidecar.errors import ClaimLost, NotStored, Retryable
from sidecar.store.engine import COMMAND_S, Job, Row, Statement, Step, merged, settle

MAX_ROWS = 64
"""Of one run of a statement for many rows."""

MOST_STEPS = 512
"""Of one group: it holds the loop up for some milliseconds at most."""

CHECKPOINT_PAGES = 4000
"""Of the log, after which a commit that waits for the disk also writes them to their places."""

PATIENCE_S, BUSY_S = 5.0, 0.01
"""How long the writer's thread waits for a file that another process writes to, as a backup may; and between looks."""

MANY_ROWS = 256
"""What writes more, or may take long by its own account, runs on the writer's thread."""


class GroupWriter:
    """The one who writes through `connection`, which nobody else may use."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("PRAGMA busy_timeout=0")  # nobody waits on the loop
        self._waiting = deque[Job]()
        self._turn = threading.Condition()
        self._writing = self._closed = False
        self._waits = True
        connection.execute("PRAGMA synchronous=FULL")
        self._asked: asyncio.AbstractEventLoop | None = None
        self._begun: queue.SimpleQueue[_Group | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._end_forever, name="store-writer", daemon=True)
        self._thread.start()

    async def run(self, steps: tuple[Step, ...]) -> list[list[Row]]:
        """Run a transaction; what comes back, once it is on disk.

        Raises:
            ClaimLost, Retryable, NotStored: see `Store.commit`.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[list[Row]]] = loop.create_future()
        with self._turn:
            if self._closed:
                raise NotStored("store:closed")
            self._waiting.append(Job(steps, done))
        if not self._writing and self._asked is not loop:
            # Not at once: others that were woken together with the caller have something to write as well.
            self._asked = loop
            loop.call_soon(self._begin)
        return await done

    def close(self) -> None:
        """Finish what was handed in. Blocks; the loops that handed it in may have ended."""
        with self._turn:
            while self._waiting or self._writing:
                if self._writing:
                    self._turn.wait()
                else:
                    self._begin()
            self._closed = True
        self._begun.put(None)
        self._thread.join()

    def _begin(self) -> None:
        """Take what has gathered, unless a group is under way: its end looks again."""
        with self._turn:
            self._asked = None
            if self._writing or not self._waiting:
                return
            self._writing = True
            group = _Group(self._gather())
        if not group.is_heavy:
            group.is_heavy = not self._took_its_turn(group, 0.0)
        if group.is_heavy or self._waits:
            self._begun.put(group)
        else:
            self._end(group)

    def _end(self, group: "_Group") -> None:
        """Commit, tell those who wait, and look who has come meanwhile."""
        self._commit(group)
        with self._turn:
            self._writing = False
            next_loop = self._waiting[0].loop if self._waiting else None
            self._turn.notify_all()
        settle(group.jobs)
        if next_loop is not None:
            try:
                # After those that are told now: they come along.
                next_loop.call_soon_threadsafe(next_loop.call_soon, self._begin)
            except RuntimeError:  # that loop has ended
                self._begin()

    def _gather(self) -> list[Job]:
        jobs: list[Job] = []
        steps = 0
        while self._waiting and steps < MOST_STEPS:
            jobs.append(self._waiting.popleft())
            steps += len(jobs[-1].steps)
        return jobs

    def _end_forever(self) -> None:
        while (group := self._begun.get()) is not None:
            if group.is_heavy:
                self._took_its_turn(group, PATIENCE_S)
            self._end(group)

    def _took_its_turn(self, group: "_Group", patience_s: float) -> bool:
        """Run the group's statements; False, and nothing done, when another process has the file: wait elsewhere."""
        end = time.monotonic() + patience_s
        try:
            if self._connection.in_transaction:  # what could not be rolled back before
                self._connection.execute("ROLLBACK")
            self._wait_for_the_disk(any(job.is_durable for job in group.jobs))
            while True:
                try:
                    self._connection.execute("BEGIN IMMEDIATE")
                    break
                except sqlite3.OperationalError as error:
                    is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                    if is_busy and not patience_s:
                        return False
                    if not is_busy or time.monotonic() >= end:
                        raise
                    time.sleep(BUSY_S)
            self._run_all(group.jobs)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the writer must go on
            group.failed = error
        return True

    def _wait_for_the_disk(self, wait: bool) -> None:  # noqa: FBT001 -- it says what it does
        """Whether the next commit does. One that does covers all before it: the log has one order."""
        if wait != self._waits:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if wait else 'NORMAL'}")
            self._connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES if wait else 0}")
            self._waits = wait

    def _commit(self, group: "_Group") -> None:
        try:
            if group.failed is None:
                self._connection.execute("COMMIT")
                return
        except Exception as error:  # noqa: BLE001 -- as above
            group.failed = error
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")
        for job in group.jobs:
            job.result = NotStored(f"store:{type(group.failed).__name__}")

    def _run_all(self, jobs: Sequence[Job]) -> None:
        """What is of one kind and stands together runs together; the rest runs one by one."""
        for kind, alike in groupby(jobs, key=lambda job: job.kind):
            same = list(alike)
            if not kind or len(same) == 1 or not self._run_merged(same):
                for job in same:
                    self._run_one(job)

    def _run_merged(self, jobs: Sequence[Job]) -> bool:
        """Run many transactions of one kind at once; False, and nothing done, when one of them fails."""
        together = merged(jobs)
        self._run_one(together)
        if isinstance(together.result, Exception):
            return False
        for job in jobs:
            job.result = [[]]
        return True

    def _run_one(self, job: Job) -> None:
        """Run one transaction; when it fails, it alone is undone."""
        self._connection.execute("SAVEPOINT one")
        try:
            job.result = [self._run_step(step) for step in job.steps]
        except Exception as error:  # noqa: BLE001 -- whatever it is, it belongs to this transaction's caller
            self._connection.execute("ROLLBACK TO one")
            job.result = _failure(error)
        self._connection.execute("RELEASE one")

    def _run_step(self, step: Step) -> list[Row]:
        statement, rows = step.statement, step.rows
        if not rows or statement.shared:
            return []
        if statement.returns:
            return [found for row in rows for found in rows_of(self._connection.execute(statement.sql, row))]
        if len(rows) > 1 and statement.many:
            self._run_many(statement, rows)
            return []
        done = (
            self._connection.execute(statement.sql, rows[0])
            if len(rows) == 1
            else self._connection.executemany(statement.sql, rows)
        )
        if step.expect is not None and done.rowcount != step.expect:
            raise ClaimLost(f"claim_lost:{statement.name}")
        return []

    def _run_many(self, statement: Statement, rows: Sequence[Row]) -> None:
        """In powers of two, so that few statements are ever prepared."""
        at = 0
        while at < len(rows):
            size = min(MAX_ROWS, 1 << (len(rows) - at).bit_length() - 1)
            values = [row[name] for row in rows[at : at + size] for name in statement.columns]
            self._connection.execute(statement.of_rows(size), values)
            at += size


def rows_of(found: sqlite3.Cursor) -> list[Row]:
    """All rows, by the names of their columns."""
    rows = found.fetchall()
    names = [column[0] for column in found.description] if rows else ()
    return [dict(zip(names, row, strict=True)) for row in rows]


class _Group:
    """Transactions that share a commit."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.failed: Exception | None = None
        self.is_heavy = any(
            job.within_s > COMMAND_S or sum(len(step.rows) for step in job.steps) > MANY_ROWS for job in jobs
        )


def _failure(error: Exception) -> Exception:
    """A statement that contradicts the data will do so again: that is the work's fault, not the disk's."""
    if isinstance(error, ClaimLost):
        return error
    name = type(error).__name__
    contradicts = isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, OverflowError))
    return Retryable(f"store:{name}") if contradicts else NotStored(f"store:{name}")
