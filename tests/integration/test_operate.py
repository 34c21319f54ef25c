"""The command line: through the admin socket of a running server, from the file without one, and refusals as sentences."""

import asyncio
import contextlib
import json
import os
import resource
import socket
import sqlite3
import stat
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from sidecar.sandbox.ehr import PracticeEhr
from tests.harness import (
    ENGINES,
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

WHO = "pat-canary-99"


@dataclass
class Site:
    """A practice EHR, and a settings file with a real server that can be stopped and started."""

    ehr: PracticeEhr
    config: Path
    served: Served

    @property
    def socket(self) -> Path:
        return self.config.with_name("sidecar.db.admin")

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(command, *arguments, "--config", str(self.config))

    async def door(self, path: str) -> object:
        """What the running server's admin door says."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://sidecar") as client:
            return (await client.get(path)).json()

    async def idle(self) -> bool:
        """Whether nothing waits, in the server or on its way there."""
        found = await self.door("/status")
        return not ({"pending", "routed"} & set(found["events"])) and "queued" not in found["writes"]

    async def answer(self, *arguments: str) -> object:
        done = await self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    async def bury_one(self) -> None:
        """A reading whose first read-back the EHR refuses: its event becomes a dead letter."""
        await self.ehr.write(patient(WHO))
        await self.ehr.write(encounter(WHO))
        await self.ehr.quiet(10)
        await until(self.idle)
        self.ehr.faults.fail_next(1, status=400, only="GET Observation")
        (first, *_) = observation_set(WHO, now(1))
        await self.ehr.write(first)
        await until(self.has_dead_letter)
        self.ehr.faults.clear()

    async def has_dead_letter(self) -> bool:
        return bool(await self.door("/dead-letters"))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments], capture_output=True, text=True, timeout=30, check=False
    )


@contextlib.asynccontextmanager
async def site(folder: Path, engine: str) -> AsyncIterator[Site]:
    with new_database(folder, engine) as url:
        async with site_on(folder, url) as found:
            yield found


@contextlib.asynccontextmanager
async def site_on(folder: Path, url: str) -> AsyncIterator[Site]:
    ehr = PracticeEhr()
    await ehr.start()
    # A quiet server: it catches up once, so a fault planned for a read-back meets a read-back.
    config = write_site(
        folder,
        ehr.base_url,
        work='catch_up_interval = "1h"',
        store=f'url = "{url}"',
        server='admin_socket = "sidecar.db.admin"',
    )
    found = Site(ehr, config, await asyncio.to_thread(serve, config))
    try:
        await until(
            lambda: len(ehr.all("Subscription")) >= 3 and all(s["status"] == "active" for s in ehr.all("Subscription"))
        )

        async def caught_up() -> bool:
            return (await found.door("/status"))["events"].get("done", 0) >= 3

        await until(caught_up)
        yield found
    finally:
        found.served.kill()
        await ehr.stop()


def refusal(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one sentence of a refused command: no traceback, nothing on standard output."""
    assert done.returncode == code, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


together = pytest.mark.asyncio(loop_scope="module")


on_a_file = pytest.mark.parametrize("running", ["sqlite"], indirect=True, scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def running(tmp_path_factory, request) -> AsyncIterator[Site]:
    """One running server for the tests that leave it as it was."""
    async with site(tmp_path_factory.mktemp("running"), request.param) as here:
        yield here


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def stopped(tmp_path_factory, request) -> AsyncIterator[tuple[Site, dict[str, object]]]:
    """A server that stopped with one dead letter, and its last status."""
    async with site(tmp_path_factory.mktemp("stopped"), request.param) as here:
        await here.bury_one()
        last = await here.door("/status")
        assert await asyncio.to_thread(here.served.terminate) == 0
        yield here, last


@together
async def test_status_tells_how_things_stand_and_names_nobody(running):
    who = "pat-canary-98"
    for resource_ in (patient(who), encounter(who), *observation_set(who, now(1))):
        await running.ehr.write(resource_)
    await until(lambda: len(running.ehr.all("RiskAssessment")) == 1)
    await until(running.idle)
    found = await running.answer("status")
    assert {"model": "news2", "outcome": "scored", "n": 1} in found["assessments"]
    assert {s["status"] for s in found["subscriptions"]} == {"active"}
    assert set(found["events"]) == {"done"}
    text = await running.run("status")
    assert text.returncode == 0
    assert "news2: scored" in text.stdout
    for shown in (json.dumps(found), text.stdout):
        assert "canary" not in shown


@together
async def test_a_dead_letter_is_shown_with_its_reason_and_replayed_through_a_running_server(running):
    await running.bury_one()
    (letter,) = await running.answer("dead-letters")
    assert (letter["kind"], letter["reason"]) == ("event", "ehr_refused:400")
    assert WHO not in json.dumps(letter)

    done = await running.run("replay", str(letter["id"]))
    assert (done.returncode, done.stdout) == (0, "1 set going again\n")
    await until(running.idle)
    assert await running.door("/dead-letters") == []
    assert {"model": "news2", "outcome": "incomplete", "n": 1} in (await running.door("/status"))["assessments"]
    assert "no dead letter has the id" in refusal(await running.run("replay", str(letter["id"])))


@together
async def test_the_admin_socket_is_for_the_servers_own_user_only(running):
    mode = running.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@on_a_file
@together
async def test_a_second_server_on_the_same_file_is_refused_and_the_first_goes_on(running):
    done = await running.run("serve")
    assert "another server has this database open" in refusal(done)
    assert running.served.process.poll() is None
    assert "events" in await running.door("/status")


@on_a_file
@together
async def test_a_server_whose_database_fails_is_a_sentence_and_not_a_traceback(running):
    with contextlib.closing(sqlite3.connect(running.config.with_name("sidecar.db"))) as other:
        other.execute("ALTER TABLE subscription RENAME TO gone")
        done = await running.run("status")
        other.execute("ALTER TABLE gone RENAME TO subscription")
    assert "could not answer" in refusal(done, 1)


@together
async def test_without_a_server_the_same_commands_work_on_the_database(stopped):
    here, last = stopped
    found = await here.answer("status")
    assert found["events"] == last["events"]
    assert set(found) == set(last)
    (letter,) = await here.answer("dead-letters")
    assert letter["reason"] == "ehr_refused:400"
    assert (await here.run("replay", "--all")).stdout == "1 set going again\n"
    assert (await here.answer("status"))["events"]["pending"] == 1


@together
async def test_the_admin_socket_goes_with_the_server(stopped):
    assert not stopped[0].socket.exists()


@together
async def test_a_socket_that_a_killed_server_left_behind_does_not_stop_the_command_line(stopped):
    here, _ = stopped
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(here.socket))
    try:
        assert (await here.answer("status"))["events"]
    finally:
        here.socket.unlink()


async def test_a_server_that_dies_before_it_answers_is_a_sentence_and_not_a_traceback(tmp_path):
    config = write_site(tmp_path, "http://127.0.0.1:9/fhir")

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_unix_server(hang_up, config.with_name("sidecar.db.admin")):
        done = await asyncio.to_thread(command, "status", "--config", str(config))
    assert "the running server did not answer" in refusal(done, 1)


def test_without_a_database_the_commands_say_so(tmp_path):
    config = write_site(tmp_path, "http://127.0.0.1:9/fhir")
    for arguments in (["status"], ["replay", "--all"]):
        assert "no such database" in refusal(command(*arguments, "--config", str(config)))
    assert not (tmp_path / "sidecar.db").exists()


def test_replay_wants_one_letter_or_all_of_them(tmp_path):
    config = write_site(tmp_path, "http://127.0.0.1:9/fhir")
    for arguments in (["replay"], ["replay", "1", "--all"]):
        assert "give the id of a dead letter, or --all" in refusal(command(*arguments, "--config", str(config)))


def test_every_problem_of_the_settings_is_a_line_of_its_own(tmp_path):
    config = write_site(tmp_path, "http://127.0.0.1:9/fhir", work='lease = "soon"', server="prot = 1")
    lines = refusal(command("serve", "--config", str(config))).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("sidecar: ") for line in lines)


def test_new_keys_are_made_once(tmp_path):
    path = tmp_path / "keys.toml"
    assert command("keys", "new", str(path)).returncode == 0
    assert "never overwritten" in refusal(command("keys", "new", str(path)))


def test_help_costs_at_most_200_ms_of_cpu():
    def cost() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "sidecar", "--help"],
            capture_output=True,
            check=True,
            env={**os.environ, "COLUMNS": "80"},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert statistics.median(cost() for _ in range(5)) <= 0.2


async def test_sidecars_that_start_side_by_side_leave_the_mask_of_new_files_as_it_was(tmp_path):
    before = os.umask(0o022)
    try:
        async with contextlib.AsyncExitStack() as houses:
            for n in range(12):
                (tmp_path / str(n)).mkdir()
            await asyncio.gather(*(houses.enter_async_context(house(tmp_path / str(n))) for n in range(12)))
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
