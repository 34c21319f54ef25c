"""A sample of the notification campaign; `make campaign` runs the whole of it."""

import sys

from tests.campaigns.kill import fresh_seed
from tests.campaigns.notifications import campaign

RUNS = 8


async def test_nothing_is_missed_or_doubled_through_lost_repeated_reordered_and_late_notifications(tmp_path):
    seed = fresh_seed()
    sys.stdout.write(f"SIDECAR_SEED={seed}\n")
    report = await campaign(RUNS, seed, tmp_path, together=4)
    assert report.ok, report.problems
    assert report.readings > RUNS
    assert report.faults["lost"] > 0
