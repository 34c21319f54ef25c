"""Keeping Subscriptions when the EHR does not play along: no request without end, no row without end, no source starved."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import orjson
import pytest

from sidecar.errors import NotStored
from sidecar.intake import Follower, HookSecrets, Notice, Site, Subscriptions, forgotten, noted
from sidecar.intake.states import STARTING_S, State, load_state
from sidecar.intake.wanted import renew_at, shows
from sidecar.sandbox.delivery import DeliveryPolicy
from sidecar.sandbox.ehr import PracticeEhr
from sidecar.sandbox.topics import changed_topic
from sidecar.settings import Topics
from tests.harness import SECRET, house
from tests.integration.test_intake import HOOK, OBSERVATIONS, Intake, intake
from tests.unit.intake.test_bundle import notification

TEN_MINUTES_S = 600.0
NOBODY_LISTENS = HOOK


@contextlib.asynccontextmanager
async def followed(folder, topics: Topics, **policy) -> AsyncIterator[tuple[Intake, Follower]]:
    ehr = PracticeEhr(delivery=DeliveryPolicy(backoff_s=0.001, give_up_after=1, **policy))
    async with intake(folder, ehr) as site:
        keeper = Subscriptions(site.client, site.store, site.box.record, Site(NOBODY_LISTENS, SECRET, topics))
        yield site, Follower(site.client, site.store, site.box.record, keeper, topics)


async def ten_minutes(site: Intake, follower: Follower) -> None:
    """Follow the readings' Subscription as the duty does, on a clock that goes faster."""
    now, end = time.time(), time.time() + TEN_MINUTES_S
    while now < end:
        await follower.follow(OBSERVATIONS, now)
        await asyncio.sleep(0)
        now += follower.grace_s
    await asyncio.sleep(0.01)


def writes(site: Intake) -> int:
    return sum(n for (method, shape), n in site.ehr.requests.items() if method != "GET" and "Subscription" in shape)


@pytest.mark.parametrize("kind", ["topic", "classic"])
async def test_an_ehr_that_cannot_reach_our_hook_is_asked_less_and_less_often(tmp_path, kind):
    named = {"observation": changed_topic("Observation")} if kind == "topic" else {}
    async with followed(tmp_path, Topics(topics=named)) as (site, follower):
        if kind == "classic":
            site.ehr.faults.refuse_activation_next(1000)
        await ten_minutes(site, follower)
        assert 5 <= writes(site) <= 25
        state = await load_state(site.store, "observation")
        assert len(state.nonces) <= 25
        assert len(await site.rows("SELECT id FROM event")) <= 1


async def test_an_ehr_whose_end_lies_behind_our_clock_is_asked_once_a_minute(tmp_path):
    async with followed(tmp_path, Topics(), longest_life_s=0.001, enforces_end=False) as (site, follower):
        await ten_minutes(site, follower)
        assert 2 <= writes(site) <= 12


def test_a_life_that_the_ehr_cut_is_what_six_tenths_are_taken_of():
    assert renew_at(1000.0, 1000.0 + 86400, 86400.0) == 1000.0 + 0.6 * 86400
    assert renew_at(1000.0, 1000.0 + 3600, 86400.0) == 1000.0 + 0.6 * 3600
    assert renew_at(1000.0, 900.0, 86400.0) == 1000.0 + 0.6 * 86400
    assert renew_at(1000.0, 1000.0 + 10, 10.0) == 1006.0


async def test_a_conflict_is_recorded_and_asked_again_after_a_pause(tmp_path):
    async with intake(tmp_path) as site:
        site.ehr.faults.fail_next(1, 409, only="POST Subscription")
        now = time.time()
        state = await site.subscriptions.ensure(OBSERVATIONS, now)
        assert (state.status, state.reason) == ("refused", "ehr_conflict:409")
        assert state.look_at > now
        assert (await site.subscriptions.ensure(OBSERVATIONS, state.look_at)).reason is None


@pytest.mark.parametrize("status", ["requested", "entered-in-error", "error", "off", "None"])
def test_what_is_not_active_for_a_minute_is_asked_for_again(status):
    state = State("patient", renewed_at=1000.0)
    assert state.is_stuck(status, 1000.1 + STARTING_S)
    assert not state.is_stuck("active", 1e9)
    assert state.is_stuck("requested", 1000.1) is False


async def test_refused_creations_do_not_pile_up_secrets(tmp_path):
    async with intake(tmp_path) as site:
        site.ehr.faults.fail_next(50, 422, only="POST Subscription")
        for n in range(50):
            assert (await site.subscriptions.ensure(OBSERVATIONS, time.time() + 60 * n)).status == "refused"
        assert len((await load_state(site.store, "observation")).nonces) == 1


async def test_what_a_source_without_a_topic_hears_of_itself_is_not_kept(tmp_path):
    async with house(tmp_path) as site:
        port = site.settings.server.port
        headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/fhir+json"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            body = orjson.dumps(notification(kind="heartbeat", since="0"))
            assert (await client.post("/notify/observation", content=body)).status_code == 200
        assert not await site.rows("SELECT id FROM notice")


async def test_what_nobody_counted_is_forgotten(tmp_path):
    async with intake(tmp_path) as site:
        for at in (100.0, 200.0):
            await site.store.commit(noted("observation", Notice("heartbeat", since=1), at))
        await site.store.commit(forgotten(150.0))
        assert [r["heard_at"] for r in await site.rows("SELECT heard_at FROM notice")] == [200.0]


async def test_a_notice_is_counted_before_the_subscription_is_known(tmp_path):
    topics = Topics(topics={"observation": changed_topic("Observation")}, heartbeat=timedelta(seconds=60))
    async with followed(tmp_path, topics) as (site, follower):
        site.ehr.faults.fail_next(1000, 422, only="POST Subscription")
        await site.store.commit(noted("observation", Notice("heartbeat", "by-hand", since=1), time.time()))
        await follower.follow(OBSERVATIONS, time.time())
        assert not await site.rows("SELECT id FROM notice")


async def test_while_the_database_is_away_no_secret_is_called_wrong(tmp_path):
    async with intake(tmp_path) as site:
        await site.ensure()
        secrets = HookSecrets(site.store, SECRET)
        site.store.close()
        for _ in range(3):
            with pytest.raises(NotStored):
                await secrets.allows("observation", b"Bearer of-a-subscription")


def test_an_ehr_that_shows_the_secret_before_did_not_take_the_new_one():
    kept = {"channel": {"header": ["Authorization: Bearer old"]}}
    assert shows(kept, "Bearer old")
    assert not shows(kept, "Bearer new")
    assert not any(shows(hidden, "Bearer old") for hidden in ({}, {"channel": {}}, {"channel": {"header": ["***"]}}))
