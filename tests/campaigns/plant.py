"""What campaigns about load share: a real `sidecar serve`, an EHR of little cost, and senders that may be refused.

Every notification is about a patient of its own, so an acknowledged event is lost exactly when its patient has no
result in the EHR. CPU and memory are those of the server's process alone.
"""

import asyncio
import contextlib
import os
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
from prometheus_client.parser import text_string_to_metric_families

from sidecar import settings
from tests.benchmarks import model, payloads, sides
from tests.benchmarks.sides import Running, Stub
from tests.campaigns.verdict import count

SIZE = 50
WINDOW, CONNECTIONS = 1024, 32
"""Unfinished events at most: as many as are in debounce and under work at 400 a second, so that it is never idle."""
LOOK_S, ANSWER_S, DRAIN_S = 0.05, 30.0, 900.0
GIVEN_UP_S = 10.0
"""An EHR gives a notification up that it could not send for so long."""


@dataclass
class Plant:
    """One server at one EHR, and what it was told so far."""

    stub: Stub
    running: Running
    config: Path
    window: int = WINDOW
    told: int = 0
    acknowledged: set[str] = field(default_factory=set)
    answers: Counter[int] = field(default_factory=Counter)
    ack_s: list[float] = field(default_factory=list)

    def next(self) -> tuple[str, bytes]:
        """A patient that was never heard of, and a notification of one of their readings."""
        self.told += 1
        who = f"p{self.told}"
        told = payloads.notification(self.stub.chart, who, 0, self.told, self.running.subscription)
        return who, orjson.dumps(told)

    async def stats(self) -> dict[str, Any]:
        """What the EHR counted."""
        return await self._ask("stats")

    async def written(self) -> int:
        """Patients with a result in the EHR."""
        return int((await self.stats())["patients"])

    async def _ask(self, path: str) -> dict[str, Any]:
        return dict(await asyncio.to_thread(self.stub.ask, path))

    async def lost(self) -> int:
        """Acknowledged patients without a result, when all has come to rest."""
        deadline, missing = time.monotonic() + DRAIN_S, len(self.acknowledged)
        while missing and time.monotonic() < deadline:
            missing = len(self.acknowledged - (await self._ask("written")).keys())
            await asyncio.sleep(0.5 if missing else 0)
        return missing

    def is_ready(self) -> bool:
        """Whether the server says so."""
        with contextlib.suppress(httpx.HTTPError):
            return self._ops("readyz").status_code == 200
        return False

    def _ops(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{settings.load(self.config).server.ops_port}/{path}", timeout=30)

    def metrics(self) -> Mapping[str, float]:
        """The server's, summed over labels."""
        found: Counter[str] = Counter()
        for family in text_string_to_metric_families(self._ops("metrics").text):
            for sample in family.samples:
                found[sample.name] += sample.value
        return found

    def buried(self) -> int:
        """Dead letters."""
        return count(self.config, "event WHERE state = 'buried'") + count(
            self.config, "delivery WHERE state = 'buried'"
        )

    def store_mib(self) -> float:
        """The SQLite file with its log."""
        return sum(f.stat().st_size for f in self.config.parent.glob("sidecar.db*")) / 2**20

    async def feed(self, events: int, looked: Callable[[int], None] = lambda _: None) -> None:
        """Send `events` with never more than `window` without a result; return when all have one.

        `looked` hears, often, how many of them have.

        Raises:
            TimeoutError: it does not go on.
        """
        before, done, room, left = await self.written(), 0, asyncio.Semaphore(self.window), iter(range(events))

        async def connection() -> None:
            line = Line(self)
            for _ in left:
                await room.acquire()
                await line.send_until_taken(*self.next())
            line.close()

        async with asyncio.timeout(DRAIN_S + events / 20), asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(connection())
            while done < events:
                await asyncio.sleep(LOOK_S)
                now = await self.written() - before
                for _ in range(now - done):
                    room.release()
                done = now
                looked(done)

    async def press(self, rate: float, seconds: float, *, obedient: bool, connections: int = 128) -> None:
        """Send at `rate` for so long, whatever the answers are; when `obedient`, wait as Retry-After says and send again.

        Each has its intended moment; one that no connection could send for `GIVEN_UP_S` is given up, unacknowledged.
        """
        due = deque(i / rate for i in range(int(rate * seconds)))
        begun = time.monotonic()

        async def connection() -> None:
            line = Line(self)
            while due:
                moment = begun + due.popleft()
                await asyncio.sleep(max(0.0, moment - time.monotonic()))
                if time.monotonic() - moment > GIVEN_UP_S:
                    self.answers[0] += 1
                    continue
                who, body = self.next()
                status = await line.send(who, body)
                while obedient and status in {429, 503} and time.monotonic() < begun + seconds:
                    await asyncio.sleep(line.retry_after_s)
                    status = await line.send(who, body)
            line.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(connection())


class Line:
    """One connection to the hook, opened again when it was closed."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        parts = urlsplit(plant.running.target.url)
        self._to = parts.hostname, parts.port
        self._pipe: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.retry_after_s = 0.0

    def close(self) -> None:
        """End it."""
        if self._pipe is not None:
            self._pipe[1].close()
        self._pipe = None

    async def send(self, who: str, body: bytes) -> int:
        """Send one notification; the status of the answer, 0 when there was none. Counts and times it."""
        status, begun = 0, time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S):
                status = await self._exchange(body)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self.close()
            self.retry_after_s = 1.0
        self._plant.answers[status] += 1
        if status == 200:
            self._plant.acknowledged.add(who)
            self._plant.ack_s.append(time.monotonic() - begun)
        return status

    async def send_until_taken(self, who: str, body: bytes) -> None:
        """Send one until it is acknowledged."""
        status = 0
        while status != 200:
            status = await self.send(who, body)
            await asyncio.sleep(0 if status == 200 else self.retry_after_s)

    async def _exchange(self, body: bytes) -> int:
        if self._pipe is None:
            self._pipe = await asyncio.open_connection(*self._to)
        reader, writer = self._pipe
        writer.write(self._plant.running.target.head(len(body)) + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        await reader.readexactly(int(fields.get(b"content-length", b"0")))
        self.retry_after_s = float(fields.get(b"retry-after", b"1"))
        if fields.get(b"connection") == b"close":
            self.close()
        return int(head[9:12])


@contextlib.contextmanager
def plant(folder: Path, seed: int, stub: Stub | None = None, window: int = WINDOW) -> Iterator[Plant]:
    """Start a server of default settings, at `stub` or else an EHR of its own."""
    graph = model.write(folder / "models", random.Random(seed).randrange(2**31))
    with contextlib.ExitStack() as stack:
        ehr = stub or stack.enter_context(sides.ehr(folder, SIZE, "all"))
        yield Plant(ehr, stack.enter_context(sides.sidecar(folder, ehr, graph)), folder / "sidecar.toml", window)


@contextlib.contextmanager
def again(there: Plant, **changed: str) -> Iterator[None]:
    """Start the server again, which has ended, on its files; `changed` settings ("store__retention") replace its own."""
    before, names = there.running, {f"SIDECAR__{name.upper()}": value for name, value in changed.items()}
    os.environ.update(names)
    try:
        with sides.process(
            there.config.parent, "again", "-m", "sidecar", "serve", "--config", str(there.config)
        ) as process:
            there.running = replace(before, process=process)
            process.wait_for(there.is_ready, "the server's start")
            yield
    finally:
        for name in names:
            del os.environ[name]


async def cpu_per_event(there: Plant, events: int, pieces: int) -> list[float]:
    """Microseconds of the server's CPU for an event, of each piece of `events` at saturation, least first."""
    found = []
    for _ in range(pieces):
        before = there.running.cpu_s()
        await there.feed(events)
        found.append(round((there.running.cpu_s() - before) / events * 1e6))
    return sorted(found)


def rss_mib(running: Running) -> float:
    """Resident memory now, rounded."""
    return round(running.rss_mib(), 1)
