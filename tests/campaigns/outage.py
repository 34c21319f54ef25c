"""Take the EHR away for seconds to minutes, in every way in which EHRs go away, while notifications go on coming.

`python -m tests.campaigns.outage --runs 10 [--longest 90] [--seed N] [--state FILE] [--json]`; exit code 0 only if every
claim held: what was acknowledged ends, nothing is written twice, all is done soon after the EHR is back, and while it
is away it is not stormed with requests.

Each run is a ward, a real server, and `OUTAGES` outages by `tests.campaigns.away` between the two; in some the server
is killed as well. A notifier of our own calls the hook without pause, as `tests.campaigns.kill` has it.
"""

import asyncio
import math
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx
from prometheus_client.parser import text_string_to_metric_families

from sidecar.sandbox.ehr import PracticeEhr
from sidecar.settings import load
from tests.campaigns.away import Away
from tests.campaigns.charting import Notified, Notifier, Ward
from tests.campaigns.kill import RUNGS
from tests.campaigns.runs import Found, Row, Run, arguments, begun, carry_out
from tests.campaigns.verdict import Report, Verdict, count, idle, missing
from tests.harness import Served, until, write_site

OUTAGES, NOTIFIERS, PATIENTS = 4, 2, 12
SHORTEST_S, BETWEEN_S, TIMEOUT_S = 0.5, 2.0, 1.0
LOOK_S, SETTLE_S = 0.1, 240.0
CALM_S = 2.0
"""After so long the requests that were under way have failed; what still comes are questions whether the EHR is back."""
MOST_PER_S = 5.0
RECOVERY_S = 45.0
"""The longest pause between two such questions (10 s), Retry-After, a late answer, and the backlog of a busy ward."""


@dataclass
class OutageReport(Report):
    """What this campaign saw beside."""

    outages: dict[str, int] = field(default_factory=dict)
    away_s: float = 0.0
    acknowledged_while_away: int = 0
    requests_while_away: int = 0
    asked_per_s_max: float = 0.0
    resumed_p50_s: float = 0.0
    resumed_max_s: float = 0.0
    recovered_p50_s: float = 0.0
    recovered_max_s: float = 0.0


