"""The database of a campaign of planted values, on either engine: what of it can be read by whoever has its files."""

import asyncio
import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import asyncpg

from tests import postgres
from tests.campaigns.leaks import lines_of

Place = tuple[str, Iterator[bytes]]
"""What is searched, and where it is from."""


def pieces(file: Path) -> Iterator[bytes]:
    """A file, a piece at a time."""
    with file.open("rb") as content:
        while piece := content.read(1 << 20):
            yield piece


class Database(Protocol):
    """What the campaign does to a database, and what it looks at."""

    url: str

    def log(self) -> bytes:
        """What is written before the tables are, as it is now."""

    async def shut(self, seconds: float) -> None:
        """Let nobody write for that long."""

    def back_up(self) -> None:
        """As an operator would, while the server runs."""

    def places(self) -> Iterator[Place]:
        """Its files, the backup, and each table as it is."""

    def close(self) -> None:
        """It is not needed any more."""


class Sqlite:
    """A file in `folder`; everything in the folder counts as the database's."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "sidecar.db"
        self.url = f"sqlite:///{self._file}"

    def log(self) -> bytes:
        """See `Database`."""
        log = self._file.with_name("sidecar.db-wal")
        return log.read_bytes() if log.exists() else b""

    async def shut(self, seconds: float) -> None:
        """See `Database`."""
        with contextlib.closing(sqlite3.connect(self._file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(seconds)
            other.execute("ROLLBACK")

    def back_up(self) -> None:
        """See `Database`."""
        copied = self._file.with_name("backup.db")
        with (
            contextlib.closing(sqlite3.connect(self._file)) as own,
            contextlib.closing(sqlite3.connect(copied)) as copy,
        ):
            own.backup(copy)

    def places(self) -> Iterator[Place]:
        """See `Database`."""
        yield from (
            (f"file {file.name}", pieces(file)) for file in sorted(self._file.parent.iterdir()) if file.is_file()
        )
        with contextlib.closing(sqlite3.connect(self._file)) as database:
            names = [n for (n,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
            for name in names:
                yield f"table {name}", lines_of(database.execute(f'SELECT * FROM "{name}"'))

    def close(self) -> None:
        """See `Database`."""


class Postgres:
    """A server of its own, so that every file of it is of this run."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._cluster = folder, postgres.Cluster("full_page_writes = on", "log_min_messages = warning")
        self.url = self._cluster.database()

    def log(self) -> bytes:
        """See `Database`: it is among the files, and not cut before the end."""
        return b""

    async def shut(self, seconds: float) -> None:
        """See `Database`."""
        other = await asyncpg.connect(self.url)
        async with other.transaction():
            await other.execute("LOCK TABLE event IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(seconds)
        await other.close()

    def back_up(self) -> None:
        """See `Database`."""
        found = postgres.binaries()
        assert found is not None
        command = [str(found / "pg_dump"), "--dbname", self.url, "--file", str(self._folder / "backup.sql")]
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    def places(self) -> Iterator[Place]:
        """See `Database`."""
        names = self._cluster.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", self._name)
        for (name,) in names:
            yield f"table {name}", lines_of(self._cluster.sql(f'SELECT * FROM "{name}"', self._name))
        self._cluster.stop()
        yield from ((f"file {file.name}", pieces(file)) for file in sorted(self._folder.iterdir()) if file.is_file())
        whole = (piece for file in sorted(self._cluster.folder.rglob("*")) if file.is_file() for piece in pieces(file))
        yield "files of the database", whole
        self._cluster.start()

    @property
    def _name(self) -> str:
        return self.url.rpartition("/")[2]

    def close(self) -> None:
        """See `Database`."""
        self._cluster.remove()


ENGINES = {"sqlite": Sqlite, "postgres": Postgres}
