"""One measurement of one side: a fresh EHR and a fresh process, warmed up, then loaded."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson
import uvloop

from tests.benchmarks import load, payloads, sides
from tests.benchmarks.payloads import Chart
from tests.benchmarks.ratios import percentile
from tests.benchmarks.sides import Refused, Running, Side, Stub

WARM_UP = 100
DRAIN_S = 600.0
STILL_S = 0.25


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: who each notification is about, and when it is due (None: when the last is acknowledged)."""

    patients: Sequence[str]
    due_s: Sequence[float] | None = None
    size: int = 50
    codes: tuple[str, ...] = (*payloads.USED, *payloads.OTHERS)

    @property
    def chart(self) -> Chart:
        """What each patient's chart holds."""
        return Chart(datetime.now(UTC), self.size, self.codes)


@dataclass(frozen=True, slots=True)
class Trial:
    """What one side did. `latency` is from (intended) sending to the result in the chart, without the debounce."""

    events: int
    cpu_us_per_event: float
    events_per_s: float
    ack_p50_ms: float
    ack_p99_ms: float
    latency_p50_ms: float
    latency_p99_ms: float
    writes_per_event: float
    rss_mib: float
    debounce_s: float
    requests_per_event: dict[str, float] = field(default_factory=dict)


def run(side: Side, load_: Load, graph: Path, folder: Path) -> Trial:
    """Measure `side` once, in a folder of its own.

    Raises:
        Refused: it did not do the job: something unfinished, written twice, or not written.
    """
    folder.mkdir(parents=True)
    with sides.ehr(folder, load_.chart) as stub, side(folder, stub, graph) as running:
        _warm_up(stub, running)
        return _measured(stub, running, load_)


def _warm_up(stub: Stub, running: Running) -> None:
    bodies = _bodies(stub, running, [f"w{i}" for i in range(WARM_UP)], 1)
    uvloop.run(load.send(running.target, bodies))
    _drained(stub, running, WARM_UP)
    stub.ask("reset")


def _measured(stub: Stub, running: Running, load_: Load) -> Trial:
    bodies = _bodies(stub, running, load_.patients, WARM_UP + 1)
    before = running.cpu_s()
    sent = uvloop.run(load.send(running.target, bodies, load_.due_s))
    used = _drained(stub, running, len(set(load_.patients))) - before
    seen, written, count = stub.ask("stats"), stub.ask("written"), len(bodies)
    if seen["duplicates"] or seen["patients"] != len(set(load_.patients)):
        raise Refused(f"{seen['duplicates']} duplicates, results of {seen['patients']} patients")
    running.finished(WARM_UP + count)
    first_sent: dict[str, float] = {}
    for who, at in zip(load_.patients, sent.at, strict=True):
        first_sent.setdefault(who, at)
    latency = [(written[who] - at - running.debounce_s) * 1e3 for who, at in first_sent.items()]
    ack = [s * 1e3 for s in sent.ack_s]
    writes = sum(n for kind, n in seen["requests"].items() if kind.startswith(("update", "create")))
    return Trial(
        events=count,
        cpu_us_per_event=used / count * 1e6,
        events_per_s=count / (max(written.values()) - min(sent.at) - running.debounce_s),
        ack_p50_ms=percentile(ack, 0.5),
        ack_p99_ms=percentile(ack, 0.99),
        latency_p50_ms=percentile(latency, 0.5),
        latency_p99_ms=percentile(latency, 0.99),
        writes_per_event=writes / count,
        rss_mib=running.rss_mib(),
        debounce_s=running.debounce_s,
        requests_per_event={kind: n / count for kind, n in sorted(seen["requests"].items())},
    )


def _bodies(stub: Stub, running: Running, patients: Sequence[str], first: int) -> list[bytes]:
    """A notification for each of `patients` in turn, numbered from `first`."""
    told: dict[str, int] = {}
    bodies = []
    for number, who in enumerate(patients, first):
        event = told[who] = told.get(who, -1) + 1
        told_of = payloads.notification(stub.chart, who, event, number, running.subscription, stub.base)
        bodies.append(orjson.dumps(told_of))
    return bodies


def _drained(stub: Stub, running: Running, patients: int) -> float:
    """CPU seconds when every patient has a result and the process has come to rest."""
    running.process.wait_for(lambda: stub.ask("stats")["patients"] >= patients, "all results", DRAIN_S)
    now = running.cpu_s()
    while True:
        time.sleep(STILL_S)
        before, now = now, running.cpu_s()
        if now - before <= 0.01:
            return now


def distinct(events: int) -> list[str]:
    """A patient an event."""
    return [f"p{i}" for i in range(events)]


def steadily(events: int, per_s: float, rng: random.Random) -> list[float]:
    """Moments of `events` at `per_s`, evenly spaced, each shifted by less than half a space."""
    return [(i + rng.uniform(0.5, 1.0)) / per_s for i in range(events)]
