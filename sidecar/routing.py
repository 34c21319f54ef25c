"""From an event to its patient's work: read the focus back, find whom it is about and which models it concerns.

The notification's body was only a hint; what the EHR says now is what counts. Every event ends here or goes on to
`sidecar.worker`; none is dropped without a reason.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from sidecar.errors import ClaimLost, Rejected, Retryable, SidecarError, Unavailable
from sidecar.evidence import Archive
from sidecar.fhir import references
from sidecar.fhir.client import EhrClient
from sidecar.fhir.gate import Gate
from sidecar.inbox import ClaimedEvent, EventBox
from sidecar.intake import CatchUp, Source
from sidecar.metrics import EVENTS, STAGE_SECONDS
from sidecar.pipeline import RunningModel
from sidecar.pump import Pump, Verbs
from sidecar.records import PatientId, Reference
from sidecar.settings import Work
from sidecar.store import Store

BATCH = 32
Batch = tuple[ClaimedEvent, ...]


class Router:
    """Routes claimed events, up to `BATCH` with one search a type."""

    def __init__(  # noqa: PLR0913, PLR0917 -- a composition of rooms, built once in app.py
        self, client: EhrClient, gate: Gate, store: Store, box: EventBox, archive: Archive, catch_up: CatchUp,
        models: Mapping[str, RunningModel], sources: Sequence[Source], work: Work,
        routed: Callable[[], None],
    ) -> None:  # fmt: skip
        self._client, self._gate, self._store = client, gate, store
        self._box, self._archive, self._catch_up = box, archive, catch_up
        self._models, self._sources = models, {s.name: s for s in sources}
        self._work, self._routed = work, routed
        self.pump: Pump[Batch] = Pump("route", 2, gate.ready, Verbs(self._claim, self._run, self._bury, self._release))

    async def _claim(self, _: int) -> Sequence[Batch]:
        lease = self._work.lease.total_seconds()
        events = await self._box.claim(uuid4().hex, time.time(), lease, BATCH)
        return [tuple(events)] if events else []

    async def _run(self, batch: Batch) -> None:
        started = time.perf_counter()
        try:
            resources = await self._read_back(batch)
        except SidecarError as error:
            await self._after(batch, error)
            return
        for event in batch:
            try:
                await (self._caught_up(event) if event.focus is None else self._route(event, resources))
            except SidecarError as error:
                await self._after((event,), error)
            except Exception as error:  # noqa: BLE001 -- the outermost frame of one event; the rest of its batch goes on
                self.pump.unexpected(error)
                await self._bury((event,), f"unexpected:{type(error).__name__}")
        STAGE_SECONDS.labels("route").observe(time.perf_counter() - started)

    async def _read_back(self, batch: Batch) -> dict[tuple[str, str], Mapping[str, Any]]:
        """The focus resources as they are now, one search a type; what a search does not show is read by itself."""
        wanted: dict[str, set[str]] = defaultdict(set)
        for event in batch:
            if event.focus is not None:
                wanted[event.focus.type].add(event.focus.id)
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for type_name, ids in wanted.items():
            if len(ids) > 1:
                query = {"_id": ",".join(sorted(ids)), "_count": str(BATCH)}
                async for resource in self._client.search(type_name, query):
                    own = references.identity(resource)
                    if own is not None and own.id in ids:
                        found[type_name, own.id] = resource
            for logical_id in ids - {i for t, i in found if t == type_name}:
                resource_or_none = await self._client.read(Reference(type_name, logical_id))
                if resource_or_none is not None:
                    found[type_name, logical_id] = resource_or_none
        return found

    async def _caught_up(self, event: ClaimedEvent) -> None:
        source = self._sources.get(event.source)
        if source is not None:
            await self._catch_up.run(source, time.time())
        await self._finish(event, "caught_up")

    async def _route(self, event: ClaimedEvent, resources: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
        focus = event.focus
        if focus is None or event.focus_key is None:
            raise Rejected("shape:event")
        resource = resources.get((focus.type, focus.id))
        if resource is None:
            patient, names = await self._owners(event.focus_key)
            missing_reason = "gone"
        else:
            patient, names = await self._concerned(resource)
            missing_reason = "no_model"
        if patient is None or not names:
            await self._finish(event, missing_reason if patient is not None or resource is None else "no_patient")
            return
        waits = [self._models[name].wait for name in sorted(names)]
        steps = self._box.routed(event, patient, waits, time.time())
        if resource is not None and focus.type == "Patient" and _is_merged(resource):
            steps.append(self._archive.for_review(patient, "patient_merged"))
        await self._store.commit(*steps)
        self._routed()

    async def _owners(self, focus_key: bytes) -> tuple[PatientId | None, set[str]]:
        """Who rested on a resource that is gone."""
        owners = await self._archive.owners(focus_key)
        patients = {patient for patient, _ in owners}
        if len(patients) != 1:
            return None, set()
        return PatientId(patients.pop()), {model for _, model in owners if model in self._models}

    async def _concerned(self, resource: Mapping[str, Any]) -> tuple[PatientId | None, set[str]]:
        """The patient of a resource, and the models that must look again."""
        kind = resource["resourceType"]
        subject = references.identity(resource) if kind == "Patient" else self._subject(resource)
        if subject is None or subject.type != "Patient":
            return None, set()
        patient = PatientId(subject.id)
        if kind == "Observation":
            codes = references.codes(resource)
            return patient, {n for n, m in self._models.items() if codes & m.loaded.manifest.observation_codes}
        known = {n for n in self._models if await self._archive.current(patient, n) is not None}
        return patient, known

    def _subject(self, resource: Mapping[str, Any]) -> Reference | None:
        return references.of(resource.get("subject"), self._client.base_url)

    async def _finish(self, event: ClaimedEvent, reason: str) -> None:
        await self._store.commit(self._box.finished(event, reason, time.time()))
        EVENTS.labels(reason).inc()

    async def _after(self, events: Batch, error: SidecarError) -> None:
        """What happens next, by the kind of error."""
        if isinstance(error, ClaimLost):
            return
        if isinstance(error, Unavailable):
            self._gate.shut(error)
        now = time.time()
        for event in events:
            tried = not isinstance(error, Unavailable)
            worn_out = tried and event.attempts + 1 >= self._work.max_attempts
            if isinstance(error, Rejected) or worn_out:
                await self._bury((event,), error.reason)
            else:
                pause = error.delay_s if isinstance(error, Retryable | Unavailable) else 0.0
                await self._box.release(event, now + pause * 2**event.attempts if tried else now, tried=tried)

    async def _bury(self, batch: Batch, reason: str) -> None:
        for event in batch:
            with contextlib.suppress(ClaimLost):
                await self._store.commit(self._box.buried(event, reason, time.time()))
                EVENTS.labels("buried").inc()

    async def _release(self, batch: Batch) -> None:
        for event in batch:
            await self._box.release(event, time.time(), tried=False)


def _is_merged(patient: Mapping[str, Any]) -> bool:
    return any(link.get("type") == "replaced-by" for link in patient.get("link") or ())
