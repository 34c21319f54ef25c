"""The happy path, as a new engineer should read it: notify, score, explain, write back."""

import pytest

from tests.harness import ENGINES, house, new_database, now, observation_set


@pytest.fixture(params=ENGINES)
def database(tmp_path, request):
    with new_database(tmp_path, request.param) as url:
        yield f'url = "{url}"'


async def test_a_complete_observation_set_becomes_one_explained_risk_assessment(tmp_path, database):
    async with house(tmp_path, store=database) as site:
        await site.admit("p1")
        await site.chart(observation_set("p1", now(1), c9279_1=26, c3151_8=2))
        await site.settled()

        (risk,) = site.risk_assessments()
        assert risk["status"] == "final"
        assert risk["subject"] == {"reference": "Patient/p1"}
        assert risk["encounter"] == {"reference": "Encounter/e-p1"}
        prediction = risk["prediction"][0]
        assert prediction["qualitativeRisk"]["coding"][0]["code"] == "medium"
        assert prediction["rationale"] == "respiratory rate 26/min (3), oxygen therapy yes (2)"
        assert "probabilityDecimal" not in prediction

        total_reference = risk["basis"][0]["reference"]
        total = site.ehr.read(*total_reference.split("/"))
        assert total["valueQuantity"]["value"] == 5
        assert {c["valueQuantity"]["value"] for c in total["component"]} == {0, 2, 3}
        assert all("/_history/1" in b["reference"] for b in risk["basis"][1:])
