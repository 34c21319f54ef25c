"""Press three times as many notifications on a server as it can work through, and prove: it goes on working.

`python -m tests.campaigns.overload [--seconds 60] [--times 3] [--seed N] [--state FILE] [--json]`; exit code 0 only if
every claim held: while pressed it charts at least 0.9 of what it charts at saturation, nothing acknowledged is lost or
doubled, and its memory is bounded.

Saturation is measured first: as many notifications as it can finish, never more than a window of them unfinished. The
first run then sends whatever the answers are, the second waits as long as Retry-After says. Counted is from the moment at
which the first results can come, a debounce after the first notification. Goodput is per second of the clock and of the
server's CPU: the first depends on what else the machine does, the second hides waiting.
"""

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median

from tests.campaigns.plant import WINDOW, Plant, plant, rss_mib
from tests.campaigns.runs import Found, Row, Run, arguments, carry_out

SENDERS = ("deaf", "obedient")
PIECES, PIECE_WINDOWS = 3, 4
LEAST = 0.9
GROWTH_MIB = 24.0
"""How much more than in the middle of the pressure it may hold at its end: what is waiting must be on disk."""


@dataclass
class Pressed:
    """What one run saw; `curve` has a row a second: seconds, results per second, MiB, waiting."""

    sender: str
    saturation_per_s: float = 0.0
    saturation_per_cpu_s: float = 0.0
    offered_per_s: float = 0.0
    goodput_per_s: float = 0.0
    goodput_p50_ratio: float = 0.0
    per_cpu_p50_ratio: float = 0.0
    answers: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    buried: int = 0
    ack_p50_ms: float = 0.0
    ack_max_ms: float = 0.0
    rss_start_max_mib: float = 0.0
    rss_max_mib: float = 0.0
    waiting_max: int = 0
    drained_s: float = 0.0
    curve: list[list[float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def must(self, held: bool, problem: str) -> None:
        """Note a claim that did not hold."""
        self.problems += [] if held else [problem]

    def found(self) -> Found:
        """As `tests.campaigns.runs` keeps it."""
        return {**asdict(self), "ok": not self.problems}


async def pressed(there: Plant, sender: str, seconds: float, times: float) -> Pressed:
    """Saturate, press, drain, judge."""
    report = Pressed(sender)
    await _saturate(there, report)
    report.rss_start_max_mib = rss_mib(there.running)
    rate = report.saturation_per_s * times
    there.answers.clear()
    there.ack_s.clear()
    acknowledged, begun = len(there.acknowledged), time.monotonic()
    pressing = asyncio.create_task(there.press(rate, seconds, obedient=sender == "obedient"))
    try:
        await asyncio.sleep(there.running.debounce_s)
        counted, written, used = time.monotonic(), await there.written(), there.running.cpu_s()
        await _watch(there, report, pressing, begun)
    finally:
        pressing.cancel()
    took, done = time.monotonic() - counted, await there.written() - written
    per_cpu_s = done / (there.running.cpu_s() - used)
    report.offered_per_s = round(sum(there.answers.values()) / (time.monotonic() - begun), 1)
    report.goodput_per_s = round(done / took, 1)
    report.goodput_p50_ratio = round(done / took / report.saturation_per_s, 3)
    report.per_cpu_p50_ratio = round(per_cpu_s / report.saturation_per_cpu_s, 3)
    report.acknowledged = len(there.acknowledged) - acknowledged
    report.answers = {str(status or "none"): n for status, n in sorted(there.answers.items())}
    report.ack_p50_ms, report.ack_max_ms = (round(f(there.ack_s) * 1e3, 1) for f in (median, max))
    await _drain(there, report)
    _judge(report)
    return report


async def _saturate(there: Plant, report: Pressed) -> None:
    """The median of a few pieces, each long enough to be steady; what comes in its first tenth is its beginning."""
    events, seen = PIECE_WINDOWS * there.window, [0, 0.0]

    def looked(done: int) -> None:
        if done < events / 10:
            seen[:] = done, time.monotonic()

    await there.feed(events)
    per_s, per_cpu_s = [], []
    for _ in range(PIECES):
        used = there.running.cpu_s()
        await there.feed(events, looked)
        per_s.append((events - seen[0]) / (time.monotonic() - seen[1]))
        per_cpu_s.append(events / (there.running.cpu_s() - used))
    report.saturation_per_s, report.saturation_per_cpu_s = round(median(per_s), 1), round(median(per_cpu_s), 1)


async def _watch(there: Plant, report: Pressed, pressing: "asyncio.Task[None]", begun: float) -> None:
    before, at = await there.written(), time.monotonic()
    while not pressing.done():
        await asyncio.wait([pressing], timeout=1.0)
        done, now = await there.written(), time.monotonic()
        waiting = int((await asyncio.to_thread(there.metrics))["sidecar_queue_depth"])
        report.curve.append(
            [round(now - begun, 1), round((done - before) / (now - at), 1), rss_mib(there.running), waiting]
        )
        before, at = done, now
    pressing.result()


async def _drain(there: Plant, report: Pressed) -> None:
    begun = time.monotonic()
    report.lost = await there.lost()
    report.drained_s = round(time.monotonic() - begun, 1)
    report.duplicates = int((await there.stats())["duplicates"])
    report.buried = there.buried()


def _judge(report: Pressed) -> None:
    curve = report.curve
    report.rss_max_mib, report.waiting_max = max(r[2] for r in curve), int(max(r[3] for r in curve))
    middle, end = curve[len(curve) // 2][2], max(r[2] for r in curve[len(curve) // 2 :])
    report.must(report.lost == 0, f"{report.lost} acknowledged events have no result")
    report.must(report.duplicates == 0, f"{report.duplicates} writes too many")
    report.must(report.buried == 0, f"{report.buried} dead letters")
    report.must(end - middle <= GROWTH_MIB, f"memory grew from {middle} to {end} MiB in the second half")
    clock, cpu = report.goodput_p50_ratio, report.per_cpu_p50_ratio
    report.must(min(clock, cpu) >= LEAST, f"goodput {clock} of saturation by the clock, {cpu} by CPU")


def lines(done: Mapping[int, Found]) -> list[str]:
    """The curves, a row for each twelfth of the time."""
    shown = []
    for found in done.values():
        curve = found.get("curve", [])
        shown.append(f"{found.get('sender')}: seconds, results/s, RSS MiB, waiting")
        shown += ["  ".join(f"{value:>8}" for value in row) for row in curve[:: max(1, len(curve) // 12)]]
    return shown


def main() -> int:
    """The command line."""
    parser = arguments("tests.campaigns.overload", __doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=3.0, help="of saturation")
    options = parser.parse_args()

    async def one(run: Run) -> Found:
        return await overloaded(run, options.seconds, options.times)

    settings = {"seconds": options.seconds, "times": options.times}
    return carry_out(Row("overload", len(SENDERS), settings, show=lines), one, options)


async def overloaded(run: Run, seconds: float, times: float, window: int = WINDOW) -> Found:
    """One server, pressed by one kind of sender."""
    with plant(run.folder, run.seed, window=window) as there:
        return (await pressed(there, SENDERS[run.number % len(SENDERS)], seconds, times)).found()


if __name__ == "__main__":
    sys.exit(main())
