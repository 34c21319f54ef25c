"""Create or adopt our R4 Subscriptions, see that they are active, and renew them before they end.

A Subscription that the EHR gave up is asked for again, after a search for what it did not tell. Only one process does
this at a time. https://hl7.org/fhir/R4/subscription.html
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from sidecar import log
from sidecar.errors import Conflict, Rejected, Retryable, Unavailable
from sidecar.fhir.client import EhrClient
from sidecar.intake.hook_secrets import Nonce, bearer, in_force
from sidecar.intake.numbers import Numbers
from sidecar.intake.sources import Source
from sidecar.intake.states import State, kept, load_state
from sidecar.intake.wanted import Site, Terms, endpoint_of, ends_at, renew_at, same, shows, status_of, wanted
from sidecar.metrics import SUBSCRIPTION_ACTIVE
from sidecar.records import Event, Reference, is_fhir_id
from sidecar.store import Store

Record = Callable[..., Awaitable[None]]
Cause = Literal["absent", "given up", "due", "different"]


class Subscriptions:
    """Our Subscriptions at one EHR. `endpoint` is `{public_url}/notify/{source}`; `record` is the inbox's verb.

    `must_hold` is called before each write and raises `ClaimLost` when another process keeps them by now.
    """

    def __init__(
        self, client: EhrClient, store: Store, record: Record, site: Site, must_hold: Callable[[], None] = lambda: None
    ) -> None:
        self._client, self._store, self._record, self._must_hold = client, store, record, must_hold
        self._site = site
        self._asked: set[str] = set()

    async def ensure(self, source: Source, now: float) -> State:
        """Make the Subscription of `source` exist, be active and be far from its end; how it stands then.

        What the EHR refuses is recorded with the reason, and asked for again after pauses that double to a minute; the
        catch-up search still finds its events.

        Raises:
            Unavailable: the EHR does not answer; the same pauses apply.
        """
        before = await load_state(self._store, source.name)
        try:
            state = await self._ensured(source, before, now)
        except (Rejected, Retryable, Conflict, Unavailable) as refusal:
            known = await load_state(self._store, source.name)
            away = isinstance(refusal, Unavailable) and not is_denial(refusal)
            state = known.looked(known.status if away else "refused", now, refusal.reason)
            await self._store.commit(kept(state))
            if away:
                raise
        if state.status == "active" and (before.status != "active" or state.renewed_at != before.renewed_at):
            # Nobody told us of what happened until now; a server that is asked anew may be deaf for a moment.
            await self._record(Event(source.name, time.time()))
        await self._store.commit(kept(state))
        SUBSCRIPTION_ACTIVE.labels(source.name).set(state.status == "active")
        return state

    async def _ensured(self, source: Source, state: State, now: float) -> State:
        found = await self._find(source, state)
        cause = self._cause(source, state, found, now)
        if cause is None and found is not None:
            return state.at(remote_id=found["id"]).looked(status_of(found), now)
        if state.status == "active" and cause in {"absent", "given up"}:
            log.get().warning("subscription lost", source=source.name, reason=cause)
            await self._record(Event(source.name, time.time()))
        elif found is not None and found.get("status") == "active" and state.status != "active":
            await self._record(Event(source.name, time.time()))  # active since we looked, and deaf again in a moment
        if cause in {"due", "different"}:
            state = state.at(failures=0)
        nonces = in_force(state.nonces, now)
        if not nonces or (cause != "different" and nonces[0].confirmed_at is not None):
            nonces = (Nonce.new(), *nonces)
        # Stored first: the EHR's handshake brings the new secret before its answer is here.
        state = state.at(nonces=nonces, remote_id=None if found is None else found["id"])
        state = state if found is not None else state.at(numbers=Numbers(mark=0))
        await self._store.commit(kept(state.at(status="requested")))
        filtered = _should_filter(state, found, cause)
        current, asked_end = await self._ask(source, found, self._terms(source, nonces[0], now, filtered=filtered))
        self._asked.add(source.name)
        has_it = not any(shows(current, self._bearer(source, nonce)) for nonce in nonces[1:])
        first = replace(nonces[0], confirmed_at=now) if has_it else nonces[0]
        state = state.at(nonces=(first, *nonces[1:]), remote_id=current["id"], renewed_at=now)
        return state.at(ends_at=min(asked_end, ends_at(current) or asked_end)).looked(status_of(current), now)

    def _bearer(self, source: Source, nonce: Nonce) -> str:
        return bearer(self._site.secret, source.name, nonce)

    def _terms(self, source: Source, nonce: Nonce, now: float, *, filtered: bool) -> Terms:
        return Terms(self._site.endpoint(source), self._bearer(source, nonce), now + self._site.life_s, filtered)

    async def _ask(
        self, source: Source, found: Mapping[str, Any] | None, terms: Terms
    ) -> tuple[Mapping[str, Any], float]:
        """Write the Subscription; as the EHR holds it then, and the end it was asked for."""
        logical_id = str(found["id"]) if found is not None else None
        try:
            logical_id = await self._write(wanted(source, terms, self._site.topics), logical_id)
        except Rejected:
            if not source.query or self._site.topics.of(source.name) is None:
                raise
            # A topic that cannot filter tells of everything; what no model needs ends as "no_model".
            unfiltered = wanted(source, replace(terms, filtered=False), self._site.topics)
            logical_id = await self._write(unfiltered, logical_id)
        current = await self._client.read(Reference("Subscription", logical_id))
        if current is None:
            raise Retryable("ehr_lost:subscription")
        return current, terms.ends_at

    async def _write(self, resource: dict[str, Any], logical_id: str | None) -> str:
        self._must_hold()
        if logical_id is not None:
            body = resource | {"id": logical_id}
            await self._client.send("update", "PUT", f"Subscription/{logical_id}", ok={200, 201}, body=body)
            return logical_id
        answer = await self._client.send("create", "POST", "Subscription", ok={200, 201}, body=resource)
        located = self._client.located(answer.location, "Subscription")
        if located is None and isinstance(answer.body, Mapping) and is_fhir_id(answer.body.get("id")):
            located = str(answer.body["id"])
        if located is None:
            raise Retryable("ehr_shape:create")
        return located

    def _cause(self, source: Source, state: State, found: Mapping[str, Any] | None, now: float) -> Cause | None:
        """Why the EHR must be asked (again).

        For a difference once a process only: some servers spell criteria their own way or hide the headers, and asking
        such a server for ever would never make it agree.
        """
        if found is None:
            return "absent"
        if state.is_stuck(str(found.get("status")), now):
            return "given up"
        if self.is_due(state, now):
            return "due"
        if source.name in self._asked:
            return None
        newest = state.nonces[0] if state.nonces else None
        if newest is None or newest.confirmed_at is None:
            return "different"
        both = (
            wanted(source, self._terms(source, newest, now, filtered=each), self._site.topics) for each in (True, False)
        )
        return None if any(same(found, asked) for asked in both) else "different"

    def is_due(self, state: State, now: float) -> bool:
        """Whether a Subscription must be renewed."""
        if state.ends_at is None:
            return False
        return state.renewed_at is None or now >= renew_at(state.renewed_at, state.ends_at, self._site.life_s)

    async def _find(self, source: Source, state: State) -> Mapping[str, Any] | None:
        """Ours: the one remembered, else one with our endpoint, which is adopted instead of made twice."""
        endpoint = self._site.endpoint(source)
        if state.remote_id is not None and is_fhir_id(state.remote_id):
            known = await self._client.read(Reference("Subscription", state.remote_id))
            if known is not None and endpoint_of(known) == endpoint:
                return known
        async for resource in self._client.search("Subscription", {"url": endpoint}):
            if endpoint_of(resource) == endpoint and is_fhir_id(resource.get("id")):
                return resource
        return None


def is_denial(error: Unavailable) -> bool:
    """Whether we may not do this, which is an answer and no outage. 401 says nothing of what we may do."""
    return error.reason == "ehr_denied:403"


def _should_filter(state: State, found: Mapping[str, Any] | None, cause: Cause | None) -> bool:
    """Whether to ask a topic to filter: as before, unless that never became active; then the other way.

    Some servers refuse a filter that their topic does not know by the status `error`.
    """
    if found is None or cause == "different":
        return True
    has_filter = "_criteria" in found
    return has_filter if state.status == "active" or cause == "due" else not has_filter
