"""PostgreSQL, shared with other processes: a few connections on an event loop of their own.

Plain statements of one kind that gather while the last ones are on their way go together, in one transaction of one
flush; so do transactions of the same steps, where that changes nothing for them (`Statement.leads`): many rows of a
step cost one round trip. Any other transaction has a connection to itself; the server groups their commits. Deadlocks
are run again, because a transaction is a value; whatever is not known to be committed is `NotStored`.

One NOTIFY a flush says what became claimable, never in the transaction itself: there it would hold a lock that all
commits share. A NOTIFY that is lost costs one poll. https://www.postgresql.org/docs/current/sql-notify.html
"""

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import asyncpg
import uvloop
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from sidecar import log
from sidecar.errors import ClaimLost, NotStored, SidecarError
from sidecar.store import durability
from sidecar.store.engine import MAX_GROUP, SKIP_LOCKED, URGENT_S, Job, Row, Statement, Step, Store, merged, settle
from sidecar.store.failures import AGAIN, BLOCKED, failure, is_away
from sidecar.store.lookups import Lookups

CONNECTIONS = 8
"""Of one process, beside the one that listens: enough for the server's group commit, few enough for many processes."""

RUNS = 6
RECONNECT_S = 0.5
BLOCKED_S, BLOCKED_PAUSE_S = 5.0, 0.4
"""How long a transaction is tried whose rows others have locked, without a connection in between."""
CLOSE_S, CUT_S = 2.0, 1.0
"""What a close gives to what was handed in; then it is cut, which nobody is told was stored."""
EVERYTHING = frozenset({"events", "work", "writes"})
Answer = TypeVar("Answer")


@lru_cache(maxsize=1024)
def _compiled(statement: Statement) -> tuple[str, tuple[str, ...]]:
    """The statement with `$n` in place of `:name`, and the names in that order."""
    compiled = text(statement.sql).compile(dialect=asyncpg_dialect.dialect())  # type: ignore[no-untyped-call]
    sql = str(compiled).replace(SKIP_LOCKED, SKIP_LOCKED.strip("/* "))
    return sql, tuple(compiled.positiontup or ())


