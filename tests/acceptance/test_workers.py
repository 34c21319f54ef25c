"""Several servers on one PostgreSQL. The long run is `make campaign`; this is a sample of it, a new seed each time."""

import asyncio
import contextlib
import sys
import time

import httpx
import pytest

from tests.campaigns.runs import fresh_seed
from tests.campaigns.workers import run
from tests.harness import SECRET, house, now, observation_set, serve, until, write_site
from tests.postgres import Cluster, Line, cluster, new_database, skip_when_missing


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


@pytest.fixture
def stack():
    with contextlib.ExitStack() as opened:
        yield opened


async def test_a_database_that_vanishes_without_a_word_does_not_delay_a_stop(tmp_path, stack):
    skip_when_missing()
    line = Line()
    url = stack.enter_context(new_database())
    config = write_site(tmp_path, "http://127.0.0.1:1/fhir", store=f'url = "{await line.open(url, cluster().port)}"')
    served = await asyncio.to_thread(serve, config)
    stack.callback(served.kill)
    line.dead = True
    began = time.monotonic()
    assert await asyncio.to_thread(served.terminate, 30) == 0
    assert time.monotonic() - began < 20
    await line.close()


async def test_an_outage_of_the_database_refuses_notifications_and_costs_no_lease(tmp_path, stack):
    """What was under way goes on when the database is back, long before its claims would have ended."""
    skip_when_missing()
    server = await asyncio.to_thread(Cluster)
    stack.callback(server.remove)
    url = await asyncio.to_thread(server.database)
    async with house(tmp_path, store=f'url = "{url}"', work='lease = "10m"\ncatch_up_interval = "1h"') as site:
        await site.admit("p1")
        await site.settled(60)
        site.ehr.faults.delay_s = 1.0
        await site.chart(observation_set("p1", now(1), c9279_1=26))
        await until(lambda: site.ehr.requests["GET", "Observation"] > 0, 60)  # it is being assessed
        await asyncio.to_thread(server.stop, "immediate")
        async with httpx.AsyncClient(base_url=site.settings.server.public_url) as client:
            headers = {"Authorization": f"Bearer {SECRET}"}
            answer = await client.post("/notify/patient", headers=headers, timeout=30)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        site.ehr.faults.delay_s = 0.0
        await asyncio.to_thread(server.start)
        await site.settled(90)
        assert len(site.risk_assessments()) == 1
