"""A label on a reading is on the result in the chart, stays when it is stored and read, and comes when it is added."""

from sidecar.records import PatientId
from tests.harness import house, now, observation_set

PSY = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "PSY"}


def labelled(reading):
    return {**reading, "meta": {**reading.get("meta", {}), "security": [PSY]}}


async def test_a_label_that_is_added_to_a_reading_corrects_the_result_that_rests_on_it(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        readings = observation_set("p1", now(5), c8867_4=135)
        await site.chart(readings)
        await site.settled()
        (before,) = site.ehr.all("RiskAssessment")
        assert PSY not in before["meta"]["security"]
        assert "pulse 135" in before["note"][0]["text"]

        await site.chart([labelled(r) for r in readings if "8867-4" in str(r["code"])])
        await site.settled()
        (after,) = site.ehr.all("RiskAssessment")
        assert PSY in after["meta"]["security"]
        assert "pulse 135" not in after["note"][0]["text"] + after["prediction"][0]["rationale"]
        stored = await site.sidecar.rooms.archive.current(PatientId("p1"), "news2")
        assert stored is not None
        assert stored.conclusion.assessment.withheld == ("pulse",)
        assert stored.conclusion.evidence.labels == (f"{PSY['system']}|{PSY['code']}",)


async def test_a_stricter_label_that_comes_later_still_reaches_the_chart(tmp_path):
    async with house(tmp_path) as site:
        await site.admit("p1")
        readings = observation_set("p1", now(5), c8867_4=135)
        (pulse,) = (r for r in readings if "8867-4" in str(r["code"]))
        await site.chart(readings)
        await site.settled()
        for degree in ("R", "V"):
            label = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": degree}
            await site.chart([{**pulse, "meta": {"security": [label]}}])
            await site.settled()
            for kind in ("RiskAssessment", "Observation"):
                written = [r for r in site.ehr.all(kind) if "AIAST" in str(r.get("meta", {}).get("security"))]
                assert [label in r["meta"]["security"] for r in written] == [True], (degree, kind)
