"""Several servers on one PostgreSQL. The long run is `make campaign`; this is a sample of it, a new seed each time."""

import sys

import pytest

from tests.campaigns.kill import fresh_seed
from tests.campaigns.workers import run
from tests.postgres import skip_when_missing


@pytest.mark.timeout(600)
def test_servers_and_a_database_that_die_at_any_moment_lose_nothing_double_nothing_and_keep_the_order(tmp_path):
    skip_when_missing()
    seed = fresh_seed()
    sys.stdout.write(f"SIDECAR_SEED={seed}\n")

    report = run(8, seed, tmp_path)

    assert report.ok, report
    assert report.acknowledged > 0
    assert report.risk_assessments > 0
    assert set(report.database_restarts) == {"fast", "immediate"}
