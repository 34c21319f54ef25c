"""What a PostgreSQL must be before anything is stored in it, and how a connection to it is made.

What is acknowledged to the EHR must survive a power cut, so a server or a role that trades that for speed is refused:
at start with every problem at once, and later on each new connection, since a reload can change it.
https://www.postgresql.org/docs/current/runtime-config-wal.html
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg

from sidecar.errors import Misconfigured, NotStored, Unavailable
from sidecar.store.address import address
from sidecar.store.engine import COMMAND_S, HEAD, NEWER

OLDEST = 130000
MOST_SKEW_S = 1.0
"""Leases are by the clock: one that differs by more could take from a process what it still works on."""

LOOKS_AT_CLOCK = 5
UNSAFE = "store:unsafe"

CONNECT_S = 4.0
LOOK_S = 30.0
"""How often a server is looked at again: a reload can make it unsafe, and a clock can drift."""

SESSION = {
    "application_name": "ehr-sidecar",
    "default_transaction_isolation": "read committed",  # what every statement of ours was thought through for
    "jit": "off",  # every statement is small; compiling one takes longer than running it
    # Longer than a commit takes. What is blocked for longer gives way, and is tried again beside the others.
    "lock_timeout": "200ms",
    # A process that hangs inside a transaction must not keep the others from its patients.
    "idle_in_transaction_session_timeout": "15s",
}
PATIENT = {"lock_timeout": "0", "idle_in_transaction_session_timeout": "60s"}
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
_UNSAFE = {
    "fsync": "set fsync = on in postgresql.conf",
    "full_page_writes": "set full_page_writes = on in postgresql.conf",
    "synchronous_commit": "set it to on (also local, remote_write or remote_apply) for the server, this database and "
    "this role: ALTER ROLE … SET synchronous_commit = on",
}
_STATE = (
    "SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes, "
    "current_setting('synchronous_commit') AS synchronous_commit, pg_is_in_recovery() AS standby, "
    "current_setting('transaction_read_only') AS read_only, current_setting('transaction_isolation') AS isolation, "
    "current_setting('server_version_num')::int AS version, "
    "current_setting('server_encoding') AS encoding"
)
_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection whose death is noticed: a server may vanish without a word."""

    def __init__(self, protocol: Any, transport: Any, *rest: Any) -> None:
        super().__init__(protocol, transport, *rest)
        line = transport.get_extra_info("socket")
        if line is None or line.family == socket.AF_UNIX:
            return
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            if hasattr(socket, option):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


async def connect(url: str, password: str | None, *, patient: bool = False) -> Any:
    """One connection, with the settings every session of ours has; a `patient` one waits for locks without end.

    Raises:
        Misconfigured: the server refuses who we are, the database or the certificate.
        Unavailable: it does not answer.
    """
    try:
        return await asyncpg.connect(
            **address(url, password), timeout=CONNECT_S, server_settings=SESSION | (PATIENT if patient else {}),
            statement_cache_size=200, connection_class=Connection,
        )  # fmt: skip
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError) as error:
        raise Misconfigured([f"store.url: the database refuses the role ({type(error).__name__})"]) from None
    except asyncpg.InvalidCatalogNameError:
        raise Misconfigured(["store.url: there is no such database; make it first: createdb NAME"]) from None
    except (asyncpg.ClientConfigurationError, asyncpg.InterfaceError, ValueError) as error:
        raise Misconfigured([f"store.url: cannot be used as it is ({type(error).__name__})"]) from None
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise Unavailable(f"store.url: the database does not answer ({type(error).__name__})") from None


@contextlib.asynccontextmanager
async def at_most(connection: Any, seconds: float) -> AsyncIterator[None]:
    """End `connection` when what is done here takes longer; asking a server that has vanished to stop would hang."""
    end = asyncio.get_running_loop().call_later(max(seconds, 0.0), connection.terminate)
    try:
        yield
    finally:
        end.cancel()


async def connect_safe(url: str, password: str | None) -> Any:
    """One connection to a server that was looked at: one that was reloaded or moved may have become unsafe.

    Raises:
        NotStored: it is not safe.
        Misconfigured, Unavailable, PostgresError, InterfaceError: it does not answer, or not as it should.
    """
    connection = await connect(url, password)
    try:
        async with at_most(connection, CONNECT_S):
            found = await problems(connection)
    except BaseException:
        connection.terminate()
        raise
    if found:
        connection.terminate()
        raise NotStored(UNSAFE)
    return connection


async def problems(connection: Any, clock: Callable[[], float] = time.time) -> list[str]:
    """Every reason not to trust this session with what was acknowledged."""
    state = await connection.fetchrow(_STATE)
    found = [f"store.url: {name} is off, so what was acknowledged could be lost; {cure}"
             for name, cure in _UNSAFE.items() if state[name] == "off"]  # fmt: skip
    if state["standby"]:
        found.append("store.url: the server is a standby, which takes no writes; name the primary")
    elif state["read_only"] == "on":
        found.append("store.url: sessions are read-only; set default_transaction_read_only = off")
    if state["isolation"] != "read committed":
        found.append("store.url: sessions must be READ COMMITTED; let the pooler pass default_transaction_isolation on")
    if state["version"] < OLDEST:
        found.append(f"store.url: PostgreSQL {OLDEST // 10000} or newer is needed")
    if state["encoding"] != "UTF8":
        found.append("store.url: the database's encoding must be UTF8")
    if await _most_skew(connection, clock) > MOST_SKEW_S:
        found.append(f"store.url: this clock and the database's may differ by over {MOST_SKEW_S:g} s; keep both on NTP")
    return found


async def _most_skew(connection: Any, clock: Callable[[], float]) -> float:
    """By how many seconds the clocks may differ: half of the round trip is not known and counts in full.

    A round trip that was slow by chance says little: the best of a few looks counts.
    """
    most = float("inf")
    for _ in range(LOOKS_AT_CLOCK):
        before = clock()
        now = await connection.fetchval(_NOW)
        after = clock()
        most = min(most, abs(now - (before + after) / 2) + abs(after - before) / 2)
        if most <= MOST_SKEW_S:
            break
    return most


async def schema_version(connection: Any) -> str | None:
    """The migration that the schema stands at; None when there are no tables of ours."""
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    version: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    return version


async def prepare(url: str, password: str | None, *, migrate: bool) -> str:
    """Refuse what is unsafe, all at once; bring the schema to `HEAD` if asked to. The name of the schema.

    Raises:
        Misconfigured: listing every problem found.
        Unavailable: the database does not answer.
    """
    connection = await connect(url, password)
    try:
        async with at_most(connection, COMMAND_S):
            found = await problems(connection)
            version = await schema_version(connection)
            schema: str | None = await connection.fetchval("SELECT current_schema()")
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unavailable(f"store.url: the database does not answer ({type(error).__name__})") from None
    finally:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=CONNECT_S)
    if version is not None and version > HEAD:
        found.append(f"store.url: {NEWER}")
    elif version != HEAD and not migrate:
        found.append("store.url: there are no tables of this version; has the server run with it yet?")
    if schema is None:
        found.append("store.url: the role's search_path names no schema that exists")
    if found or schema is None:
        raise Misconfigured(found)
    if version != HEAD:
        from sidecar.store.migrate import upgrade_shared  # noqa: PLC0415 -- alembic, which only a first start needs

        await upgrade_shared(lambda: connect(url, password, patient=True))
    return schema
