"""A start is quick, whatever waits in the inbox, and loads nothing that serving does not need."""

import asyncio
import re
import time
from pathlib import Path
from statistics import median

import pytest

from sidecar.inbox import EventBox
from sidecar.records import Event, Reference
from sidecar.sandbox.ehr import PracticeEhr
from sidecar.settings import load
from sidecar.store import load_keys, open_store
from tests.campaigns.verdict import count
from tests.harness import ENGINES, encounter, new_database, now, observation_set, patient, serve, until, write_site

PENDING = 10_000
WITHIN_S = 2.0


async def record(config, start):
    """`PENDING` events that no start has looked at."""
    settings = load(config)
    store = open_store(settings.store.url)
    box = EventBox(store, load_keys(settings.store.key_file))
    references = (Reference("Observation", f"o{start + n}", "1") for n in range(PENDING))
    await box.record(*(Event("observation", time.time(), r, "2026-01-01T00:00:00Z") for r in references))
    await asyncio.to_thread(store.close)


def pending(config):
    return count(config, "event WHERE state = 'pending'")


def kept_waiting_s(process):
    """How long others had the processor while the server wanted it: a busy machine says nothing about the server.

    The second number of https://docs.kernel.org/scheduler/sched-stats.html, in nanoseconds; elsewhere not known.
    """
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


async def test_with_ten_thousand_pending_events_a_start_is_ready_within_two_seconds(tmp_path):
    ehr = PracticeEhr()
    await ehr.start()
    config = write_site(tmp_path, ehr.base_url)
    seconds = []
    for start in range(3):
        await record(config, start * PENDING)
        assert pending(config) >= PENDING
        served = await asyncio.to_thread(serve, config)
        seconds.append(served.starts[0] - kept_waiting_s(served.process))
        served.kill()
    await ehr.stop()

    assert median(seconds) < WITHIN_S, seconds


@pytest.fixture(params=ENGINES)
def database(tmp_path, request):
    with new_database(tmp_path, request.param) as url:
        yield url


async def test_a_serving_process_imports_no_validation_no_migration_and_nothing_of_the_practice_ehr(
    tmp_path, monkeypatch, database
):
    ehr = PracticeEhr()
    await ehr.start()
    config = write_site(tmp_path, ehr.base_url, store=f'url = "{database}"')
    first = await asyncio.to_thread(serve, config)
    assert await asyncio.to_thread(first.terminate) == 0
    first.log.unlink()

    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    served = await asyncio.to_thread(serve, config)
    await ehr.write(patient("p1"))
    await ehr.write(encounter("p1"))
    for reading in observation_set("p1", now(1)):
        await ehr.write(reading)
    await until(lambda: ehr.all("RiskAssessment"))
    assert await asyncio.to_thread(served.terminate) == 0
    await ehr.stop()

    imported = set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", served.log.read_text(), re.MULTILINE))
    assert {"sidecar.worker", "onnxruntime"} <= imported
    unwanted = ["fhir.resources", "alembic", "sidecar.sandbox", "onnx", "pytest", "joserfc", "httpx"]
    unwanted += ["asyncpg"] if database.startswith("sqlite:") else ["sqlalchemy.ext"]
    assert not [name for name in imported for u in unwanted if name == u or name.startswith(f"{u}.")]
