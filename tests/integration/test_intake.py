"""Subscriptions are made once and kept active; the catch-up search finds what they lost."""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from sidecar.errors import ClaimLost, SidecarError, Unavailable
from sidecar.fhir.auth import NoCredentials
from sidecar.fhir.client import EhrClient
from sidecar.inbox import EventBox
from sidecar.intake import CatchUp, Site, Source, Subscriptions
from sidecar.records import Event, Reference
from sidecar.sandbox.capability import ALL_TYPES, Capabilities
from sidecar.sandbox.ehr import PracticeEhr
from sidecar.settings import Topics
from sidecar.store import Statement, Store
from tests.harness import SECRET, cipher_in, house, now, observation_set, open_store, patient, reading, until

HOOK = "http://127.0.0.1:9/"
SOURCES = (
    Source("patient", "Patient"),
    Source("encounter", "Encounter"),
    Source("observation", "Observation", (("code", "http://loinc.org|8867-4"),)),
)
OBSERVATIONS = SOURCES[2]


@dataclass
class Intake:
    """Intake's parts over a practice EHR and a real database."""

    ehr: PracticeEhr
    client: EhrClient
    store: Store
    box: EventBox
    subscriptions: Subscriptions
    catch_up: CatchUp

    async def ensure(self, at: float | None = None, by: Subscriptions | None = None) -> bool:
        """Look at every source's Subscription; whether all are active."""
        keeper = by or self.subscriptions
        return all([(await keeper.ensure(source, at or time.time())).status == "active" for source in SOURCES])

    def another(self, url: str = HOOK, secret: str = SECRET) -> Subscriptions:
        """The same as a second start would make."""
        return Subscriptions(self.client, self.store, self.box.record, Site(url, secret, Topics()))

    async def rows(self, sql: str) -> list[dict[str, object]]:
        return [dict(r) for r in await self.store.read(Statement("test", sql))]

    async def heard(self) -> int:
        return len(await self.rows("SELECT id FROM event"))

    async def watermark(self) -> str | None:
        rows = await self.rows("SELECT watermark FROM subscription WHERE source = 'observation'")
        return str(rows[0]["watermark"]) if rows else None

    async def run(self) -> int:
        return await self.catch_up.run(OBSERVATIONS, time.time())


@contextlib.asynccontextmanager
async def intake(folder, ehr: PracticeEhr | None = None, overlap_s: float = 120.0) -> AsyncIterator[Intake]:
    ehr = ehr or PracticeEhr()
    await ehr.start()
    client = EhrClient(ehr.base_url, NoCredentials(), timeout_s=10, connections=4)
    with open_store(folder) as store:
        box = EventBox(store, cipher_in(folder))
        parts = (
            Subscriptions(client, store, box.record, Site(HOOK, SECRET, Topics())),
            CatchUp(client, store, box.record, timedelta(seconds=overlap_s)),
        )
        try:
            yield Intake(ehr, client, store, box, *parts)
        finally:
            await client.close()
            await ehr.stop()


async def pulse(site: Intake, n: int, value: float = 70, **more: object) -> dict[str, object]:
    """Chart the nth pulse of p1; nobody is notified."""
    return await site.ehr.write(reading("p1", "8867-4", value, now(n), **more), validate=False)


# --- Subscriptions ---------------------------------------------------------------------------------------------------


async def test_every_source_gets_a_subscription_that_brings_a_secret_of_its_own_to_its_own_hook(tmp_path):
    async with house(tmp_path) as site:
        made = site.ehr.all("Subscription")
        public = site.settings.server.public_url
        assert {s["channel"]["endpoint"] for s in made} == {
            f"{public}/notify/{source.name}" for source in site.sidecar.rooms.sources
        }
        brought = {s["channel"]["header"][0] for s in made}
        assert len(brought) == len(made)
        assert not any(SECRET in header for header in brought)
        assert all(s["channel"]["payload"] == "application/fhir+json" for s in made)


async def test_a_process_that_has_lost_the_duty_writes_no_subscription(tmp_path):
    def lost() -> None:
        raise ClaimLost("lease_lost:subscriptions")

    async with intake(tmp_path) as site:
        keeper = Subscriptions(site.client, site.store, site.box.record, Site(HOOK, SECRET, Topics()), must_hold=lost)
        with pytest.raises(ClaimLost):
            await site.ensure(by=keeper)
        assert site.ehr.all("Subscription") == []


async def test_a_second_start_adopts_the_subscriptions_of_the_first(tmp_path):
    async with intake(tmp_path) as site:
        await until(site.ensure)
        first = {s["id"]: s["meta"]["versionId"] for s in site.ehr.all("Subscription")}
        again = site.another()
        assert await site.ensure(by=again)
        assert {s["id"]: s["meta"]["versionId"] for s in site.ehr.all("Subscription")} == first
        assert len(first) == len(SOURCES)


