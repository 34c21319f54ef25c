"""Topic Subscriptions against the practice EHR: what is lost is noticed and found, whatever the server is like.

The catch-up search runs once an hour here, so nothing that these tests see was found by it unless they say so.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import orjson
import pytest

from sidecar.metrics import REGISTRY
from sidecar.sandbox.capability import Capabilities
from sidecar.sandbox.delivery import DeliveryPolicy
from sidecar.sandbox.ehr import PracticeEhr
from sidecar.sandbox.quirks import Backport
from sidecar.sandbox.topics import changed_topic
from tests.harness import House, house, now, observation_set, reading, until

SOURCES = ("patient", "encounter", "observation", "condition")
QUIRKS = {
    "honest": Backport(),
    "without requests": Backport(status_request=False),
    "in camel case": Backport(names="camel"),
    "with dates for instants": Backport(timestamp="valueDate"),
    "with relative references": Backport(references="relative"),
    "with versioned foci": Backport(versioned_focus=True),
    "with the status of R4B": Backport(status_resource="SubscriptionStatus"),
    "that counts within a bundle": Backport(counters="bundle"),
    "without handshake or heartbeat": Backport(handshake=False, heartbeat=False),
    "without operations": Backport(status_operation=False, events_operation=False),
    "without operations, saying 501": Backport(status_operation=False, events_operation=False, missing_operation=501),
}


def topics(content: str = "id-only") -> str:
    lines = [f'topics.{name} = "{changed_topic(name.capitalize())}"' for name in SOURCES]
    return "\n".join([*lines, 'heartbeat = "1s"', f'content = "{content}"'])


@contextlib.asynccontextmanager
async def topic_house(
    folder, backport: Backport | None = None, content: str = "id-only", **policy: float
) -> AsyncIterator[House]:
    ehr = PracticeEhr(
        capabilities=Capabilities(backport=backport or Backport()), delivery=DeliveryPolicy(second_s=0.2, **policy)
    )
    more = {"subscriptions": topics(content), "work": 'catch_up_interval = "1h"\ncatch_up_overlap = "5s"'}
    async with house(folder, ehr, **more) as site:
        await site.admit("p1")
        await searched(site)
        yield site


async def searched(site: House) -> None:
    """Wait until the searches that follow each activation are over."""

    async def over() -> bool:
        states = await site.rows("SELECT status FROM subscription")
        pings = await site.rows("SELECT id FROM event WHERE focus_type IS NULL AND state = 'pending'")
        done = await site.rows("SELECT DISTINCT source FROM event WHERE focus_type IS NULL")
        return {s["status"] for s in states} == {"active"} and not pings and len(done) == len(SOURCES)

    await until(over)


async def searches(site: House) -> int:
    return len(await site.rows("SELECT id FROM event WHERE focus_type IS NULL"))


async def heard(site: House, count: int) -> bool:
    """Whether an event of each of so many readings was heard."""
    return len(await site.rows("SELECT DISTINCT focus_key FROM event WHERE source = 'observation'")) == count + 1


def gaps(how: str) -> float:
    return REGISTRY.get_sample_value("sidecar_subscription_gaps_total", {"source": "observation", "how": how}) or 0


async def numbers(site: House, source: str = "observation") -> dict:
    (row,) = await site.rows(f"SELECT numbers FROM subscription WHERE source = '{source}'")
    return orjson.loads(row["numbers"])


async def counted(site: House, events: int) -> bool:
    """Whether the readings' Subscription is followed up to its nth event, with nothing missing."""
    found = await numbers(site)
    return found["mark"] == found["told"] == events and not found["ahead"]


async def result(site: House, status: str = "final") -> None:
    await until(lambda: [r["status"] for r in site.risk_assessments()] == [status])


@pytest.mark.parametrize("content", ["empty", "id-only", "full-resource"])
async def test_whatever_notifications_carry_the_patient_is_assessed_once(tmp_path, content):
    async with topic_house(tmp_path, content=content) as site:
        await site.chart(observation_set("p1", now(1)))
        await result(site)
        await site.settled()
        assert len(site.risk_assessments()) == 1


