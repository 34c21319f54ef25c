"""Servers on one database that run different models: the ones started last work, and nothing heard is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.app import Sidecar
from sidecar.sandbox.ehr import PracticeEhr
from sidecar.settings import load
from tests.harness import encounter, now, observation_set, patient, until, write_site
from tests.postgres import fetch, new_database, skip_when_missing

pytestmark = pytest.mark.timeout(180)
PATIENTS = 6
KIDNEY_ONLY = '[models.kfre_4var]\nchoices = {region = "other"}\n'


def site(folder: Path, keys: Path, ehr: PracticeEhr, url: str, *, promoted: bool, models: str | None = None) -> Path:
    """A server's own folder, with the ring of the others and, if need be, other `models`."""
    folder.mkdir()
    config = write_site(folder, ehr.base_url, promoted=promoted, store=f'url = "{url}"\nkey_file = "{keys}"')
    if models is not None:
        text = config.read_text()
        config.write_text(text[: text.index("[models.")] + models)
    return config


@contextlib.asynccontextmanager
async def running(*configs: Path) -> AsyncIterator[list[Sidecar]]:
    """Servers, each started when the one before has begun to work."""
    started: list[Sidecar] = []
    try:
        for config in configs:
            started.append(Sidecar(load(config)))
            await started[-1].start()
            await asyncio.sleep(0)
        yield started
    finally:
        for server in reversed(started):
            await server.close()


async def admitted(ehr: PracticeEhr) -> None:
    for n in range(PATIENTS):
        await ehr.write(patient(f"p{n}"))
        await ehr.write(encounter(f"p{n}"))
        for resource in observation_set(f"p{n}", now(1)):
            await ehr.write(resource)


@pytest.mark.parametrize("older", ["in shadow", "of another model"])
async def test_every_result_of_the_server_started_last_is_charted_beside_an_older_one(tmp_path, older):
    skip_when_missing()
    ehr = PracticeEhr()
    await ehr.start()
    with new_database() as url:
        site(tmp_path / "keys", tmp_path / "keys" / "keys.toml", ehr, url, promoted=True)
        keys = tmp_path / "keys" / "keys.toml"
        models = KIDNEY_ONLY if older == "of another model" else None
        first = site(tmp_path / "first", keys, ehr, url, promoted=False, models=models)
        last = site(tmp_path / "last", keys, ehr, url, promoted=True)
        async with running(first, last):
            await admitted(ehr)
            await until(lambda: len(ehr.all("RiskAssessment")) == PATIENTS, 60)
            rows = await fetch(url, "SELECT state, reason FROM event WHERE state = 'buried' OR reason = 'no_model'")
            assert [tuple(row) for row in rows if row["state"] == "buried"] == []
            rows = await fetch(url, "SELECT state FROM delivery WHERE state <> 'written'")
            assert rows == []
    await ehr.stop()


async def test_an_older_server_goes_on_with_its_models_when_the_newer_one_has_gone(tmp_path):
    skip_when_missing()
    ehr = PracticeEhr()
    await ehr.start()
    with new_database() as url:
        site(tmp_path / "keys", tmp_path / "keys" / "keys.toml", ehr, url, promoted=True)
        keys = tmp_path / "keys" / "keys.toml"
        first = site(tmp_path / "first", keys, ehr, url, promoted=True)
        last = site(tmp_path / "last", keys, ehr, url, promoted=False, models=KIDNEY_ONLY)
        async with running(first, last) as servers:
            await servers.pop().close()
            await admitted(ehr)
            await until(lambda: len(ehr.all("RiskAssessment")) == PATIENTS, 60)
    await ehr.stop()
