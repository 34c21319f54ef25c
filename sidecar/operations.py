"""What operators ask of the database: how it stands, what is set aside, setting it going again; keys and forgetting."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from sidecar.errors import Misconfigured
from sidecar.inbox import events, work
from sidecar.intake import states
from sidecar.metrics import QUEUE_DEPTH, QUEUE_OLDEST
from sidecar.records import is_fhir_id
from sidecar.store import SLOW_S, Cipher, Rotation, Statement, Step, Store, forget
from sidecar.writeback import outbox

BY_STATE = Statement("events_by_state", "SELECT state, count(*) AS n FROM event GROUP BY state", within_s=SLOW_S)
WRITES_BY_STATE = Statement(
    "writes_by_state", "SELECT state, count(*) AS n FROM delivery GROUP BY state", within_s=SLOW_S
)
OUTCOMES = Statement(
    "outcomes",
    "SELECT model, outcome, count(*) AS n FROM assessment WHERE latest = 1 GROUP BY model, outcome",
    within_s=SLOW_S,
)
REASONS = Statement(
    "reasons", "SELECT reasons, count(*) AS n FROM assessment WHERE latest = 1 GROUP BY reasons", within_s=SLOW_S
)
FOR_REVIEW = Statement(
    "for_review",
    "SELECT max(id) AS id, model, review AS reason FROM assessment WHERE review IS NOT NULL "
    "GROUP BY identity, model, review ORDER BY 1 LIMIT 1000",
    within_s=SLOW_S,
)
REVIEWED = Statement(
    "reviewed",
    "UPDATE assessment SET review = NULL WHERE review IS NOT NULL "
    "AND identity = (SELECT identity FROM assessment WHERE id = :id) RETURNING id",
    within_s=SLOW_S,
)
BURIED_EVENTS = Statement(
    "buried_events",
    "SELECT id, source, reason, heard_at, attempts FROM event WHERE state = 'buried' ORDER BY id LIMIT 1000",
    within_s=SLOW_S,
)
BURIED_WRITES = Statement(
    "buried_writes",
    "SELECT assessment_id AS id, reason, heard_at, attempts FROM delivery WHERE state = 'buried' "
    "ORDER BY queued_at LIMIT 1000",
    within_s=SLOW_S,
)
STOPPED = Statement(
    "writes_stopped",
    "SELECT what FROM transition WHERE what IN ('stop-writes', 'allow-writes') ORDER BY number DESC LIMIT 1",
)

Verb = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]

_EVENT_ID = re.compile(r"[0-9]{1,18}")


async def status(store: Store) -> dict[str, Any]:
    """Counts by state, the oldest waiting, Subscriptions, outcomes and why there was no score."""
    waiting = (await store.read(events.DEPTH))[0]
    writes = (await store.read(outbox.DEPTH))[0]
    now = time.time()
    return {
        "events": {r["state"]: r["n"] for r in await store.read(BY_STATE)},
        "oldest_event_s": round(now - waiting["oldest"], 1) if waiting["oldest"] else None,
        "writes": {r["state"]: r["n"] for r in await store.read(WRITES_BY_STATE)},
        "oldest_write_s": round(now - writes["oldest"], 1) if writes["oldest"] else None,
        "writes_stopped": [r["what"] for r in await store.read(STOPPED)] == ["stop-writes"],
        "assessments": [dict(r) for r in await store.read(OUTCOMES)],
        "not_scored": await reasons(store),
        "for_review": len(await store.read(FOR_REVIEW)),
        "subscriptions": [dict(r) for r in await store.read(states.ALL)],
    }


async def reasons(store: Store) -> dict[str, int]:
    """How often each reason stood in the way of a score or a total."""
    counts: dict[str, int] = {}
    for row in await store.read(REASONS):
        for reason in orjson.loads(row["reasons"]):
            counts[reason] = counts.get(reason, 0) + row["n"]
    return dict(sorted(counts.items(), key=lambda pair: -pair[1]))


async def dead_letters(store: Store) -> list[dict[str, Any]]:
    """Everything set aside, with its reason. Nothing here identifies anyone."""
    kinds = (("event", BURIED_EVENTS), ("write", BURIED_WRITES), ("review", FOR_REVIEW))
    return [{"kind": kind, **row} for kind, statement in kinds for row in await store.read(statement)]


async def replay(store: Store, wanted: str | None) -> int:
    """Set dead letters going again: one by id, or all. A result to review, by its id, is marked as seen.

    Returns how many there were.
    """
    if wanted is not None and not wanted.isprintable():
        return 0  # nothing we store has such an id, and PostgreSQL would not even take it
    is_event = wanted is not None and _EVENT_ID.fullmatch(wanted) is not None
    event_id = int(wanted) if is_event and wanted else None
    count = 0
    if wanted is None or is_event:
        results = await store.commit(
            Step(events.REPLAY, [{"id": event_id}]),
            Step(work.REPLAY, [{"id": event_id}]),
            Step(work.FORGET_CAUSES),
        )
        count += len(results[0]) + len(results[1])
    if wanted is None or not is_event:
        (rows,) = await store.commit(Step(outbox.REPLAY, [{"id": wanted}]))
        count += len(rows)
    if wanted is not None and not count:
        (revisions,) = await store.commit(Step(REVIEWED, [{"id": wanted}]))
        count += bool(revisions)
    return count


async def refresh_gauges(store: Store) -> None:
    """Set the queue gauges, before a scrape."""
    now = time.time()
    for name, statement in (("events", events.DEPTH), ("writes", outbox.DEPTH)):
        row = (await store.read(statement))[0]
        QUEUE_DEPTH.labels(name).set(row["waiting"])
        QUEUE_OLDEST.labels(name).set(now - row["oldest"] if row["oldest"] else 0)


def sealed_verbs(store: Store, cipher: Cipher) -> Mapping[str, Verb]:
    """What is asked of sealed columns, by path at the admin door. Bodies and answers are JSON and hold no key.

    Each raises Misconfigured with what to do first, or because it was asked for in words that mean nothing.
    """
    rotation = Rotation(store, cipher)

    async def state(body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await rotation.state(count=body.get("count") is True)

    async def leave(body: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"left": await rotation.leave(str(body.get("name")), bytes.fromhex(str(body.get("fingerprint"))))}

    async def reseal(body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await rotation.reseal(begin=body.get("begin") is True)

    async def retire(body: Mapping[str, Any]) -> Mapping[str, Any]:
        await rotation.retire(int(body.get("key", 0)), time.time(), anyway=body.get("anyway") is True)
        return {}

    async def forgotten(body: Mapping[str, Any]) -> Mapping[str, Any]:
        patient = body.get("patient")
        if not is_fhir_id(patient):
            raise Misconfigured(["that is no id of a Patient: letters, digits, '-' and '.', at most 64"])
        return await forget(store, cipher, str(patient))

    return {
        "/keys/state": state, "/keys/leave": leave, "/keys/reseal": reseal, "/keys/retire": retire,
        "/patients/forget": forgotten,
    }  # fmt: skip
