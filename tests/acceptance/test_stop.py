"""SIGTERM and Ctrl-C end the server cleanly: in time, with nothing lost and nothing held."""

import asyncio
import contextlib
import random
import signal

import pytest

from sidecar.sandbox.ehr import PracticeEhr
from sidecar.settings import load
from tests.campaigns.charting import Notifier, Ward
from tests.campaigns.verdict import held, missing
from tests.harness import serve, until, write_site

WITHIN_S = 20.0
HUNG_S = 300.0
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@contextlib.asynccontextmanager
async def under_load(folder, **sections):
    """A real server, a ward that charts without pause, and notifiers that remember what was acknowledged."""
    ehr = PracticeEhr()
    await ehr.start()
    config = write_site(folder, ehr.base_url, **sections)
    ward, stop = Ward(ehr, random.Random(1), patients=20), asyncio.Event()
    notifier = Notifier(ward, load(config).server.port, random.Random(2))
    await ward.admit()
    served = await asyncio.to_thread(serve, config)
    load_tasks = [asyncio.create_task(notifier.notify_until(stop)) for _ in range(4)]
    load_tasks += [asyncio.create_task(ward.chart_until(stop)) for _ in range(4)]
    try:
        yield ehr, served, notifier
    finally:
        stop.set()
        ehr.faults.clear()
        await asyncio.gather(*load_tasks)
        if served.process.poll() is None:
            served.kill()
        await ehr.stop()


async def ended(served, number):
    """The exit code after a signal; at most `WITHIN_S` later."""
    served.process.send_signal(number)
    return await asyncio.to_thread(served.process.wait, WITHIN_S)


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_stop_under_load_is_clean_and_loses_no_acknowledged_event(tmp_path, number):
    async with under_load(tmp_path) as (ehr, served, notifier):
        await until(lambda: len(ehr.all("RiskAssessment")) >= 5 and len(notifier.acknowledged) >= 50)

        assert await ended(served, number) == 0

    assert held(served.config) == 0
    assert missing(served.config, notifier.acknowledged, ended=False) == []


@pytest.mark.parametrize("number", SIGNALS)
async def test_an_ehr_that_hangs_neither_delays_a_stop_nor_keeps_a_claim(tmp_path, number):
    async with under_load(tmp_path, ehr=f"timeout_s = {HUNG_S}") as (ehr, served, notifier):
        await until(lambda: len(ehr.all("RiskAssessment")) >= 5)
        ehr.faults.delay_s = HUNG_S
        await until(lambda: held(served.config) > 0)

        assert await ended(served, number) == 0

    assert held(served.config) == 0
    assert missing(served.config, notifier.acknowledged, ended=False) == []
