"""A sample of the notification campaign; `make campaign` runs the whole of it."""

import asyncio
import sys

from tests.campaigns.notifications import one
from tests.campaigns.runs import Run, fresh_seed, merged

RUNS = 8


async def test_nothing_is_missed_or_doubled_through_lost_repeated_reordered_and_late_notifications(tmp_path):
    seed, slots = fresh_seed(), asyncio.Semaphore(4)
    sys.stdout.write(f"SIDECAR_SEED={seed}\n")

    async def run(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with slots:
            return await one(Run(number, seed + number, folder))

    runs = await asyncio.gather(*(run(number) for number in range(RUNS)))
    report = merged(runs)
    assert all(found["ok"] for found in runs), report["problems"]
    assert report["readings"] > RUNS
    assert report["faults"]["lost"] > 0
