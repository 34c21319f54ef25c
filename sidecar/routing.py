"""From an event to its patient's work: read the focus back, find whom it concerns and which models.

The notification's body was only a hint; what the EHR says now is what counts. Whoever rested on the focus before is
concerned too, whatever it says now: a reading may have been moved to another patient, re-coded or deleted. Every event
ends here or goes on to `sidecar.worker`; none is dropped without a reason.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sidecar.aftermath import PATIENCE, aftermath
from sidecar.deid import instant
from sidecar.errors import ClaimLost, NotHere, NotStored, Rejected, Retryable, SidecarError, Unavailable
from sidecar.fhir import references
from sidecar.inbox import ClaimedEvent
from sidecar.manifest import Manifest
from sidecar.metrics import EVENTS, STAGE_SECONDS
from sidecar.pump import Pump, Verbs
from sidecar.records import PatientId, Reference
from sidecar.rooms import Rooms

BATCH = 32
NOT_YET_VISIBLE = 4
"""Looks at a focus that a notification told of and the EHR does not show (yet)."""

GATHER_S, GATHER_SHARE = 0.1, 0.1
"""How long a first event waits for others, so that they share their reads and commits; of a debounce, at most that."""

Batch = tuple[ClaimedEvent, ...]
ReadBack = Mapping[str, Any] | SidecarError | None


class Router:
    """Routes claimed events, up to `BATCH` with one search a type; pings go through a pump of their own."""

    def __init__(self, rooms: Rooms, routed: Callable[[], None]) -> None:
        self._rooms, self._routed = rooms, routed
        self._sources = {s.name: s for s in rooms.sources}
        self._backlog = False
        self._gather_s = min([GATHER_S, *(m.wait.debounce_s * GATHER_SHARE for m in rooms.models.values())])
        lease_s = rooms.work.lease.total_seconds()
        verbs = (self._run, self._bury, self._release, self._extend)
        self.pump: Pump[Batch] = Pump("route", 2, lease_s, rooms.ready, Verbs(self._claim, *verbs, self._waits))
        self.pings: Pump[Batch] = Pump(
            "catch-up", 1, lease_s, rooms.ready_to_search, Verbs(self._claim_ping, *verbs, self._ping_waits)
        )

    async def _claim(self, _: int) -> Sequence[Batch]:
        if not self._backlog:
            await asyncio.sleep(self._gather_s)
        lease_s = self._rooms.work.lease.total_seconds()
        events = await self._rooms.events.claim(self._rooms.store.fresh_claim(), time.time(), lease_s, BATCH)
        self._backlog = len(events) == BATCH
        return [tuple(events)] if events else []

    async def _waits(self) -> bool:
        return await self._rooms.events.waits(time.time())

    async def _ping_waits(self) -> bool:
        return await self._rooms.events.waits(time.time(), pings=True)

    async def _claim_ping(self, _: int) -> Sequence[Batch]:
        lease_s = self._rooms.work.lease.total_seconds()
        token = self._rooms.store.fresh_claim()
        return [(e,) for e in await self._rooms.events.claim(token, time.time(), lease_s, 1, pings=True)]

    async def _run(self, batch: Batch) -> None:
        try:
            await self._rooms.leases.must_lead()
            self._rooms.models.must_have_each()
        except NotHere as other:
            for event in batch:
                await self._rooms.events.release(event, time.time() + other.delay_s, tried=False)
            return
        started = time.perf_counter()
        resources = await self._read_back(batch)
        # Side by side, so that what they store shares a commit. What of one patient comes in another order is put right
        # by the work's own row.
        ended = await asyncio.gather(*(self._run_one(event, resources) for event in batch), return_exceptions=True)
        STAGE_SECONDS.labels("route").observe(time.perf_counter() - started)
        for failed in ended:
            if failed is not None:
                raise failed

    async def _run_one(self, event: ClaimedEvent, resources: Mapping[tuple[str, str], ReadBack]) -> None:
        if event.attempts > self._rooms.work.max_attempts * PATIENCE:
            return await self._bury((event,), "worn_out:event")
        try:
            await (self._caught_up(event) if event.focus is None else self._route(event, resources))
        except NotStored:
            raise
        except SidecarError as error:
            await self._after(event, error)
        except Exception as error:  # noqa: BLE001 -- the outermost frame of one event; the rest of its batch goes on
            self.pump.unexpected(error)
            await self._bury((event,), f"unexpected:{type(error).__name__}")
        return None

    async def _read_back(self, batch: Batch) -> Mapping[tuple[str, str], ReadBack]:
        """The focus resources as they are now: one search a type, then singly what the search did not show.

        A failure belongs to its resource; None is a resource that is not there.
        """
        wanted: dict[str, set[str]] = defaultdict(set)
        for event in batch:
            if event.focus is not None:
                wanted[event.focus.type].add(event.focus.id)
        found: dict[tuple[str, str], ReadBack] = {}
        for type_name, ids in wanted.items():
            try:
                shown = await self._search(type_name, ids) if len(ids) > 1 else {}
            except Unavailable as down:  # reading one by one would wait as long for each
                found |= {(type_name, logical_id): down for logical_id in ids}
                continue
            for logical_id in ids:
                found[type_name, logical_id] = shown.get(logical_id) or await self._read(type_name, logical_id)
        return found

    async def _search(self, type_name: str, ids: set[str]) -> Mapping[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        with contextlib.suppress(Rejected, Retryable):
            query = {"_id": ",".join(sorted(ids)), "_count": str(BATCH)}
            async for resource in self._rooms.client.search(type_name, query):
                own = references.identity(resource)
                if own is not None:
                    found[own.id] = resource
        return found

    async def _read(self, type_name: str, logical_id: str) -> ReadBack:
        try:
            return await self._rooms.client.read(Reference(type_name, logical_id))
        except SidecarError as error:
            return error

    async def _caught_up(self, event: ClaimedEvent) -> None:
        source = self._sources.get(event.source)
        if source is None:
            raise Rejected("unknown_source")
        began = time.time()
        try:
            await self._rooms.catch_up.run(source, began)
        except Rejected as refusal:
            # Asking again in a minute is the retry; a dead letter a minute would help nobody.
            await self._finish(event, refusal.reason)
            return
        self.pump.wake()
        await self._rooms.store.commit(self._rooms.events.answered_pings(source.name, began, time.time()))
        await self._finish(event, "caught_up")

    async def _route(self, event: ClaimedEvent, resources: Mapping[tuple[str, str], ReadBack]) -> None:
        focus = event.focus
        if focus is None or event.focus_key is None:
            raise Rejected("shape:event")
        resource = resources.get((focus.type, focus.id))
        if isinstance(resource, SidecarError):
            raise resource
        if focus.version is not None and _is_behind(resource, focus.version) and event.attempts < NOT_YET_VISIBLE:
            raise Retryable("not_yet_visible", 0.5)
        concerned = await self._rooms.archive.owners(event.focus_key)
        patient = None
        if resource is not None:
            patient, names = await self._concerned(resource)
            concerned |= {(patient.value, name) for name in names} if patient else set()
        waits = [(PatientId(p), self._rooms.models[m].wait) for p, m in sorted(concerned) if m in self._rooms.models]
        if not waits:
            reason = "gone" if resource is None else "no_model" if patient else "no_patient"
            await self._finish(event, reason, whose=patient, forget=resource is None)
            return
        shown = self._must_be_seen(resource, [m for _, m in concerned])
        now = time.time()
        steps = self._rooms.events.routed(event, waits, max(event.heard_at, now - self._gather_s), shown)
        if resource is not None and patient and focus.type == "Patient" and _is_merged(resource):
            steps.append(self._rooms.archive.for_review(patient, "patient_merged"))
        await self._rooms.store.commit(*steps)
        self._routed()

    async def _concerned(self, resource: Mapping[str, Any]) -> tuple[PatientId | None, set[str]]:
        """The patient of a resource, and the models that must look (again)."""
        kind, models = resource["resourceType"], self._rooms.models
        subject = references.identity(resource) if kind == "Patient" else self._subject(resource)
        if subject is None or subject.type != "Patient":
            return None, set()
        patient = PatientId(subject.id)
        codes = references.codes(resource)
        if kind == "Observation":
            return patient, {n for n, m in models.running if codes & m.loaded.manifest.observation_codes}
        awaited = {n for n, m in models.running if self._awaits(m.loaded.manifest, resource)}
        others = models.keys() - awaited
        return patient, awaited | {n for n in others if await self._rooms.archive.current(patient, n) is not None}

    @staticmethod
    def _awaits(manifest: Manifest, resource: Mapping[str, Any]) -> bool:
        """Whether a statement is one that a model waits for. A medicine that is only referred to may be any."""
        wanted = manifest.awaited.get(resource["resourceType"])
        if wanted is None:
            return False
        return references.named(resource, wanted) or resource.get("medicationReference") is not None

    def _must_be_seen(self, resource: Mapping[str, Any] | None, names: Sequence[str]) -> str | None:
        """The version of a reading that the context reads: a search that does not show it yet proves nothing."""
        own = references.identity(resource) if resource is not None else None
        happened = instant(resource.get("effectiveDateTime")) if resource is not None else None
        if own is None or own.type != "Observation" or happened is None:
            return None
        age = self._rooms.clock() - happened
        codes = references.codes(resource) if resource is not None else frozenset()
        shown = any(m.need.shows(codes, age) for n, m in self._rooms.models.items() if n in names)
        return own.version if shown and age >= timedelta(0) else None

    def _subject(self, resource: Mapping[str, Any]) -> Reference | None:
        """The patient it is about; of several elements that say so, the first that names a Patient."""
        found = [references.of(element, self._rooms.client.base_url) for element in references.subjects(resource)]
        return next((r for r in found if r is not None and r.type == "Patient"), next(iter(found), None))

    async def _finish(
        self, event: ClaimedEvent, reason: str, *, whose: PatientId | None = None, forget: bool = False
    ) -> None:
        ended = self._rooms.events.finished(event, reason, time.time(), whose=whose, forget=forget)
        await self._rooms.store.commit(ended)
        EVENTS.labels(reason).inc()

    async def _after(self, event: ClaimedEvent, error: SidecarError) -> None:
        rooms = self._rooms
        next_step = await aftermath(error, event.attempts - 1, rooms.gate, rooms.work)
        if next_step.what == "bury":
            await self._bury((event,), next_step.reason)
        elif next_step.what == "release":
            await rooms.events.release(event, time.time() + next_step.pause_s, tried=False)
        elif next_step.what == "again":
            await rooms.events.release(event, time.time() + next_step.pause_s, tried=True)

    async def _bury(self, batch: Batch, reason: str) -> None:
        for event in batch:
            with contextlib.suppress(ClaimLost):
                await self._rooms.store.commit(self._rooms.events.buried(event, reason, time.time()))
                EVENTS.labels("buried").inc()

    async def _release(self, batch: Batch) -> None:
        for event in batch:
            await self._rooms.events.release(event, time.time(), tried=False)

    async def _extend(self, batches: Sequence[Batch]) -> None:
        until = time.time() + self._rooms.work.lease.total_seconds()
        await self._rooms.events.extend([event for batch in batches for event in batch], until)


def _is_behind(resource: Mapping[str, Any] | None, version: str) -> bool:
    """Whether the EHR does not show yet what it told of: nothing, or an older version (where versions are numbers)."""
    if resource is None:
        return True
    own = references.identity(resource)
    shown = own.version if own is not None else None
    return shown is not None and shown.isdigit() and version.isdigit() and int(shown) < int(version)


def _is_merged(patient: Mapping[str, Any]) -> bool:
    links = patient.get("link")
    return isinstance(links, list) and any(isinstance(x, Mapping) and x.get("type") == "replaced-by" for x in links)
