"""One measurement of one side: a fresh EHR and a fresh process, warmed up, then loaded."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import uvloop

from tests.benchmarks import load, payloads, sides
from tests.benchmarks.ratios import percentile
from tests.benchmarks.sides import Refused, Running, Side, Stub

MOST_WARM_UP = 100
DRAIN_S = 600.0
STILL_S = 0.25


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: who each notification is about, and when it is due (None: when the last is acknowledged).

    Each patient's chart holds `size` readings of the `codes` that the EHR knows by that name; a `restless` one has
    another version of its newest reading at each look.
    """

    patients: Sequence[str]
    due_s: Sequence[float] | None = None
    size: int = 50
    codes: str = "all"
    restless: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """What one side did.

    `latency` is from (intended) sending to the patient's first result in the chart, and `events_per_s` is over the time
    from the first sending to the last such result, both without the debounce.
    """

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

    @property
    def words(self) -> str:
        """As progress tells it."""
        return (
            f"{self.cpu_us_per_event:.0f} us/event, {self.events_per_s:.0f}/s, ack p99 {self.ack_p99_ms:.1f} ms, "
            f"result p99 {self.latency_p99_ms:.1f} ms, {sum(self.requests_per_event.values()):.2f} requests/event, "
            f"{self.rss_mib:.0f} MiB"
        )


def run(side: Side, load_: Load, graph: Path, folder: Path) -> Trial:
    """Measure `side` once, in a folder of its own.

    Raises:
        Refused: it did not do the job: something unfinished, written twice, or not written.
    """
    folder.mkdir(parents=True)
    with (
        sides.ehr(folder, load_.size, load_.codes, restless=load_.restless) as stub,
        side(folder, stub, graph) as running,
    ):
        first = min(MOST_WARM_UP, len(load_.patients))
        _warm_up(stub, running, first)
        return _measured(stub, running, load_, first)


def _warm_up(stub: Stub, running: Running, events: int) -> None:
    bodies = bodies_for(stub, running, [f"w{i}" for i in range(events)], 1)
    uvloop.run(load.send(running.target, bodies))
    _drained(stub, running, events)
    stub.ask("reset")


def _measured(stub: Stub, running: Running, load_: Load, before_it: int) -> Trial:
    bodies = bodies_for(stub, running, load_.patients, before_it + 1)
    before = running.cpu_s()
    try:
        sent = uvloop.run(load.send(running.target, bodies, load_.due_s))
    except ExceptionGroup as failed:
        raise Refused(f"a notification was not taken: {failed.exceptions[0]!r}") from None
    used = _drained(stub, running, len(set(load_.patients))) - before
    seen, written, count = stub.ask("stats"), stub.ask("written"), len(bodies)
    patients = len(set(load_.patients))
    results = patients if patients == count else seen["held"]
    if seen["duplicates"] or (seen["patients"], seen["held"]) != (patients, results):
        raise Refused(f"{seen['duplicates']} duplicates; {seen['held']} results of {seen['patients']} patients")
    running.finished(before_it + count)
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


def bodies_for(stub: Stub, running: Running, patients: Sequence[str], first: int) -> list[bytes]:
    """A notification for each of `patients` in turn, numbered from `first`."""
    told: dict[str, int] = {}
    bodies = []
    for number, who in enumerate(patients, first):
        event = told[who] = told.get(who, -1) + 1
        told_of = payloads.notification(stub.chart, who, event, number, running.subscription)
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
