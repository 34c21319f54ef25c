"""An EHR that takes Observations and no RiskAssessment, as most do: nothing urgent is kept from its readers."""

from sidecar.sandbox.capability import ALL_TYPES, Capabilities
from sidecar.sandbox.ehr import PracticeEhr
from tests.harness import house, now, observation_set, until

TOTAL = "1104051000000101"


def results(site):
    found = site.ehr.all("Observation")
    return [o for o in found if any(c["code"] == TOTAL for c in o["code"]["coding"])]


def an_ehr() -> PracticeEhr:
    return PracticeEhr(capabilities=Capabilities(types=ALL_TYPES - {"RiskAssessment"}))


async def test_what_is_urgent_and_incomplete_is_written_without_a_value_and_completed_under_the_same_id(tmp_path):
    async with house(tmp_path, an_ehr()) as site:
        await site.admit("p1")
        *known, temperature = sorted(
            observation_set("p1", now(2), c9279_1=30, c8480_6=80),
            key=lambda o: o["code"]["coding"][0]["code"] == "8310-5",
        )
        await site.chart(known)
        await until(lambda: len(results(site)) == 1)
        (incomplete,) = results(site)
        assert incomplete["status"] == "preliminary"
        assert not [name for name in incomplete if name.startswith("value")]
        assert incomplete["dataAbsentReason"]["coding"][0]["code"] == "unknown"
        assert "URGENT" in incomplete["note"][0]["text"]
        assert "at least" in incomplete["note"][0]["text"]
        assert {c["valueQuantity"]["value"] for c in incomplete["component"]} >= {3}

        await site.chart([temperature])
        await until(lambda: "valueQuantity" in results(site)[0])
        (complete,) = results(site)
        assert (complete["id"], complete["status"]) == (incomplete["id"], "final")
        assert "dataAbsentReason" not in complete
        assert complete["valueQuantity"]["value"] == sum(c["valueQuantity"]["value"] for c in complete["component"])
        await site.settled()
        assert (await site.status())["writes"].keys() == {"written"}


async def test_a_result_of_which_nothing_is_left_is_withdrawn_and_its_write_ends(tmp_path):
    async with house(tmp_path, an_ehr()) as site:
        await site.admit("p1")
        readings = observation_set("p1", now(2), c9279_1=30)
        await site.chart(readings)
        await until(lambda: len(results(site)) == 1)
        for reading in readings:
            await site.ehr.write(reading | {"status": "entered-in-error"})
        await until(lambda: results(site)[0]["status"] == "entered-in-error")
        await site.settled()
        assert "buried" not in (await site.status())["writes"]
