"""Subscriptions end, are renewed before, and bring another secret each time."""

import asyncio
import time
from datetime import datetime

import httpx
import pytest

from sidecar.errors import Unavailable
from sidecar.intake import HookSecrets
from sidecar.intake.hook_secrets import OVERLAP_S, Nonce, bearer, in_force
from sidecar.intake.states import kept, load_state
from sidecar.store import Statement, Step
from tests.harness import SECRET, house, until
from tests.integration.test_intake import OBSERVATIONS, intake

LIFE_S = 86400.0


def header_of(site, source=OBSERVATIONS) -> str:
    (mine,) = [s for s in site.ehr.all("Subscription") if s["channel"]["endpoint"].endswith(source.name)]
    return mine["channel"]["header"][0].removeprefix("Authorization: ")


async def ensured(site, at: float) -> None:
    await until(lambda: site.ensure(at))


async def test_a_subscription_is_renewed_at_six_tenths_of_its_life_and_not_before(tmp_path):
    async with intake(tmp_path) as site:
        made = time.time()
        await ensured(site, made)
        first = {s["id"]: (s["end"], s["channel"]["header"]) for s in site.ehr.all("Subscription")}
        await ensured(site, made + 0.59 * LIFE_S)
        assert {s["id"]: (s["end"], s["channel"]["header"]) for s in site.ehr.all("Subscription")} == first
        await ensured(site, made + 0.61 * LIFE_S)
        for renewed in site.ehr.all("Subscription"):
            end, header = first[renewed["id"]]
            assert datetime.fromisoformat(renewed["end"]) > datetime.fromisoformat(end)
            assert renewed["channel"]["header"] != header


async def test_an_end_that_the_ehr_cut_is_what_counts(tmp_path):
    async with intake(tmp_path) as site:
        made = time.time()
        await ensured(site, made)
        (mine,) = [s for s in site.ehr.all("Subscription") if s["criteria"].startswith("Patient")]
        before = mine["channel"]["header"]
        state = await load_state(site.store, "patient")
        await site.store.commit(kept(state.at(ends_at=made + 100)))
        await ensured(site, made + 70)
        assert site.ehr.read("Subscription", mine["id"])["channel"]["header"] != before


async def test_both_the_new_secret_and_the_one_before_are_taken_while_notifications_may_be_on_their_way(tmp_path):
    async with intake(tmp_path) as site:
        secrets = HookSecrets(site.store, SECRET)
        made = time.time()
        await ensured(site, made)
        first = header_of(site)
        await ensured(site, made + 0.7 * LIFE_S)
        second = header_of(site)
        assert first != second
        assert await secrets.allows("observation", first.encode())
        assert await secrets.allows("observation", second.encode())
        assert not await secrets.allows("patient", second.encode())


def test_the_secret_before_is_not_taken_once_the_ehr_has_had_the_new_one_for_long():
    new, old, older = Nonce("c", 1000.0), Nonce("b", 500.0), Nonce("a", 10.0)
    assert in_force((new, old, older), 1000.0 + OVERLAP_S) == (new, old)
    assert in_force((new, old, older), 1001.0 + OVERLAP_S) == (new,)


def test_until_the_ehr_confirms_a_new_secret_the_one_before_stays_in_force():
    new, old = Nonce("b"), Nonce("a", 10.0)
    assert in_force((new, old), 1e9) == (new, old)


async def test_an_ehr_that_is_away_during_renewal_keeps_its_secret_and_is_asked_again(tmp_path):
    async with intake(tmp_path) as site:
        secrets = HookSecrets(site.store, SECRET)
        made = time.time()
        await ensured(site, made)
        first = header_of(site)
        site.ehr.faults.down = True
        with pytest.raises(Unavailable):
            await site.ensure(made + 0.7 * LIFE_S)
        site.ehr.faults.down = False
        assert await secrets.allows("observation", first.encode())
        await ensured(site, made + 0.8 * LIFE_S)
        assert await secrets.allows("observation", header_of(site).encode())
        assert header_of(site) != first


async def test_what_the_subscription_shows_does_not_give_the_sites_own_secret_away(tmp_path):
    header = bearer(SECRET, "observation", Nonce("n"))
    assert SECRET not in header
    assert len({header, bearer(SECRET, "patient", Nonce("n")), bearer(SECRET, "observation", Nonce("m"))}) == 3


async def test_a_subscriptions_secret_opens_its_own_hook_and_no_other(tmp_path):
    async with house(tmp_path) as site:
        port = site.settings.server.port
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for source in ("observation", "patient", "nothing"):
                answer = await client.post(f"/notify/{source}", headers={"Authorization": header_of(site)})
                assert answer.status_code == (200 if source == "observation" else 401)


async def test_a_thousand_wrong_secrets_at_once_cost_one_look_into_the_database(tmp_path):
    async with intake(tmp_path) as site:
        await ensured(site, time.time())
        reads = 0
        read = site.store.read

        async def counted(*arguments, **more):
            nonlocal reads
            reads += 1
            return await read(*arguments, **more)

        site.store.read = counted
        secrets = HookSecrets(site.store, SECRET)
        guesses = [secrets.allows("observation", f"Bearer guess-{n}".encode()) for n in range(1000)]
        assert not any(await asyncio.gather(*guesses))
        assert reads <= 2
        assert await secrets.allows("observation", header_of(site).encode())


async def test_a_lost_subscription_is_asked_for_again_and_what_it_missed_is_searched_for(tmp_path):
    async with intake(tmp_path) as site:
        await ensured(site, time.time())
        (mine,) = [s for s in site.ehr.all("Subscription") if s["criteria"].startswith("Patient")]
        await site.client.send("delete", "DELETE", f"Subscription/{mine['id']}", ok={200, 204})
        await site.store.commit(*ended_pings())
        await site.ensure()
        pings = await site.rows("SELECT id FROM event WHERE focus_type IS NULL AND state = 'pending'")
        assert len(pings) == 1


def ended_pings():
    end = Statement("test", "UPDATE event SET state = 'done', merge_key = NULL WHERE focus_type IS NULL")
    return (Step(end),)
