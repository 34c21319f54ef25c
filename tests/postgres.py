"""A throw-away PostgreSQL for tests: one cluster a run, one database a test, copied from a migrated template."""

import asyncio
import atexit
import contextlib
import functools
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from sidecar.store import open_store
from tests.ports import free_port

REQUIRED = "SIDECAR_REQUIRE_PEERS"
ROLE = "sidecar"


def binaries() -> Path | None:
    """Where `initdb` and `pg_ctl` are: on the path, or in Debian's folder of the newest version."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    return next((f for f in folders if (f / "pg_ctl").exists() and (f / "initdb").exists()), None)


def missing() -> str | None:
    """What to install, in one line; None when all is there."""
    return None if binaries() else "PostgreSQL is not installed: apt-get install postgresql"


def skip_when_missing() -> None:
    """Skip in one line (pytest folds them) where PostgreSQL is absent and may be; fail where it must be there."""
    if missing() is not None and os.environ.get(REQUIRED) != "1":
        pytest.skip(str(missing()))


def wait_for(run: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, from a test with or without an event loop."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(asyncio.run(run)))
    thread.start()
    thread.join()
    return result[0]


class Cluster:
    """A PostgreSQL server of our own on a free port of this machine; it may be stopped and started again."""

    def __init__(self, *settings: str) -> None:
        found = binaries()
        assert found is not None, missing()
        self._bin, self.port, self._names = found, free_port(), itertools.count()
        self.folder = Path(tempfile.mkdtemp(prefix="sidecar-postgres-"))
        # The server refuses to run as root: it runs as whoever owns nothing here.
        self._as: list[str] = []
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")  # whose group has one name here and another there
            self._as = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self._data = self.folder / "data"
        self._run("initdb", "-D", self._data, "-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        own = [f"port = {self.port}", "listen_addresses = '127.0.0.1'", f"unix_socket_directories = '{self.folder}'"]
        self.configure(*own, "max_connections = 200", "shared_buffers = 32MB", "log_min_messages = fatal", *settings)
        self.start()

    def _run(self, program: str, *arguments: object) -> None:
        command = [*self._as, str(self._bin / program), *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", timeout=120)

    def configure(self, *lines: str) -> None:
        """Add lines to its settings; they count from the next start, or reload."""
        with (self._data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def start(self) -> None:
        """Start, and return when it takes connections."""
        self._run("pg_ctl", "start", "-w", "-t", "60", "-D", self._data, "-l", self.folder / "log")

    def stop(self, mode: str = "fast") -> None:
        """Stop: `fast` ends every session, `immediate` is a crash that the next start recovers from."""
        self._run("pg_ctl", "stop", "-w", "-t", "60", "-m", mode, "-D", self._data)

    def restart(self, mode: str) -> None:
        """Stop and start."""
        self.stop(mode)
        self.start()

    def make_standby(self) -> None:
        """From the next start on it takes no writes and waits for a primary that never comes."""
        (self._data / "standby.signal").touch()

    def remove(self) -> None:
        """Stop and delete everything."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://{ROLE}@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run one statement; its rows."""
        return wait_for(fetch(self.url(database), statement))

    @functools.cached_property
    def _template(self) -> str:
        self.sql("CREATE DATABASE migrated")
        open_store(self.url("migrated")).close()
        return "migrated"

    def database(self, *, migrated: bool = True) -> str:
        """The URL of a new database, with our tables or without."""
        name = f"t{next(self._names)}"
        self.sql(f"CREATE DATABASE {name}" + (f" TEMPLATE {self._template}" if migrated else ""))
        return self.url(name)

    def drop(self, url: str) -> None:
        """Delete a database, whoever still has it open."""
        self.sql(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")


class Line:
    """A line to the database that can lose its answers: what was asked happens, and nobody hears of it.

    A `dead` one passes nothing and ends nothing, as when a machine loses its power.
    """

    def __init__(self) -> None:
        self.dead, self.mute, self._pipes = False, False, set[asyncio.Task[None]]()

    async def open(self, url: str, port: int) -> str:
        """The URL by which the database on `port` is reached over this line."""
        self._to = port
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        return url.replace(f":{port}/", f":{self._server.sockets[0].getsockname()[1]}/")

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await asyncio.open_connection("127.0.0.1", self._to)
        asking = asyncio.ensure_future(self._pipe(reader, server[1], answers=False))
        self._pipes |= {asking, asyncio.current_task()}
        with contextlib.suppress(asyncio.CancelledError):
            await self._pipe(server[0], writer, answers=True)
        asking.cancel()
        server[1].close()
        writer.close()

    async def _pipe(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(65536):
                if answers and self.mute:
                    return
                while self.dead:  # noqa: ASYNC110 -- set by a test, which waits for other things
                    await asyncio.sleep(0.05)
                target.write(chunk)
                await target.drain()

    async def close(self) -> None:
        """End it, and whatever still goes through it."""
        self._server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)


async def fetch(url: str, statement: str, *values: object) -> list[Any]:
    """Rows of one statement, over a connection of its own; a server that restarts is waited for."""
    deadline = time.monotonic() + 30
    while True:
        try:
            connection = await asyncpg.connect(url)
            try:
                return list(await connection.fetch(statement, *values))
            finally:
                await connection.close()
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


@functools.cache
def cluster() -> Cluster:
    """The one of this run."""
    started = Cluster()
    atexit.register(started.remove)
    return started


@contextlib.contextmanager
def new_database(*, migrated: bool = True) -> Iterator[str]:
    """The URL of a database that is there while this is open."""
    url = cluster().database(migrated=migrated)
    try:
        yield url
    finally:
        cluster().drop(url)