class PostgresStore(Store):
    """One database that several processes serve from."""

    alone = False

    def __init__(self, url: str, password: str | None = None, *, migrate: bool = True) -> None:
        """Check, migrate if asked to, connect.

        Raises:
            Misconfigured: listing why this database must not be used.
            Unavailable: it does not answer.
        """
        super().__init__()
        self._url, self._password = url, password
        self._lanes: dict[tuple[Statement, ...], list[Job]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._news: set[str] = set()
        self._telling = self._unsafe = False
        self._listener: Any = None
        self._hear: Callable[[frozenset[str]], None] = lambda _: None
        self._loop = uvloop.new_event_loop()
        self._lookups = Lookups(self._loop, self._spawn, self._fetch)
        self._thread = threading.Thread(target=self._loop.run_forever, name="store-postgres", daemon=True)
        self._thread.start()
        try:
            self._wait_for(self._open(migrate=migrate))
        except BaseException:
            self._end_loop()
            raise

    async def _open(self, *, migrate: bool) -> None:
        schema = await durability.prepare(self._url, self._password, migrate=migrate)
        self._channel = f"ehr_sidecar_{schema}"[:63]
        self._pool = self._new_pool(CONNECTIONS)
        self._urgent = self._new_pool(1)
        for pool in (self._pool, self._urgent):
            await pool
        self._listening = asyncio.create_task(self._keep_listening())

    def _new_pool(self, connections: int) -> Any:
        """Connections that are made when they are needed, each looked at first."""

        async def connect(*_: object, **__: object) -> Any:
            return await durability.connect_safe(self._url, self._password)

        return asyncpg.create_pool(
            connect=connect, min_size=0, max_size=connections, reset=_keep_session,
            connection_class=durability.Connection,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def _connection(self, within_s: float, end: float) -> AsyncIterator[Any]:
        """A connection until `end` of this loop's clock: what still runs on it then fails."""
        pool = self._urgent if within_s <= URGENT_S else self._pool
        async with (
            pool.acquire(timeout=max(end - self._loop.time(), 0.0)) as connection,
            durability.at_most(connection, end - self._loop.time()),
        ):
            yield connection

    async def commit(self, *steps: Step) -> list[list[Row]]:
        """See `Store.commit`."""
        self._must_be_open()
        done: asyncio.Future[list[list[Row]]] = asyncio.get_running_loop().create_future()
        self._loop.call_soon_threadsafe(self._take, Job(steps, done))
        return await done

    async def read(self, statement: Statement, **parameters: object) -> list[Row]:
        """See `Store.read`; many of what is `quick` in one round trip."""
        self._must_be_open()
        if statement.quick:
            return await self._lookups.ask(statement, parameters)
        sql, names = _compiled(statement)
        arguments = [parameters[name] for name in names]
        fetched = asyncio.run_coroutine_threadsafe(self._fetch(sql, arguments, statement.within_s), self._loop)
        return [dict(found) for found in await asyncio.wrap_future(fetched)]

    async def _fetch(self, sql: str, arguments: Sequence[Any], within_s: float) -> Sequence[Mapping[str, Any]]:
        try:
            end = self._loop.time() + within_s
            async with self._connection(within_s, end) as connection:
                fetch: Callable[..., Awaitable[list[Any]]] = connection.fetch
                return await fetch(sql, *arguments)
        except NotStored:
            raise
        except asyncio.CancelledError:  # by the driver, or by a caller who hears nothing of this any more
            raise NotStored("store:CancelledError") from None
        except Exception as error:  # noqa: BLE001 -- whatever it is, our own database could not be read
            raise NotStored(f"store:{type(error).__name__}") from None

    def listen(self, heard: Callable[[frozenset[str]], None]) -> None:
        """See `Store.listen`."""
        loop = asyncio.get_running_loop()

        def hear(names: frozenset[str]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop that listened has ended
                loop.call_soon_threadsafe(heard, names)

        self._hear = hear
        self._loop.call_soon_threadsafe(lambda: hear(EVERYTHING) if self._listener is not None else None)

    def close(self) -> None:
        """Finish what was handed in, then close."""
        if self._closed:
            return
        self._closed = True
        self._wait_for(self._finish())
        self._end_loop()

    def _must_be_open(self) -> None:
        super()._must_be_open()
        if self._unsafe:
            raise NotStored(durability.UNSAFE)

    async def _finish(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        self._listening.cancel()
        pools = (self._pool, self._urgent)
        try:
            if not self._tasks:
                await asyncio.wait_for(asyncio.gather(*(pool.close() for pool in pools)), CUT_S)
        except Exception:  # noqa: BLE001 -- whatever it is, it ends here
            log.get().warning("database left without a word", place="store")
        for pool in pools:
            pool.terminate()
        if rest := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in rest:
                task.cancel()
            await asyncio.wait(rest, timeout=CUT_S)

    def _wait_for(self, run: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(run, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # Everything below runs on the store's own loop.

    def _take(self, job: Job) -> None:
        kind = job.kind or job.led
        if not kind:
            self._spawn(self._run_alone(job))
            return
        waiting = self._lanes.get(kind)
        if waiting is not None:
            waiting.append(job)
            return
        self._lanes[kind] = [job]
        self._spawn(self._flush(kind))

    def _spawn(self, run: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(run)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _flush(self, kind: tuple[Statement, ...]) -> None:
        """One group after the other, each of what gathered during the last."""
        while group := self._next_group(kind):
            await self._run_group(group)
        del self._lanes[kind]

    def _next_group(self, kind: tuple[Statement, ...]) -> list[Job]:
        """Those that have waited longest and may go together; what must go apart from one of them stays."""
        if not any(statement.apart for statement in kind):
            together, self._lanes[kind] = self._lanes[kind][:MAX_GROUP], self._lanes[kind][MAX_GROUP:]
            return together
        group: list[Job] = []
        stays: list[Job] = []
        taken = set[object]()
        for job in self._lanes[kind]:
            keys = job.keys
            goes = len(group) < MAX_GROUP and taken.isdisjoint(keys)
            (group if goes else stays).append(job)
            taken |= keys
        self._lanes[kind] = stays
        return group

    async def _run_group(self, jobs: Sequence[Job]) -> None:
        """Run them together. One whose rows somebody else has locked keeps neither these nor the next ones waiting."""
        if len(jobs) == 1:
            return await self._run_in_turn(jobs[0])
        together = merged(jobs)
        await self._run(together, blocked_s=0.0)
        if isinstance(together.result, BLOCKED):
            for job in jobs:
                self._spawn(self._run_alone(job))
            return None
        if isinstance(together.result, Exception) and not is_away(together.result):
            # One of them contradicts the data, or has lost its claim: it alone must fail.
            for job in jobs:
                await self._run_in_turn(job)
            return None
        for job in jobs:
            job.result = failure(together.result) if isinstance(together.result, Exception) else [[]]
        settle(jobs)
        return None

    async def _run_in_turn(self, job: Job) -> None:
        """Run a transaction while others wait for it to end, unless it waits itself."""
        await self._run(job, blocked_s=0.0)
        if isinstance(job.result, BLOCKED):
            self._spawn(self._run_alone(job))
        else:
            self._end(job)

    async def _run_alone(self, job: Job) -> None:
        await self._run(job)
        self._end(job)

    def _end(self, job: Job) -> None:
        if isinstance(job.result, Exception):
            job.result = failure(job.result)
        settle((job,))

    async def _run(self, job: Job, blocked_s: float = BLOCKED_S) -> None:
        """Run a transaction, again after a deadlock, and for `blocked_s` while others have locked its rows.

        Its result, or the error as it came.
        """
        within_s, now = job.within_s, self._loop.time()
        collided = 0
        while True:
            try:
                async with self._connection(within_s, now + within_s) as connection:
                    job.result = await _transaction(connection, job.steps)
            except AGAIN as error:
                job.result, pause_s = error, 0.02 * 2**collided  # to part two that collided
                collided += 1
                if collided == RUNS:
                    return
            except BLOCKED as error:
                job.result, pause_s = error, BLOCKED_PAUSE_S
                if self._loop.time() >= now + blocked_s:
                    return
            except asyncio.CancelledError:  # nobody here cancels: a connection died in the driver's hands
                job.result = NotStored("store:CancelledError")
                return
            except Exception as error:  # noqa: BLE001 -- whatever it is, it belongs to this transaction's callers
                job.result = error
                return
            else:
                self._tell({step.statement.wakes for step in job.steps if step.rows and step.statement.wakes})
                return
            await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 -- nothing secret

    def _tell(self, names: set[str]) -> None:
        self._news |= names
        if self._news and not self._telling:
            self._telling = True
            self._spawn(self._notify())

    async def _notify(self) -> None:
        try:
            while self._news and self._listener is not None:
                said, self._news = ",".join(sorted(self._news)), set()
                async with durability.at_most(self._listener, durability.CONNECT_S):
                    await self._listener.execute("SELECT pg_notify($1, $2)", self._channel, said)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass  # the others look for themselves within a poll
        finally:
            self._news.clear()
            self._telling = False

    async def _keep_listening(self) -> None:
        while True:
            connection, gone = None, asyncio.Event()
            try:
                connection = await durability.connect(self._url, self._password)
                connection.add_termination_listener(lambda _, gone=gone: gone.set())
                async with durability.at_most(connection, durability.CONNECT_S):
                    await connection.add_listener(self._channel, self._heard)
                self._listener = connection
                self._hear(EVERYTHING)  # nobody listened until now
                while not gone.is_set():
                    await self._look(connection)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(gone.wait(), durability.LOOK_S)
            except (OSError, TimeoutError, SidecarError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pass
            finally:
                self._listener = None
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(RECONNECT_S)

    async def _look(self, connection: Any) -> None:
        """See whether the server is still safe; while it is not, nothing is stored."""
        async with durability.at_most(connection, durability.CONNECT_S):
            found = await durability.problems(connection)
        if found and not self._unsafe:
            log.get().error("database unsafe", place="store", count=len(found), reason="; ".join(found))
        self._unsafe = bool(found)

    def _heard(self, connection: Any, pid: int, _: str, said: str) -> None:
        if pid != connection.get_server_pid():
            self._hear(frozenset(said.split(",")))


async def _keep_session(_: Any) -> None:
    """Nothing of ours changes a session, so nothing has to be reset when a connection goes back to the pool."""


async def _transaction(connection: Any, steps: Sequence[Step]) -> list[list[Row]]:
    first = steps[0]
    if len(steps) == 1 and (len(first.rows) <= 1 or (first.expect is None and not first.statement.returns)):
        return [await _step(connection, first)]  # one statement, or one batch, is a transaction by itself
    async with connection.transaction():
        return [await _step(connection, step) for step in steps]


async def _step(connection: Any, step: Step) -> list[Row]:
    statement, rows = step.statement, step.rows
    if statement.returns and not statement.shared:
        return [found for row in rows for found in await _rows(connection, statement, row)]
    touched = await _run_rows(connection, statement, rows, count=step.expect is not None)
    if step.expect is not None and touched != step.expect:
        raise ClaimLost(f"claim_lost:{statement.name}")
    return []


async def _run_rows(connection: Any, statement: Statement, rows: Sequence[Row], *, count: bool) -> int:
    """Run it for each row, many of them in one round trip; how many rows were touched, if that is to be counted."""
    sql, names = _compiled(statement)
    if len(rows) == 1:
        done = await connection.execute(sql, *(rows[0][name] for name in names))
        return int(done.rpartition(" ")[2]) if done[-1:].isdigit() else 0
    if statement.sort_by:
        rows = sorted(rows, key=lambda row: [(row[n] is not None, row[n]) for n in statement.sort_by])
    values = [[row[name] for name in names] for row in rows]
    if not values:
        return 0
    if count:
        return len(await connection.fetchmany(f"{sql} RETURNING 1", values))
    await connection.executemany(sql, values)
    return 0


async def _rows(connection: Any, statement: Statement, row: Mapping[str, object]) -> list[Row]:
    sql, names = _compiled(statement)
    fetch: Callable[..., Awaitable[list[Any]]] = connection.fetch
    return [dict(found) for found in await fetch(sql, *(row[name] for name in names))]
