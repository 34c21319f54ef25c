"""A bound on what is taken: once it is reached the hook says so, keeps what it acknowledged, and takes again."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from sidecar import metrics
from sidecar.commands import operate
from sidecar.inbox import Bounds, EventBox, Inflow, ModelWait
from sidecar.inbox.inflow import BEHIND_S, LEAST_PACE, LONGEST_TURN_S, STORED_S
from sidecar.records import Event, PatientId, Reference
from sidecar.store import Cipher, Statement, Step, Store
from tests.harness import (
    ENGINES,
    SECRET,
    House,
    cipher_in,
    house,
    new_database,
    now,
    observation_set,
    open_store,
    patient,
    until,
)

GOOD = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/fhir+json"}
SMALL = Bounds(events=40, source_share=0.5)
LATER = "UPDATE event SET due_at = :due_at WHERE state = 'pending' AND focus_type IS NOT NULL"
PATIENTS = [f"p{n}" for n in range(6)]


@contextlib.asynccontextmanager
async def away(folder: Path, engine: str = "sqlite") -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    """A small inbox, a ward whose EHR told of nothing and has gone away, and a client of the hook."""
    with new_database(folder, engine) as url:
        async with house(folder, bounds=SMALL, store=f'url = "{url}"') as site:
            await site.settled()
            site.ehr.faults.mute = True
            for who in PATIENTS:
                await site.admit(who)
                await site.chart(observation_set(who, now(5), c9279_1=26))
            site.ehr.faults.down = True
            base = f"http://{site.sidecar.addresses[0]}"
            async with httpx.AsyncClient(base_url=base, headers=GOOD, trust_env=False, timeout=60) as client:
                yield site, client


def readings(site: House) -> list[dict[str, Any]]:
    return [o for o in site.ehr.all("Observation") if o["id"].startswith("o-")]


async def tell(client: httpx.AsyncClient, resource: dict[str, Any]) -> httpx.Response:
    type_name = resource["resourceType"]
    path = f"/notify/{type_name.lower()}/{type_name}/{resource['id']}"
    return await client.put(path, content=orjson.dumps(resource))


async def fill(site: House, client: httpx.AsyncClient) -> tuple[set[str], list[dict[str, Any]], httpx.Response]:
    """Tell of readings until one is refused; those acknowledged, those not, and the refusal."""
    acknowledged, all_readings = set[str](), readings(site)
    for at, resource in enumerate(all_readings):
        answer = await tell(client, resource)
        if answer.status_code != 200:
            return acknowledged, all_readings[at:], answer
        acknowledged.add(resource["id"])
    raise AssertionError("nothing was refused")


async def scored(site: House) -> None:
    """Each patient has one result."""

    async def all_there() -> bool:
        return {r["subject"]["reference"] for r in site.risk_assessments()} == {f"Patient/{p}" for p in PATIENTS}

    await until(all_there, 60)
    await site.settled(60)
    assert len(site.risk_assessments()) == len(PATIENTS)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_full_inbox_refuses_with_a_time_and_takes_again_and_loses_nothing(tmp_path, engine):
    async with away(tmp_path, engine) as (site, client):
        acknowledged, rest, refusal = await fill(site, client)
        assert refusal.status_code == 429
        assert int(refusal.headers["Retry-After"]) >= 1
        assert refusal.json()["issue"][0]["code"] == "throttled"
        # One source does not keep the others out ...
        told = [await tell(client, patient(f"x{n}", meta={"versionId": "1"})) for n in range(SMALL.events)]
        assert told[0].status_code == 200
        # ... until there is no room for any.
        assert told[-1].status_code == 503
        assert int(told[-1].headers["Retry-After"]) >= 1
        assert len(acknowledged) + sum(t.status_code == 200 for t in told) <= SMALL.events

        site.ehr.faults.clear()

        async def taken() -> bool:
            return (await tell(client, rest[0])).status_code == 200

        await until(taken, 60)
        for resource in rest:
            while (await tell(client, resource)).status_code != 200:
                await until(taken, 60)
        await scored(site)
        states = await site.rows("SELECT state, count(*) AS n FROM event WHERE source = 'observation' GROUP BY state")
        assert [s["state"] for s in states] == ["done"]
        done = (await site.rows("SELECT count(DISTINCT focus_key) AS n FROM event WHERE source = 'observation'"))[0]
        assert done["n"] >= len(readings(site))


async def test_what_was_refused_and_is_never_sent_again_is_found_by_the_search(tmp_path):
    async with away(tmp_path) as (site, client):
        _, rest, _ = await fill(site, client)
        assert rest
        site.ehr.faults.clear()
        await scored(site)


async def test_a_search_waits_for_room_so_that_it_cannot_overfill_the_inbox(tmp_path):
    async with away(tmp_path) as (site, client):
        await fill(site, client)
        for n in range(SMALL.events):
            await tell(client, patient(f"x{n}", meta={"versionId": "1"}))
        answer = await client.post("/notify/observation")  # an empty ping asks for a search, and is remembered
        assert answer.status_code == 200
        await site.sidecar.rooms.store.commit(Step(Statement("test", LATER), [{"due_at": time.time() + 3600}]))
        site.ehr.faults.clear()

        async def overfull() -> bool:
            return (await site.rows("SELECT count(*) AS n FROM event WHERE state = 'pending'"))[0]["n"] > most

        most = SMALL.events + len(site.sidecar.rooms.sources)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):
                await until(overfull)
        await site.sidecar.rooms.store.commit(Step(Statement("test", LATER), [{"due_at": 0}]))
        await scored(site)


async def test_a_server_that_is_full_stays_ready_and_says_that_it_is_full(tmp_path, capsys):
    async with away(tmp_path) as (site, client):
        await fill(site, client)
        async with httpx.AsyncClient(base_url=f"http://{site.sidecar.addresses[1]}", trust_env=False) as ops:
            assert (await ops.get("/readyz")).status_code == 200
            assert 'sidecar_intake_full{reason="source"} 1.0' in (await ops.get("/metrics")).text
        assert site.sidecar.rooms.inflow.report()["full"] == ["source"]
        await asyncio.to_thread(operate.status, tmp_path / "sidecar.toml", as_json=False)
        assert "turning notifications away" in capsys.readouterr().out


async def test_it_is_logged_once_and_not_for_every_refusal(tmp_path, capsys):
    async with away(tmp_path) as (site, client):
        await fill(site, client)
        for resource in readings(site)[-5:]:
            assert (await tell(client, resource)).status_code == 429
        assert capsys.readouterr().out.count("turning notifications away") <= 1


async def test_nothing_new_is_taken_when_the_disk_is_nearly_full_and_it_is_again_when_there_is_room(tmp_path):
    free = [Bounds().free_bytes]
    cipher_in(tmp_path)
    with open_store(tmp_path) as store:
        inflow = Inflow(store, lambda: free[0])
        await inflow.look()
        assert inflow.full("observation") is None
        free[0] -= 1
        await inflow.look()
        full = inflow.full("observation")
        assert full is not None
        assert (full.reason, full.retry_after_s) == ("disk", 60)
        assert metrics.REGISTRY.get_sample_value("sidecar_intake_full", {"reason": "disk"}) == 1
        free[0] += 1
        await inflow.look()
        assert inflow.full("observation") is None
        assert metrics.REGISTRY.get_sample_value("sidecar_intake_full", {"reason": "disk"}) == 0


async def test_a_nearly_full_disk_is_told_to_every_sender_and_leaves_the_server_ready(tmp_path):
    async with house(tmp_path, bounds=Bounds(free_bytes=2**62)) as site:
        base = f"http://{site.sidecar.addresses[0]}"
        async with httpx.AsyncClient(base_url=base, headers=GOOD, trust_env=False, timeout=60) as client:
            for answer in (await tell(client, patient("p1")), await client.post("/notify/observation")):
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
                assert "disk" in answer.json()["issue"][0]["diagnostics"]
            assert (await client.get(f"http://{site.sidecar.addresses[1]}/readyz")).status_code == 200
        assert not await site.rows("SELECT id FROM event WHERE focus_type IS NOT NULL")


async def test_what_is_on_its_way_to_the_disk_is_bounded_and_one_alone_is_always_taken(tmp_path):
    with open_store(tmp_path) as store:
        inflow = Inflow(store, None, Bounds(commits=10))
        assert inflow.full("observation", 50) is None
        with inflow.taking("observation", 10):
            full = inflow.full("observation")
            assert full is not None
            assert (full.reason, full.retry_after_s) == ("commits", 1)
        assert inflow.full("observation", 10) is None


async def test_when_to_come_back_follows_from_how_fast_it_drains(tmp_path):
    cipher = cipher_in(tmp_path)
    with open_store(tmp_path) as store:
        inflow = Inflow(store, None, Bounds(events=100, source_share=1.0, reopen_share=0.1))
        told = [Event("observation", 1.0, Reference("Observation", f"o{n}")) for n in range(100)]
        await EventBox(store, cipher).record(*told)
        await inflow.look()
        before = inflow.full("observation")
        assert before is not None
        assert before.retry_after_s == 60
        ended = "UPDATE event SET state = 'done', done_at = :at WHERE id <= 80"
        await store.commit(Step(Statement("test", ended), [{"at": time.time() - STORED_S}]))
        await inflow.look()
        after = inflow.full("observation")
        assert after is not None
        assert after.retry_after_s < before.retry_after_s
        await store.commit(Step(Statement("test", "UPDATE event SET state = 'done'")))
        await inflow.look()
        assert inflow.full("observation") is None


async def behind(store: Store, cipher: Cipher, cpu_s: Callable[[], float]) -> Inflow:
    """The inflow of a process for which more waits than it works off in a minute."""
    inflow = Inflow(store, None, None, cpu_s)
    told = [Event("observation", 1.0, Reference("Observation", f"o{n}")) for n in range(1000)]
    await EventBox(store, cipher).record(*told)
    await inflow.look()
    await inflow.look()
    return inflow


async def test_a_process_without_cpu_left_that_is_behind_takes_events_one_after_the_other(tmp_path):
    cipher, used = cipher_in(tmp_path), itertools.count(0, 60)
    with open_store(tmp_path) as store:
        inflow, began = await behind(store, cipher, lambda: next(used)), time.monotonic()
        assert metrics.REGISTRY.get_sample_value("sidecar_intake_pace") == LEAST_PACE
        await asyncio.gather(*(inflow.turn() for _ in range(int(LEAST_PACE))))
        assert 0.9 < time.monotonic() - began < 2.0
        began = time.monotonic()
        await asyncio.gather(*(inflow.turn() for _ in range(1000)))
        assert time.monotonic() - began < LONGEST_TURN_S + 0.5


async def test_a_process_that_waits_for_the_ehr_keeps_nobody_waiting(tmp_path):
    cipher = cipher_in(tmp_path)
    with open_store(tmp_path) as store:
        inflow, began = await behind(store, cipher, lambda: 0.0), time.monotonic()
        assert metrics.REGISTRY.get_sample_value("sidecar_intake_pace") == 0
        await asyncio.gather(*(inflow.turn() for _ in range(1000)))
        assert time.monotonic() - began < 0.5


READINGS = 200


async def routed(store: Store, cipher: Cipher, debounce_s: float, heard_at: float) -> EventBox:
    """Readings of as many patients, routed when they were heard: each is due when it has waited for others."""
    box = EventBox(store, cipher)
    await box.record(
        *(Event("observation", heard_at, Reference("Observation", f"o{n}", "1"), "t") for n in range(READINGS))
    )
    wait = ModelWait("m", debounce_s, 600.0)
    for event in await box.claim("c", time.time(), 60, READINGS):
        await store.commit(*box.routed(event, [(PatientId(event.focus.id), wait)], heard_at))
    return box


async def paced(store: Store) -> bool:
    """Whether a process whose CPU is used up would pace what it is told now."""
    used = itertools.count(0, 60)
    inflow = Inflow(store, None, None, lambda: next(used))
    await inflow.look()
    await inflow.look()
    return bool(metrics.REGISTRY.get_sample_value("sidecar_intake_pace"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("overdue_s", "is_paced"), [(-30.0, False), (BEHIND_S - 3.0, False), (BEHIND_S + 1.0, True)])
async def test_only_what_is_due_and_not_begun_makes_a_process_behind(tmp_path, engine, overdue_s, is_paced):
    cipher = cipher_in(tmp_path)
    with open_store(tmp_path, engine) as store:
        await routed(store, cipher, 60.0, time.time() - 60.0 - overdue_s)
        assert await paced(store) is is_paced
        await store.commit(
            Step(Statement("begun", "UPDATE work SET lease_until = :later"), [{"later": time.time() + 60}])
        )
        assert not await paced(store)


async def test_an_event_that_was_told_just_now_or_pauses_is_not_overdue_and_one_that_waits_is(tmp_path):
    cipher = cipher_in(tmp_path)
    with open_store(tmp_path) as store:
        box = EventBox(store, cipher)
        await box.record(Event("observation", time.time(), Reference("Observation", "now")), Event("observation", 1.0))
        assert not await paced(store)
        await store.commit(Step(Statement("test", "UPDATE event SET heard_at = 1 WHERE focus_type IS NOT NULL")))
        assert await paced(store)
        await store.commit(Step(Statement("test", LATER), [{"due_at": time.time() + 3600}]))
        assert not await paced(store)
        await store.commit(Step(Statement("test", LATER), [{"due_at": time.time() - BEHIND_S / 2}]))
        assert not await paced(store)


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_is_told_again_and_is_no_news_does_not_count_as_drained(tmp_path, engine):
    cipher = cipher_in(tmp_path)
    with open_store(tmp_path, engine) as store:
        inflow = Inflow(store)
        await inflow.look()
        box = await routed(store, cipher, 60.0, time.time())
        told = [Event("observation", time.time(), Reference("Observation", f"o{n}", "1"), "t") for n in range(READINGS)]
        for _ in range(5):
            with inflow.taking("observation", len(told)):
                await box.record(*told)
            await inflow.look()
        assert inflow.report()["drained_per_s"] == 0
        ended = "UPDATE event SET state = 'done', done_at = :at WHERE id <= 100"
        await store.commit(Step(Statement("test", ended), [{"at": time.time() - STORED_S}]))
        await inflow.look()
        assert inflow.report()["drained_per_s"] > 0
        await inflow.look()
        once = inflow.report()["drained_per_s"]
        await inflow.look()
        assert inflow.report()["drained_per_s"] < once  # each is counted once
