"""Follow topic Subscriptions: close gaps in their numbers, ask the silent, renew what ends.

A gap is closed with `$events`, and what the EHR no longer has with a search from the watermark. A count that went down
is a server that began anew: `$status` says, and everything since the watermark is searched for. What is recorded here
and heard once more later is the same event to the inbox.
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/errors.html
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar import log
from sidecar.errors import Rejected, Retryable, Unavailable
from sidecar.fhir.client import EhrClient
from sidecar.intake.bundle import Notice, read_status
from sidecar.intake.notification import Refused
from sidecar.intake.sources import Source
from sidecar.intake.states import COUNTED, NOTICES, State, count, kept, load_state
from sidecar.intake.subscriptions import Record, Subscriptions, is_denial
from sidecar.metrics import SUBSCRIPTION_GAPS
from sidecar.records import Event, Reference, is_fhir_id
from sidecar.settings import Topics
from sidecar.store import Step, Store

LONGEST_GRACE_S = 2.0
MOST_FETCHED = 1_000
MOST_HOLES = 16
# An operation that a server does not have, or no longer has an answer to.
_NOT_THERE = {400, 403, 404, 405, 410, 422, 501}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the EHR said of a Subscription, or "gone"; `since` is None when it does not count."""

    status: str
    since: int | None = None


class Follower:
    """Keeps every source's Subscription, and follows those that have a topic."""

    def __init__(self, client: EhrClient, store: Store, record: Record, keeper: Subscriptions, topics: Topics) -> None:
        self._client, self._store, self._record, self._keeper = client, store, record, keeper
        self._topics = topics
        self._heartbeat_s = topics.heartbeat.total_seconds()
        self.grace_s = min(LONGEST_GRACE_S, self._heartbeat_s / 10)
        """How long a late notification is waited for: out of order is normal."""

    async def follow(self, source: Source, now: float) -> None:
        """Do what is due for `source`. Safe to repeat, and to cut short anywhere.

        Raises:
            Unavailable: the EHR does not answer; nothing of what it did not say is counted.
        """
        state = await load_state(self._store, source.name)
        if self._topics.of(source.name) is not None:
            state = await self._counted(source, state)
            if state.remote_id is not None:
                state = await self._listen(source, state, now)
        if now >= state.look_at or self._keeper.is_due(state, now):
            await self._keeper.ensure(source, now)

    async def _listen(self, source: Source, state: State, now: float) -> State:
        """Ask about what the numbers and the silence leave open."""
        silent = state.status == "active" and state.is_silent(now, self._heartbeat_s)
        if state.numbers.doubt is not None or silent:
            state = await self._ask(source, state, now)
        if state.numbers.hole_at is not None and now - state.numbers.hole_at >= self.grace_s:
            state = await self._close(source, state, now)
        return state

    async def _counted(self, source: Source, state: State) -> State:
        """Take the notices in that came since."""
        while notices := await self._store.read(NOTICES, source=source.name):
            state = count(state, notices)
            await self._store.commit(kept(state), Step(COUNTED, [{"id": row["id"]} for row in notices]))
        return state

    async def _ask(self, source: Source, state: State, now: float) -> State:
        """Ask how it stands: fewer events than were told is a server that began anew."""
        asked = await self._status(source, state)
        numbers = state.numbers
        since = asked.since if asked.since is not None else numbers.doubt
        if since is not None and numbers.mark is not None:
            if since < numbers.told:
                log.get().warning("subscription counts anew", source=source.name)
                SUBSCRIPTION_GAPS.labels(source.name, "restart").inc()
                await self._record(Event(source.name, time.time()))
            numbers = numbers.counted(since, now)
        state = state.at(asked_at=now, numbers=numbers)
        if state.is_stuck(asked.status, now) and state.status == "active":
            state = state.at(look_at=now)
        await self._store.commit(kept(state))
        return state

    async def _close(self, source: Source, state: State, now: float) -> State:
        """Fetch what is missing; what cannot be fetched is searched for."""
        numbers, how = state.numbers, "events"
        for _ in range(MOST_HOLES):
            hole = numbers.missing
            notice = await self._fetch(source, state, hole, now) if hole else None
            if notice is None or not notice.numbers:
                break
            numbers = numbers.heard(notice.numbers, None, now)
        if numbers.missing is not None:
            how, numbers = "search", numbers.closed()
            await self._record(Event(source.name, time.time()))
        log.get().warning("missed notifications", source=source.name, reason=how)
        SUBSCRIPTION_GAPS.labels(source.name, how).inc()
        state = state.at(numbers=numbers)
        await self._store.commit(kept(state))
        return state

    async def _fetch(self, source: Source, state: State, hole: tuple[int, int], now: float) -> Notice | None:
        """Record the events of `hole` that the EHR still has; None when it does not say."""
        first, last = hole
        if last - first >= MOST_FETCHED:
            return None
        query = f"$events?eventsSinceNumber={first}&eventsUntilNumber={last}&content=id-only"
        bundle = await self._operation(state, query)
        try:
            found = read_status(bundle, source, now) if bundle is not None else None
        except Refused:
            return None
        if found is None:
            return None
        await self._record(*found.events, *([Event(source.name, time.time())] if found.notice.unnamed else []))
        return found.notice

    async def _status(self, source: Source, state: State) -> Asked:
        bundle = await self._operation(state, "$status")
        if bundle is not None:
            try:
                notice = read_status(bundle, source, 0.0).notice
            except Refused:
                notice = None
            if notice is not None and notice.status is not None:
                return Asked(notice.status, notice.since)
        try:
            found = await self._client.read(Reference("Subscription", str(state.remote_id)))
        except (Rejected, Retryable):
            return Asked(state.status)
        except Unavailable as denied:
            if not is_denial(denied):
                raise
            return Asked(state.status)
        return Asked(str(found.get("status")) if found is not None else "gone")

    async def _operation(self, state: State, call: str) -> Mapping[str, Any] | None:
        """The answer of an operation on the Subscription; None when the EHR does not have it."""
        if not is_fhir_id(state.remote_id):
            return None
        try:
            path = f"Subscription/{state.remote_id}/{call}"
            answer = await self._client.send("operation", "GET", path, ok={200, *_NOT_THERE})
        except (Rejected, Retryable):
            return None
        return answer.body if answer.status == 200 and isinstance(answer.body, Mapping) else None