class Outages:
    """One ward whose EHR goes away and comes back."""

    def __init__(self, run: Run, rung: str, longest_s: float) -> None:
        self._rng, self._folder, self._longest_s = random.Random(run.seed), run.folder, longest_s
        self.report = OutageReport(run.seed, 1, rung)
        self._ehr = PracticeEhr(capabilities=RUNGS[rung])
        self._ward = Ward(self._ehr, random.Random(self._rng.random()), PATIENTS)
        self._ways: Counter[str] = Counter()
        self._resumed: list[float] = []
        self._recovered: list[float] = []

    async def go(self) -> OutageReport:
        """Through all outages, and judge."""
        await self._ehr.start()
        self._away = Away(self._ehr.base_url, random.Random(self._rng.random()))
        await self._away.start()
        ehr = f'base_url = "{self._away.base_url}"\ntimeout_s = {TIMEOUT_S}'
        self._config = write_site(self._folder, self._away.base_url, work='catch_up_overlap = "5s"', ehr=ehr)
        port = load(self._config).server.port
        self._notifier = Notifier(self._ward, port, random.Random(self._rng.random()))
        stop, load_tasks = asyncio.Event(), list[asyncio.Task[None]]()
        try:
            self._served = await begun(self._config)
            await self._ward.admit()
            load_tasks = [asyncio.create_task(self._ward.chart_until(stop))]
            load_tasks += [asyncio.create_task(self._notifier.notify_until(stop)) for _ in range(NOTIFIERS)]
            for way in self._chosen():
                await asyncio.sleep(self._rng.uniform(0, BETWEEN_S))
                await self._outage(way)
            stop.set()
            await asyncio.gather(*load_tasks)
            await self._rest()
        finally:
            for task in load_tasks:
                task.cancel()
            await self._end()
        return self._told()

    def _chosen(self) -> list[str]:
        """Different ways, so that a few runs see them all."""
        return self._rng.sample(sorted(self._away.ways), OUTAGES)

    async def _outage(self, way: str) -> None:
        seconds = math.exp(self._rng.uniform(math.log(SHORTEST_S), math.log(self._longest_s)))
        before = len(self._notifier.acknowledged)
        first = await self._requests()
        await self._away.leave(way)
        await asyncio.sleep(min(seconds, CALM_S))
        if self._rng.random() < 0.25:
            await self._kill()
            first = 0  # it counts anew
        calm, calm_at = await self._requests(), time.monotonic()
        await asyncio.sleep(max(0.0, seconds - CALM_S))
        last, away_s = await self._requests(), time.monotonic() - calm_at
        self.report.acknowledged_while_away += len(self._notifier.acknowledged) - before
        acknowledged = set(self._notifier.acknowledged)
        await self._away.come_back()
        self._ways[way] += 1
        self.report.away_s = round(self.report.away_s + seconds, 1)
        self.report.requests_while_away += last - first
        if seconds > 2 * CALM_S and way != "late":  # late answers are answers: it is slow, and not away
            per_s = round((last - calm) / away_s, 2)
            self.report.asked_per_s_max = max(self.report.asked_per_s_max, per_s)
            self.report.saw("wrong", per_s > MOST_PER_S, f"{per_s} requests a second while the EHR was away ({way})")
        await self._recovery(way, acknowledged)

    async def _recovery(self, way: str, acknowledged: set[Notified]) -> None:
        """Time it: until the EHR is used again, and until all that was acknowledged before has ended and is written."""
        back, at = time.monotonic(), time.time()
        await until(self._is_available, SETTLE_S)
        self._resumed.append(time.monotonic() - back)

        async def done() -> bool:
            await asyncio.sleep(LOOK_S)
            waiting = count(self._config, f"delivery WHERE state = 'queued' AND queued_at < {at}")
            return not waiting and not missing(self._config, acknowledged, ended=True)

        await until(done, SETTLE_S)
        seconds = time.monotonic() - back
        self._recovered.append(seconds)
        self.report.saw(
            "wrong", seconds > RECOVERY_S, f"all was done only {seconds:.0f} s after the EHR was back ({way})"
        )

    async def _kill(self) -> None:
        assert self._served is not None
        await asyncio.to_thread(self._served.kill)
        self._served = await begun(self._config)
        self.report.kills["while away"] = self.report.kills.get("while away", 0) + 1

    async def _metrics(self) -> dict[str, float]:
        """Sums over labels, by name."""
        url = f"http://127.0.0.1:{load(self._config).server.ops_port}/metrics"
        async with httpx.AsyncClient() as client:
            text = (await client.get(url, timeout=10)).text
        found: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] += sample.value
        return found

    async def _requests(self) -> int:
        return int((await self._metrics())["sidecar_ehr_request_duration_seconds_count"])

    async def _is_available(self) -> bool:
        return (await self._metrics())["sidecar_ehr_available"] == 1

    async def _rest(self) -> None:
        await self._away.landed()
        ended, quiet_from = time.time(), time.monotonic()
        await self._ehr.quiet(SETTLE_S)
        await until(lambda: idle(self._config, ended), SETTLE_S)
        self.report.settled_max_s = round(time.monotonic() - quiet_from, 1)
        assert self._served is not None
        self.report.saw("wrong", await asyncio.to_thread(self._served.terminate), "no clean stop at the end")
        Verdict(self._config, self._ward, self.report).give(self._notifier.acknowledged)

    async def _end(self) -> None:
        if self._served is not None and self._served.process.poll() is None:
            self._served.kill()
        await self._away.stop()
        await self._ehr.stop()

    def _told(self) -> OutageReport:
        report = self.report
        report.outages, report.acknowledged = dict(sorted(self._ways.items())), len(self._notifier.acknowledged)
        report.readings, report.risk_assessments = self._ward.count, len(self._ehr.all("RiskAssessment"))
        report.resumed_p50_s, report.resumed_max_s = round(median(self._resumed), 2), round(max(self._resumed), 2)
        report.recovered_p50_s = round(median(self._recovered), 2)
        report.recovered_max_s = round(max(self._recovered), 2)
        return report

    _served: Served | None = None
    _config: Path


def main() -> int:
    """The command line."""
    parser = arguments("tests.campaigns.outage", __doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--longest", type=float, default=90.0, help="seconds; most outages are much shorter")
    parser.add_argument("--rung", choices=sorted(RUNGS), default="put", help="what the EHR can do to guard a create")
    options = parser.parse_args()

    async def one(run: Run) -> Found:
        return (await Outages(run, options.rung, options.longest).go()).found()

    return carry_out(Row("outage", options.runs, {"rung": options.rung, "longest": options.longest}), one, options)


if __name__ == "__main__":
    sys.exit(main())
