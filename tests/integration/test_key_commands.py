"""`sidecar keys rotate`, `reseal`, `retire` and `patients forget`: beside a real server, on either engine."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from sidecar.sandbox.ehr import PracticeEhr
from sidecar.store import Statement, Step, load_keys, open_store
from sidecar.store.keyfile import fresh_key, read_keys, replace_keys
from tests.harness import (
    ENGINES,
    Served,
    encounter,
    new_database,
    now,
    observation_set,
    patient,
    serve,
    until,
    write_site,
)
from tests.sealed_rows import fill

WHO = "pat-canary-31"
pytestmark = pytest.mark.timeout(400)  # a dozen commands, each a process of its own


@dataclass
class Site:
    """A practice EHR, a settings file, and a real server."""

    ehr: PracticeEhr
    config: Path
    url: str
    served: Served

    @property
    def ring(self) -> Path:
        return self.config.with_name("keys.toml")

    async def run(self, *arguments: str, says: str = "") -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "sidecar", *arguments, "--config", str(self.config)]
        return await asyncio.to_thread(subprocess.run, line, input=says, capture_output=True, text=True, check=False)

    async def answer(self, *arguments: str) -> str:
        done = await self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def refusal(self, *arguments: str, says: str = "") -> str:
        done = await self.run(*arguments, says=says)
        assert done.returncode == 2, done.stdout
        return done.stderr

    async def score(self, who: str, minutes_ago: float = 1.0) -> None:
        """Chart a set and wait for one RiskAssessment more."""
        before = len(self.ehr.all("RiskAssessment"))
        if self.ehr.read("Patient", who) is None:
            await self.ehr.write(patient(who))
            await self.ehr.write(encounter(who))
        for resource in observation_set(who, now(minutes_ago)):
            await self.ehr.write(resource)
        await until(lambda: len(self.ehr.all("RiskAssessment")) > before, 40)


@pytest_asyncio.fixture(params=ENGINES)
async def site(tmp_path, request) -> AsyncIterator[Site]:
    ehr = PracticeEhr()
    await ehr.start()
    with new_database(tmp_path, request.param) as url:
        config = write_site(tmp_path, ehr.base_url, store=f'url = "{url}"')
        served = await asyncio.to_thread(serve, config)
        try:
            await until(lambda: any(s["status"] == "active" for s in ehr.all("Subscription")))
            yield Site(ehr, config, url, served)
        finally:
            if served.process.poll() is None:
                await asyncio.to_thread(served.terminate)
            await ehr.stop()


async def test_a_ring_turns_beside_a_running_server_from_the_first_command_to_the_last(site):
    secret = [line.partition('"')[2].rstrip('"') for line in site.ring.read_text().splitlines() if '"' in line]
    await site.score("p1", 30)
    said = [await site.answer("keys", "rotate")]
    assert read_keys(site.ring).active == 2
    await site.score("p2", 30)
    said.append(await site.answer("keys", "reseal"))
    assert "key 1 seals nothing any more" in said[-1]
    assert "still needed" not in said[-1]
    said.append(await site.refusal("keys", "retire", "2"))
    said.append(await site.refusal("keys", "retire", "1"))
    assert "may still be on its way" in said[-1]
    await site.score("p1", 2)
    await asyncio.to_thread(site.served.terminate)
    said.append(await site.answer("keys", "retire", "1"))
    assert set(read_keys(site.ring).keys) == {2}
    site.served = await asyncio.to_thread(serve, site.config)
    try:
        await site.score("p2", 1)
    finally:
        await asyncio.to_thread(site.served.terminate)
    secret += [line.partition('"')[2].rstrip('"') for line in site.ring.read_text().splitlines() if '"' in line]
    everything = "".join(said) + site.served.log.read_text()
    assert not [one for one in secret if one in everything]
    assert "sealed:" not in site.served.log.read_text()


async def test_rotation_refuses_a_ring_that_is_not_the_newest_and_a_number_that_does_not_exist(site):
    old = site.ring.read_text()
    await site.answer("keys", "rotate")
    newest = site.ring.read_text()
    site.ring.write_text(old)
    assert "lacks key 2" in await site.refusal("keys", "rotate")
    site.ring.write_text(newest)
    await asyncio.to_thread(site.served.terminate)
    store = open_store(site.url)
    await store.commit(
        Step(
            Statement("many", "INSERT INTO ring (name, fingerprint, retired_at) VALUES ('key 255', :f, 1)"),
            [{"f": b"x"}],
        )
    )
    await asyncio.to_thread(store.close)
    assert "all 255 numbers of keys are used" in await site.refusal("keys", "rotate")
    assert site.ring.read_text() == newest


async def test_a_rotation_that_was_cut_short_does_not_stand_in_the_way_of_the_next(site):
    await asyncio.to_thread(site.served.terminate)
    replace_keys(site.ring, read_keys(site.ring).grown(2, fresh_key()))  # in the file, and nobody has heard of it
    assert "key 3 is in" in await site.answer("keys", "rotate")
    assert (read_keys(site.ring).active, set(read_keys(site.ring).keys)) == (3, {1, 2, 3})
    assert "key 1 seals nothing any more" in await site.answer("keys", "reseal")
    for number in ("1", "2"):
        await site.answer("keys", "retire", number)
    assert set(read_keys(site.ring).keys) == {3}


async def test_without_a_server_the_commands_open_the_database_themselves(site):
    await asyncio.to_thread(site.served.terminate)
    store = open_store(site.url)
    count = await fill(store, load_keys(site.ring), 300)
    await asyncio.to_thread(store.close)
    await site.answer("keys", "rotate")
    assert f"{count} values sealed again with key 2" in await site.answer("keys", "reseal")
    await site.answer("keys", "retire", "1")
    assert "0 values sealed again" in await site.answer("keys", "reseal")


async def test_forgetting_deletes_every_row_and_names_nobody(site):
    await site.score(WHO)
    await site.score("p2")
    rows = await site.answer("patients", "forget", WHO)
    assert not rows.startswith("0 rows")
    assert WHO not in rows
    assert "keys retire" in rows
    again = await site.run("patients", "forget", "-", says=f"{WHO}\n")
    assert (again.returncode, again.stdout[:6]) == (0, "0 rows")
    wrong = await site.refusal("patients", "forget", "-", says="no id/at all\n")
    assert "no id of a Patient" in wrong
    assert "at all" not in wrong.replace("letters, digits", "")
    assert WHO not in site.served.log.read_text()
