"""SQLite with group commit (`sidecar.store.group`): one writer a file, and one server: a lock refuses a second.

`commit` returns only after the data is on disk (`synchronous=FULL`). Measured: group commit is 6 to 20 times the rate
of one commit an event, and more writers only add waiting. Statements go to the driver as they are: it knows `:names`,
and a layer in between cost more than the statements.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sidecar.errors import Misconfigured, NotStored
from sidecar.store.engine import HEAD, Row, Statement, Step, Store
from sidecar.store.group import GroupWriter, rows_of

LOG_BYTES = 32 * 1024 * 1024
"""What the log of a commit and its checkpoint may need."""


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
        self._group = GroupWriter(self._writer)
        self._read_pool = ThreadPoolExecutor(1, thread_name_prefix="store-reader")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=512)
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
        return await self._group.run(steps)

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
        self._group.close()
        self._read_pool.shutdown()
        for connection in (self._quick, self._reader, self._writer):
            connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None


def room_beside(path: Path) -> int:
    """Bytes that the file can still grow by: free on its disk, and free in the file, which never shrinks.

    Where the disk has less than `LOG_BYTES`, only the disk counts: every commit goes through the log beside the file.

    Raises:
        OSError: the disk does not say.
    """
    free = shutil.disk_usage(path.parent).free
    if free < LOG_BYTES:
        return free
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.0)) as connection:
            pages, size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size")
            )
    except sqlite3.Error:
        return free
    return free + int(pages) * int(size)


def _read(connection: sqlite3.Connection, statement: Statement, parameters: Mapping[str, object]) -> list[Row]:
    try:
        return rows_of(connection.execute(statement.sql, parameters))
    except sqlite3.Error as error:
        raise NotStored(f"store:{type(error).__name__}") from None


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
    if known and connection.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,):
        return
    from sidecar.store.migrate import upgrade_file  # noqa: PLC0415 -- alembic, which only a first start needs

    upgrade_file(path)
