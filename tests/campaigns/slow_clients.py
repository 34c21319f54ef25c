"""Slow and hostile clients beside good ones, and prove: the good ones wait no longer for their acknowledgement.

`python -m tests.campaigns.slow_clients [--seconds 60] [--clients 100] [--seed N] [--state FILE] [--json]`; exit code
0 only if the claim held. Phases with and without the slow clients alternate in one run, at `RATE` good notifications a second; the
figure is the p99 of all acknowledgements beside slow clients over that of all without them.
"""

import asyncio
import contextlib
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
import orjson

from sidecar.sandbox.ehr import PracticeEhr
from tests.campaigns.runs import Found, Row, Run, arguments, carry_out
from tests.harness import SECRET, Served, spawn, until, write_site
from tests.process import cpu_s, rss_bytes

RATE, PHASE_S, SOURCES = 50, 3.0, 3
MAX_RATIO = 2.0
PATH = "/notify/observation/Observation/{}"
STRANGER = b"PUT /notify/observation/Observation/o1 HTTP/1.1\r\nHost: x\r\n"
KINDS = ("silent", "head", "body", "chunks", "signed body", "no reading")


@dataclass
class Report:
    """What was measured. Times in milliseconds; `ratios` are those of neighbouring phases' p99, a sign of how they scatter."""

    seed: int
    clients: int
    sent: int = 0
    refused: int = 0
    p50_without_ms: float = 0.0
    p50_with_ms: float = 0.0
    p99_without_ms: float = 0.0
    p99_with_ms: float = 0.0
    ratios: list[float] = field(default_factory=list)
    slow_connections: dict[str, int] = field(default_factory=dict)
    cpu_without_s: float = 0.0
    cpu_with_s: float = 0.0
    growth_bytes: int = 0
    seconds: float = 0.0

    @property
    def ratio(self) -> float:
        """How much longer the slowest acknowledgements take beside slow clients."""
        return round(self.p99_with_ms / self.p99_without_ms, 2)

    @property
    def ok(self) -> bool:
        """The claim held, and no good notification was refused."""
        return self.ratio < MAX_RATIO and self.refused == 0


class Slow:
    """Clients that take as long as they can; each comes back when it is cut off."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self._port, self._rng = port, rng
        self.made: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def among(self, clients: int) -> AsyncIterator[None]:
        """While they are connected."""
        before = self.made.total()
        tasks = [asyncio.create_task(self._for_ever(KINDS[n % len(KINDS)])) for n in range(clients)]
        try:
            await until(lambda: self.made.total() >= before + clients)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _for_ever(self, kind: str) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1024)
                self.made[kind] += 1
                try:
                    await self._one(kind, reader, writer)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.2)

    async def _one(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        signed = f"Authorization: Bearer {SECRET}\r\nContent-Type: application/fhir+json\r\n".encode()
        start, more = {
            "silent": (b"", b""),
            "head": (STRANGER, b"X"),
            "body": (STRANGER + b"Content-Length: 10000000\r\n\r\n", b"x"),
            "chunks": (STRANGER + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
            "signed body": (STRANGER + signed + b"Content-Length: 100000\r\n\r\n", b" "),
            "no reading": ((STRANGER + signed + b"Content-Length: 0\r\n\r\n") * 20, STRANGER + b"\r\n"),
        }[kind]
        if kind == "no reading":
            writer.transport.pause_reading()
        writer.write(start)
        while not reader.at_eof() and not writer.transport.is_closing():
            await asyncio.sleep(self._rng.uniform(0.2, 1.0))
            writer.write(more)
            await writer.drain()


class Good:
    """An EHR's notifications, at a steady rate whatever the answers take."""

    def __init__(self, port: int) -> None:
        self._base, self._number = f"http://127.0.0.1:{port}", 0
        self.refused = 0

    async def phase(self, session: aiohttp.ClientSession, seconds: float) -> list[float]:
        """Send for that long; the seconds from when each was due until its acknowledgement."""
        began, tasks = time.monotonic(), list[asyncio.Task[float]]()
        for n in range(int(seconds * RATE)):
            due = began + n / RATE
            await asyncio.sleep(max(due - time.monotonic(), 0))
            tasks.append(asyncio.create_task(self._one(session, due)))
        return await asyncio.gather(*tasks)

    async def _one(self, session: aiohttp.ClientSession, due: float) -> float:
        self._number += 1
        name = f"good-{self._number}"
        meta = {"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z"}
        body = orjson.dumps({"resourceType": "Observation", "id": name, "meta": meta})
        async with session.put(self._base + PATH.format(name), data=body) as answer:
            await answer.read()
            self.refused += answer.status != 200
        return time.monotonic() - due


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(values, n=100)[98]


async def campaign(seconds: float, clients: int, seed: int, folder: Path) -> Report:
    """Run phases in pairs for `seconds`, at least three of them."""
    ehr, began = PracticeEhr(), time.monotonic()
    await ehr.start()
    served = spawn(write_site(folder, ehr.base_url, work='catch_up_interval = "60s"'))
    report = Report(seed, clients)
    try:
        await until(lambda: sum(s["status"] == "active" for s in ehr.all("Subscription")) >= SOURCES, 120)
        await _measure(served, report, max(int(seconds / PHASE_S / 2), 3))
    finally:
        served.kill()
        await ehr.stop()
    report.seconds = round(time.monotonic() - began, 1)
    return report


async def _measure(served: Served, report: Report, pairs: int) -> None:
    port, pid = served.settings.server.port, served.process.pid
    slow, good = Slow(port, random.Random(report.seed)), Good(port)
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/fhir+json"}
    without, beside = list[float](), list[float]()
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(60)) as session:
        await good.phase(session, PHASE_S)
        memory = rss_bytes(pid)
        for pair in range(pairs):
            alone: list[float] = []
            crowd: list[float] = []
            for with_slow in (False, True) if pair % 2 else (True, False):
                before = cpu_s(pid)
                if with_slow:
                    async with slow.among(report.clients):
                        crowd = await good.phase(session, PHASE_S)
                    report.cpu_with_s += cpu_s(pid) - before
                else:
                    alone = await good.phase(session, PHASE_S)
                    report.cpu_without_s += cpu_s(pid) - before
            without, beside = without + alone, beside + crowd
            report.ratios.append(round(p99(crowd) / p99(alone), 2))
        report.growth_bytes = rss_bytes(pid) - memory
    report.sent, report.refused = len(without) + len(beside), good.refused
    report.slow_connections = {kind: slow.made[kind] for kind in KINDS}
    report.p50_without_ms, report.p50_with_ms = (
        round(statistics.median(times) * 1e3, 2) for times in (without, beside)
    )
    report.p99_without_ms, report.p99_with_ms = round(p99(without) * 1e3, 2), round(p99(beside) * 1e3, 2)


def main() -> int:
    """The command line."""
    parser = arguments("tests.campaigns.slow_clients", __doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=100)
    options = parser.parse_args()

    async def one(run: Run) -> Found:
        report = await campaign(options.seconds, options.clients, run.seed, run.folder)
        return asdict(report) | {"ratio": report.ratio, "ok": report.ok}

    settings = {"seconds": options.seconds, "clients": options.clients}
    return carry_out(Row("slow_clients", 1, settings), one, options)


if __name__ == "__main__":
    sys.exit(main())
