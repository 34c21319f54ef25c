"""The yardstick: the least that does the job, written for speed and for nothing else. On loopback.

`python -m tests.benchmarks.yardstick PORT EHR_BASE GRAPH FOLDER`. A notification is committed to SQLite (FULL, in
groups) before 2xx; a patient's notifications coalesce while the patient is being worked on; GET Patient and GET
Observation are read; features come from one pass; the graph scores and explains by occlusion in one batch with whoever
else waits; the RiskAssessment is PUT under an id that repeats; the notifications are marked done; drift bins count.

It checks nothing, authenticates nobody, protects nothing, logs nothing and tries nothing again. What a product adds to
that is what the benchmarks measure.
"""

import asyncio
import gc
import queue
import sqlite3
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import onnxruntime as ort
import orjson
import uvloop
from aiohttp import web

from tests.benchmarks.payloads import USED

INPUTS = len(USED) * 4
TYPICAL = np.repeat(np.array([usual for _, _, usual, _ in USED.values()], dtype=np.float32), 4)
MOST_IN_BATCH, MOST_IN_GROUP, PATIENTS_AT_ONCE = 32, 512, 32
SCHEMA = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA wal_autocheckpoint=4000",
    "CREATE TABLE ev(id INTEGER PRIMARY KEY, key TEXT UNIQUE, patient TEXT, body BLOB, ts REAL, state INT DEFAULT 0)",
)
INSERT = "INSERT INTO ev(key, patient, body, ts) VALUES(?, ?, ?, ?) ON CONFLICT(key) DO NOTHING"
DONE = "UPDATE ev SET state = 1 WHERE key = ?"


