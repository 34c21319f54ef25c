"""A kidney failure risk holds for months: what newer results do to the ones before, in whatever order they are heard."""

import random
import sys
from datetime import timedelta

import pytest

from sidecar.errors import SidecarError
from sidecar.review import Sweep, review
from tests.acceptance.test_kidney import BORN, SITE, START, diagnosis, of, result
from tests.harness import house, until

DAY = timedelta(days=1)
PATIENT = SITE.replace('"0.05s"', '"0.5s"').replace('max_wait = "0.5s"', 'max_wait = "5s"')
"""Waits long enough for the two results of one sample, however busy the machine is."""


async def start(site, *resources):
    await site.admit("p1", **BORN)
    await site.chart([diagnosis(), *resources])
    await site.settled()


def labs(rate, ratio, ago, **more):
    return [result("98979-8", rate, ago, **more), result("9318-7", ratio, ago, **more)]


def by_age(site):
    """The kidney results, newest first."""
    return sorted(of(site, "kfre_4var"), key=lambda r: r["occurrenceDateTime"], reverse=True)


async def scored(site, how_many):
    rows = await site.rows("SELECT 1 FROM assessment WHERE model = 'kfre_4var' AND outcome = 'scored' AND latest = 1")
    return len(rows) == how_many


def said(risk):
    return risk["note"][0]["text"]


async def test_newer_results_end_the_ones_before_and_only_the_newest_predicts(tmp_path):
    async with house(tmp_path, models__kfre_4var=PATIENT) as site:
        await start(site, *labs(12, 3000, 3 * DAY))
        await site.chart(labs(40, 30, DAY))
        await site.settled()

        newest, before = by_age(site)
        assert (newest["status"], len(newest["prediction"])) == ("final", 2)
        assert before["status"] == "amended"
        assert said(before).startswith("No longer current: replaced by newer results. Until then: KFRE")
        assert "prediction" not in before
        assert "No longer current" not in said(newest)


@pytest.mark.parametrize(
    ("unreadable", "why"),
    [
        (
            result("2160-0", 2, timedelta(hours=2), valueQuantity={"value": 2, "unit": "U/L"}),
            "serum creatinine charted in a unit that cannot be read safely",
        ),
        (
            result("9318-7", 3, timedelta(hours=2), valueQuantity={"value": 3, "comparator": "<", "unit": "mg/g"}),
            "urine albumin-to-creatinine ratio charted as a limit, not a value",
        ),
    ],
)
async def test_a_newer_result_that_cannot_be_read_ends_the_ones_before_until_it_is_withdrawn(tmp_path, unreadable, why):
    async with house(tmp_path, models__kfre_4var=PATIENT) as site:
        await start(site, *labs(12, 3000, 3 * DAY))
        await site.chart([unreadable])
        await site.settled()
        (ended,) = by_age(site)
        assert ended["status"] == "amended"
        assert said(ended).startswith(f"No longer current: newer results cannot be read: {why}.")
        assert "prediction" not in ended

        await site.chart([unreadable | {"status": "entered-in-error"}])
        await site.settled()
        (back,) = by_age(site)
        assert (back["id"], back["status"], len(back["prediction"])) == (ended["id"], "amended", 2)
        assert "No longer current" not in said(back)


async def test_older_results_that_come_in_late_end_nothing_and_a_second_look_writes_nothing(tmp_path):
    async with house(tmp_path, models__kfre_4var=PATIENT) as site:
        await start(site, *labs(12, 3000, 3 * DAY))
        await site.chart(labs(40, 30, DAY))
        await site.settled()
        before = [(r["id"], r["meta"]["versionId"]) for r in by_age(site)]

        await site.chart(labs(20, 100, 2 * DAY))
        await site.chart([diagnosis(recordedDate="2024-01-01")])
        await site.settled()

        assert [(r["id"], r["meta"]["versionId"]) for r in by_age(site)] == before