@pytest.mark.parametrize("quirk", QUIRKS)
async def test_a_patient_is_assessed_by_a_server(tmp_path, quirk):
    async with topic_house(tmp_path, QUIRKS[quirk]) as site:
        await site.chart(observation_set("p1", now(1)))
        await result(site)
        await site.settled()
        assert len(site.risk_assessments()) == 1


async def test_every_number_is_counted_and_none_is_missed(tmp_path):
    async with topic_house(tmp_path) as site:
        await site.chart(observation_set("p1", now(1)))
        await result(site)

        await until(lambda: counted(site, 7))
        assert not await site.rows("SELECT id FROM notice WHERE kind = 'event-notification'")


async def test_a_lost_notification_is_fetched_by_its_number_without_a_search(tmp_path):
    async with topic_house(tmp_path) as site:
        before, closed = await searches(site), gaps("events")
        site.ehr.faults.lose_next(1)
        await site.chart(observation_set("p1", now(1)))
        await until(lambda: gaps("events") == closed + 1)
        await until(lambda: heard(site, 7))
        assert await searches(site) == before


async def test_a_lost_last_notification_is_noticed_by_the_next_heartbeat(tmp_path):
    async with topic_house(tmp_path) as site:
        *readings, last = observation_set("p1", now(1))
        await site.chart(readings)
        await site.settled()
        before = await searches(site)
        site.ehr.faults.lose_next(1)
        await site.chart([last])
        await result(site)
        assert await searches(site) == before


async def test_what_the_ehr_no_longer_has_is_searched_for(tmp_path):
    async with topic_house(tmp_path, Backport(retention=1)) as site:
        closed = gaps("search")
        site.ehr.faults.lose_next(3)
        await site.chart(observation_set("p1", now(1)))
        await until(lambda: gaps("search") == closed + 1)
        await until(lambda: heard(site, 7))


async def test_a_server_without_the_events_operation_is_searched(tmp_path):
    async with topic_house(tmp_path, Backport(events_operation=False)) as site:
        closed = gaps("search")
        site.ehr.faults.lose_next(3)
        await site.chart(observation_set("p1", now(1)))
        await until(lambda: gaps("search") == closed + 1)
        await until(lambda: heard(site, 7))


async def test_notifications_out_of_order_are_no_gap(tmp_path):
    async with topic_house(tmp_path, reorder_hold_s=0.02) as site:
        before = (gaps("events"), gaps("search"), gaps("restart"))
        site.ehr.faults.reorder = 1.0
        await site.chart(observation_set("p1", now(1)))
        await result(site)
        await site.settled()
        assert (gaps("events"), gaps("search"), gaps("restart")) == before


async def test_a_deletion_is_told_and_the_result_is_withdrawn(tmp_path):
    async with topic_house(tmp_path) as site:
        readings = observation_set("p1", now(1))
        await site.chart(readings)
        await result(site)
        for each in readings:
            await site.ehr.remove("Observation", each["id"])
        await result(site, "entered-in-error")


async def test_a_subscription_that_fell_silent_is_asked_about_caught_up_with_and_asked_for_again(tmp_path):
    async with topic_house(tmp_path) as site:
        (mine,) = [s for s in site.ehr.all("Subscription") if s["criteria"].endswith("observation-changed")]
        await site.ehr.write(mine | {"status": "off"})
        await site.chart(observation_set("p1", now(1)))
        await result(site)
        again = site.ehr.read("Subscription", mine["id"])
        assert again["status"] == "active"
        assert again["channel"]["header"] != mine["channel"]["header"]


async def test_a_subscription_that_was_deleted_is_made_again(tmp_path):
    async with topic_house(tmp_path) as site:
        (mine,) = [s for s in site.ehr.all("Subscription") if s["criteria"].endswith("observation-changed")]
        await site.ehr.remove("Subscription", mine["id"])
        await site.chart(observation_set("p1", now(1)))
        await result(site)
        (made,) = [s for s in site.ehr.all("Subscription") if s["criteria"].endswith("observation-changed")]
        assert made["id"] != mine["id"]
        await until(lambda: site.ehr.read("Subscription", made["id"])["status"] == "active")


