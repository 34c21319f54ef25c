"""SQLite with group commit: one writer thread per file takes what has gathered and commits it at once.

`commit` returns only after the data is on disk (`synchronous=FULL`). Measured: group commit is 6 to 20 times the rate
of one commit an event, and more writers only add waiting. One server a file: a lock refuses a second. Statements go to
the driver as they are: it knows `:names`, and a layer in between cost more than the statements.
"""

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

from sidecar.errors import ClaimLost, Misconfigured, NotStored, Retryable
from sidecar.store.engine import HEAD, MAX_GROUP, Job, Row, Statement, Step, Store, merged, settle

MAX_ROWS = 64
LINGER_S, LOOK_S = 0.001, 0.00005
"""How long a commit waits for company, as long as more comes in between two looks. Only after a commit that had some:
who woke together writes together, and a lone write never waits. Measured: half the commits at 64 producers."""


class SqliteStore(Store):
    """One file, ours alone."""

    alone = True

    def __init__(self, url: str) -> None:
        """Open, lock and migrate.

        Raises:
            Misconfigured: another server holds the file, or it cannot be opened or migrated.
        """
        super().__init__()
        self.path = Path(url.removeprefix("sqlite:///"))
        self._lock_file: int | None = _lock(self.path)
        try:
            self._writer = self._connect()
            _migrate(self.path, self._writer)
            self._reader, self._quick = self._connect(), self._connect()
        except (sqlite3.Error, OSError) as error:
            self._unlock()
            raise Misconfigured([f"{self.path}: cannot be used as a database ({type(error).__name__})"]) from None
        except Misconfigured:
            self._unlock()
            raise
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_forever, name="store-writer", daemon=True)
        self._thread.start()
        self._read_pool = ThreadPoolExecutor(1, thread_name_prefix="store-reader")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=512)
        connection.row_factory = _row
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "busy_timeout=5000",
            "wal_autocheckpoint=4000",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    async def commit(self, *steps: Step) -> list[list[Row]]:
        """See `Store.commit`."""
        self._must_be_open()
        done: asyncio.Future[list[list[Row]]] = asyncio.get_running_loop().create_future()
        self._queue.put(Job(steps, done))
        return await done

    async def read(self, statement: Statement, **parameters: object) -> list[Row]:
        """See `Store.read`; from a connection of its own, and what is not `quick` on a thread of its own."""
        self._must_be_open()
        if statement.quick:
            return _read(self._quick, statement, parameters)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._read_pool, _read, self._reader, statement, parameters)

    def close(self) -> None:
        """Finish what was handed in, then close and unlock."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._read_pool.shutdown()
        for connection in (self._quick, self._reader, self._writer):
            connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _write_forever(self) -> None:
        crowded = False
        while True:
            group, closing = self._gather(crowded=crowded)
            crowded = len(group) > 1
            if group:
                self._commit(group)
            if closing:
                return

    def _gather(self, *, crowded: bool) -> tuple[list[Job], bool]:
        first = self._queue.get()
        if crowded:
            self._linger()
        group: list[Job] = []
        while first is not None:
            group.append(first)
            if len(group) >= MAX_GROUP:
                return group, False
            try:
                first = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _linger(self) -> None:
        waiting, end = -1, time.monotonic() + LINGER_S
        while self._queue.qsize() != waiting and time.monotonic() < end:
            waiting = self._queue.qsize()
            time.sleep(LOOK_S)

    def _commit(self, group: list[Job]) -> None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._run_all(group)
            self._writer.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 -- the outermost frame of the writer thread, which must go on
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            for job in group:
                job.result = NotStored(f"store:{type(error).__name__}")
        settle(group)

    def _run_all(self, group: list[Job]) -> None:
        """What is of one kind and stands together runs together; the rest runs one by one."""
        for kind, alike in groupby(group, key=lambda job: job.kind):
            jobs = list(alike)
            if not kind or len(jobs) == 1 or not self._run_merged(jobs):
                for job in jobs:
                    self._run_one(job)

    def _run_merged(self, jobs: list[Job]) -> bool:
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
        self._writer.execute("SAVEPOINT one")
        try:
            job.result = [self._run_step(step) for step in job.steps]
        except Exception as error:  # noqa: BLE001 -- whatever it is, it belongs to this transaction's caller
            self._writer.execute("ROLLBACK TO one")
            job.result = _failure(error)
        self._writer.execute("RELEASE one")

    def _run_step(self, step: Step) -> list[Row]:
        statement, rows = step.statement, step.rows
        if not rows or statement.shared:
            return []
        if statement.returns:
            return [found for row in rows for found in self._writer.execute(statement.sql, row)]
        if len(rows) > 1 and statement.many:
            self._run_many(statement, rows)
            return []
        done = (
            self._writer.execute(statement.sql, rows[0])
            if len(rows) == 1
            else self._writer.executemany(statement.sql, rows)
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
            self._writer.execute(statement.of_rows(size), values)
            at += size


def _row(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> Row:
    return dict(zip([column[0] for column in cursor.description], values, strict=True))


def _read(connection: sqlite3.Connection, statement: Statement, parameters: Mapping[str, object]) -> list[Row]:
    try:
        return connection.execute(statement.sql, parameters).fetchall()
    except sqlite3.Error as error:
        raise NotStored(f"store:{type(error).__name__}") from None


def _failure(error: Exception) -> Exception:
    """A statement that contradicts the data will do so again: that is the work's fault, not the disk's."""
    if isinstance(error, ClaimLost):
        return error
    name = type(error).__name__
    contradicts = isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, OverflowError))
    return Retryable(f"store:{name}") if contradicts else NotStored(f"store:{name}")


def _lock(path: Path) -> int:
    """One server a file: a lock that the kernel drops with the process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Misconfigured([f"{path}: cannot be created ({type(error).__name__})"]) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Misconfigured([f"{path}: another server has this database open; one server a SQLite file"]) from None
    return descriptor


def _migrate(path: Path, connection: sqlite3.Connection) -> None:
    """Bring the schema to `HEAD`; under the file lock, so two starts cannot race."""
    path.chmod(0o600)
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    if known and connection.execute("SELECT version_num FROM alembic_version").fetchone() == {"version_num": HEAD}:
        return
    from sidecar.store.migrate import upgrade_file  # noqa: PLC0415 -- alembic, which only a first start needs

    upgrade_file(path)