async def test_a_correction_of_an_ended_result_leaves_it_ended_and_a_withdrawal_withdraws_it(tmp_path):
    async with house(tmp_path, models__kfre_4var=PATIENT) as site:
        await start(site, *labs(12, 3000, 3 * DAY))
        await site.chart(labs(40, 30, DAY))
        await site.settled()

        await site.chart([result("9318-7", 300, 3 * DAY, status="corrected")])
        await site.settled()
        newest, ended = by_age(site)
        assert (newest["status"], ended["status"]) == ("final", "corrected")
        assert said(ended).startswith("No longer current: replaced by newer results. Corrected")
        assert "prediction" not in ended

        await site.chart([result("9318-7", 300, 3 * DAY, status="entered-in-error")])
        await site.settled()
        newest, ended = by_age(site)
        assert (newest["status"], ended["status"]) == ("final", "entered-in-error")
        assert "prediction" not in ended


async def test_withdrawn_newest_results_bring_back_the_ones_before(tmp_path):
    async with house(tmp_path, models__kfre_4var=PATIENT) as site:
        await start(site, *labs(12, 3000, 3 * DAY))
        await site.chart(labs(40, 30, DAY))
        await site.settled()
        await site.chart(labs(40, 30, DAY, status="entered-in-error"))
        await site.settled()

        newest, before = by_age(site)
        assert newest["status"] == "entered-in-error"
        assert "prediction" not in newest
        assert len(before["prediction"]) == 2
        assert "No longer current" not in said(before)


async def test_a_chart_that_shows_less_than_is_in_force_brings_nothing_back_until_the_review_has_looked(tmp_path):
    async with house(tmp_path, models__kfre_4var=PATIENT) as site:
        await start(site, *labs(12, 3000, 3 * DAY))
        await site.chart(labs(40, 30, DAY))
        await site.settled()
        for gone in labs(40, 30, DAY):
            await site.ehr.remove("Observation", gone["id"])
        await site.chart([diagnosis("N18.4", "http://hl7.org/fhir/sid/icd-10-cm")])
        await site.settled()
        newest, before = by_age(site)
        assert (newest["status"], before["status"]) == ("final", "amended")
        assert "prediction" not in before

        rooms = site.sidecar.rooms
        assert await review(rooms.client, rooms.archive, rooms.events, site.sidecar.clock) == 2
        site.sidecar.wake()
        await site.settled()
        newest, before = by_age(site)
        assert newest["status"] == "entered-in-error"
        assert len(before["prediction"]) == 2


async def test_results_of_a_model_in_shadow_are_ended_too_and_nothing_is_written(tmp_path):
    shadow = "\n".join(line for line in PATIENT.splitlines() if not line.startswith("promoted"))
    async with house(tmp_path, models__kfre_4var=shadow) as site:
        await start(site, *labs(12, 3000, 3 * DAY))
        await site.chart(labs(40, 30, DAY))
        await site.settled()

        assert of(site, "kfre_4var") == []
        rows = await site.rows(
            "SELECT status, valid_until > occurred_at + 86400 * 80 AS holds FROM assessment "
            "WHERE model = 'kfre_4var' AND outcome = 'scored' AND latest = 1 ORDER BY occurred_at"
        )
        assert rows == [{"status": "amended", "holds": 0}, {"status": "final", "holds": 1}]


async def test_newer_results_take_the_place_of_one_that_still_waits_to_be_written(tmp_path):
    async with house(tmp_path, models__kfre_4var=PATIENT) as site:
        await site.admit("p1", **BORN)
        await site.settled()
        await site.sidecar.delivery.pump.stop(1)
        await site.chart([diagnosis(), *labs(12, 3000, 3 * DAY)])
        await until(lambda: scored(site, 1))
        await site.chart(labs(40, 30, DAY))
        await until(lambda: scored(site, 2))

        states = await site.rows(
            "SELECT state FROM delivery JOIN assessment ON assessment.id = delivery.assessment_id "
            "WHERE model = 'kfre_4var' ORDER BY occurred_at, delivery.revision"
        )
        assert states[0]["state"] == "superseded"
        assert [r["state"] for r in states[-2:]] == ["queued", "queued"]
        rows = await site.rows(
            "SELECT status FROM assessment WHERE latest = 1 AND outcome = 'scored' ORDER BY occurred_at"
        )
        assert [r["status"] for r in rows] == ["amended", "final"]


