"""Nothing lost, nothing doubled: repeats, outages, 429, lost replies, on each rung of the write ladder."""

import asyncio
from collections import Counter

import aiohttp
import orjson
import pytest

from sidecar import operations
from sidecar.sandbox.ehr import Capabilities, PracticeEhr
from tests.harness import SECRET, encounter, house, now, observation_set, until

RUNGS = {
    "put": Capabilities(),
    "conditional": Capabilities(update_create=False),
    "search": Capabilities(update_create=False, conditional_create=False),
    "search without identifier": Capabilities(update_create=False, conditional_create=False, identifier_search=False),
}


def identifiers(site):
    return Counter(i["value"] for r in site.risk_assessments() for i in r["identifier"])


async def deliver_ten_thousand(site, resource):
    """The same PUT, again and again, from twenty clients; each is answered 200."""
    url = f"http://{site.sidecar.addresses[0]}/notify/observation/Observation/{resource['id']}"
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/fhir+json"}
    body = orjson.dumps(resource)
    async with aiohttp.ClientSession() as session:

        async def send(count):
            for _ in range(count):
                async with session.put(url, data=body, headers=headers) as answer:
                    assert answer.status == 200

        await asyncio.gather(*(send(500) for _ in range(20)))
    await site.settled()


@pytest.mark.parametrize("hint", ["with its version", "without a version"])
async def test_ten_thousand_deliveries_of_one_notification_make_one_risk_assessment(tmp_path, hint):
    async with house(tmp_path) as site:
        await site.admit("p1")
        await site.chart(observation_set("p1", now(5), c9279_1=30))
        await site.settled()
        resource = next(o for o in site.ehr.all("Observation") if o["code"]["coding"][0]["code"] == "9279-1")
        if hint == "without a version":
            del resource["meta"]

        await deliver_ten_thousand(site, resource)

        assert list(identifiers(site).values()) == [1]
        (risk,) = site.risk_assessments()
        assert risk["meta"]["versionId"] == "1"


@pytest.mark.parametrize("rung", RUNGS)
async def test_a_reply_dropped_after_the_write_is_neither_lost_nor_doubled(tmp_path, rung):
    ehr = PracticeEhr(capabilities=RUNGS[rung])
    # The HTTP client itself sends a PUT once more when a kept-alive connection is cut, so two replies must be lost.
    verb, lost, version = ("PUT", 2, "2") if rung == "put" else ("POST", 1, "1")
    async with house(tmp_path, ehr, ehr="timeout_s = 1.0") as site:
        await site.admit("p1")
        for type_name in ("Device", "Observation", "RiskAssessment"):
            ehr.faults.drop_reply_next(lost, only=f"{verb} {type_name}")
        await site.chart(observation_set("p1", now(5)))
        await site.settled(60)  # each create may go on for seconds

        (risk,) = site.risk_assessments()
        assert (risk["status"], risk["meta"]["versionId"]) == ("final", version)
        assert len([o for o in ehr.all("Observation") if o.get("identifier")]) == 1
        assert len(ehr.all("Device")) == 1
        assert (await site.status())["writes"] == {"written": 1}


@pytest.mark.parametrize("rung", RUNGS)
async def test_a_correction_updates_the_same_resource_on_every_rung(tmp_path, rung):
    ehr = PracticeEhr(capabilities=RUNGS[rung])
    async with house(tmp_path, ehr) as site:
        await site.admit("p1")
        moment = now(5)
        await site.chart(observation_set("p1", moment, c9279_1=30))
        await site.settled()
        (before,) = site.risk_assessments()
        await site.chart(observation_set("p1", moment, c9279_1=18)[:1])
        await site.settled()

        (after,) = site.risk_assessments()
        assert (after["id"], after["status"]) == (before["id"], "corrected")


