"""Work through 100,000 events in one `sidecar serve`, and prove: its memory stays what it was at 10,000.

`python -m tests.campaigns.memory [--events 100000] [--seed N] [--state FILE] [--json]`; exit code 0 only if every claim
held. Each event is of a patient of its own and makes a result of its own in the chart. Beside memory the size of the
database is shown, which keeps every result for good; then the server is started again with all events past their
retention, and notifications go on at `PRUNE_RATE` while it deletes them: that must neither take long nor keep anyone waiting.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import linear_regression

from tests.benchmarks import sides
from tests.campaigns.plant import SIZE, Plant, again, plant, rss_mib
from tests.campaigns.runs import Found, Row, Run, arguments, carry_out
from tests.campaigns.verdict import count

STEPS = 10
RANGE_MIB = 16.0
"""The most by which what it holds at a tenth of the events and at any later tenth may differ: allocators are not exact."""
PRUNE_RATE, LOOK_S, PRUNE_WITHIN_S, LONGEST_ACK_S = 50.0, 0.25, 120.0, 5.0


@dataclass
class Held:
    """What was seen; `curve` has a row for each tenth: events, RSS in MiB, database in MiB, CPU us per event."""

    events: int = 0
    events_per_s: float = 0.0
    rss_first_mib: float = 0.0
    rss_last_mib: float = 0.0
    rss_range_mib: float = 0.0
    rss_mib_per_10k: float = 0.0
    store_mib: float = 0.0
    lost: int = 0
    duplicates: int = 0
    buried: int = 0
    pruned: int = 0
    pruned_s: float = 0.0
    prune_ack_max_s: float = 0.0
    store_after_mib: float = 0.0
    curve: list[list[float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def must(self, held: bool, problem: str) -> None:
        """Note a claim that did not hold."""
        self.problems += [] if held else [problem]


async def grown(there: Plant, events: int) -> Held:
    """Feed all, looking at each tenth."""
    report, step = Held(events), max(1, events // STEPS)
    used = there.running.cpu_s()

    def looked(done: int) -> None:
        nonlocal used
        if done >= step * (len(report.curve) + 1):
            now, before = there.running.cpu_s(), report.curve[-1][0] if report.curve else 0
            per_event = round((now - used) / (done - before) * 1e6)
            report.curve.append([done, rss_mib(there.running), round(there.store_mib(), 1), per_event])
            used = now

    begun = time.monotonic()
    await there.feed(events, looked)
    report.events_per_s = round(events / (time.monotonic() - begun), 1)
    report.lost = await there.lost()
    report.duplicates, report.buried = int((await there.stats())["duplicates"]), there.buried()
    held = [row[1] for row in report.curve]
    report.rss_first_mib, report.rss_last_mib, report.rss_range_mib = held[0], held[-1], round(max(held) - min(held), 1)
    slope = linear_regression([row[0] for row in report.curve], held).slope if len(held) > 1 else 0.0
    report.rss_mib_per_10k, report.store_mib = round(slope * 10_000, 3), round(there.store_mib(), 1)
    report.must(report.rss_range_mib <= RANGE_MIB, f"memory was between {min(held)} and {max(held)} MiB")
    report.must(not (report.lost or report.duplicates or report.buried), "not every event has one result")
    return report


async def pruned(there: Plant, report: Held) -> None:
    """Watch the events being deleted while notifications go on."""
    done = "event WHERE state = 'done'"
    report.pruned, begun = count(there.config, done), time.monotonic()
    there.ack_s.clear()
    with again(there, store__retention="1s"):
        pressing = asyncio.create_task(there.press(PRUNE_RATE, PRUNE_WITHIN_S, obedient=True))
        try:
            while (left := count(there.config, done)) > report.pruned // 10 + 10 * PRUNE_RATE:
                await asyncio.sleep(LOOK_S)
                if time.monotonic() > begun + PRUNE_WITHIN_S:
                    break
            report.pruned_s = round(time.monotonic() - begun, 1)
            await asyncio.sleep(2.0 + there.running.debounce_s)  # whoever waited is answered
        finally:
            pressing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pressing
    report.pruned -= left
    report.prune_ack_max_s, report.store_after_mib = round(max(there.ack_s), 2), round(there.store_mib(), 1)
    report.must(report.pruned_s <= PRUNE_WITHIN_S, f"{left} events past their retention are still there")
    report.must(
        report.prune_ack_max_s <= LONGEST_ACK_S, f"an acknowledgement took {report.prune_ack_max_s} s meanwhile"
    )


async def remembered(run: Run, events: int) -> Found:
    """One server's life."""
    with sides.ehr(run.folder, SIZE, "all") as stub:
        with plant(run.folder, run.seed, stub) as there:
            report = await grown(there, events)
        await pruned(there, report)
    return {**asdict(report), "ok": not report.problems}


def lines(done: Mapping[int, Found]) -> list[str]:
    """The curve."""
    shown = ["  events   RSS MiB  store MiB  CPU us/event"]
    return shown + ["".join(f"{v:>10}" for v in row) for found in done.values() for row in found.get("curve", [])]


def main() -> int:
    """The command line."""
    parser = arguments("tests.campaigns.memory", __doc__)
    parser.add_argument("--events", type=int, default=100_000)
    options = parser.parse_args()

    async def one(run: Run) -> Found:
        return await remembered(run, options.events)

    return carry_out(Row("memory", 1, {"events": options.events}, show=lines), one, options)


if __name__ == "__main__":
    sys.exit(main())
