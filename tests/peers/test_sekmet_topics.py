"""sekmet-fhir's Backport Subscriptions, with topics that a site added: told, counted, renewed, and given up by the server."""

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from sidecar.sandbox.ehr import PracticeEhr
from sidecar.sandbox.topics import changed_topic
from sidecar.settings import Settings
from tests.harness import now, observation_set, until
from tests.peers.site import PATIENCE_S, Chart, Site, running, settings_for, unsubscribe

pytestmark = pytest.mark.timeout(300)

NAMES = ("patient", "encounter", "observation", "condition")


@pytest.fixture(scope="module")
def sekmet(server_named):
    return server_named("sekmet")


async def site_topics() -> list[dict]:
    """The topics of the practice EHR, as the resources a site would add to its server; one of them cannot filter."""
    ehr = PracticeEhr()
    await ehr.start()
    await ehr.stop()
    found = ehr.all("Basic")
    for basic in found:
        if changed_topic("Condition") in orjson.dumps(basic).decode():
            basic["extension"] = [e for e in basic["extension"] if not e["url"].endswith("canFilterBy")]
    return [{**basic, "id": f"site-{n}"} for n, basic in enumerate(found)]


def with_topics(folder: Path, base_url: str, life: str = "1d") -> Settings:
    topics = {name: changed_topic(name.capitalize()) for name in NAMES}
    found = settings_for(folder, base_url, catch_up_interval="1h")
    subscriptions = {"topics": topics, "heartbeat": "1s", "life": life}
    return Settings.model_validate(found.model_dump(exclude_unset=True) | {"subscriptions": subscriptions})


@contextlib.asynccontextmanager
async def told(sekmet, folder: Path, **more: str) -> AsyncIterator[Site]:
    chart = Chart(sekmet)
    for basic in await site_topics():
        await chart.write(basic)
    settings = with_topics(folder, sekmet.base_url, **more)
    try:
        async with running(chart, settings) as site:
            yield site
    finally:
        await unsubscribe(chart, settings)
        await chart.close()


async def state(site: Site, source: str) -> dict:
    (row,) = await site.rows(f"SELECT * FROM subscription WHERE source = '{source}'")
    return row | orjson.loads(row["numbers"])


async def test_a_patient_is_assessed_from_numbered_notifications(sekmet, tmp_path):
    async with told(sekmet, tmp_path) as site:
        await site.admit("topics-p1")
        for reading in observation_set("topics-p1", now(1)):
            await site.write(reading)
        await site.settled()

        async def scored() -> bool:
            return ["valueQuantity" in total for total in await site.totals("topics-p1")] == [True]

        await until(scored, PATIENCE_S)

        async def counted() -> bool:
            found = await state(site, "observation")
            return found["mark"] == found["told"] == 7

        await until(counted)


async def test_heartbeats_are_heard(sekmet, tmp_path):
    async with told(sekmet, tmp_path) as site:
        began = time.time()

        async def heard() -> bool:
            return ((await state(site, "patient"))["heard_at"] or 0) > began

        await until(heard)


async def test_a_topic_whose_filter_the_server_refuses_by_its_status_is_asked_for_without(sekmet, tmp_path):
    async with told(sekmet, tmp_path) as site:
        found = await site.chart.all("Subscription?status=active")
        (ours,) = [s for s in found if s["criteria"] == changed_topic("Condition")]
        assert "_criteria" not in ours


async def test_a_subscription_is_renewed_and_its_notifications_go_on(sekmet, tmp_path):
    async with told(sekmet, tmp_path, life="5s") as site:
        first = (await state(site, "patient"))["secrets"]

        async def renewed_twice() -> bool:
            return len(orjson.loads((await state(site, "patient"))["secrets"])) >= len(orjson.loads(first)) + 2

        await until(renewed_twice, 30)
        await site.admit("topics-p2")
        await site.settled()


async def test_a_subscription_that_the_server_turned_off_is_asked_for_again(sekmet, tmp_path):
    async with told(sekmet, tmp_path) as site:
        (ours,) = [s for s in await site.chart.all("Subscription") if s["criteria"] == changed_topic("Observation")]
        await site.chart.write(ours | {"status": "off"})

        async def active_again() -> bool:
            return (await site.chart.read(f"Subscription/{ours['id']}"))["status"] == "active"

        await until(active_again, 30)
