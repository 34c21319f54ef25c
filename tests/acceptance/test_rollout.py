"""Versions of a model while everything runs: who writes, for whom, and what becomes of what another has said."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from sidecar.app import Sidecar
from sidecar.decisions import Decisions
from sidecar.errors import Misconfigured, SidecarError
from sidecar.records import PatientId, Reference
from sidecar.settings import load
from sidecar.store import Statement, Step
from tests.harness import House, house, now, observation_set, reading, until
from tests.versions import CARD, DECIDED, add, card, models, sealed

pytestmark = pytest.mark.timeout(180)


@contextlib.asynccontextmanager
async def site(folder: Path, *versions: str, **more) -> AsyncIterator[House]:
    """A site that runs NEWS2 1.0.0 and has `versions` in its folder, too."""
    root = models(folder, *versions)
    async with house(folder, models_dir=root, **more) as found:
        yield found


def people(found: House) -> Decisions:
    rooms = found.sidecar.rooms
    return Decisions(rooms.registry, rooms.archive, ZoneInfo("Europe/London"))


async def decide(found: House, what: str, version: str | None = None, **more):
    body = {"what": what, "model": "news2", "version": version, "override": "a test", **DECIDED, **more}
    return await people(found).transition(body)


def versions(found: House) -> list[str]:
    """The version whose Device each RiskAssessment names, by the order in which they were first charted."""
    of = {f"Device/{d['id']}": d["version"][0]["value"] for d in found.ehr.all("Device")}
    return [of[risk["performer"]["reference"]] for risk in found.risk_assessments()]


async def scored(found: House, name: str, at: datetime | None = None, **changes) -> None:
    await found.admit(name)
    await found.chart(observation_set(name, at or now(1), **changes))
    await found.settled()


async def touch(found: House, name: str, at: datetime) -> None:
    """Chart something that changes no score: an event, and no other result."""
    await found.ehr.write(reading(name, "9279-1", 16, at, note=[{"text": "looked at again"}]))
    await found.settled()


async def test_a_version_in_shadow_is_stored_beside_the_champion_and_never_charted(tmp_path):
    async with site(tmp_path, "2.0.0") as found:
        await decide(found, "shadow", "2.0.0")
        await scored(found, "p1", c9279_1=26)
        await found.chart([reading("p1", "9279-1", 8, now(0))])
        await found.settled()

        stored = await found.rows(
            "SELECT model, version, arm, count(*) AS n FROM assessment GROUP BY model, version, arm ORDER BY model"
        )
        assert stored == [
            {"model": "news2", "version": "1.0.0", "arm": "champion", "n": 2},
            {"model": "news2@2.0.0", "version": "2.0.0", "arm": "shadow", "n": 2},
        ]
        assert set(versions(found)) == {"1.0.0"}
        queued = "SELECT DISTINCT model FROM delivery JOIN assessment ON assessment.id = delivery.assessment_id"
        assert await found.rows(queued) == [{"model": "news2"}]


async def test_corrections_and_endings_by_a_version_in_shadow_reach_no_chart(tmp_path):
    async with site(tmp_path, "2.0.0") as found:
        await decide(found, "shadow", "2.0.0")
        at = now(5)
        await scored(found, "p1", at)
        (before,) = found.risk_assessments()
        wrong = observation_set("p1", at)[0]
        await found.ehr.write(wrong | {"status": "entered-in-error"})
        await found.settled()
        stay = found.ehr.read("Encounter", "e-p1")
        await found.ehr.write(stay | {"status": "finished"})
        await found.settled()

        assert [r["id"] for r in found.risk_assessments()] == [before["id"]]
        written = "SELECT DISTINCT version FROM assessment JOIN delivery ON delivery.assessment_id = assessment.id"
        assert await found.rows(written) == [{"version": "1.0.0"}]


async def test_a_new_champion_revises_what_the_old_one_said_of_the_same_readings_and_adds_nothing(tmp_path):
    async with site(tmp_path, "2.0.0") as found:
        at = now(3)
        await scored(found, "p1", at)
        assert versions(found) == ["1.0.0"]
        await decide(found, "promote", "2.0.0")
        await touch(found, "p1", at)

        assert versions(found) == ["2.0.0"]
        (risk,) = found.risk_assessments()
        assert (risk["meta"]["versionId"], risk["status"]) == ("2", "corrected")
        assert len([o for o in found.ehr.all("Observation") if "device" in o]) == 1


async def test_a_canary_scores_the_same_patients_each_time_and_more_of_them_when_its_share_grows(tmp_path):
    async with site(tmp_path, "2.0.0") as found:
        names = [f"p{n}" for n in range(12)]
        fleet, key = found.sidecar.models, found.sidecar.rooms.events.patient_key

        def arms() -> dict[str, str]:
            return {n: fleet.chosen("news2", key(PatientId(n))).loaded.manifest.version for n in names}

        await decide(found, "canary", "2.0.0", percent=40)
        some = arms()
        assert set(some.values()) == {"1.0.0", "2.0.0"}
        for name in names:
            await scored(found, name)
        of = {
            r["subject"]["reference"].partition("/")[2]: v
            for r, v in zip(found.risk_assessments(), versions(found), strict=True)
        }
        assert of == some
        await decide(found, "canary", "2.0.0", percent=70)
        more = arms()
        assert {n for n in names if some[n] == "2.0.0"} <= {n for n in names if more[n] == "2.0.0"}
        await decide(found, "canary", "2.0.0", percent=100)
        assert set(arms().values()) == {"2.0.0"}


async def test_a_canary_by_unit_never_shows_two_versions_on_one_ward(tmp_path):
    async with site(tmp_path, "2.0.0") as found:
        await decide(found, "canary", "2.0.0", percent=50, by="unit")
        for n in range(16):
            await found.admit(f"p{n}")
            stay = found.ehr.read("Encounter", f"e-p{n}")
            ward = {"location": {"reference": f"Location/ward-{n % 8}"}, "status": "active"}
            await found.ehr.write(stay | {"location": [ward]})
            await found.chart(observation_set(f"p{n}", now(1)))
        await found.settled(60)
        by_ward: dict[int, set[str]] = {}
        for risk, version in zip(found.risk_assessments(), versions(found), strict=True):
            number = int(risk["subject"]["reference"].removeprefix("Patient/p"))
            by_ward.setdefault(number % 8, set()).add(version)
        assert all(len(seen) == 1 for seen in by_ward.values())
        assert set().union(*by_ward.values()) == {"1.0.0", "2.0.0"}


async def test_what_a_withdrawn_version_said_and_nobody_has_charted_is_said_by_the_one_before(tmp_path):
    async with site(tmp_path, "2.0.0") as found:
        await decide(found, "promote", "2.0.0")
        await decide(found, "stop-writes")
        await found.admit("p1")
        await found.chart(observation_set("p1", now(1), c9279_1=26))
        await until(lambda: _stored(found, 1))
        await decide(found, "rollback")
        await decide(found, "allow-writes")
        await until(lambda: len(found.risk_assessments()) == 1)
        await found.settled()

        assert versions(found) == ["1.0.0"]
        states = await found.rows("SELECT state, reason FROM delivery ORDER BY revision")
        assert states == [
            {"state": "cancelled", "reason": "version_withdrawn"}, {"state": "written", "reason": None}
        ]  # fmt: skip
        (risk,) = found.risk_assessments()
        assert risk["meta"]["versionId"] == "1"


async def _stored(found: House, count: int) -> bool:
    rows = await found.rows("SELECT count(*) AS n FROM assessment WHERE outcome = 'scored'")
    return rows[0]["n"] >= count


async def test_a_first_canary_that_was_rolled_back_charts_nothing_new_and_still_corrects_what_it_has_charted(tmp_path):
    async with site(tmp_path, promoted=False) as found:
        at = now(5)
        await decide(found, "canary", "1.0.0", percent=100)
        await scored(found, "p1", at)
        await decide(found, "rollback")
        await scored(found, "p2", at)
        await found.ehr.write(observation_set("p1", at, c9279_1=26)[0])
        await found.settled()

        (risk,) = found.risk_assessments()
        assert (risk["subject"]["reference"], risk["status"]) == ("Patient/p1", "corrected")


async def test_what_was_only_in_shadow_is_charted_as_final_once_it_may_be(tmp_path):
    async with site(tmp_path, promoted=False) as found:
        at = now(5)
        await scored(found, "p1", at, c3151_8=None)
        await found.chart(observation_set("p1", at))
        await found.settled()
        await decide(found, "promote", "1.0.0")
        await touch(found, "p1", at)

        (risk,) = found.risk_assessments()
        assert risk["status"] == "final"


async def test_a_suspended_model_charts_nothing_new_and_still_corrects_what_it_has_charted(tmp_path):
    async with site(tmp_path) as found:
        at = now(5)
        await scored(found, "p1", at)
        await decide(found, "suspend")
        await scored(found, "p2", at)
        moved = observation_set("p1", at, c9279_1=26)[0]
        await found.ehr.write(moved)
        await found.settled()

        (risk,) = found.risk_assessments()
        assert (risk["subject"]["reference"], risk["status"]) == ("Patient/p1", "corrected")
        await decide(found, "resume")
        await touch(found, "p2", at)
        assert len(found.risk_assessments()) == 2


async def writes_within(found: House, seconds: float) -> list[tuple[str, str]]:
    """What is asked of the EHR that writes results, in so many seconds: that nothing happens is what is claimed."""
    found.ehr.requests.clear()
    await asyncio.sleep(seconds)
    return [
        (verb, of) for verb, of in found.ehr.requests if verb in {"PUT", "POST"} and not of.startswith("Subscription")
    ]


async def test_writes_that_are_stopped_wait_and_are_made_when_they_may(tmp_path):
    async with site(tmp_path) as found:
        await found.admit("p1")
        await found.admit("p2")
        await found.settled()
        await decide(found, "stop-writes")
        await found.chart(observation_set("p1", now(1)))
        await found.chart(observation_set("p2", now(1)))
        await until(lambda: _stored(found, 2))
        assert await writes_within(found, 1.5) == []
        assert (await found.status())["writes_stopped"]
        await decide(found, "allow-writes")
        await found.settled()
        assert len(found.risk_assessments()) == 2


async def test_a_write_that_is_under_way_when_writing_is_stopped_is_made_after_it_is_allowed_and_once(tmp_path):
    async with site(tmp_path) as found:
        await found.admit("p1")
        await found.settled()
        found.ehr.faults.delay_s = 0.4
        await found.chart(observation_set("p1", now(1)))
        await until(lambda: found.ehr.requests["GET", "Device"] + found.ehr.requests["GET", "Device/{id}"] > 0)
        await decide(found, "stop-writes")
        assert await writes_within(found, 2.5) == []
        assert found.risk_assessments() == []
        found.ehr.faults.delay_s = 0.0
        await decide(found, "allow-writes")
        await found.settled()
        assert len(found.risk_assessments()) == 1


async def test_a_write_that_waits_for_a_connection_does_not_begin_a_second_after_the_stop(tmp_path):
    async with site(tmp_path, ehr="max_connections = 1") as found:
        await found.admit("p1")
        await found.settled()
        await decide(found, "stop-writes")
        await found.chart(observation_set("p1", now(1)))
        await until(lambda: _stored(found, 1))
        await decide(found, "allow-writes")
        found.ehr.requests.clear()
        async with crowded(found):  # each request waits for some two seconds
            await until(lambda: found.ehr.requests["GET", "Device"] > 0, 60)  # the last before it is made
            await asyncio.sleep(0.5)  # by now that write waits for the connection
            await decide(found, "stop-writes")
            await asyncio.sleep(1)  # in which a write may still begin
            assert await writes_within(found, 4) == []
        await decide(found, "allow-writes")
        await found.settled(60)
        assert len(found.risk_assessments()) == 1


@contextlib.asynccontextmanager
async def crowded(found: House) -> AsyncIterator[None]:
    """Twenty others read over the same connections, one after the other."""

    async def read() -> None:
        while True:
            with contextlib.suppress(SidecarError):
                await found.sidecar.rooms.client.read(Reference("Patient", "p1"))

    found.ehr.faults.delay_s = 0.1
    readers = [asyncio.create_task(read()) for _ in range(20)]
    try:
        yield
    finally:
        found.ehr.faults.delay_s = 0.0
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def test_a_version_put_into_the_folder_begins_in_shadow_without_a_restart(tmp_path):
    async with site(tmp_path, models__news2='version = "1.0.0"') as found:
        add(tmp_path / "models", "2.0.0")
        await decide(found, "shadow", "2.0.0")
        await scored(found, "p1")
        rows = await found.rows("SELECT model, arm FROM assessment ORDER BY model")
        assert [tuple(row.values()) for row in rows] == [("news2", "champion"), ("news2@2.0.0", "shadow")]


async def test_work_for_a_version_that_has_ended_meanwhile_ends_and_is_no_dead_letter(tmp_path):
    async with site(tmp_path, "2.0.0", work="concurrency = 1") as found:
        await decide(found, "shadow", "2.0.0")
        await found.admit("p1")
        await found.settled()
        await found.sidecar.worker.pump.stop(5)
        await found.chart(observation_set("p1", now(1)))
        await until(lambda: _waiting(found))
        await decide(found, "end-shadow", "2.0.0")
    again = Sidecar(load(tmp_path / "sidecar.toml"))
    await found.ehr.start()
    try:
        await again.start()
        served = House(found.ehr, again, found.settings)
        await served.settled()
        assert (await served.status())["events"].keys() == {"done"}
        assert len(served.risk_assessments()) == 1
    finally:
        await again.close()
        await found.ehr.stop()


async def _waiting(found: House) -> bool:
    rows = await found.rows("SELECT count(*) AS n FROM work")
    return rows[0]["n"] == 2


async def test_a_start_is_refused_when_a_version_is_not_what_it_was_first_seen_as(tmp_path):
    async with site(tmp_path):
        pass
    manifest = tmp_path / "models" / "news2" / "1.0.0" / "manifest.toml"
    manifest.write_text(manifest.read_text() + "\n# another\n")
    await refused(tmp_path, "a changed model needs a new version")


async def test_a_start_is_refused_when_the_champion_is_not_there(tmp_path):
    async with site(tmp_path, "2.0.0") as found:
        await decide(found, "promote", "2.0.0")
    (tmp_path / "models" / "news2" / "2.0.0" / "manifest.toml").unlink()
    await refused(tmp_path, "2.0.0 writes, says the log")


async def test_a_start_is_refused_when_the_log_was_changed(tmp_path):
    async with site(tmp_path) as found:
        await found.sidecar.rooms.store.commit(Step(Statement("tamper", "UPDATE transition SET who = 'nobody'")))
    await refused(tmp_path, "from entry 1 on")


async def refused(folder: Path, why: str) -> None:
    again = Sidecar(load(folder / "sidecar.toml"))
    try:
        with pytest.raises(Misconfigured, match=why):
            await again.start()
    finally:
        await again.close()


async def test_a_log_that_is_changed_while_servers_run_stops_all_writing(tmp_path):
    async with site(tmp_path) as found:
        await found.admit("p1")
        await found.settled()
        forged = Statement(
            "forge",
            "INSERT INTO transition SELECT 2, at, what, model, version, model_digest, percent, by_what, 'Dr B', why, "
            "evidence, override_reason, digest, previous FROM transition",
        )
        await found.sidecar.rooms.store.commit(Step(forged))
        await until(lambda: found.sidecar.rooms.registry.stopped)
        await found.chart(observation_set("p1", now(1)))
        await until(lambda: _stored(found, 1))
        assert found.risk_assessments() == []


async def test_every_assessment_names_the_version_that_the_log_says_was_champion_then(tmp_path):
    async with site(tmp_path, "2.0.0") as found:
        for number, (what, version) in enumerate(
            [("promote", "2.0.0"), ("rollback", None), ("promote", "2.0.0"), ("rollback", None)]
        ):
            await scored(found, f"p{number}")
            await decide(found, what, version)
        rows = await found.rows("SELECT assessed_at, model_digest, arm FROM assessment WHERE outcome = 'scored'")
        assert len({row["model_digest"] for row in rows}) == 2
        for row in rows:
            at = datetime.fromtimestamp(row["assessed_at"], UTC).isoformat()
            then = await people(found).which({"model": "news2", "at": at})
            assert then["models"]["news2"]["champion"]["digest"] == row["model_digest"]
            assert row["arm"] == "champion"


async def test_a_promotion_by_the_settings_needs_a_whole_card_too(tmp_path):
    root = models(tmp_path)
    folder = root / "news2" / "1.0.0"
    (folder / CARD).write_text(card("1.0.0").replace('responder = "x"', 'responder = ""'))
    sealed(folder)
    with pytest.raises(Misconfigured, match="its card does not say responder"):
        async with house(tmp_path, models_dir=root):
            pass
