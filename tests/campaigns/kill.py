"""Kill `sidecar serve` at many moments under load, and prove: nothing acknowledged is lost, nothing is written twice.

`python -m tests.campaigns.kill --points 200 [--seed N] [--rung put] [--state FILE] [--json]`; exit code 0 only if every
claim held. Each run of at most `STRETCH` points has a ward and a database of its own.

A practice EHR with a full ward lives in this process. Charting goes on all the time, through Subscriptions that the
EHR itself keeps; a notifier of our own also calls the hook and remembers what was answered with 2xx. The server is a
real process, killed with SIGKILL at seeded moments and started again on the same files. When all is quiet,
`tests.campaigns.verdict` compares the chart with what the readings say by a count of the points of its own.
"""

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from sidecar.sandbox.ehr import Capabilities, PracticeEhr
from sidecar.settings import load
from tests.campaigns.charting import Notifier, Ward
from tests.campaigns.runs import Found, Row, Run, arguments, begun, carry_out
from tests.campaigns.verdict import Report, Verdict, idle
from tests.harness import Served, until, write_site

Wait = Callable[[], Awaitable[None]]

NOTIFIERS = 4
LONGEST_UP_S = 0.6
LONGEST_START_S = 1.1
POINT_S, SETTLE_S = 6.0, 240.0
STRETCH = 25
RUNGS = {
    "put": Capabilities(),
    "conditional": Capabilities(update_create=False),
    "search": Capabilities(update_create=False, conditional_create=False),
}


class Killer:
    """Starts the server and kills it."""

    def __init__(self, config: Path, ward: Ward, notifier: Notifier, rng: random.Random) -> None:
        self._config, self._ward, self._notifier, self._rng = config, ward, notifier, rng
        self.ready_s: list[float] = []
        self.kills: Counter[str] = Counter()
        self.served: Served | None = None
        self._moments: dict[str, Wait] = {
            "at any moment": self._any,
            "just after an acknowledgement": self._after_an_acknowledgement,
            "while assessing": lambda: self._at_a_request("GET", "Observation"),
            "while writing": lambda: self._at_a_request("PUT POST", "RiskAssessment"),
        }

    async def start(self) -> Served:
        """Start and wait until it is ready."""
        self.served = await begun(self._config)
        self.ready_s += self.served.starts
        return self.served

    async def point(self) -> None:
        """One life of the server, ended at a moment that the seed chooses."""
        if self._rng.random() < 0.2 or not self.kills:
            return await self._kill_while_starting()
        moment = self._rng.choice(list(self._moments))
        served = await self.start()
        await self._moments[moment]()
        served.kill()
        self.kills[moment] += 1
        return None

    async def _kill_while_starting(self) -> None:
        command = [sys.executable, "-m", "sidecar", "serve", "--config", str(self._config)]
        with self._config.with_name("serve.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220 -- a fork, not a wait
        await asyncio.sleep(self._rng.uniform(0, LONGEST_START_S))
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.kills["while starting"] += 1

    async def _any(self) -> None:
        await asyncio.sleep(self._rng.uniform(0, LONGEST_UP_S))

    async def _after_an_acknowledgement(self) -> None:
        await asyncio.sleep(self._rng.uniform(0, LONGEST_UP_S / 2))
        self._notifier.heard.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._notifier.heard.wait(), 1)
        await asyncio.sleep(self._rng.uniform(0, 0.003))

    async def _at_a_request(self, methods: str, kind: str) -> None:
        """When the EHR next receives such a request, or shortly after."""
        await asyncio.sleep(self._rng.uniform(0, LONGEST_UP_S / 2))

        def seen() -> int:
            return sum(
                n for (m, shape), n in self._ward.ehr.requests.items() if m in methods and shape.startswith(kind)
            )

        before, deadline = seen(), time.monotonic() + 1
        while seen() == before and time.monotonic() < deadline:  # noqa: ASYNC110 -- the EHR counts, and tells nobody
            await asyncio.sleep(0.001)
        await asyncio.sleep(self._rng.uniform(0, 0.01))


async def campaign(points: int, seed: int, folder: Path, rung: str = "put") -> Report:
    """Run `points` lives of a server and judge what is left."""
    rng, report = random.Random(seed), Report(seed, points, rung)
    ehr = PracticeEhr(capabilities=RUNGS[rung])
    await ehr.start()
    config = write_site(folder, ehr.base_url, work='catch_up_overlap = "5s"')
    ward = Ward(ehr, random.Random(rng.random()), patients=max(10, min(points // 3, 60)))
    notifier = Notifier(ward, load(config).server.port, random.Random(rng.random()))
    killer = Killer(config, ward, notifier, rng)
    await ward.admit()
    stop = asyncio.Event()
    load_tasks = [asyncio.create_task(ward.chart_until(stop))]
    load_tasks += [asyncio.create_task(notifier.notify_until(stop)) for _ in range(NOTIFIERS)]
    try:
        async with asyncio.timeout(points * POINT_S + SETTLE_S):
            for _ in range(points):
                if rng.random() < 0.25:
                    ehr.faults.drop_reply_next(only=f"{'PUT' if rung == 'put' else 'POST'} RiskAssessment")
                    report.replies_dropped += 1
                await killer.point()
            served = await killer.start()
            stop.set()
            await asyncio.gather(*load_tasks)
            ended, quiet_from = time.time(), time.monotonic()
            await ehr.quiet(SETTLE_S)
            await until(lambda: idle(config, ended), SETTLE_S)
            report.settled_max_s = round(time.monotonic() - quiet_from, 1)
            report.saw("wrong", await asyncio.to_thread(served.terminate), "no clean stop at the end")
        Verdict(config, ward, report).give(notifier.acknowledged)
    finally:
        for task in load_tasks:
            task.cancel()
        if killer.served is not None and killer.served.process.poll() is None:
            killer.served.kill()
        await ehr.stop()
    report.kills, report.acknowledged, report.restarts = dict(killer.kills), len(notifier.acknowledged), points
    report.readings, report.risk_assessments = ward.count, len(ehr.all("RiskAssessment"))
    report.ready_p50_s, report.ready_max_s = round(median(killer.ready_s), 2), round(max(killer.ready_s), 2)
    return report


def run(points: int, seed: int, folder: Path, rung: str = "put") -> Report:
    """The campaign, from code without an event loop."""
    return asyncio.run(campaign(points, seed, folder, rung))


def stretches(points: int) -> list[int]:
    """`points` in runs of at most `STRETCH`."""
    return [min(STRETCH, points - done) for done in range(0, points, STRETCH)]


def main() -> int:
    """The command line."""
    parser = arguments("tests.campaigns.kill", __doc__)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--rung", choices=sorted(RUNGS), default="put", help="what the EHR can do to guard a create")
    options = parser.parse_args()
    sizes = stretches(options.points)

    async def one(run: Run) -> Found:
        return (await campaign(sizes[run.number], run.seed, run.folder, options.rung)).found()

    return carry_out(Row("kill", len(sizes), {"rung": options.rung, "points": options.points}), one, options)


if __name__ == "__main__":
    sys.exit(main())