async def test_another_sites_subscription_is_not_adopted(tmp_path):
    async with intake(tmp_path) as site:
        other = site.another("http://127.0.0.1:10/")
        await site.ensure(by=other)
        await site.ensure()
        assert len(site.ehr.all("Subscription")) == 2 * len(SOURCES)


async def test_a_new_secret_is_given_to_the_subscriptions_that_exist(tmp_path):
    async with intake(tmp_path) as site:
        await until(site.ensure)
        before = {s["channel"]["header"][0] for s in site.ehr.all("Subscription")}
        rotated = site.another(secret="another-secret-for-tests")
        await until(lambda: site.ensure(by=rotated))
        after = {s["channel"]["header"][0] for s in site.ehr.all("Subscription")}
        assert len(after) == 3
        assert not after & before


@pytest.mark.parametrize("status", ["error", "off"])
async def test_a_subscription_that_the_ehr_gave_up_is_requested_again(tmp_path, status):
    async with intake(tmp_path) as site:
        await until(site.ensure)
        (mine,) = [s for s in site.ehr.all("Subscription") if s["criteria"].startswith("Patient")]
        if status == "error":
            site.ehr.faults.refuse_activation_next()
            await site.ehr.write(mine | {"status": "requested"})
        else:
            await site.client.send(
                "update", "PUT", f"Subscription/{mine['id']}", ok={200}, body=mine | {"status": "off"}
            )
        await until(lambda: site.ehr.read("Subscription", mine["id"])["status"] == status)
        await site.ensure()
        await until(lambda: site.ehr.read("Subscription", mine["id"])["status"] == "active")
        assert await site.ensure()
        assert len(site.ehr.all("Subscription")) == len(SOURCES)


async def test_a_type_that_the_ehr_refuses_is_recorded_with_the_reason_and_the_others_go_on(tmp_path):
    ehr = PracticeEhr(capabilities=Capabilities(types=ALL_TYPES - {"Encounter"}))
    async with intake(tmp_path, ehr) as site:
        await site.ensure()
        await until(lambda: sum(s["status"] == "active" for s in ehr.all("Subscription")) == 2)
        assert not await site.ensure()
        found = {r["source"]: (r["status"], r["reason"]) for r in await site.rows("SELECT * FROM subscription")}
        assert found == {
            "patient": ("active", None),
            "encounter": ("refused", "ehr_refused:422"),
            "observation": ("active", None),
        }


async def test_an_ehr_without_subscriptions_is_recorded_and_caught_up_with(tmp_path):
    ehr = PracticeEhr(capabilities=Capabilities(subscriptions=False))
    async with intake(tmp_path, ehr) as site:
        assert not await site.ensure()
        assert {r["status"] for r in await site.rows("SELECT status FROM subscription")} == {"refused"}
        await pulse(site, 1)
        await site.run()
        assert await site.heard() == 1


async def test_an_ehr_that_is_away_is_unavailable_and_its_last_known_status_stays(tmp_path):
    async with intake(tmp_path) as site:
        await until(site.ensure)
        site.ehr.faults.down = True
        with pytest.raises(Unavailable):
            await site.ensure()
        assert {r["status"] for r in await site.rows("SELECT status FROM subscription")} == {"active"}


async def test_keeping_subscriptions_does_not_move_the_watermark(tmp_path):
    async with intake(tmp_path) as site:
        await pulse(site, 1)
        await site.run()
        before = await site.watermark()
        await site.ensure()
        assert await site.watermark() == before is not None


# --- catching up -----------------------------------------------------------------------------------------------------


async def test_a_patient_whose_every_notification_was_lost_is_still_assessed(tmp_path):
    async with house(tmp_path) as site:
        site.ehr.faults.lose = 1.0
        await site.admit("p1")
        await site.chart(observation_set("p1", now(1), c9279_1=26))
        await until(lambda: len(site.risk_assessments()) == 1)


async def test_what_a_notification_told_and_a_search_finds_is_one_event(tmp_path):
    async with house(tmp_path, work='catch_up_interval = "1h"') as site:
        await site.settled()
        await site.admit("p1")
        await site.chart(observation_set("p1", now(1)))
        await site.settled()
        count = "SELECT id FROM event WHERE focus_type IS NOT NULL"
        before = len(await site.rows(count))
        for source in site.sidecar.rooms.sources:
            await site.sidecar.rooms.catch_up.run(source, time.time())
        assert before == 9
        assert len(await site.rows(count)) == before


