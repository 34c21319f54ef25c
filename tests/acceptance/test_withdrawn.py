"""What becomes of what a withdrawn or absent version has charted, where the version that runs now may not write."""

import pytest

from tests.acceptance.test_rollout import decide, scored, site, touch, versions
from tests.harness import House, now, observation_set, until

pytestmark = pytest.mark.timeout(180)
OLD = 'version = "1.0.0"'


async def stay_on(found: House, name: str, ward: str) -> None:
    stay = found.ehr.read("Encounter", f"e-{name}")
    await found.ehr.write(stay | {"location": [{"location": {"reference": f"Location/{ward}"}, "status": "active"}]})
    await found.settled()


async def test_a_version_that_was_never_promoted_puts_no_numbers_in_the_place_of_a_withdrawn_canarys(tmp_path):
    async with site(tmp_path, "2.0.0", promoted=False, models__news2=OLD) as found:
        at = now(5)
        await decide(found, "shadow", "2.0.0")
        await decide(found, "canary", "2.0.0", percent=100)
        await scored(found, "p1", at)
        (before,) = found.risk_assessments()
        await decide(found, "rollback")
        await touch(found, "p1", at)
        assert versions(found) == ["2.0.0"]
        assert found.risk_assessments() == [before]

        await found.ehr.write(observation_set("p1", at, c9279_1=26)[0])
        await found.settled()
        (risk,) = found.risk_assessments()
        assert risk["status"] == "entered-in-error"
        assert risk["prediction"][0]["rationale"] == before["prediction"][0]["rationale"]
        await touch(found, "p1", at)
        assert found.risk_assessments() == [risk]
        assert versions(found) == ["2.0.0"]


async def test_what_a_withdrawn_canary_has_charted_is_ended_in_its_own_words(tmp_path):
    async with site(tmp_path, "2.0.0", promoted=False, models__news2=OLD) as found:
        await decide(found, "shadow", "2.0.0")
        await decide(found, "canary", "2.0.0", percent=100)
        await scored(found, "p1")
        await decide(found, "rollback")
        stay = found.ehr.read("Encounter", "e-p1")
        await found.ehr.write(stay | {"status": "finished"})
        await found.settled()

        (risk,) = found.risk_assessments()
        assert "No longer current: encounter has ended." in risk["note"][0]["text"]
        assert versions(found) == ["2.0.0"]


async def test_a_patient_who_leaves_the_wards_of_a_canary_keeps_its_numbers_where_no_champion_may_write(tmp_path):
    async with site(tmp_path, "2.0.0", promoted=False, models__news2=OLD) as found:
        at, fleet = now(5), found.sidecar.models
        await decide(found, "shadow", "2.0.0")
        await decide(found, "canary", "2.0.0", percent=50, by="unit")
        wards = [f"ward-{n}" for n in range(20)]
        of = {w: fleet.chosen("news2", b"", f"Location/{w}").loaded.manifest.version for w in wards}
        inside = next(w for w in wards if of[w] == "2.0.0")
        outside = next(w for w in wards if of[w] == "1.0.0")
        await found.admit("p1")
        await stay_on(found, "p1", inside)
        await found.chart(observation_set("p1", at))
        await found.settled()
        (before,) = found.risk_assessments()
        await stay_on(found, "p1", outside)
        await touch(found, "p1", at)

        assert versions(found) == ["2.0.0"]
        (risk,) = found.risk_assessments()
        assert (risk["status"], risk["prediction"]) == ("final", before["prediction"])


async def test_a_correction_that_is_withdrawn_before_it_is_charted_leaves_no_result_of_a_changed_reading(tmp_path):
    async with site(tmp_path, "2.0.0", promoted=False, models__news2=OLD) as found:
        at = now(5)
        await decide(found, "shadow", "2.0.0")
        await decide(found, "canary", "2.0.0", percent=100)
        await scored(found, "p1", at)
        await decide(found, "stop-writes")
        await found.ehr.write(observation_set("p1", at, c9279_1=26)[0])
        await until(lambda: corrected(found))
        await decide(found, "rollback")
        await decide(found, "allow-writes")
        await until(lambda: found.risk_assessments()[0]["status"] == "entered-in-error")
        await found.settled()
        assert versions(found) == ["2.0.0"]


async def corrected(found: House) -> bool:
    return bool(await found.rows("SELECT id FROM assessment WHERE status = 'corrected' AND arm = 'canary'"))
