"""The command line: through the admin socket of a running server, from the file without one, and refusals as sentences."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import stat
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from sidecar.sandbox.ehr import PracticeEhr
from tests.harness import Served, encounter, now, observation_set, patient, serve, until, write_site

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

    async def answer(self, *arguments: str) -> object:
        done = await self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    async def stop(self) -> None:
        assert await asyncio.to_thread(self.served.terminate) == 0

    async def bury_one(self) -> None:
        """A reading whose first read-back the EHR refuses: its event becomes a dead letter."""
        await self.ehr.write(patient(WHO))
        await self.ehr.write(encounter(WHO))
        await self.ehr.quiet(10)
        self.ehr.faults.fail_next(1, status=400, only="GET Observation")
        (first, *_) = observation_set(WHO, now(1))
        await self.ehr.write(first)
        await until(self.has_dead_letter)
        self.ehr.faults.clear()

    async def has_dead_letter(self) -> bool:
        return bool(await self.answer("dead-letters"))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sidecar", *arguments], capture_output=True, text=True, timeout=30, check=False)


@contextlib.asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    ehr = PracticeEhr()
    await ehr.start()
    # A quiet server: it catches up once, so a fault planned for a read-back meets a read-back.
    config = write_site(folder, ehr.base_url, work='catch_up_interval = "1h"')
    found = Site(ehr, config, await asyncio.to_thread(serve, config))
    try:
        await until(lambda: len(ehr.all("Subscription")) >= 3 and all(s["status"] == "active" for s in ehr.all("Subscription")))
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


async def test_a_dead_letter_is_shown_with_its_reason_and_replayed_through_a_running_server(tmp_path):
    async with site(tmp_path) as here:
        await here.bury_one()
        (letter,) = await here.answer("dead-letters")
        assert (letter["kind"], letter["reason"]) == ("event", "ehr_refused:400")
        assert WHO not in json.dumps(letter)

        done = await here.run("replay", str(letter["id"]))
        assert (done.returncode, done.stdout) == (0, "1 set going again\n")
        await until(lambda: not here.ehr.faults.down)
        for resource_ in observation_set(WHO, now(1)):
            await here.ehr.write(resource_)
        await until(lambda: len(here.ehr.all("RiskAssessment")) >= 1)
        assert await here.answer("dead-letters") == []
        assert "no dead letter has the id" in refusal(await here.run("replay", str(letter["id"])))


async def test_without_a_server_the_same_commands_work_on_the_file(tmp_path):
    async with site(tmp_path) as here:
        await here.bury_one()
        with_server = await here.answer("status")
        await here.stop()
        without = await here.answer("status")
        assert without["events"] == with_server["events"]
        assert set(without) == set(with_server)
        (letter,) = await here.answer("dead-letters")
        assert (await here.run("replay", "--all")).stdout == "1 set going again\n"
        assert await here.answer("dead-letters") == []
        assert letter["reason"] == "ehr_refused:400"
        assert (await here.answer("status"))["events"].get("pending") == 1


async def test_status_tells_how_things_stand_and_names_nobody(tmp_path):
    async with site(tmp_path) as here:
        for resource_ in (patient(WHO), encounter(WHO), *observation_set(WHO, now(1))):
            await here.ehr.write(resource_)
        await until(lambda: len(here.ehr.all("RiskAssessment")) == 1)

        async def written() -> bool:
            return (await here.answer("status"))["writes"] == {"written": 1}

        await until(written)
        found = await here.answer("status")
        assert found["assessments"] == [{"model": "news2", "outcome": "scored", "n": 1}]
        assert {s["status"] for s in found["subscriptions"]} == {"active"}
        assert set(found["events"]) == {"done"}
        text = await here.run("status")
        assert text.returncode == 0
        assert "news2: scored" in text.stdout
        for shown in (json.dumps(found), text.stdout):
            assert WHO not in shown


async def test_the_admin_socket_is_for_the_servers_own_user_and_goes_with_it(tmp_path):
    async with site(tmp_path) as here:
        mode = here.socket.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        await here.stop()
        assert not here.socket.exists()


async def test_a_socket_that_a_killed_server_left_behind_does_not_stop_the_command_line(tmp_path):
    async with site(tmp_path) as here:
        here.served.kill()
        assert here.socket.exists()
        assert (await here.answer("status"))["events"]


async def test_a_second_server_on_the_same_file_is_refused_and_the_first_goes_on(tmp_path):
    async with site(tmp_path) as here:
        done = await asyncio.to_thread(command, "serve", "--config", str(here.config))
        assert "another server has this database open" in refusal(done)
        assert here.served.process.poll() is None
        assert (await here.answer("status"))["events"] is not None


async def test_a_server_that_cannot_answer_is_a_sentence_and_not_a_traceback(tmp_path):
    async with site(tmp_path) as here:
        here.served.process.send_signal(signal.SIGSTOP)
        task = asyncio.ensure_future(here.run("status"))
        here.served.kill()
        done = await task
        assert "Traceback" not in done.stderr
        assert done.returncode in {0, 1, 2}


def test_without_a_database_the_commands_say_so(tmp_path):
    config = write_site(tmp_path, "http://127.0.0.1:9/fhir")
    for arguments in (["status"], ["dead-letters"], ["replay", "--all"]):
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
        subprocess.run([sys.executable, "-m", "sidecar", "--help"], capture_output=True, check=True, env={**os.environ, "COLUMNS": "80"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert statistics.median(cost() for _ in range(5)) <= 0.2
