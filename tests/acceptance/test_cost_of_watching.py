"""What metrics and logs cost: a share of an event's CPU, and a scrape of everything there is."""

import asyncio
import contextlib
import io
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest
from prometheus_client import Counter as Metric
from prometheus_client import Gauge, Histogram

from sidecar import log, metrics
from sidecar.sandbox.ehr import PracticeEhr
from tests.harness import encounter, house, now, observation_set, patient, spawn, until, write_site
from tests.process import cpu_s

PATIENTS, EACH = 10, 7
MAX_SHARE, MAX_SCRAPE_S = 0.05, 0.050
CALLS, SCRAPES, SOURCES = 1000, 20, 3
COUNTED = {"inc": Metric, "set": Gauge, "observe": Histogram}


@contextlib.contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each kind of metric is touched and a line is logged, while it lasts."""
    calls = Counter[str]()

    def counted(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def count(*args: object, **more: object) -> object:
            calls[name] += 1
            return call(*args, **more)

        return count

    with monkeypatch.context() as patched:
        for name, kind in COUNTED.items():
            patched.setattr(kind, name, counted(name, getattr(kind, name)))
        patched.setattr(log, "get", counted("log", log.get))
        yield calls


def unit_costs() -> dict[str, float]:
    """CPU seconds of one call, its child looked up by labels, and of a log line."""
    calls: dict[str, Callable[[], object]] = {
        "inc": lambda: metrics.EVENTS.labels("assessed").inc(),
        "set": lambda: metrics.QUEUE_DEPTH.labels("events").set(0),
        "observe": lambda: metrics.STAGE_SECONDS.labels("record").observe(0.5),
        "log": lambda: log.get().info("cost of a line", place="tests", reason="tests"),
    }
    found = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for name, call in calls.items():
            began = time.process_time()
            for _ in range(CALLS):
                call()
            found[name] = (time.process_time() - began) / CALLS
    return found


async def chart(ehr: PracticeEhr, prefix: str) -> int:
    """Admit patients with one set each; how many events that is."""
    for n in range(PATIENTS):
        who = f"{prefix}{n}"
        await ehr.write(patient(who))
        await ehr.write(encounter(who))
        for resource in observation_set(who, now(5), c9279_1=26):
            await ehr.write(resource)
    return PATIENTS * (EACH + 2)


async def scored(ehr: PracticeEhr) -> None:
    await ehr.quiet(60)
    await until(lambda: len(ehr.all("RiskAssessment")) >= PATIENTS, 90)


async def test_metrics_and_logs_cost_at_most_5_percent_of_an_event_and_a_scrape_50_ms(tmp_path, monkeypatch):
    (tmp_path / "counted").mkdir()
    async with house(tmp_path / "counted") as site:
        with counting(monkeypatch) as calls:
            events = await chart(site.ehr, "p")
            await site.settled(90)
    per_event = {name: count / events for name, count in calls.items()}
    costs = unit_costs()
    watching = sum(per_event[name] * costs[name] for name in per_event)

    ehr = PracticeEhr()
    await ehr.start()
    server = spawn(write_site(tmp_path, ehr.base_url))
    try:
        await until(lambda: sum(s["status"] == "active" for s in ehr.all("Subscription")) >= SOURCES, 120)
        before = cpu_s(server.process.pid)
        events = await chart(ehr, "q")
        await scored(ehr)
        an_event = (cpu_s(server.process.pid) - before) / events
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            url = f"http://127.0.0.1:{server.settings.server.ops_port}/metrics"
            before, size = cpu_s(server.process.pid), 0
            for _ in range(SCRAPES):
                size = len((await client.get(url)).content)
            scrape = (cpu_s(server.process.pid) - before) / SCRAPES
    finally:
        await asyncio.to_thread(server.kill)
        await ehr.stop()
    touches = ", ".join(f"{count:.1f} {name}" for name, count in per_event.items())
    sys.stdout.write(
        f"an event {an_event * 1e3:.2f} ms, of that metrics and logs {watching * 1e6:.0f} us "
        f"({watching / an_event:.1%}): {touches}; a scrape of {size} bytes {scrape * 1e3:.1f} ms\n"
    )
    assert sum(per_event.values()) > 1
    assert watching / an_event <= MAX_SHARE
    assert scrape <= MAX_SCRAPE_S
