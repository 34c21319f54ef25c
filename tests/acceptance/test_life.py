"""A score has a life: corrections follow it, and nothing stale stays final in the chart."""

from datetime import UTC, datetime, timedelta

import pytest

from sidecar import operations
from sidecar.records import PatientId
from sidecar.review import review
from tests.harness import encounter, house, now, observation_set, patient, reading, until


class Clock:
    """The time of day, or some time after it."""

    ahead = timedelta(0)

    def __call__(self):
        return datetime.now(UTC) + self.ahead


async def until_state(site, sql):
    async def there():
        return bool(await site.rows(sql))

    await until(there)


def finals(site):
    return [r for r in site.risk_assessments() if r["status"] in {"final", "amended", "corrected"}]


async def test_a_corrected_reading_corrects_the_assessment_that_rested_on_it(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        moment = now(5)
        await site.chart(observation_set("p1", moment, c9279_1=30))
        await site.settled()
        (before,) = site.risk_assessments()

        await site.ehr.write(reading("p1", "9279-1", 18, moment, status="corrected"))
        await site.settled()

        (after,) = site.risk_assessments()
        assert (after["id"], after["status"]) == (before["id"], "corrected")
        assert after["prediction"][0]["qualitativeRisk"]["coding"][0]["code"] == "low"
        assert f"Observation/o-p1-9279-1-{int(moment.timestamp())}/_history/2" in str(after["basis"])
        (total,) = [o for o in site.ehr.all("Observation") if o.get("identifier")]
        assert (total["status"], total["valueQuantity"]["value"]) == ("corrected", 0)


async def test_an_older_assessment_is_corrected_too_when_it_rested_on_the_same_reading(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        first, second = now(60), now(5)
        await site.chart(observation_set("p1", first, c8310_5=39.5))
        await site.settled()
        # The temperature of an hour ago still counts in the second set.
        await site.chart(observation_set("p1", second, c8310_5=None))
        await site.settled()
        assert len(finals(site)) == 2

        await site.ehr.write(reading("p1", "8310-5", 37.0, first, status="corrected"))
        await site.settled()

        assert [r["status"] for r in site.risk_assessments()] == ["corrected", "corrected"]
        totals = [o["valueQuantity"]["value"] for o in site.ehr.all("Observation") if o.get("identifier")]
        assert totals == [0, 0]


async def test_a_voided_latest_reading_leaves_no_final_that_rests_on_it(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        first, second = now(60), now(5)
        await site.chart(observation_set("p1", first))
        await site.settled()
        await site.ehr.write(reading("p1", "9279-1", 30, second))
        await site.settled()
        assert len(finals(site)) == 2

        await site.ehr.write(reading("p1", "9279-1", 30, second, status="entered-in-error"))
        await site.settled()

        by_status = sorted(r["status"] for r in site.risk_assessments())
        assert by_status == ["entered-in-error", "final"]
        wrong = next(r for r in site.risk_assessments() if r["status"] == "entered-in-error")
        assert wrong["note"][0]["text"].startswith("ENTERED IN ERROR")


async def test_a_voided_earlier_reading_turns_a_total_into_an_incomplete_one(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        early, late = now(30), now(5)
        await site.ehr.write(reading("p1", "8310-5", 39.5, early))
        await site.chart(observation_set("p1", late, c8310_5=None))
        await site.settled()
        (before,) = finals(site)

        await site.ehr.write(reading("p1", "8310-5", 39.5, early, status="entered-in-error"))
        await site.settled()

        (after,) = site.risk_assessments()
        assert after["id"] == before["id"]
        assert after["status"] == "corrected"
        assert "incomplete: temperature not charted" in after["note"][0]["text"]
        (total,) = [o for o in site.ehr.all("Observation") if o.get("identifier")]
        assert total["status"] == "entered-in-error"


async def test_a_deleted_reading_is_found_by_the_review_though_no_notification_comes(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        moment = now(5)
        await site.chart(observation_set("p1", moment))
        await site.settled()
        for code in ("9279-1", "2708-6", "8480-6", "8867-4", "8310-5", "9269-2", "3151-8"):
            await site.ehr.remove("Observation", f"o-p1-{code}-{int(moment.timestamp())}")

        rooms = site.sidecar.rooms
        assert await review(rooms.client, rooms.archive, rooms.events, site.sidecar.clock) == 7
        site.sidecar.wake()
        await site.settled()

        assert finals(site) == []


async def test_a_reading_charted_late_for_the_same_moment_completes_the_preliminary_result(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        moment = now(5)
        await site.chart(observation_set("p1", moment, c9279_1=30, c8480_6=80, c8310_5=None))
        await site.settled()
        (before,) = site.risk_assessments()
        assert before["status"] == "preliminary"
        assert "coding" not in before["prediction"][0]["qualitativeRisk"]

        await site.ehr.write(reading("p1", "8310-5", 37.0, moment))
        await site.settled()

        (after,) = site.risk_assessments()
        assert (after["id"], after["status"]) == (before["id"], "final")


async def test_an_incomplete_result_that_can_wait_is_stored_and_not_charted(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        await site.chart(observation_set("p1", now(5), c8310_5=None))
        await site.settled()
        assert site.risk_assessments() == []
        status = await site.status()
        assert status["not_scored"] == {"missing:temperature": 1}


async def test_a_model_without_a_promotion_stores_and_never_writes(tmp_path):
    async with house(tmp_path, promoted=False) as site:
        await site.admit("p1")
        await site.chart(observation_set("p1", now(5), c9279_1=30))
        await site.settled()
        assert site.risk_assessments() == []
        (row,) = await site.rows("SELECT arm, outcome FROM assessment")
        assert row == {"arm": "shadow", "outcome": "scored"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"link": [{"type": "replaced-by", "other": {"reference": "Patient/p2"}}]}, "patient_merged"),
        ({"active": False}, "out_of_cohort:inactive"),
        ({"deceasedBoolean": True}, "out_of_cohort:deceased"),
    ],
)
async def test_the_patient_is_looked_at_again_before_the_write(tmp_path, change, reason):
    async with house(tmp_path) as site:
        await site.admit("p1")
        # The write itself fails often enough for the chart to change while it waits.
        site.ehr.faults.fail_next(1, 503, retry_after_s=1, only="GET Patient")
        site.ehr.faults.fail_next(1, 503, retry_after_s=1, only="PUT Device")
        await site.chart(observation_set("p1", now(5)))
        await until_state(site, "SELECT 1 FROM delivery WHERE state = 'queued' AND attempts > 0")
        await site.ehr.write(patient("p1", **change))
        await site.settled()

        assert site.risk_assessments() == []
        newest = (await site.rows("SELECT state, reason FROM delivery ORDER BY revision"))[-1]
        assert newest == {"state": "cancelled", "reason": reason}


async def test_a_result_that_expired_before_delivery_is_stored_and_not_written(tmp_path):
    clock = Clock()
    async with house(tmp_path, clock=clock) as site:
        await site.admit("p1")
        site.ehr.faults.fail_next(1, 503, retry_after_s=1, only="PUT Device")
        await site.chart(observation_set("p1", now(5)))
        await until_state(site, "SELECT 1 FROM delivery WHERE state = 'queued' AND attempts > 0")
        clock.ahead = timedelta(hours=7)
        await site.settled()

        assert site.risk_assessments() == []
        (row,) = await site.rows("SELECT state, reason FROM delivery")
        assert row == {"state": "expired", "reason": "expired:before_delivery"}


async def test_a_merged_patient_lists_what_was_written_for_review(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        await site.chart(observation_set("p1", now(5)))
        await site.settled()
        await site.ehr.write(patient("p1", link=[{"type": "replaced-by", "other": {"reference": "Patient/p2"}}]))
        await site.settled()

        store = site.sidecar.rooms.store
        (letter,) = await operations.dead_letters(store)
        assert (letter["kind"], letter["reason"]) == ("review", "patient_merged")
        assert await operations.replay(store, letter["id"]) == 1
        assert await operations.dead_letters(store) == []


async def test_after_discharge_the_current_result_says_why_there_is_none(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        await site.chart(observation_set("p1", now(5)))
        await site.settled()
        await site.ehr.write(encounter("p1", status="finished"))
        await site.settled()

        current = await site.sidecar.rooms.archive.current(PatientId("p1"), "news2")
        assert current.conclusion.assessment.reasons == ("out_of_cohort:discharged",)
        (risk,) = site.risk_assessments()
        assert risk["status"] == "amended"
        assert "No longer current: encounter has ended." in risk["note"][0]["text"]
        assert datetime.fromisoformat(risk["prediction"][0]["whenPeriod"]["end"]) <= datetime.now(UTC)


async def test_looking_again_later_does_not_change_a_result_whose_readings_did_not_change(tmp_path):
    clock = Clock()
    async with house(tmp_path, clock=clock) as site:
        await site.admit("p1")
        await site.ehr.write(reading("p1", "8310-5", 37.0, now(200)))
        await site.chart(observation_set("p1", now(5), c8310_5=None))
        await site.settled()
        clock.ahead = timedelta(minutes=50)
        await site.ehr.write(encounter("p1", serviceType={"text": "moved to another bed"}))
        await site.settled()

        (risk,) = site.risk_assessments()
        assert (risk["status"], risk["meta"]["versionId"]) == ("final", "1")


async def test_a_reading_moved_to_another_patient_leaves_no_final_with_the_first(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        await site.admit("p2")
        moment = now(5)
        await site.chart(observation_set("p1", moment, c9279_1=30))
        await site.settled()
        moved = reading("p1", "9279-1", 30, moment, subject={"reference": "Patient/p2"})
        await site.ehr.write(moved | {"encounter": {"reference": "Encounter/e-p2"}, "status": "corrected"})
        await site.settled()

        (risk,) = [r for r in site.risk_assessments() if r["subject"]["reference"] == "Patient/p1"]
        assert risk["status"] == "corrected"
        assert "incomplete: respiratory rate not charted" in risk["note"][0]["text"]


async def test_readings_charted_one_after_the_other_make_one_result_and_no_trail_of_alarms(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        for minutes, one in zip((9, 8, 7, 6, 5, 4, 3), observation_set("p1", now(9), c9279_1=30), strict=True):
            await site.ehr.write({**one, "effectiveDateTime": now(minutes).isoformat()})
            await site.settled()

        (risk,) = site.risk_assessments()
        assert risk["status"] == "final"


async def test_a_co_signature_on_a_reading_after_discharge_leaves_the_score_as_it_was(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        moment = now(5)
        await site.chart(observation_set("p1", moment))
        await site.settled()
        await site.ehr.write(encounter("p1", status="finished"))
        await site.settled()
        (before,) = site.risk_assessments()
        await site.ehr.write(reading("p1", "9279-1", 16, moment, note=[{"text": "co-signed"}]))
        await site.settled()

        (after,) = site.risk_assessments()
        assert after["status"] == before["status"] == "amended"
        assert after["meta"]["versionId"] == before["meta"]["versionId"]


async def test_a_write_cancelled_by_a_slip_of_the_pen_is_made_after_all(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        site.ehr.faults.fail_next(1, 503, retry_after_s=2, only="PUT Device")
        await site.chart(observation_set("p1", now(5)))
        await until_state(site, "SELECT 1 FROM delivery WHERE state = 'queued' AND attempts > 0")
        await site.ehr.write(encounter("p1", status="finished"))
        await site.settled()
        assert site.risk_assessments() == []
        await site.ehr.write(encounter("p1"))
        await site.settled()

        (risk,) = site.risk_assessments()
        assert risk["status"] in {"final", "amended"}


async def test_one_restricted_chart_does_not_keep_the_other_patients_waiting(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        await site.admit("p2")
        await site.settled()
        site.ehr.faults.fail_next(1, 403, only="GET Patient")
        await site.chart(observation_set("p1", now(5)))
        await site.chart(observation_set("p2", now(5)))
        await site.settled()

        assert len(site.risk_assessments()) == 2
