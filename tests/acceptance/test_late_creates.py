"""An EHR that is slow to create, and can neither be given an id nor a condition: still one of each.

Whoever looks while a create is under way finds nothing, and would make a second one.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sidecar.sandbox.ehr import Capabilities, PracticeEhr
from sidecar.store import Statement
from sidecar.store import open_store as store_at
from tests.harness import (
    Served,
    encounter,
    house,
    new_database,
    now,
    observation_set,
    patient,
    serve,
    until,
    write_site,
)
from tests.peers.cutting import Cutting, cutting
from tests.peers.test_ladder import all_written

NEITHER = Capabilities(update_create=False, conditional_create=False)
OURS = ("Device", "Observation", "RiskAssessment")
WITHIN_S = 90.0


@pytest.fixture
async def ehr() -> AsyncIterator[PracticeEhr]:
    practice = PracticeEhr(capabilities=NEITHER)
    await practice.start()
    yield practice
    await practice.stop()


def held(ehr: PracticeEhr) -> Counter[str]:
    """How many of ours the chart holds, by type."""
    return Counter(r["resourceType"] for t in OURS for r in ehr.all(t) if r.get("identifier"))


async def chart_a_set(ehr: PracticeEhr) -> None:
    for resource in (patient("p"), encounter("p"), *observation_set("p", now(1))):
        await ehr.write(resource)


async def test_an_answer_that_came_too_late_is_waited_for_before_anything_is_sent_again(tmp_path, ehr):
    async with cutting(ehr.base_url) as proxy:
        for type_name in OURS:
            proxy.late(type_name, 3.0)
        section = f'base_url = "{proxy.base_url}"\ntimeout_s = 1.0'
        async with house(tmp_path, ehr, ehr=section) as site:
            await site.admit("p")
            await site.chart(observation_set("p", now(1)))
            await site.settled(WITHIN_S)
            assert (await site.status())["writes"] == {"written": 1}
            await proxy.landed()
    assert held(ehr) == dict.fromkeys(OURS, 1)
    assert {t: proxy.posts[t] for t in OURS} == dict.fromkeys(OURS, 1)


@pytest.mark.parametrize("type_name", OURS)
async def test_a_process_killed_while_it_creates_is_followed_by_one_that_waits_for_the_create(tmp_path, ehr, type_name):
    async with cutting(ehr.base_url) as proxy:
        proxy.late(type_name, 8.0)
        config = write_site(tmp_path, proxy.base_url, ehr=f'base_url = "{proxy.base_url}"\ntimeout_s = 3.0')
        served = await asyncio.to_thread(serve, config)
        try:
            await chart_a_set(ehr)
            await until(lambda: proxy.posts[type_name] == 1, WITHIN_S)
            served.kill()
            served = await asyncio.to_thread(serve, config)
            await until(lambda: all_written(tmp_path), WITHIN_S)
            await proxy.landed()
        finally:
            await asyncio.to_thread(served.terminate)
    assert held(ehr) == dict.fromkeys(OURS, 1)
    assert {t: proxy.posts[t] for t in OURS} == dict.fromkeys(OURS, 1)


@contextlib.contextmanager
def pair(folder: Path, bases: list[str], url: str) -> Iterator[list[Served]]:
    """Two servers of one database and one key ring, each with its own way to the EHR."""
    configs = []
    for number, base in enumerate(bases):
        own = folder / str(number)
        own.mkdir()
        section = f'base_url = "{base}"\ntimeout_s = 4.0'
        configs.append(write_site(own, base, ehr=section, store=f'url = "{url}"', work='lease = "60s"'))
    (folder / "1" / "keys.toml").write_bytes((folder / "0" / "keys.toml").read_bytes())
    servers: list[Served] = []
    try:
        for config in configs:
            servers.append(serve(config))  # noqa: PERF401 -- what has started must be stopped
        yield servers
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.terminate()


async def test_of_two_servers_the_one_that_is_left_waits_for_what_the_dead_one_sent(tmp_path, ehr):
    async with cutting(ehr.base_url) as first, cutting(ehr.base_url) as second:
        proxies: list[Cutting] = [first, second]
        for proxy in proxies:
            proxy.late("RiskAssessment", 11.0)
        with new_database(tmp_path, "postgres") as url, contextlib.ExitStack() as stack:
            bases = [proxy.base_url for proxy in proxies]
            servers = await asyncio.to_thread(stack.enter_context, pair(tmp_path, bases, url))
            # Nobody is taken for dead who was never seen alive for a whole lease.
            await asyncio.sleep(9.0)
            await chart_a_set(ehr)
            await until(lambda: any(proxy.posts["RiskAssessment"] for proxy in proxies), WITHIN_S)
            sender = 0 if first.posts["RiskAssessment"] else 1
            proxies[1 - sender].late("RiskAssessment", 0.0)
            servers[sender].kill()
            store = await asyncio.to_thread(store_at, url)
            stack.callback(store.close)

            async def written() -> bool:
                rows = await store.read(Statement("states", "SELECT DISTINCT state FROM delivery"))
                return [row["state"] for row in rows] == ["written"]

            await until(written, WITHIN_S)
            await asyncio.gather(first.landed(), second.landed())
            await asyncio.to_thread(stack.close)
    assert held(ehr) == dict.fromkeys(OURS, 1)
    assert sum(proxy.posts["RiskAssessment"] for proxy in proxies) == 1
