"""Send every notification many times, at once, later, after its work is done and after a restart: nothing is doubled.

`python -m tests.campaigns.duplicates --runs 20 [--seed N] [--state FILE] [--json]`; exit code 0 only if every claim held.

Each run has an EHR with classic or topic-based Subscriptions, a real server, and a database: SQLite in one run and,
where it is installed, PostgreSQL in the next. `tests.campaigns.repeater` multiplies what the EHR sends. When all is
quiet, everything is sent once more; then the server is stopped or killed, started again, killed while everything comes
yet again, and told all a last time. Nothing of that may store or write a thing. `tests.campaigns.verdict` judges the rest.
"""

import asyncio
import contextlib
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from sidecar.sandbox.ehr import Backport, Capabilities, PracticeEhr
from sidecar.sandbox.topics import changed_topic
from sidecar.settings import load
from tests import postgres
from tests.campaigns.charting import Ward
from tests.campaigns.repeater import Repeater
from tests.campaigns.runs import Found, Row, Run, arguments, begun, carry_out
from tests.campaigns.verdict import Report, Verdict, count, idle
from tests.harness import ENGINES, Served, free_port, new_database, until, write_site

SOURCES = ("patient", "encounter", "observation", "condition")
OURS = ("RiskAssessment", "Observation", "Device")
PATIENTS, STEPS, SETTLE_S = 5, 20, 120.0


@dataclass
class RepeatReport(Report):
    """What this campaign saw beside."""

    engine: str = ""
    heard: int = 0
    sent: int = 0


class Repeated:
    """One ward whose notifications all come many times."""

    def __init__(self, run: Run, engine: str) -> None:
        self._rng, self._folder = random.Random(run.seed), run.folder
        self.report = RepeatReport(run.seed, 1, "put", engine=engine)
        self._topics = self._rng.random() < 0.5
        self._ehr = PracticeEhr(capabilities=Capabilities(backport=Backport()) if self._topics else None)
        self._ward = Ward(self._ehr, random.Random(self._rng.random()), PATIENTS)
        self._served: Served | None = None

    async def go(self, database: str) -> RepeatReport:
        """Chart, let all come to rest, repeat everything in several ways, and judge."""
        await self._ehr.start()
        public_port = free_port()
        config = self._site(database, public_port)
        repeater = Repeater(load(config).server.port, random.Random(self._rng.random()))
        await repeater.start(public_port)
        try:
            await self._repeat(config, repeater)
        finally:
            if self._served is not None and self._served.process.poll() is None:
                self._served.kill()
            await repeater.stop()
            await self._ehr.stop()
        report = self.report
        report.heard, report.sent, report.acknowledged = len(repeater.heard), repeater.sent, len(repeater.acknowledged)
        report.readings, report.risk_assessments = self._ward.count, len(self._ehr.all("RiskAssessment"))
        return report

    def _site(self, database: str, public_port: int) -> Path:
        content = self._rng.choice(["empty", "id-only", "full-resource"])
        topics = "\n".join(f'topics.{name} = "{changed_topic(name.capitalize())}"' for name in SOURCES)
        sections = {"subscriptions": f'{topics}\ncontent = "{content}"'} if self._topics else {}
        return write_site(
            self._folder, self._ehr.base_url, work='catch_up_overlap = "5s"', store=f'url = "{database}"',
            server=f'public_url = "http://127.0.0.1:{public_port}"', **sections,
        )  # fmt: skip

    async def _repeat(self, config: Path, repeater: Repeater) -> None:
        self._served = await begun(config)
        await self._ward.admit()
        for _ in range(STEPS):
            await self._ward.chart()
            await asyncio.sleep(self._rng.uniform(0, 0.3))
        await self._rest(config, repeater)
        before = self._made(config)
        await repeater.again()
        await self._rest(config, repeater)
        self._compare(before, self._made(config), "after their work was done")
        await self._restart(config, kill=self._rng.random() < 0.5)
        await self._killed_meanwhile(config, repeater)
        await repeater.again()
        await self._rest(config, repeater)
        self._compare(before, self._made(config), "after restarts")
        assert self._served is not None
        self.report.saw("wrong", await asyncio.to_thread(self._served.terminate), "no clean stop at the end")
        Verdict(config, self._ward, self.report).give(repeater.acknowledged)

    async def _killed_meanwhile(self, config: Path, repeater: Repeater) -> None:
        sending = asyncio.create_task(repeater.again())
        await asyncio.sleep(self._rng.uniform(0, 0.2))
        await self._restart(config, kill=True)
        await sending

    async def _restart(self, config: Path, *, kill: bool) -> None:
        assert self._served is not None
        await asyncio.to_thread(self._served.kill if kill else self._served.terminate)
        self.report.kills["kill" if kill else "stop"] = self.report.kills.get("kill" if kill else "stop", 0) + 1
        self._served = await begun(config)

    async def _rest(self, config: Path, repeater: Repeater) -> None:
        await repeater.quiet()
        ended = time.time()
        await self._ehr.quiet(SETTLE_S)
        await until(lambda: idle(config, ended), SETTLE_S)

    def _made(self, config: Path) -> dict[str, object]:
        """Everything of ours, in its version, in the chart; and how much the database has of what makes it."""
        charted = {(r["resourceType"], r["id"]): r["meta"]["versionId"] for t in OURS for r in self._ehr.all(t)}
        return {"chart": charted, **{table: count(config, table) for table in ("assessment", "delivery", "effect")}}

    def _compare(self, before: dict[str, object], after: dict[str, object], when: str) -> None:
        for name, made in before.items():
            self.report.saw("duplicates", made != after[name], f"{name} changed by repeats {when}")


async def one(run: Run) -> Found:
    """One ward, on the engine that the run's number says."""
    engines = ENGINES if postgres.missing() is None else ENGINES[:1]
    engine = engines[run.number % len(engines)]
    with contextlib.ExitStack() as stack:
        database = await asyncio.to_thread(stack.enter_context, new_database(run.folder, engine))
        try:
            return (await Repeated(run, engine).go(database)).found()
        finally:
            await asyncio.to_thread(stack.close)


def main() -> int:
    """The command line."""
    parser = arguments("tests.campaigns.duplicates", __doc__)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    return carry_out(Row("duplicates", options.runs), one, options)


if __name__ == "__main__":
    sys.exit(main())