async def test_429_with_retry_after_is_waited_for_and_nothing_is_lost(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        for type_name in ("RiskAssessment", "Observation", "Device"):
            site.ehr.faults.fail_next(2, 429, retry_after_s=1, only=f"PUT {type_name}")
        await site.chart(observation_set("p1", now(5)))
        await site.settled()

        assert [r["status"] for r in site.risk_assessments()] == ["final"]


async def test_an_ehr_that_goes_away_and_comes_back_loses_nothing(tmp_path):
    async with house(tmp_path) as site:
        for name in ("p1", "p2", "p3"):
            await site.admit(name)
        await site.settled()
        site.ehr.faults.down = True
        # The practice EHR cannot be written to over HTTP now; its own staff still can.
        for name in ("p1", "p2", "p3"):
            await site.chart(observation_set(name, now(5)))
        await site.ehr.quiet(20)
        await until(lambda: not site.sidecar.rooms.gate.is_open)
        site.ehr.faults.clear()
        await site.settled()

        assert sorted(r["subject"]["reference"] for r in site.risk_assessments()) == [
            "Patient/p1", "Patient/p2", "Patient/p3",
        ]  # fmt: skip
        status = await site.status()
        assert "buried" not in status["events"]
        assert status["writes"] == {"written": 3}


async def test_lost_notifications_are_found_by_the_catch_up_search(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        await site.settled()
        site.ehr.faults.lose = 1.0
        await site.chart(observation_set("p1", now(5)))
        await until(lambda: len(site.risk_assessments()) == 1)
        await site.settled()

        assert list(identifiers(site).values()) == [1]


async def test_repeated_and_reordered_notifications_change_nothing(tmp_path):
    async with house(tmp_path) as site:
        site.ehr.faults.repeat, site.ehr.faults.reorder = 0.5, 0.5
        for name in ("p1", "p2"):
            await site.admit(name)
            for minutes in (90, 60, 30, 5):
                await site.chart(observation_set(name, now(minutes)))
        await site.settled()

        assert set(identifiers(site).values()) == {1}
        for name in ("p1", "p2"):
            newest = max(r["occurrenceDateTime"] for r in site.risk_assessments() if name in r["subject"]["reference"])
            assert newest.startswith(now(5).isoformat()[:13])


async def test_a_write_that_the_ehr_refuses_is_a_dead_letter_and_can_be_replayed(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        site.ehr.faults.fail_next(1, 422, only="PUT RiskAssessment")
        await site.chart(observation_set("p1", now(5)))
        await site.settled()
        (letter,) = await operations.dead_letters(site.sidecar.rooms.store)
        assert (letter["kind"], letter["reason"]) == ("write", "ehr_refused:422")

        assert await operations.replay(site.sidecar.rooms.store, letter["id"]) == 1
        site.sidecar.wake()
        await site.settled()
        assert [r["status"] for r in site.risk_assessments()] == ["final"]


async def test_an_ehr_without_risk_assessment_gets_the_observation(tmp_path):
    ehr = PracticeEhr(capabilities=Capabilities(types=Capabilities().types - {"RiskAssessment"}))
    async with house(tmp_path, ehr) as site:
        await site.admit("p1")
        await site.chart(observation_set("p1", now(5), c9279_1=30))
        await site.settled()

        (total,) = [o for o in ehr.all("Observation") if o.get("identifier")]
        assert total["valueQuantity"]["value"] == 3


async def test_a_write_of_which_nothing_arrived_is_judged_by_the_patient_as_they_are_at_the_next_attempt(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        site.ehr.faults.fail_next(1000, 500, only="PUT RiskAssessment")
        # Urgent and incomplete: a RiskAssessment, and no Observation before it.
        await site.chart(observation_set("p1", now(5), c9279_1=30, c8310_5=None))

        async def tried() -> bool:
            return bool(await site.rows("SELECT 1 FROM delivery WHERE attempts > 0 AND state = 'queued'"))

        await until(tried)
        await site.ehr.write(encounter("p1", status="finished"))
        await site.settled()

        assert site.risk_assessments() == []
        writes = (await site.status())["writes"]
        assert writes.pop("cancelled") == 1
        assert set(writes) <= {"superseded"}  # the set arrives reading by reading
