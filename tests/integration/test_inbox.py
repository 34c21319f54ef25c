"""The inbox on a real database: nothing heard is lost, nothing is settled twice. Time is an argument."""

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from sidecar import operations
from sidecar.errors import ClaimLost
from sidecar.inbox import ClaimedEvent, EventBox, ModelWait, WorkBox, WorkItem
from sidecar.records import Event, PatientId, Reference
from sidecar.store import Cipher, Statement, Step, Store
from tests.harness import ENGINES, cipher_in, open_store

WAIT = ModelWait("a", 2.0, 5.0)
BOTH = [ModelWait("a", 0.0, 0.0), ModelWait("b", 0.0, 0.0)]
P1, P2 = PatientId("p1"), PatientId("p2")
MARK = Statement("mark", "INSERT INTO device (model_digest, remote_id) VALUES (:name, 'x')")


class Inbox:
    """Both boxes over one store, with the few questions tests ask."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self.store, self.cipher = store, cipher
        self.events, self.work = EventBox(store, cipher), WorkBox(store, cipher)

    def key(self, focus: str) -> bytes:
        return self.cipher.token("resource", "Observation", focus)

    async def rows(self, sql: str, **parameters: object) -> list[dict[str, object]]:
        return [dict(r) for r in await self.store.read(Statement("test", sql), **parameters)]

    async def count(self, sql: str, **parameters: object) -> int:
        return len(await self.rows(sql, **parameters))

    async def states(self) -> list[object]:
        return [r["state"] for r in await self.rows("SELECT state FROM event ORDER BY id")]

    async def route(self, event: ClaimedEvent, now: float, *waits: ModelWait, patient: PatientId = P1) -> None:
        await self.store.commit(*self.events.routed(event, [(patient, wait) for wait in waits or BOTH], now))

    async def heard(self, focus: str, now: float, *waits: ModelWait, patient: PatientId = P1) -> None:
        """Record, claim and route one event."""
        await self.events.record(news(focus, str(now), now))
        (event,) = await self.events.claim(f"e{now}", now, 10)
        await self.route(event, now, *waits, patient=patient)

    async def settle(self, item: WorkItem, assessment: str = "x.1", now: float = 0.0) -> None:
        await self.store.commit(*self.work.settled(item.claim, assessment, "scored", now))

    async def bury(self, item: WorkItem, now: float = 0.0) -> None:
        await self.store.commit(*self.work.buried(item.claim, "shape:test", now))


@pytest.fixture(params=ENGINES)
def inbox(tmp_path, request) -> Iterator[Inbox]:
    with open_store(tmp_path, request.param) as store:
        yield Inbox(store, cipher_in(tmp_path))


def news(
    focus: str,
    version: str | None = "1",
    heard_at: float = 0.0,
    updated: str | None = "t1",
    source: str = "observation",
) -> Event:
    return Event(source, heard_at, Reference("Observation", focus, version), updated)


# --- recording -------------------------------------------------------------------------------------------------------


async def test_the_same_version_is_recorded_once(inbox):
    for _ in range(3):
        await inbox.events.record(news("o1"), news("o1"))
    assert await inbox.count("SELECT id FROM event") == 1


async def test_another_source_type_id_version_or_last_updated_is_another_event(inbox):
    await inbox.events.record(
        news("o1"), news("o1", source="review"), news("o2"), news("o1", "2"), news("o1", updated="t2"),
        Event("observation", 0.0, Reference("Patient", "o1", "1"), "t1"),
    )  # fmt: skip
    assert await inbox.count("SELECT id FROM event") == 6


async def test_the_same_version_with_another_last_updated_is_news_since_a_restarted_server_numbers_from_one(inbox):
    await inbox.events.record(news("o1", "1", updated="2026-01-01T00:00:00Z"))
    await inbox.events.record(news("o1", "1", updated="2026-01-02T00:00:00Z"))
    assert await inbox.count("SELECT id FROM event") == 2


@pytest.mark.parametrize(
    "event",
    [news("o1", None, updated=None), news("o1", "1", updated=None), Event("observation", 0.0)],
    ids=["unversioned", "undated", "ping"],
)
async def test_what_has_no_version_merges_with_one_that_nobody_has_claimed(inbox, event):
    await inbox.events.record(event)
    await inbox.events.record(event, event)
    assert await inbox.count("SELECT id FROM event") == 1


async def test_a_ping_that_merged_into_one_waiting_is_not_answered_by_a_search_that_began_before_it(inbox):
    await inbox.events.record(Event("observation", 10.0))
    await inbox.events.record(Event("observation", 30.0), Event("observation", 5.0))
    await inbox.store.commit(inbox.events.answered_pings("observation", began=20.0, now=40.0))
    assert await inbox.count("SELECT id FROM event WHERE state = 'pending' AND heard_at = 30.0") == 1
    await inbox.store.commit(inbox.events.answered_pings("observation", began=30.0, now=50.0))
    assert await inbox.count("SELECT id FROM event WHERE state = 'pending'") == 0


@pytest.mark.parametrize(
    "event", [news("o1", None, updated=None), Event("observation", 0.0)], ids=["unversioned", "ping"]
)
async def test_what_has_no_version_is_news_once_the_other_was_claimed(inbox, event):
    await inbox.events.record(event)
    await inbox.events.claim("c", 0, 10, pings=event.focus is None)
    await inbox.events.record(event)
    assert await inbox.count("SELECT id FROM event") == 2


async def test_the_focus_comes_back_as_it_was_recorded(inbox):
    await inbox.events.record(news("o1", heard_at=7.5))
    (event,) = await inbox.events.claim("c", 10, 10)
    assert event.focus == Reference("Observation", "o1", "1")
    assert (event.source, event.heard_at, event.attempts, event.focus_key) == ("observation", 7.5, 1, inbox.key("o1"))


# --- claiming events -------------------------------------------------------------------------------------------------


async def test_two_claims_never_own_the_same_event(inbox):
    await inbox.events.record(*(news(f"o{n}") for n in range(40)))
    claims = await asyncio.gather(*(inbox.events.claim(f"c{n}", 0, 10, 8) for n in range(8)))
    owned = [event.id for claim in claims for event in claim]
    assert len(owned) == len(set(owned)) == 40


async def test_events_are_claimed_oldest_first(inbox):
    for n in range(6):
        await inbox.events.record(news(f"o{n}"))
    first, second = await inbox.events.claim("c1", 0, 10, 3), await inbox.events.claim("c2", 0, 10, 3)
    assert [e.focus.id for e in (*first, *second)] == [f"o{n}" for n in range(6)]


async def test_a_claim_holds_until_its_lease_ends_and_no_longer(inbox):
    await inbox.events.record(news("o1"))
    await inbox.events.claim("c1", 100, 10)
    assert await inbox.events.claim("c2", 109.9, 10) == []
    assert len(await inbox.events.claim("c3", 110, 10)) == 1


async def test_a_released_event_waits_until_it_is_due_and_counts_the_attempt(inbox):
    await inbox.events.record(news("o1"))
    (event,) = await inbox.events.claim("c1", 0, 10)
    await inbox.events.release(event, 50, tried=True)
    assert await inbox.events.claim("c2", 49, 10) == []
    (again,) = await inbox.events.claim("c3", 50, 10)
    assert (event.attempts, again.attempts) == (1, 2)


async def test_a_claim_that_crashed_counts_as_an_attempt(inbox):
    """What kills its worker every time must wear out, too."""
    await inbox.heard("o2", 0.5, WAIT)
    await inbox.events.record(news("o1"))
    await inbox.work.claim("w1", 100, 10, 16)
    await inbox.events.claim("c2", 100, 10)
    (event,) = await inbox.events.claim("c3", 200, 10)
    (item,) = await inbox.work.claim("w2", 200, 10, 16)
    assert (event.attempts, item.attempts) == (2, 2)


async def test_an_extended_claim_holds_for_longer_and_a_lost_one_is_left_alone(inbox):
    await inbox.heard("o1", 0.0, WAIT)
    await inbox.events.record(news("o2"))
    events, items = await inbox.events.claim("c1", 100, 10), await inbox.work.claim("w1", 100, 10, 16)
    await inbox.events.extend(events, 150)
    await inbox.work.extend(items, 150)
    assert (await inbox.events.claim("c2", 149, 10), await inbox.work.claim("w2", 149, 10, 16)) == ([], [])
    assert len(await inbox.events.claim("c3", 150, 10)) == len(await inbox.work.claim("w3", 150, 10, 16)) == 1
    await inbox.events.extend(events, 900)
    await inbox.work.extend(items, 900)
    assert len(await inbox.events.claim("c4", 160, 10)) == len(await inbox.work.claim("w4", 160, 10, 16)) == 1


async def test_pings_are_claimed_apart_from_events_so_neither_waits_for_the_other(inbox):
    await inbox.events.record(Event("observation", 0.0), news("o1"))
    (event,), (ping,) = await inbox.events.claim("c1", 0, 10), await inbox.events.claim("c2", 0, 10, pings=True)
    assert (event.focus.id, ping.focus) == ("o1", None)


async def test_an_event_may_concern_several_patients_and_ends_when_each_was_assessed(inbox):
    await inbox.events.record(news("o1"))
    (event,) = await inbox.events.claim("c1", 0, 10)
    await inbox.store.commit(*inbox.events.routed(event, [(P1, BOTH[0]), (P2, BOTH[0])], 0))
    first, second = await inbox.work.claim("w", 100, 10, 16)
    assert {first.patient, second.patient} == {P1, P2}
    await inbox.settle(first)
    assert await inbox.states() == ["routed"]
    await inbox.settle(second)
    assert await inbox.states() == ["done"]


async def test_an_event_that_was_forgotten_when_it_ended_may_come_again(inbox):
    for _ in range(2):
        await inbox.events.record(news("o1"))
        (event,) = await inbox.events.claim("c1", 0, 10)
        await inbox.store.commit(inbox.events.finished(event, "no_model", 0, forget=True))
    assert await inbox.states() == ["done", "done"]


async def test_an_outage_is_not_an_attempt(inbox):
    await inbox.events.record(news("o1"))
    (event,) = await inbox.events.claim("c1", 0, 10)
    await inbox.events.release(event, 0, tried=False)
    assert (await inbox.events.claim("c2", 0, 10))[0].attempts == 1


async def test_a_claim_that_lost_its_lease_cannot_route_finish_bury_or_release(inbox):
    await inbox.events.record(news("o1"))
    (old,) = await inbox.events.claim("c1", 0, 10)
    await inbox.events.claim("c2", 20, 10)
    attempts = (
        inbox.events.routed(old, [(P1, BOTH[0])], 20),
        [inbox.events.finished(old, "gone", 20)],
        [inbox.events.buried(old, "x", 20)],
    )
    for steps in attempts:
        with pytest.raises(ClaimLost):
            await inbox.store.commit(Step(MARK, [{"name": "left"}]), *steps)
    await inbox.events.release(old, 0, tried=True)
    assert await inbox.rows("SELECT state, claim, attempts FROM event") == [
        {"state": "pending", "claim": "c2", "attempts": 2}
    ]
    for table in ("work", "cause", "device"):
        assert await inbox.count(f"SELECT * FROM {table}") == 0


async def test_an_event_whose_focus_cannot_be_decrypted_is_set_aside_and_the_others_go_on(inbox):
    await inbox.events.record(news("o1"), news("o2"), news("o3"))
    harm = Statement("harm", "UPDATE event SET focus = :focus WHERE focus_key = :key")
    await inbox.store.commit(Step(harm, [{"focus": b"\x01\xff", "key": inbox.key("o2")}]))
    assert {e.focus.id for e in await inbox.events.claim("c", 0, 10)} == {"o1", "o3"}
    assert (await inbox.rows("SELECT state, reason FROM event WHERE state = 'buried'")) == [
        {"state": "buried", "reason": "sealed:does_not_open"}
    ]


# --- a patient's work ------------------------------------------------------------------------------------------------


async def test_events_of_a_patient_are_one_row_of_work_a_model_however_many_wait(inbox):
    for n in range(9):
        await inbox.heard(f"o{n}", float(n), patient=P1 if n % 3 else P2)
    assert await inbox.count("SELECT * FROM work") == 4
    items = await inbox.work.claim("w", 100, 10, 16)
    assert sorted((i.patient.value, i.claim.model, len(i.focus_keys)) for i in items) == [
        ("p1", "a", 6),
        ("p1", "b", 6),
        ("p2", "a", 3),
        ("p2", "b", 3),
    ]


async def test_work_waits_for_the_debounce_after_the_last_event(inbox):
    await inbox.heard("o1", 100.0, WAIT)
    await inbox.heard("o2", 101.0, WAIT)
    assert await inbox.work.claim("w", 102.9, 10, 16) == []
    assert len(await inbox.work.claim("w", 103.0, 10, 16)) == 1


async def test_the_debounce_is_bounded_by_the_maximum_wait(inbox):
    for second in range(10):
        await inbox.heard(f"o{second}", 100.0 + second, WAIT)
        if second < 5:
            assert await inbox.work.claim("early", 100.0 + second, 10, 16) == []
    assert len(await inbox.work.claim("w", 109.0, 10, 16)) == 1
    assert (await inbox.rows("SELECT due_at FROM work")) == [{"due_at": 105.0}]


async def test_work_that_is_due_and_nobody_has_begun_stays_due_and_takes_along_what_is_heard_since(inbox):
    await inbox.heard("o1", 100.0, WAIT)
    await inbox.heard("o2", 102.5, WAIT)
    (item,) = await inbox.work.claim("w", 102.5, 60, 16)
    assert item.focus_keys == {inbox.key("o1"), inbox.key("o2")}


async def test_a_debounce_longer_than_the_maximum_wait_is_bounded_too(inbox):
    await inbox.heard("o1", 100.0, ModelWait("a", 60.0, 5.0))
    assert len(await inbox.work.claim("w", 105.0, 10, 16)) == 1


async def test_the_wait_begins_anew_for_events_that_come_after_a_claim(inbox):
    await inbox.heard("o1", 100.0, WAIT)
    (item,) = await inbox.work.claim("w", 102.0, 60, 16)
    await inbox.heard("o2", 110.0, WAIT)
    await inbox.settle(item)
    assert await inbox.work.claim("w2", 111.9, 10, 16) == []
    (again,) = await inbox.work.claim("w3", 112.0, 10, 16)
    assert (again.heard_at, again.focus_keys) == (110.0, frozenset({inbox.key("o2")}))


async def test_one_assessment_completes_every_event_that_waited(inbox):
    for n in range(5):
        await inbox.heard(f"o{n}", float(n), WAIT)
    (item,) = await inbox.work.claim("w", 100, 10, 16)
    await inbox.settle(item)
    assert await inbox.states() == ["done"] * 5
    assert await inbox.count("SELECT * FROM work") == 0


async def test_an_event_is_complete_only_when_every_model_answered(inbox):
    await inbox.heard("o1", 0.0)
    first, second = await inbox.work.claim("w", 100, 10, 16)
    await inbox.settle(first)
    assert await inbox.states() == ["routed"]
    await inbox.settle(second)
    assert await inbox.states() == ["done"]


async def test_what_is_heard_during_an_assessment_is_assessed_after_it(inbox):
    await inbox.heard("o1", 0.0, WAIT)
    (item,) = await inbox.work.claim("w", 100, 10, 16)
    await inbox.heard("o2", 100.0, WAIT)
    await inbox.settle(item)
    assert await inbox.states() == ["done", "routed"]
    (again,) = await inbox.work.claim("w2", 200, 10, 16)
    await inbox.settle(again)
    assert await inbox.states() == ["done", "done"]


async def test_an_older_event_routed_during_an_assessment_is_not_answered_by_it(inbox):
    """A correction whose read-back had to be retried: the assessment under way never looked at what it corrects."""
    await inbox.events.record(news("corrected", heard_at=1.0))
    await inbox.events.record(news("new", heard_at=2.0))
    corrected, new = await inbox.events.claim("e", 2, 60)
    await inbox.route(new, 2.0, WAIT)
    (item,) = await inbox.work.claim("w", 10, 60, 16)
    await inbox.route(corrected, 11.0, WAIT)
    await inbox.settle(item)
    (again,) = await inbox.work.claim("w2", 100, 10, 16)
    assert again.focus_keys == {inbox.key("corrected")}
    await inbox.settle(again)
    assert await inbox.states() == ["done", "done"]


async def test_work_that_lost_its_lease_cannot_settle_and_nothing_of_its_transaction_remains(inbox):
    await inbox.heard("o1", 0.0, WAIT)
    (old,) = await inbox.work.claim("w1", 100, 10, 16)
    (new,) = await inbox.work.claim("w2", 110, 10, 16)
    for steps in (inbox.work.settled(old.claim, "x.1", "scored", 0), inbox.work.buried(old.claim, "x", 0)):
        with pytest.raises(ClaimLost):
            await inbox.store.commit(Step(MARK, [{"name": "left"}]), *steps)
    await inbox.work.release(old.claim, 0, tried=True)
    assert await inbox.count("SELECT * FROM device") == 0
    assert await inbox.states() == ["routed"]
    await inbox.settle(new)
    assert await inbox.states() == ["done"]


async def test_a_lease_that_ran_out_unnoticed_may_still_settle_once(inbox):
    await inbox.heard("o1", 0.0, WAIT)
    (item,) = await inbox.work.claim("w1", 100, 10, 16)
    await inbox.settle(item, now=500.0)
    with pytest.raises(ClaimLost):
        await inbox.settle(item, now=501.0)


async def test_released_work_counts_its_attempts_and_keeps_its_events(inbox):
    await inbox.heard("o1", 0.0, WAIT)
    (item,) = await inbox.work.claim("w1", 100, 10, 16)
    await inbox.work.release(item.claim, 130, tried=True)
    assert await inbox.work.claim("w2", 129, 10, 16) == []
    (again,) = await inbox.work.claim("w3", 130, 10, 16)
    assert (again.attempts, again.focus_keys) == (2, item.focus_keys)


async def test_work_whose_patient_cannot_be_decrypted_is_set_aside_and_the_others_go_on(inbox):
    await inbox.heard("o1", 0.0, WAIT, patient=P1)
    await inbox.heard("o2", 1.0, WAIT, patient=P2)
    harm = Statement("harm", "UPDATE work SET patient = :patient WHERE last_event_id = 1")
    await inbox.store.commit(Step(harm, [{"patient": b"\x01\xff"}]))
    assert [i.patient.value for i in await inbox.work.claim("w", 100, 10, 16)] == ["p2"]
    assert await inbox.states() == ["buried", "routed"]


# --- burying and replaying -------------------------------------------------------------------------------------------


async def buried(inbox: Inbox) -> ClaimedEvent:
    await inbox.events.record(news("o1"))
    (event,) = await inbox.events.claim("c", 0, 10)
    await inbox.store.commit(inbox.events.buried(event, "grammar:id", 0))
    return event


async def test_a_buried_event_stays_with_its_reason_and_is_not_claimed(inbox):
    await buried(inbox)
    assert await inbox.events.claim("c2", 1e9, 10) == []
    (letter,) = await operations.dead_letters(inbox.store)
    assert (letter["kind"], letter["reason"]) == ("event", "grammar:id")


async def test_a_buried_event_is_not_pruned(inbox):
    await buried(inbox)
    await inbox.events.prune(1e9, 1, 1)
    assert await inbox.states() == ["buried"]


async def test_a_replayed_event_goes_the_whole_way(inbox):
    event = await buried(inbox)
    assert await operations.replay(inbox.store, str(event.id)) == 1
    (again,) = await inbox.events.claim("c2", 10, 10)
    assert (again.focus, again.attempts) == (event.focus, 1)
    await inbox.route(again, 10)
    for item in await inbox.work.claim("w", 20, 10, 16):
        await inbox.settle(item)
    assert await inbox.states() == ["done"]


async def test_an_id_that_no_integer_column_can_hold_replays_nothing_and_harms_nothing(inbox):
    await buried(inbox)
    for letter in ("9" * 30, "²", "-1", "", "1 OR 1=1", "\x00"):
        assert await operations.replay(inbox.store, letter) == 0, letter
    assert await inbox.states() == ["buried"]
    assert await operations.replay(inbox.store, None) == 1


async def test_a_replay_of_a_model_that_failed_also_completes_when_the_other_had_answered(inbox):
    await inbox.heard("o1", 0.0)
    a, b = sorted(await inbox.work.claim("w", 100, 10, 16), key=lambda i: i.claim.model)
    await inbox.settle(a)
    await inbox.bury(b)
    assert await inbox.states() == ["buried"]
    assert await operations.replay(inbox.store, None) == 1
    (event,) = await inbox.events.claim("c2", 200, 10)
    await inbox.route(event, 200)
    for item in await inbox.work.claim("w2", 300, 10, 16):
        assert item.focus_keys == {inbox.key("o1")}
        await inbox.settle(item)
    assert await inbox.states() == ["done"]
    assert await inbox.count("SELECT * FROM work") == 0


async def test_a_replay_completes_when_a_later_event_of_the_patient_was_assessed_meanwhile(inbox):
    await inbox.heard("o1", 0.0, WAIT)
    (item,) = await inbox.work.claim("w", 100, 10, 16)
    await inbox.bury(item)
    await inbox.heard("o2", 100.0, WAIT)
    (later,) = await inbox.work.claim("w2", 200, 10, 16)
    await inbox.settle(later)
    await operations.replay(inbox.store, None)
    (event,) = await inbox.events.claim("c2", 300, 10)
    await inbox.route(event, 300, WAIT)
    (again,) = await inbox.work.claim("w3", 400, 10, 16)
    assert again.focus_keys == {inbox.key("o1")}
    await inbox.settle(again)
    assert await inbox.states() == ["done", "done"]


async def test_a_replay_completes_when_the_model_that_failed_runs_no_more(inbox):
    await inbox.heard("o1", 0.0)
    a, b = sorted(await inbox.work.claim("w", 100, 10, 16), key=lambda i: i.claim.model)
    await inbox.settle(a)
    await inbox.bury(b)
    await operations.replay(inbox.store, None)
    (event,) = await inbox.events.claim("c2", 200, 10)
    await inbox.route(event, 200, BOTH[0])
    (again,) = await inbox.work.claim("w2", 300, 10, 16)
    await inbox.settle(again)
    assert await inbox.states() == ["done"]


async def test_a_replay_follows_the_event_to_another_patient(inbox):
    """The EHR moved the reading to the right chart after we had buried it."""
    await inbox.heard("o1", 0.0, WAIT, patient=P1)
    (item,) = await inbox.work.claim("w", 100, 10, 16)
    await inbox.bury(item)
    await operations.replay(inbox.store, None)
    (event,) = await inbox.events.claim("c2", 200, 10)
    await inbox.route(event, 200, WAIT, patient=P2)
    (again,) = await inbox.work.claim("w2", 300, 10, 16)
    assert (again.patient, again.focus_keys) == (P2, frozenset({inbox.key("o1")}))
    await inbox.settle(again)
    assert await inbox.states() == ["done"]


async def test_one_model_failing_does_not_hide_the_event_from_the_other(inbox):
    await inbox.heard("o1", 0.0)
    (a,) = [i for i in await inbox.work.claim("w", 100, 10, 16) if i.claim.model == "a"]
    await inbox.bury(a)
    (b,) = await inbox.work.claim("w2", 200, 10, 16)
    assert (b.claim.model, b.focus_keys) == ("b", frozenset({inbox.key("o1")}))


# --- retention -------------------------------------------------------------------------------------------------------


async def done(inbox: Inbox, at: float) -> None:
    await inbox.heard("o1", at, BOTH[0])
    (item,) = await inbox.work.claim("w", at, 10, 16)
    await inbox.settle(item, now=at)


async def test_a_completed_event_is_kept_for_its_retention_and_then_deleted(inbox):
    await done(inbox, 1000.0)
    await inbox.events.prune(1010.0, 10, 1e6)
    assert await inbox.count("SELECT * FROM event") == 1
    await inbox.events.prune(1010.1, 10, 1e6)
    assert await inbox.count("SELECT * FROM event") == 0
    assert await inbox.count("SELECT * FROM cause") == 0


async def test_what_is_not_completed_is_never_pruned(inbox):
    await inbox.heard("o1", 0.0)
    await inbox.events.record(news("o2"))
    await inbox.events.prune(1e9, 1, 1)
    assert await inbox.states() == ["routed", "pending"]


async def test_a_deleted_event_still_stops_its_repeat_until_the_dedupe_retention_ends(inbox):
    await done(inbox, 1000.0)
    repeat = news("o1", "1000.0", 2000.0)
    await inbox.events.prune(2000.0, 10, 5000)
    await inbox.events.record(repeat)
    assert await inbox.count("SELECT * FROM event") == 0
    await inbox.events.prune(6000.1, 10, 5000)
    await inbox.events.record(repeat)
    assert await inbox.count("SELECT * FROM event") == 1


# --- any interleaving ------------------------------------------------------------------------------------------------

FOCUS = st.sampled_from(["o1", "o2", "o3"])
PICK = st.integers(0, 7)


class AnyInterleaving(RuleBasedStateMachine):
    """Record, claim, route, crash, release, settle, bury and replay in any order: every event is answered in the end.

    Answered means: by each model, in an assessment that was claimed after the event was heard and knew its focus.
    """

    engine = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.inbox = Inbox(self.stack.enter_context(open_store(folder, self.engine)), cipher_in(folder))
        self.runner = self.stack.enter_context(asyncio.Runner())
        self.now, self.steps, self.names = 1000.0, itertools.count(), itertools.count()
        self.heard: list[tuple[str | None, int]] = []
        self.known: set[tuple[str, str]] = set()
        self.events: list[tuple[ClaimedEvent, int]] = []
        self.items: list[tuple[WorkItem, int]] = []
        self.answered: dict[tuple[str, bytes | None], int] = {}

    def run(self, coroutine):
        return self.runner.run(coroutine)

    @rule(focus=FOCUS, version=st.sampled_from(["1", "2", None]))
    def record(self, focus, version):
        updated = "t" if version else None
        self.run(self.inbox.events.record(news(focus, version, self.now, updated)))
        if version is None or (focus, version) not in self.known:
            self.heard.append((focus, next(self.steps)))
            self.known.add((focus, version or ""))

    @rule()
    def ping(self):
        self.run(self.inbox.events.record(Event("observation", self.now)))
        self.heard.append((None, next(self.steps)))

    @rule(seconds=st.sampled_from([0.5, 3.0, 20.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(most=st.integers(1, 4), pings=st.booleans())
    def claim_events(self, most, pings):
        at, name = next(self.steps), f"e{next(self.names)}"
        self.events += [(e, at) for e in self.run(self.inbox.events.claim(name, self.now, 10, most, pings=pings))]

    @rule(most=st.integers(1, 4))
    def claim_work(self, most):
        at = next(self.steps)
        self.items += [(i, at) for i in self.run(self.inbox.work.claim(f"w{next(self.names)}", self.now, 10, most))]

    @rule(pick=PICK, how=st.sampled_from(["route", "route", "release", "bury", "crash"]))
    def event_goes_on(self, pick, how):
        if self.events:
            self.run(self.one_event(*self.events.pop(pick % len(self.events)), how))

    async def one_event(self, event: ClaimedEvent, at: int, how: str) -> None:
        if how == "release":
            await self.inbox.events.release(event, self.now, tried=True)
        elif how != "crash":
            steps = [self.inbox.events.buried(event, "x", self.now)]
            if how == "route" and event.focus is None:
                steps = [self.inbox.events.finished(event, "caught_up", self.now)]
            elif how == "route":
                patient = P1 if event.focus.id == "o1" else P2
                waits = [(patient, ModelWait("a", 1, 4)), (patient, ModelWait("b", 2, 4))]
                steps = self.inbox.events.routed(event, waits, self.now)
            owns = (
                await self.inbox.count(f"SELECT id FROM event WHERE id = {event.id} AND claim = '{event.claim}'") == 1
            )
            assert await self.commits(*steps) == owns
            if owns and how == "route" and event.focus is None:
                self.answered["ping", None] = max(at, self.answered.get(("ping", None), -1))

    @rule(pick=PICK, how=st.sampled_from(["settle", "settle", "release", "bury", "crash"]))
    def work_goes_on(self, pick, how):
        if self.items:
            self.run(self.one_item(*self.items.pop(pick % len(self.items)), how))

    async def one_item(self, item: WorkItem, at: int, how: str) -> None:
        if how == "release":
            await self.inbox.work.release(item.claim, self.now, tried=True)
        elif how != "crash":
            act = {
                "settle": lambda: self.inbox.work.settled(item.claim, f"x.{at}", "scored", self.now),
                "bury": lambda: self.inbox.work.buried(item.claim, "x", self.now),
            }
            owns = (
                await self.inbox.count(
                    "SELECT model FROM work WHERE claim = :token AND patient_key = :key AND model = :model",
                    token=item.claim.token,
                    key=item.claim.patient_key,
                    model=item.claim.model,
                )
                == 1
            )
            assert await self.commits(*act[how]()) == owns
            if owns and how == "settle":
                for key in item.focus_keys:
                    place = (item.claim.model, key)
                    self.answered[place] = max(at, self.answered.get(place, -1))

    async def commits(self, *steps: Step) -> bool:
        """Whether the transaction went through; when its claim was lost, nothing of it may remain."""
        name = f"m{next(self.names)}"
        try:
            await self.inbox.store.commit(Step(MARK, [{"name": name}]), *steps)
        except ClaimLost:
            assert await self.inbox.count(f"SELECT 1 FROM device WHERE model_digest = '{name}'") == 0
            return False
        return True

    @rule()
    def replay(self):
        self.run(operations.replay(self.inbox.store, None))

    @rule()
    def prune(self):
        self.run(self.inbox.events.prune(self.now, 5, 1e9))

    def drain(self) -> None:
        self.events.clear()
        self.items.clear()
        self.replay()
        for _ in range(200):
            self.now += 100
            self.claim_events(4, pings=False)
            self.claim_events(4, pings=True)
            self.claim_work(4)
            if not self.events and not self.items:
                return
            while self.events:
                self.event_goes_on(0, "route")
            while self.items:
                self.work_goes_on(0, "settle")
        raise AssertionError("work never ends")

    def teardown(self):
        try:
            self.drain()
            assert set(self.run(self.inbox.states())) <= {"done"}
            assert self.run(self.inbox.count("SELECT * FROM work")) == 0
            for focus, at in self.heard:
                for model in ("a", "b") if focus else ("ping",):
                    key = self.inbox.key(focus) if focus else None
                    assert self.answered.get((model, key), -1) > at, (focus, at, model)
        finally:
            self.stack.close()


class AnyInterleavingOnPostgres(AnyInterleaving):
    """The same on the shared engine."""

    engine = "postgres"


for machine in (AnyInterleaving, AnyInterleavingOnPostgres):
    machine.TestCase.settings = settings(
        max_examples=25, stateful_step_count=30, deadline=None, derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleavingOnPostgres = AnyInterleavingOnPostgres.TestCase


@pytest.mark.parametrize(("version", "stored"), [("7", "7"), ("123456789", "123456789"), ("1234567890", "opaque"),
                                                 ("pat-canary-7", "opaque"), ("3e9b", "opaque")])  # fmt: skip
async def test_a_version_that_is_no_counter_may_be_an_identifier_and_is_not_stored(inbox, version, stored):
    await inbox.events.record(Event("observation", 0.0, Reference("Observation", "o1", version), "t"))
    (row,) = await inbox.store.read(Statement("versions", "SELECT version FROM event"))
    assert row["version"] == stored
    await inbox.events.record(Event("observation", 0.0, Reference("Observation", "o1", version), "t"))
    assert len(await inbox.store.read(Statement("versions", "SELECT version FROM event"))) == 1