async def test_a_server_that_began_to_count_anew_is_searched_and_followed_from_its_new_count(tmp_path):
    async with topic_house(tmp_path) as site:
        await site.chart(observation_set("p1", now(5)))
        await until(lambda: counted(site, 7))
        restarts = gaps("restart")
        site.ehr.faults.lose = 1.0
        await site.chart(observation_set("p1", now(1), c9279_1=26))
        site.ehr.faults.lose = 0.0
        await site.ehr.restart()
        await until(lambda: gaps("restart") == restarts + 1)
        await until(lambda: heard(site, 14))
        await site.chart([reading("p1", "8867-4", 71, now())])
        await until(lambda: counted(site, 1))


async def test_a_late_repeat_is_not_taken_for_a_server_that_began_anew(tmp_path):
    async with topic_house(tmp_path) as site:
        restarts = gaps("restart")
        site.ehr.faults.late_s = 0.3
        site.ehr.faults.mishap_next("repeat")
        site.ehr.faults.late = 1.0
        await site.chart(observation_set("p1", now(1))[:1])
        site.ehr.faults.late = 0.0
        await site.chart(observation_set("p1", now(1))[1:])
        await result(site)
        await site.settled()
        await until(lambda: counted(site, 7))
        assert gaps("restart") == restarts


async def test_a_mute_server_is_asked_how_many_events_there_are(tmp_path):
    async with topic_house(tmp_path) as site:
        site.ehr.faults.mute = True
        await site.chart(observation_set("p1", now(1)))
        await result(site)
        assert site.ehr.requests["GET", "Subscription/{id}/$status"] >= 1


async def test_a_server_that_refuses_to_say_how_a_subscription_stands_is_asked_more_and_more_rarely(tmp_path):
    async with topic_house(tmp_path) as site:
        asked = "GET", "Subscription/{id}/$status"
        site.ehr.faults.fail_next(1_000_000, 401, only=" ".join(asked))
        site.ehr.faults.mute = True
        await until(lambda: site.ehr.requests[asked] > 0)
        began, before = time.monotonic(), site.ehr.requests[asked]
        await until(lambda: site.ehr.requests[asked] >= before + 3 * len(SOURCES), 60)
        # With a tenth of a second between looks this would be 0.3 s; pauses double from 0.5 s.
        assert time.monotonic() - began > 1.5


async def test_a_topic_that_cannot_filter_is_taken_without_filters(tmp_path):
    ehr = PracticeEhr(delivery=DeliveryPolicy(second_s=0.2))
    await ehr.start()
    topic = next(b for b in ehr.all("Basic") if changed_topic("Observation") in orjson.dumps(b).decode())
    plain = [e for e in topic["extension"] if not e["url"].endswith("canFilterBy")]
    await ehr.write(topic | {"extension": plain})
    async with house(tmp_path, ehr, subscriptions=topics(), work='catch_up_interval = "1h"') as site:
        (mine,) = [s for s in ehr.all("Subscription") if s["criteria"] == changed_topic("Observation")]
        assert "_criteria" not in mine
        await site.admit("p1")
        await site.chart(observation_set("p1", now(1)))
        await result(site)


async def test_a_subscription_ends_and_is_renewed_while_it_is_in_use(tmp_path):
    ehr = PracticeEhr(delivery=DeliveryPolicy(second_s=0.2))
    life = topics() + '\nlife = "3s"'
    async with house(tmp_path, ehr, subscriptions=life, work='catch_up_interval = "1h"') as site:
        await site.admit("p1")
        headers = set()
        started = time.monotonic()
        while time.monotonic() < started + 6:
            headers |= {s["channel"]["header"][0] for s in ehr.all("Subscription") if "observation" in s["criteria"]}
            await site.chart([reading("p1", "8867-4", 70, now(1))])
            await asyncio.sleep(0.1)
        assert len(headers) >= 3
        await site.chart(observation_set("p1", now(1)))
        await result(site)


def test_the_table_of_quirks_has_each_of_them():
    changed = {
        name
        for quirk in QUIRKS.values()
        for name in Backport.__dataclass_fields__
        if getattr(quirk, name) != getattr(Backport(), name)
    }
    elsewhere = {"advertised", "contents", "sends", "retention"}
    assert changed | elsewhere == set(Backport.__dataclass_fields__)
    assert replace(Backport()) == QUIRKS["honest"]
