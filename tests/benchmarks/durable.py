"""How much a durable insert costs: `python -m tests.benchmarks.durable SIDE EVENTS FOLDER`, one side a process.

`record` is the verb of the shipped inbox on its SQLite store; `yardstick` is the group commit of `yardstick.py`, with
the body in the row and an index of what is not done. 64 producers wait for their own event to be on disk before they bring the next.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import uvloop

from sidecar.inbox import EventBox
from sidecar.records import Event, Reference
from sidecar.store import SqliteStore, load_keys, new_keys
from tests.benchmarks import payloads
from tests.benchmarks.payloads import Chart
from tests.benchmarks.ratios import percentile
from tests.benchmarks.yardstick import GroupCommit

PRODUCERS, WARM_UP = 64, 256
INDEX = "CREATE INDEX waiting ON ev(patient) WHERE state = 0"
CHECKPOINT = "PRAGMA wal_autocheckpoint=1000"
Insert = Callable[[int], Awaitable[None]]


async def drive(insert: Insert, first: int, events: int) -> dict[str, float]:
    """Insert events from `first` on; rate, CPU of this process, and how long each waited."""
    numbers = iter(range(first, first + events))
    waited = []

    async def produce() -> None:
        for i in numbers:
            began = time.perf_counter()
            await insert(i)
            waited.append((time.perf_counter() - began) * 1e3)

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))
    used, took = time.process_time() - used, time.perf_counter() - began
    return {
        "cpu_us_per_event": used / events * 1e6,
        "events_per_s": events / took,
        "p50_ms": percentile(waited, 0.5),
        "p99_ms": percentile(waited, 0.99),
    }


async def record(events: int, folder: Path) -> dict[str, float]:
    """The shipped verb."""
    new_keys(folder / "keys.toml")
    store = SqliteStore(f"sqlite:///{folder}/sidecar.db")
    box = EventBox(store, load_keys(folder / "keys.toml"))

    async def insert(i: int) -> None:
        focus = Reference("Observation", f"o-p{i}-0", "1")
        await box.record(Event("observation", time.time(), focus, "2026-01-01T00:00:00.000Z"))

    try:
        await drive(insert, 0, WARM_UP)
        return await drive(insert, WARM_UP, events)
    finally:
        store.close()


async def yardstick(events: int, folder: Path) -> dict[str, float]:
    """The least that is durable."""
    store = GroupCommit(folder / "yardstick.db", INDEX, CHECKPOINT)
    chart = Chart(payloads.EPOCH, "http://127.0.0.1/fhir")
    body = orjson.dumps(payloads.notification(chart, "p1", 0, 1, "s1"))

    async def insert(i: int) -> None:
        await store.record((f"k{i}", f"p{i % 500}", body, time.time()))

    await drive(insert, 0, WARM_UP)
    return await drive(insert, WARM_UP, events)


SIDES = {"record": record, "yardstick": yardstick}

if __name__ == "__main__":
    side, count, place = sys.argv[1:]
    measured = uvloop.run(SIDES[side](int(count), Path(place)))
    sys.stdout.write(orjson.dumps(measured).decode() + "\n")
