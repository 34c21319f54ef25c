"""HAPI FHIR JPA, an R4 server we did not write: what holds against our practice EHR holds against it too.

Every test has patients, database and Subscriptions of its own. The ward is in `test_ward.py`.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import httpx
import orjson
import pytest

from sidecar.app import system_clock
from sidecar.errors import Retryable
from sidecar.fhir import capability
from sidecar.fhir.auth import NoCredentials
from sidecar.fhir.client import EhrClient
from sidecar.records import Reference
from sidecar.review import review
from sidecar.store import Statement, Step
from sidecar.writeback import LadderWriter
from tests.harness import SECRET, Unguarded, now, observation_set, reading, until
from tests.peers import hapi
from tests.peers.conftest import skip_without_peer
from tests.peers.site import (
    FHIR_JSON,
    PATIENCE_S,
    Chart,
    Site,
    running,
    settings_for,
    site_at,
    subscriptions_of,
    unsubscribe,
)  # fmt: skip

skip_without_peer(hapi.why_missing())
pytestmark = pytest.mark.timeout(600)

IN_FORCE = {"preliminary", "final", "amended", "corrected"}
"""Statuses a clinician may act on."""


@pytest.fixture
async def chart(server_named):
    chart = Chart(server_named("hapi"))
    yield chart
    await chart.close()


LAST_WRITES = (
    "SELECT d.assessment_id FROM delivery AS d JOIN assessment AS a ON a.id = d.assessment_id WHERE a.latest = 1"
)


@pytest.mark.parametrize("ladder", ["conditional", "search", "put"])
async def test_a_repeated_event_or_write_leaves_one_resource_in_one_version(chart, tmp_path, ladder):
    patients = [f"{ladder}-{n}" for n in range(3)]
    async with site_at(chart, tmp_path, ladder=ladder) as site:
        for patient_id in patients:
            await site.admit(patient_id)
            await site.write(*observation_set(patient_id, now(5), c9279_1=26))
        await site.settled()
        before = {p: (await site.risk_assessments(p) + await site.totals(p)) for p in patients}
        assert {p: len(found) for p, found in before.items()} == dict.fromkeys(patients, 2)
        if ladder == "put":
            keys = {r["id"]: r["identifier"][0]["value"] for found in before.values() for r in found}
            assert all(logical_id[3:] == key[:40] for logical_id, key in keys.items())

        # The same news again, not recognisable as a repeat; and a process that died between a write and its record.
        await _tell_again(site, patients)
        await _forget_that_it_was_written(site)
        site.sidecar.wake()
        await site.settled()

        assert {p: (await site.risk_assessments(p) + await site.totals(p)) for p in patients} == before
        assert await site.rows(f"{LAST_WRITES} AND (d.state <> 'written' OR d.attempts < 2)") == []


async def _tell_again(site: Site, patients: Iterable[str]) -> None:
    """Send one notification a patient as a server would that puts no version into it."""
    headers = FHIR_JSON | {"Authorization": f"Bearer {SECRET}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as http:
        for patient_id in patients:
            (reading_, *_) = await site.chart.all(f"Observation?patient={patient_id}&code=9279-1")
            bare = {name: value for name, value in reading_.items() if name != "meta"}
            hook = f"{site.sidecar.settings.server.public_url}/notify/observation/Observation/{bare['id']}"
            assert (await http.put(hook, content=orjson.dumps(bare))).status_code == 200
            site.due[Reference("Observation", bare["id"])] += 1


async def _forget_that_it_was_written(site: Site) -> None:
    """The database as it is when a process dies after the EHR took a write and before that was recorded."""
    forget = (Statement("forget_effects", "DELETE FROM effect"), Statement("forget_device", "DELETE FROM device"))
    again = Statement(
        "queue_again",
        f"UPDATE delivery SET state = 'queued', settled_at = NULL WHERE assessment_id IN ({LAST_WRITES})",
    )
    await site.sidecar.rooms.store.commit(*map(Step, forget), Step(again))


async def test_of_many_who_write_one_identity_at_once_one_resource_comes_to_be(chart):
    client = EhrClient(chart.base_url, NoCredentials(), timeout_s=30, connections=8)
    device = {
        "resourceType": "Device",
        "id": "not-used-by-a-conditional-create",
        "identifier": [{"system": "urn:tests:race", "value": "one"}],
        "status": "active",
    }
    try:
        writer = LadderWriter(client, await capability.read(client), "conditional")

        async def write() -> str:
            while True:
                # HAPI-2745 (409): another transaction is creating the same.
                with contextlib.suppress(Retryable):
                    return await writer.write(device, None, Unguarded(), look_first=True)

        ids = await asyncio.gather(*(write() for _ in range(8)))
    finally:
        await client.close()
    found = await chart.all("Device?identifier=urn:tests:race|one")
    assert [d["id"] for d in found] == list(set(ids))


async def test_a_corrected_reading_corrects_the_assessment_that_rested_on_it(chart, tmp_path):
    moment = now(5)
    async with site_at(chart, tmp_path) as site:
        await site.admit("corrected")
        await site.write(*observation_set("corrected", moment, c9279_1=30))
        await site.settled()
        (before,) = await site.risk_assessments("corrected")
        assert (before["status"], _band(before)) == ("final", "low-medium")

        right = reading("corrected", "9279-1", 18, moment, status="corrected")
        await site.write(right)

        async def corrected() -> bool:
            (after,) = await site.risk_assessments("corrected")
            return after["status"] == "corrected"

        await until(corrected, PATIENCE_S)
        await site.settled()

        (after,) = await site.risk_assessments("corrected")
        assert (after["id"], after["status"], _band(after)) == (before["id"], "corrected", "low")
        assert int(after["meta"]["versionId"]) == int(before["meta"]["versionId"]) + 1
        assert Reference("Observation", right["id"], "2") in await site.rested_on(after)
        (total,) = await site.totals("corrected")
        assert (total["status"], total["valueQuantity"]["value"]) == ("corrected", 0)


@pytest.mark.parametrize("how", ["voided", "deleted"])
async def test_nothing_in_force_rests_on_a_reading_that_was_taken_back(chart, tmp_path, how):
    earlier, later = now(60), now(5)
    async with site_at(chart, tmp_path) as site:
        await site.admit(how)
        await site.write(*observation_set(how, earlier))
        await site.settled()
        wrong = reading(how, "9279-1", 30, later)
        await site.write(wrong)
        await site.settled()
        assert [r["status"] for r in await site.risk_assessments(how)] == ["final", "final"]

        if how == "voided":
            await site.write(wrong | {"status": "entered-in-error"})
        else:
            await _remove_and_review(site, Reference("Observation", wrong["id"]))
        await site.settled()

        risks, totals = await site.risk_assessments(how), await site.totals(how)
        assert sorted(r["status"] for r in risks) == sorted(t["status"] for t in totals)
        assert Counter(r["status"] for r in risks)["entered-in-error"] == 1
        in_force = [r for r in risks if r["status"] in IN_FORCE]
        assert [_band(r) for r in in_force] == ["low"]
        assert wrong["id"] not in str(in_force)


async def _remove_and_review(site: Site, reference: Reference) -> None:
    """HAPI tells nobody of a deletion: the review finds it."""
    await site.chart.remove(reference.relative)
    rooms = site.sidecar.rooms
    assert await review(rooms.client, rooms.archive, rooms.events, system_clock) == 1
    site.due[reference] += 1
    site.sidecar.wake()


async def test_what_happened_while_the_sidecar_was_down_is_found_when_it_is_back(chart, tmp_path):
    async with site_at(chart, tmp_path) as site:
        await site.admit("missed")
        await site.write(*observation_set("missed", now(30)))
        await site.settled()

    # No Subscription can tell of this set, and no retry of HAPI's: there is none now, and later one at another address.
    unheard = observation_set("missed", now(5), c9279_1=26)
    for resource in unheard:
        await chart.write(resource)

    async with site_at(chart, tmp_path) as site:
        site.due.update(Reference("Observation", resource["id"]) for resource in unheard)
        await site.settled()
        risks = await site.risk_assessments("missed")
        assert sorted(_band(r) for r in risks) == ["low", "low-medium"]
        assert {r["status"] for r in risks} == {"final"}


async def test_a_second_start_adopts_the_subscriptions_of_the_first(chart, tmp_path):
    settings = settings_for(tmp_path, chart.base_url)
    try:
        found = []
        for _ in range(2):
            async with running(chart, settings) as site:
                wanted = sorted(s.criteria for s in site.sidecar.rooms.sources)
            found.append({s["id"]: s for s in await subscriptions_of(chart, settings)})
        first, second = found
        assert sorted(s["criteria"] for s in first.values()) == wanted
        assert second == first
        assert {s["status"] for s in second.values()} == {"active"}
    finally:
        await unsubscribe(chart, settings)


async def test_its_capability_statement_is_read_as_what_it_can_do(chart):
    client = EhrClient(chart.base_url, NoCredentials(), timeout_s=30, connections=1)
    try:
        able = await capability.read(client)
    finally:
        await client.close()
    for type_name in ("RiskAssessment", "Observation", "Device"):
        abilities = able.of(type_name)
        assert (abilities.create, abilities.update, abilities.conditional_create) == (True, True, True)
        # PUT does create, but the statement does not say so: we do not count on it.
        assert abilities.update_create is False
        assert "identifier" in abilities.search
        assert able.ladder(type_name) == "conditional"
    assert {"patient", "code", "date", "_lastUpdated"} <= able.of("Observation").search
    assert able.of("NoSuchType").create is False
    assert able.ladder("NoSuchType") == "search"


def _band(risk: dict[str, Any]) -> str:
    return risk["prediction"][0]["qualitativeRisk"]["coding"][0]["code"]