async def test_what_one_search_found_is_not_recorded_again_by_the_next(tmp_path):
    async with intake(tmp_path) as site:
        for n in range(5):
            await pulse(site, n + 1)
        assert (await site.run(), await site.run(), await site.run()) == (5, 5, 5)
        assert await site.heard() == 5


async def test_a_new_version_of_what_was_found_is_news(tmp_path):
    async with intake(tmp_path) as site:
        await pulse(site, 1)
        await site.run()
        await pulse(site, 1, value=140)
        await site.run()
        assert await site.heard() == 2


async def test_the_watermark_is_the_newest_last_updated_that_was_seen(tmp_path):
    async with intake(tmp_path, overlap_s=0) as site:
        marks = []
        for n in range(3):
            newest = await pulse(site, n + 1)
            await site.run()
            marks.append(datetime.fromisoformat(await site.watermark()))
            assert marks[-1] == datetime.fromisoformat(newest["meta"]["lastUpdated"])
        assert marks == sorted(marks)
        assert await site.run() == 1


async def test_the_watermark_stays_where_nothing_is_new(tmp_path):
    async with intake(tmp_path) as site:
        await pulse(site, 1)
        await site.run()
        before = await site.watermark()
        await site.run()
        assert await site.watermark() == before


async def test_a_search_that_fails_half_way_is_gone_on_with_and_misses_nothing(tmp_path):
    async with intake(tmp_path) as site:
        await pulse(site, 1)
        await site.run()
        for n in range(450):
            await pulse(site, n + 2)

        async def recorded(*events: Event) -> None:
            await site.box.record(*events)
            site.ehr.faults.fail_next(1, status=500)

        broken = CatchUp(site.client, site.store, recorded, timedelta(seconds=120))
        with pytest.raises(SidecarError):
            await broken.run(OBSERVATIONS, time.time())
        assert await site.heard() < 451
        site.ehr.faults.clear()
        await site.run()
        assert await site.heard() == 451


async def test_the_overlap_finds_what_became_visible_late(tmp_path):
    moment = datetime.now(UTC)
    at = [moment]
    async with intake(tmp_path, PracticeEhr(clock=lambda: at[0]), overlap_s=60) as site:
        await pulse(site, 1)
        await site.run()
        at[0] = moment - timedelta(seconds=50)
        await pulse(site, 2)
        at[0] = moment - timedelta(seconds=70)
        await pulse(site, 3)
        await site.run()
        assert await site.heard() == 2


@pytest.mark.parametrize("hours", [-3, 0, 3])
async def test_an_ehr_whose_clock_differs_from_ours_is_caught_up_with_from_its_own_present(tmp_path, hours):
    at = [datetime.now(UTC) + timedelta(hours=hours, minutes=-30)]
    async with intake(tmp_path, PracticeEhr(clock=lambda: at[0])) as site:
        await pulse(site, 1)
        at[0] += timedelta(minutes=30)
        await pulse(site, 2)
        await site.run()
        assert await site.heard() == 1
        at[0] += timedelta(minutes=5)
        await pulse(site, 3)
        await site.run()
        assert await site.heard() == 2


async def test_an_empty_ehr_whose_clock_is_behind_ours_is_caught_up_with(tmp_path):
    at = [datetime.now(UTC) - timedelta(hours=3)]
    async with intake(tmp_path, PracticeEhr(clock=lambda: at[0])) as site:
        assert await site.run() == 0
        await pulse(site, 1)
        assert await site.run() == 1


async def test_the_first_search_does_not_dig_up_the_past(tmp_path):
    at = [datetime.now(UTC) - timedelta(days=30)]
    async with intake(tmp_path, PracticeEhr(clock=lambda: at[0])) as site:
        for n in range(20):
            await pulse(site, n + 1)
        at[0] = datetime.now(UTC)
        await pulse(site, 50)
        assert await site.run() == 1


async def test_only_what_the_source_asks_for_is_found(tmp_path):
    async with intake(tmp_path) as site:
        await site.ehr.write(reading("p1", "9279-1", 16, now(1)))
        await site.ehr.write(patient("p1"))
        await pulse(site, 1)
        assert await site.run() == 1


async def test_three_thousand_lost_readings_are_found_page_by_page(tmp_path):
    async with intake(tmp_path) as site:
        for n in range(3000):
            await pulse(site, n + 1)
        site.ehr.requests.clear()
        assert await site.run() == 3000
        assert await site.heard() == 3000
        assert 15 <= site.ehr.requests.total() <= 17
        (event,) = await site.box.claim("c", 0.0, 1.0, 1)
        assert event.focus == Reference("Observation", site.ehr.all("Observation")[0]["id"], "1")