class GroupCommit:
    """One writer thread that commits whatever has gathered, and then says so; `more` is run on the new tables."""

    def __init__(self, path: Path, *more: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[tuple[tuple[Any, ...] | None, list[str], Any]] = queue.SimpleQueue()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for statement in (*SCHEMA, *more):
            self._connection.execute(statement)
        threading.Thread(target=self._write, daemon=True).start()

    async def record(self, row: tuple[Any, ...]) -> None:
        """Return when `row` is on disk."""
        done = self._loop.create_future()
        self._waiting.put((row, [], done))
        await done

    def finish(self, keys: list[str]) -> None:
        """Mark as done, some time soon."""
        self._waiting.put((None, keys, None))

    def _write(self) -> None:
        while True:
            group = [self._waiting.get()]
            while len(group) < MOST_IN_GROUP:
                try:
                    group.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            rows = [row for row, _, _ in group if row]
            done = [(key,) for _, keys, _ in group for key in keys]
            self._connection.execute("BEGIN IMMEDIATE")
            if rows:
                self._connection.executemany(INSERT, rows)
            if done:
                self._connection.executemany(DONE, done)
            self._connection.execute("COMMIT")
            if told := [future for _, _, future in group if future]:
                self._loop.call_soon_threadsafe(_tell, told)


def _tell(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


class Scorer:
    """The graph in batches of whoever waits, with no timer; each row beside its occlusions."""

    def __init__(self, graph: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[list[float], asyncio.Future[Any]]] = []
        self._busy = False
        self._each = np.arange(INPUTS)

    def score(self, row: list[float]) -> asyncio.Future[tuple[float, list[int]]]:
        """The probability, and the three inputs that matter most."""
        future = self._loop.create_future()
        self._waiting.append((row, future))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(lambda: asyncio.ensure_future(self._run()))
        return future

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST_IN_BATCH], self._waiting[MOST_IN_BATCH:]
            rows = np.asarray([row for row, _ in batch], dtype=np.float32)
            rows = np.repeat(rows[:, None], INPUTS + 1, 1)
            rows[:, self._each + 1, self._each] = TYPICAL
            said = self._session.run(["probabilities"], {"x": rows.reshape(-1, INPUTS)})[0][:, -1]
            for (_, future), p in zip(batch, said.reshape(len(batch), INPUTS + 1), strict=True):
                strongest = np.argsort(-np.abs(p[0] - p[1:]))[:3]
                future.set_result((float(p[0]), strongest.tolist()))
            await asyncio.sleep(0)
        self._busy = False


def features(bundle: Mapping[str, Any]) -> list[float]:
    """Latest, least, largest and mean of each code, in one pass."""
    readings: dict[str, list[tuple[str, float]]] = {}
    for entry in bundle["entry"]:
        resource = entry["resource"]
        one = (resource["effectiveDateTime"], resource["valueQuantity"]["value"])
        readings.setdefault(resource["code"]["coding"][0]["code"], []).append(one)
    row: list[float] = []
    for code in USED:
        if found := readings.get(code):
            found.sort()
            values = [value for _, value in found]
            row += (values[-1], min(values), max(values), sum(values) / len(values))
        else:
            row += (0.0, 0.0, 0.0, 0.0)
    return row


class Yardstick:
    """From a notification to a RiskAssessment."""

    def __init__(self, base: str, store: GroupCommit, scorer: Scorer) -> None:
        self._base, self._store, self._scorer = base, store, scorer
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64), auto_decompress=False)
        self._waiting: dict[str, list[str]] = defaultdict(list)
        self._active: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(PATIENTS_AT_ONCE)
        self._edges = np.linspace(-2, 2, 9)[:, None].repeat(INPUTS, 1)
        self._counts = np.zeros((INPUTS, 10), dtype=np.int64)

    async def hear(self, request: web.BaseRequest) -> web.Response:
        """A notification: 200 when it is on disk."""
        body = await request.read()
        bundle = orjson.loads(body)
        key = bundle["id"]
        subject = next(s for e in bundle["entry"] if (s := e["resource"].get("subject")))
        patient = subject["reference"].removeprefix("Patient/")
        await self._store.record((key, patient, body, time.time()))
        self._waiting[patient].append(key)
        if patient not in self._active:
            self._active.add(patient)
            task = asyncio.ensure_future(self._work(patient))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return web.Response(status=200)

    async def _work(self, patient: str) -> None:
        while patient in self._waiting:
            async with self._at_once:
                await self._assess(patient, self._waiting.pop(patient))
        self._active.discard(patient)

    async def _assess(self, patient: str, keys: list[str]) -> None:
        _, chart = await asyncio.gather(
            self._get(f"/Patient/{patient}"), self._get(f"/Observation?patient={patient}&_count=100")
        )
        row = features(chart)
        self._counts[np.arange(INPUTS), (self._edges < np.asarray(row)).sum(0)] += 1
        probability, strongest = await self._scorer.score(row)
        assessment = {
            "resourceType": "RiskAssessment",
            "identifier": [{"system": "urn:ra", "value": keys[-1]}],
            "status": "final",
            "subject": {"reference": f"Patient/{patient}"},
            "method": {"text": "m1"},
            "basis": [{"reference": entry["fullUrl"]} for entry in chart["entry"][:5]],
            "prediction": [{"probabilityDecimal": round(probability, 6), "rationale": ",".join(map(str, strongest))}],
        }
        async with self._session.put(
            f"{self._base}/RiskAssessment/{keys[-1]}",
            data=orjson.dumps(assessment),
            headers={"Content-Type": "application/fhir+json"},
        ) as answer:
            if answer.status != 201:
                raise RuntimeError(f"the EHR answered {answer.status}")
        self._store.finish(keys)

    async def _get(self, path: str) -> Any:
        async with self._session.get(self._base + path) as answer:
            return orjson.loads(await answer.read())


async def serve(port: int, base: str, graph: Path, folder: Path) -> None:
    """Listen until the process ends."""
    yardstick = Yardstick(base, GroupCommit(folder / "yardstick.db"), Scorer(graph.read_bytes()))  # noqa: ASYNC240
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
    runner = web.ServerRunner(web.Server(yardstick.hear, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    number, ehr, model, place = sys.argv[1:]
    uvloop.run(serve(int(number), ehr, Path(model), Path(place)))
