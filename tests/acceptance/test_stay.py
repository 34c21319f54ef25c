"""Whose reading, in which stay: what must not silence a patient, and what must end a result."""

from datetime import UTC, datetime, timedelta

from sidecar.app import Sidecar
from sidecar.sandbox.capability import Capabilities
from sidecar.sandbox.ehr import PracticeEhr
from sidecar.settings import load
from sidecar.store import Statement
from tests.harness import encounter, house, now, observation_set, reading, until


async def rows(sidecar, sql):
    return bool(await sidecar.rooms.store.read(Statement("test", sql)))


async def test_leaving_and_a_voided_reading_at_once_leave_no_final_that_rests_on_it(tmp_path):
    async with house(tmp_path, models__news2='debounce = "0.5s"\nmax_wait = "2s"') as site:
        await site.admit("p1")
        moment = now(5)
        await site.chart(observation_set("p1", moment, c9279_1=30))
        await site.settled()
        await site.ehr.write(encounter("p1", status="finished"))
        await site.ehr.write(reading("p1", "9279-1", 30, moment, status="entered-in-error"))
        await site.settled()

        (risk,) = site.risk_assessments()
        assert risk["status"] in {"corrected", "entered-in-error"}
        assert datetime.fromisoformat(risk["prediction"][0]["whenPeriod"]["end"]) <= datetime.now(UTC) + timedelta(
            hours=6 if risk["status"] == "entered-in-error" else 0
        )
        assert "buried" not in (await site.status())["events"]


async def test_a_transfer_to_a_ward_ends_no_result(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        await site.chart(observation_set("p1", now(5), c9279_1=30))
        await site.settled()
        await site.ehr.write(encounter("p1", id="ward-p1", period={"start": now(3).isoformat()}))
        await site.ehr.write(encounter("p1", status="finished"))
        await site.settled()

        (risk,) = site.risk_assessments()
        assert "No longer current" not in risk["note"][0]["text"]


async def test_a_reading_that_names_another_patients_stay_does_not_silence_its_own(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        await site.admit("p2")
        readings = observation_set("p1", now(5), c9279_1=30, c8480_6=80)
        readings[3]["encounter"] = {"reference": "Encounter/e-p2"}
        await site.chart(readings)
        await site.settled()

        (risk,) = site.risk_assessments()
        assert risk["subject"] == {"reference": "Patient/p1"}
        assert risk["status"] == "final"


async def test_a_corrected_charting_time_is_told_in_the_chart(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        early, late = now(60), now(5)
        await site.ehr.write(reading("p1", "8310-5", 37.0, early))
        await site.chart(observation_set("p1", late, c8310_5=None))
        await site.settled()
        moved = reading("p1", "8310-5", 37.0, early, status="corrected")
        await site.ehr.write(moved | {"effectiveDateTime": now(30).isoformat()})
        await site.settled()

        (risk,) = site.risk_assessments()
        assert risk["status"] == "corrected"


async def test_a_model_taken_out_of_use_writes_nothing_that_was_still_queued(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        await site.settled()
        await site.sidecar.delivery.pump.stop(1)
        await site.chart(observation_set("p1", now(5)))
        await until(lambda: rows(site.sidecar, "SELECT 1 FROM delivery WHERE state = 'queued'"))
    config = tmp_path / "sidecar.toml"
    config.write_text("\n".join(x for x in config.read_text().splitlines() if not x.startswith("promoted_")))

    await site.ehr.start()
    again = Sidecar(load(config))
    try:
        await again.start()
        await until(lambda: rows(again, "SELECT 1 FROM delivery WHERE state = 'cancelled' AND reason = 'not_promoted'"))
        assert site.ehr.all("RiskAssessment") == []
    finally:
        await again.close()
        await site.ehr.stop()


async def test_a_restricted_chart_does_not_hold_up_a_patient_whose_chart_is_open(tmp_path):
    reads_patients = PracticeEhr(capabilities=Capabilities(include=False))
    async with house(tmp_path, reads_patients) as site:
        for name in ("p1", "p2"):
            await site.admit(name)
        await site.settled()
        site.ehr.faults.fail_next(1, 403, only="GET Patient")
        await site.ehr.write(reading("p1", "9279-1", 16, now(5)))
        await until(lambda: rows(site.sidecar, "SELECT 1 FROM work WHERE attempts > 0 AND claim IS NULL"))
        await site.chart(observation_set("p2", now(5)))
        await site.settled(40)

        (written,) = await site.rows("SELECT settled_at - heard_at AS seconds FROM delivery WHERE state = 'written'")
        assert written["seconds"] < 4