async def test_the_review_reads_what_results_in_force_rest_on_and_nothing_of_ended_ones(tmp_path):
    async with house(tmp_path, models__kfre_4var=PATIENT) as site:
        await start(site, *labs(12, 3000, 3 * DAY))
        await site.chart(labs(40, 30, DAY))
        await site.settled()
        rooms = site.sidecar.rooms

        await site.ehr.remove("Observation", result("98979-8", 12, 3 * DAY)["id"])
        assert await review(rooms.client, rooms.archive, rooms.events, site.sidecar.clock) == 0
        await site.ehr.remove("Observation", result("98979-8", 40, DAY)["id"])
        assert await review(rooms.client, rooms.archive, rooms.events, site.sidecar.clock) == 1


async def test_a_pass_of_the_review_is_bounded_and_the_next_goes_on_from_there(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.review.PAGE", 1)
    monkeypatch.setattr("sidecar.review.PAGES", 1)
    async with house(tmp_path, models__kfre_4var=PATIENT) as site:
        for who in ("p1", "p2"):
            await site.admit(who, **BORN)
            subject = {"reference": f"Patient/{who}"}
            await site.chart(
                r | {"id": f"{r['id']}-{who}", "subject": subject} for r in (diagnosis(), *labs(28, 300, DAY))
            )
        await site.settled()
        for who in ("p1", "p2"):
            await site.ehr.remove("Observation", f"{result('98979-8', 28, DAY)['id']}-{who}")

        rooms, sweep = site.sidecar.rooms, Sweep()
        found = [await review(rooms.client, rooms.archive, rooms.events, site.sidecar.clock, sweep) for _ in range(4)]
        assert found == [1, 1, 0, 1]


async def test_a_page_that_the_ehr_refuses_does_not_keep_the_review_from_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.review.PAGE", 1)
    monkeypatch.setattr("sidecar.review.PAGES", 1)
    async with house(tmp_path, models__kfre_4var=PATIENT) as site:
        await start(site, *labs(28, 300, DAY))
        rooms, sweep = site.sidecar.rooms, Sweep()
        site.ehr.faults.fail_next(1, 403, only="GET Observation")
        with pytest.raises(SidecarError):
            await review(rooms.client, rooms.archive, rooms.events, site.sidecar.clock, sweep)
        assert sweep != Sweep()
        assert await review(rooms.client, rooms.archive, rooms.events, site.sidecar.clock, sweep) == 0
        assert sweep == Sweep()


@pytest.mark.parametrize("_", range(3))
async def test_in_whatever_order_results_are_heard_one_predicts_at_most_and_it_is_the_newest(tmp_path, _):
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    rng = random.Random(seed)
    charted = [one for day in range(1, 6) for one in labs(10 + 8 * day, 300 * day, day * DAY)]
    charted += [rng.choice(charted) | {"status": "corrected", "note": [{"text": "checked"}]} for _ in range(3)]
    rng.shuffle(charted)
    # Small waits: many conclusions on the way, each with what was there by then.
    async with house(tmp_path, models__kfre_4var=SITE) as site:
        await start(site)
        for one in charted:
            site.ehr.faults.fail_next(rng.randrange(3), 503, only=rng.choice(["GET Observation", "PUT RiskAssessment"]))
            await site.ehr.write(one)
            if rng.random() < 0.4:
                await site.settled(60)
        await site.settled(60)

        live = [r for r in by_age(site) if "prediction" in r]
        assert live == [by_age(site)[0]]
        assert live[0]["occurrenceDateTime"].startswith((START - DAY).isoformat()[:19])
        assert all(said(r).startswith("No longer current") for r in by_age(site)[1:])
