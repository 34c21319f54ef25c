"""Kill one of several `sidecar serve` on one PostgreSQL, and the database itself, at many moments under load.

`python -m tests.campaigns.workers --points 200 [--seed N] [--rung put] [--state FILE] [--json]`; exit code 0 only if all held:
nothing acknowledged is lost, nothing is written twice, the results of a patient reach the chart in their order, and no
Subscription is written by two processes in turns.

The practice EHR, its ward and the notifiers are those of `tests.campaigns.kill`. Each server has a bearer token of its
own, so that the EHR's side can tell who wrote what. They share a database, whose server is restarted now and then,
half of the times by a crash (`immediate`).
"""

import asyncio
import contextlib
import itertools
import json
import random
import shutil
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from sidecar.sandbox.ehr import Credentials, PracticeEhr
from sidecar.settings import load
from tests.campaigns.balancer import Balancer
from tests.campaigns.charting import Notifier, Ward
from tests.campaigns.kill import LONGEST_START_S, LONGEST_UP_S, RUNGS, SETTLE_S, stretches
from tests.campaigns.runs import Found, Row, Run, arguments, carry_out
from tests.campaigns.verdict import Report, Verdict, idle, rows
from tests.harness import Served, free_port, settings_text, spawn, until, write_site
from tests.postgres import Cluster

WORKERS, NOTIFIERS = 4, 2
POINT_S = 10.0
STARTS = 20
EVERYBODY = "the-token-that-stands-for-all"
SUBSCRIPTIONS = {("PUT", "Subscription/{id}"), ("POST", "Subscription")}


@dataclass
class SharedReport(Report):
    """What this campaign saw beside."""

    database_restarts: dict[str, int] = field(default_factory=dict)
    subscription_writes: int = 0
    takeovers: int = 0
    compared_in_order: int = 0


class Witness(Credentials):
    """Takes every token, and remembers whose it was that wrote a Subscription. The EHR counts before it asks."""

    def __init__(self) -> None:
        super().__init__(static_bearer=EVERYBODY)
        self.ehr: PracticeEhr | None = None
        self.seen: Counter[tuple[str, str]] = Counter()
        self.writes: list[tuple[float, str]] = []

    def granted(self, authorization: str | None) -> Any:
        assert self.ehr is not None
        now, before = Counter(self.ehr.requests), self.seen
        self.seen = now
        if any(now[kind] > before[kind] for kind in SUBSCRIPTIONS):
            self.writes.append((time.time(), str(authorization).removeprefix("Bearer ")))
        return super().granted(f"Bearer {EVERYBODY}")


class Workers:
    """Several servers on one database: starts them, kills them, restarts the database."""

    def __init__(
        self, configs: list[Path], cluster: Cluster, ward: Ward, notifier: Notifier, rng: random.Random
    ) -> None:
        self._configs, self._cluster, self._ward, self._notifier, self._rng = configs, cluster, ward, notifier, rng
        self.kills: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self.deaths: list[tuple[float, int]] = []
        self.ready_s: list[float] = []
        self._up: dict[int, Served] = {}
        self._starting: dict[int, asyncio.Task[None]] = {}

    def start(self, number: int) -> None:
        """Start one, beside everything else."""
        self._starting[number] = asyncio.create_task(self._start(number))

    async def _start(self, number: int) -> None:
        """A database that is just away makes a start fail: then it is started again, as a supervisor would."""
        for _ in range(STARTS):
            started, served = time.monotonic(), spawn(self._configs[number])
            try:
                if await self._ready(served):
                    self.ready_s.append(time.monotonic() - started)
                    self._up[number] = served
                    del self._starting[number]
                    return
            except asyncio.CancelledError:
                served.kill()
                raise
            await asyncio.sleep(0.3)
        raise AssertionError(served.log.read_text()[-2000:])

    async def _ready(self, served: Served) -> bool:
        """Whether it became ready before it ended."""
        url = f"http://127.0.0.1:{served.settings.server.ops_port}/readyz"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while served.process.poll() is None:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            return True
                await asyncio.sleep(0.02)
        return False

    async def all_up(self) -> list[Served]:
        """Wait for every start under way."""
        await asyncio.gather(*self._starting.values())
        return list(self._up.values())

    async def point(self) -> None:
        """The end of one server, or of one start, at a moment that the seed chooses, while most others go on."""
        while len(self._up) < WORKERS - 1:
            await asyncio.wait(self._starting.values(), return_when=asyncio.FIRST_COMPLETED)
        moments = {
            "at any moment": lambda: asyncio.sleep(self._rng.uniform(0, LONGEST_UP_S)),
            "just after an acknowledgement": self._after_an_acknowledgement,
            "while assessing": lambda: self._at_a_request("GET", "Observation"),
            "while writing": lambda: self._at_a_request("PUT POST", "RiskAssessment"),
        }
        moment = self._rng.choice(list(moments))
        await moments[moment]()
        number = self._rng.choice(sorted(self._up))
        self._kill(number)
        self.kills[moment] += 1
        if self._rng.random() < 0.2:
            await self._kill_a_start(number)
        self.start(number)

    def _kill(self, number: int) -> None:
        self._up.pop(number).kill()
        self.deaths.append((time.time(), number))

    async def _kill_a_start(self, number: int) -> None:
        served = spawn(self._configs[number])
        await asyncio.sleep(self._rng.uniform(0, LONGEST_START_S))
        served.kill()
        self.deaths.append((time.time(), number))
        self.kills["while starting"] += 1

    async def restart_database(self, mode: str) -> None:
        """Under load, with whatever is under way."""
        await asyncio.to_thread(self._cluster.restart, mode)
        self.restarts[mode] += 1

    async def _after_an_acknowledgement(self) -> None:
        await asyncio.sleep(self._rng.uniform(0, LONGEST_UP_S / 2))
        self._notifier.heard.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._notifier.heard.wait(), 1)
        await asyncio.sleep(self._rng.uniform(0, 0.003))

    async def _at_a_request(self, methods: str, kind: str) -> None:
        await asyncio.sleep(self._rng.uniform(0, LONGEST_UP_S / 2))

        def seen() -> int:
            return sum(n for (m, s), n in self._ward.ehr.requests.items() if m in methods and s.startswith(kind))

        before, deadline = seen(), time.monotonic() + 1
        while seen() == before and time.monotonic() < deadline:  # noqa: ASYNC110 -- the EHR counts, and tells nobody
            await asyncio.sleep(0.001)
        await asyncio.sleep(self._rng.uniform(0, 0.01))

    async def end(self) -> list[int]:
        """Stop every server; their exit codes."""
        return [await asyncio.to_thread(served.terminate) for served in self._up.values()]

    def kill_all(self) -> None:
        """Leave nothing running."""
        for task in self._starting.values():
            task.cancel()
        for served in self._up.values():
            if served.process.poll() is None:
                served.kill()


