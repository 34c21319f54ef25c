"""Versions that the log names and whose folder is not there: who is held up by that, and what is refused."""

import shutil
import sys
import threading

import pytest

from sidecar.app import Sidecar
from sidecar.errors import Misconfigured, NotHere
from sidecar.fleet import Fleet
from sidecar.records import PatientId
from sidecar.settings import load
from tests.acceptance.test_rollout import decide, people, scored, site, versions
from tests.harness import House
from tests.versions import add, sealed

pytestmark = pytest.mark.timeout(180)


def remove(folder, version: str) -> None:
    shutil.rmtree(folder / "models" / "news2" / version)


async def test_a_canary_that_is_not_there_holds_up_its_own_patients_and_the_others_have_their_champion(tmp_path):
    async with site(tmp_path, "2.0.0") as found:
        await decide(found, "canary", "2.0.0", percent=40)
    kept = tmp_path / "kept"
    shutil.move(tmp_path / "models" / "news2" / "2.0.0", kept)
    again = Sidecar(load(tmp_path / "sidecar.toml"))
    await found.ehr.start()
    served = House(found.ehr, again, found.settings)
    try:
        await again.start()
        inside, outside = sorted_by_arm(served)
        assert (await people(served).state({}))["lacks"] == [
            "news2 2.0.0: its folder is not there as it was; the patients of the canary wait"
        ]
        await scored(served, outside)
        assert versions(served) == ["1.0.0"]

        shutil.move(kept, tmp_path / "models" / "news2" / "2.0.0")
        await scored(served, inside)
        assert sorted(versions(served)) == ["1.0.0", "2.0.0"]
    finally:
        await again.close()
        await found.ehr.stop()


def sorted_by_arm(found: House) -> tuple[str, str]:
    """One patient whom the canary would score, and one of the champion."""
    waiting, others = [], []
    for name in (f"p{n}" for n in range(40)):
        try:
            found.sidecar.models.chosen("news2", found.sidecar.rooms.events.patient_key(PatientId(name)))
        except NotHere:
            waiting.append(name)
        else:
            others.append(name)
    return waiting[0], others[0]


async def test_a_rollback_to_a_version_that_is_not_there_is_refused_and_the_model_goes_on(tmp_path):
    async with site(tmp_path, "2.0.0") as found:
        await decide(found, "promote", "2.0.0")
    config = tmp_path / "sidecar.toml"
    config.write_text(config.read_text().replace('version = "1.0.0"', 'version = "2.0.0"'))
    kept = tmp_path / "kept"
    shutil.move(tmp_path / "models" / "news2" / "1.0.0", kept)
    again = Sidecar(load(config))
    await found.ehr.start()
    served = House(found.ehr, again, found.settings)
    try:
        await again.start()
        assert (await people(served).state({}))["lacks"] == [
            "news2 1.0.0: its folder is not there as it was; no rollback can return to it"
        ]
        with pytest.raises(Misconfigured, match=r"news2 1\.0\.0 cannot be loaded.*suspend the model"):
            await decide(served, "rollback")
        await scored(served, "p1")
        assert versions(served) == ["2.0.0"]

        shutil.move(kept, tmp_path / "models" / "news2" / "1.0.0")
        await decide(served, "rollback")
        await scored(served, "p2")
        assert versions(served) == ["2.0.0", "1.0.0"]
    finally:
        await again.close()
        await found.ehr.stop()


async def test_a_new_version_that_reads_what_nobody_listens_for_does_not_begin_before_a_restart(tmp_path):
    async with site(tmp_path, promoted=False) as found:
        add(tmp_path / "models", "2.0.0")
        folder = tmp_path / "models" / "news2" / "2.0.0"
        manifest = folder / "manifest.toml"
        manifest.write_text(manifest.read_text().replace("8867-4", "8889-8"))
        sealed(folder)
        for asked in (people(found).reload({}), decide(found, "shadow", "2.0.0")):
            with pytest.raises(Misconfigured, match="restart the servers first"):
                await asked
        assert [v["version"] for v in (await people(found).state({}))["models"]["news2"]["shadow"]] == ["1.0.0"]

        shutil.rmtree(folder)
        add(tmp_path / "models", "2.0.0")
        after = (await people(found).reload({}))["models"]["news2"]["shadow"]
        assert [v["version"] for v in after] == ["1.0.0", "2.0.0"]


async def test_the_folder_of_a_result_is_read_beside_the_event_loop(tmp_path):
    opened_by: set[int] = set()

    def note(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and str(args[0]).endswith("manifest.toml"):
            opened_by.add(threading.get_ident())

    async with site(tmp_path, "2.0.0") as found:
        fleet = Fleet(found.settings, warm=False)
        digest = fleet.find("news2", "2.0.0").loaded.digest
        fleet = Fleet(found.settings, warm=False)
        sys.addaudithook(note)
        manifest = await fleet.of_result("news2", "2.0.0", digest)
        assert manifest.version == "2.0.0"
        assert opened_by
        assert threading.get_ident() not in opened_by