def sites(folder: Path, ehr_url: str, database: str, public_port: int) -> list[Path]:
    """Settings of every server: keys, secret and database shared, ports and token its own."""
    shared = write_site(folder, ehr_url)
    configs = []
    for number in range(WORKERS):
        own = folder / f"w{number}"
        own.mkdir()
        for name in ("keys.toml", "hook-secret"):
            shutil.copy2(folder / name, own / name)
        (own / "token").write_text(token(number))
        (own / "token").chmod(0o600)
        text = settings_text(
            ehr_url, free_port(), free_port(), work='catch_up_overlap = "5s"\nlease = "20s"', store=f'url = "{database}"',
            ehr='auth = "bearer"\ncredential_file = "token"', server=f'public_url = "http://127.0.0.1:{public_port}"',
        )  # fmt: skip
        configs.append(own / shared.name)
        configs[-1].write_text(text)
    return configs


def token(number: int) -> str:
    """What tells the servers apart at the EHR."""
    return f"bearer-of-worker-{number}"


async def campaign(points: int, seed: int, folder: Path, rung: str = "put") -> SharedReport:
    """Run `points` deaths of servers, restart the database, and judge what is left."""
    rng, report = random.Random(seed), SharedReport(seed, points, rung)
    witness = Witness()
    ehr = witness.ehr = PracticeEhr(capabilities=RUNGS[rung], credentials=witness)
    await ehr.start()
    cluster = await asyncio.to_thread(Cluster)
    database, public_port = await asyncio.to_thread(lambda: cluster.database(migrated=False)), free_port()
    configs = sites(folder, ehr.base_url, database, public_port)
    balancer = Balancer([load(config).server.port for config in configs])
    await balancer.start(public_port)
    ward = Ward(ehr, random.Random(rng.random()), patients=max(10, min(points // 3, 60)))
    notifier = Notifier(ward, public_port, random.Random(rng.random()))
    workers = Workers(configs, cluster, ward, notifier, rng)
    await ward.admit()
    stop = asyncio.Event()
    load_tasks = [asyncio.create_task(ward.chart_until(stop))]
    load_tasks += [asyncio.create_task(notifier.notify_until(stop)) for _ in range(NOTIFIERS)]
    try:
        async with asyncio.timeout(points * POINT_S + SETTLE_S):
            await _deaths(points, workers, ehr, rng, report)
            await workers.all_up()
            stop.set()
            await asyncio.gather(*load_tasks)
            ended, quiet_from = time.time(), time.monotonic()
            await ehr.quiet(SETTLE_S)
            await until(lambda: idle(configs[0], ended), SETTLE_S)
            report.settled_max_s = round(time.monotonic() - quiet_from, 1)
            report.saw("wrong", sum(map(bool, await workers.end())), "no clean stop at the end")
        Verdict(configs[0], ward, report).give(notifier.acknowledged)
        _order(configs[0], ehr, report)
        _owners(witness, workers, configs, report)
    finally:
        for task in load_tasks:
            task.cancel()
        workers.kill_all()
        await balancer.stop()
        await ehr.stop()
        await asyncio.to_thread(cluster.remove)
    report.kills, report.acknowledged = dict(workers.kills), len(notifier.acknowledged)
    report.restarts, report.database_restarts = len(workers.ready_s), dict(workers.restarts)
    report.readings, report.risk_assessments = ward.count, len(ehr.all("RiskAssessment"))
    report.ready_p50_s, report.ready_max_s = round(median(workers.ready_s), 2), round(max(workers.ready_s), 2)
    return report


async def _deaths(points: int, workers: Workers, ehr: PracticeEhr, rng: random.Random, report: SharedReport) -> None:
    for number in range(WORKERS):
        workers.start(number)  # all at once: they race for making the tables
    await workers.all_up()
    restarts = {points * (2 * n + 1) // (2 * _restarts(points)): n for n in range(_restarts(points))}
    for number in range(points):
        if rng.random() < 0.25:
            ehr.faults.drop_reply_next(only=f"{'PUT' if report.rung == 'put' else 'POST'} RiskAssessment")
            report.replies_dropped += 1
        if rng.random() < 0.2:
            await _give_up_on_a_channel(ehr, rng)
        if number in restarts:
            mode = ("fast", "immediate")[restarts[number] % 2]
            both = asyncio.gather(workers.restart_database(mode), workers.point())
            await both
        else:
            await workers.point()


def _restarts(points: int) -> int:
    return max(2, points // 20)


async def _give_up_on_a_channel(ehr: PracticeEhr, rng: random.Random) -> None:
    """The EHR turns one of our Subscriptions off: somebody, and only one, has to see and mend it."""
    found = ehr.all("Subscription")
    if found:
        await ehr.write({**rng.choice(found), "status": "off"}, validate=False)


def _order(config: Path, ehr: PracticeEhr, report: SharedReport) -> None:
    """A patient's results came into the chart in the order in which they were concluded.

    Compared are those whose first revision was written without a failure of the EHR: one that failed waits, and does
    not hold up the newer ones.
    """
    first = "delivery WHERE revision = 1 AND state = 'written' AND failures = 0"
    queued = {bytes(i).hex(): (bytes(p), at) for i, p, at in
              rows(config, f"SELECT identity, patient_key, queued_at FROM {first}")}  # fmt: skip
    by_patient: dict[bytes, list[tuple[float, str]]] = defaultdict(list)
    for risk in ehr.all("RiskAssessment"):  # oldest first
        identity = risk["identifier"][0]["value"]
        if identity in queued:
            who, at = queued[identity]
            by_patient[who].append((at, risk["id"]))
    for written in by_patient.values():
        report.compared_in_order += len(written)
        early = [b[1] for a, b in itertools.pairwise(written) if b[0] < a[0]]
        report.saw("regressions", len(early), f"{early[:1]} came after a newer result of its patient")


def _owners(witness: Witness, workers: Workers, configs: list[Path], report: SharedReport) -> None:
    """Who writes a Subscription goes on until it dies, or says that it left the duty; and there is one for each source."""
    names = {token(number): number for number in range(WORKERS)}
    left = {number: _left(config) for number, config in enumerate(configs)}
    for (before, one), (after, other) in itertools.pairwise(witness.writes):
        if one == other:
            continue
        report.takeovers += 1
        ends = [at for at, number in workers.deaths if number == names[one]] + left[names[one]]
        # Times of two programs on one machine: a death is noted after the kill, a line after the fact.
        ended = any(before - 0.2 <= at <= after + 0.2 for at in ends)
        report.saw("wrong", not ended, "a Subscription was written by a second process while the first went on")
    report.subscription_writes = len(witness.writes)
    assert witness.ehr is not None
    endpoints = Counter(s["channel"]["endpoint"] for s in witness.ehr.all("Subscription"))
    report.saw("duplicates", sum(n - 1 for n in endpoints.values()), f"Subscription {endpoints.most_common(1)}")
    report.saw("wrong", len(endpoints) != len(rows(configs[0], "SELECT 1 FROM subscription")), "Subscriptions differ")


def _left(config: Path) -> list[float]:
    found: list[float] = []
    for line in config.with_name("serve.log").read_text().splitlines():
        with contextlib.suppress(ValueError):
            entry: dict[str, Any] = json.loads(line)
            if entry.get("event") == "duty left" and entry.get("place") == "subscriptions":
                found.append(datetime.fromisoformat(entry["timestamp"]).timestamp())
    return found


def run(points: int, seed: int, folder: Path, rung: str = "put") -> SharedReport:
    """The campaign, from code without an event loop."""
    return asyncio.run(campaign(points, seed, folder, rung))


def main() -> int:
    """The command line."""
    parser = arguments("tests.campaigns.workers", __doc__)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--rung", choices=sorted(RUNGS), default="put", help="what the EHR can do to guard a create")
    options = parser.parse_args()
    sizes = stretches(options.points)

    async def one(run: Run) -> Found:
        return (await campaign(sizes[run.number], run.seed, run.folder, options.rung)).found()

    return carry_out(Row("workers", len(sizes), {"rung": options.rung, "points": options.points}), one, options)


if __name__ == "__main__":
    sys.exit(main())
