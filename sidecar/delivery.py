"""Claim queued writes and deliver them; one write at a time for one identity."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.aftermath import aftermath
from sidecar.errors import NotHere, NotStored, Rejected, SidecarError, TooEarly
from sidecar.evidence import charted
from sidecar.fhir.capability import Ladder
from sidecar.manifest import Manifest
from sidecar.metrics import DELIVERIES, EVENT_TO_WRITE_SECONDS, STAGE_SECONDS
from sidecar.pump import Pump, Verbs
from sidecar.records import Event, Reference, Stored
from sidecar.rooms import Rooms
from sidecar.store import Step
from sidecar.writeback import LadderWriter, QueuedWrite


@dataclass(frozen=True, slots=True)
class _Chart:
    """Whether the chart holds a result already, and in the words of the version whose result is to be written."""

    holds: bool = False
    by_it: bool = False


class Delivery:
    """Delivers claimed writes. `ladder` overrides what the CapabilityStatement says."""

    def __init__(self, rooms: Rooms, ladder: Ladder | None) -> None:
        self._rooms, self._ladder = rooms, ladder
        verbs = Verbs(self._claim, self._run, self._bury, self._release, self._extend, self._waits)
        lease_s = rooms.work.lease.total_seconds()
        self.pump: Pump[QueuedWrite] = Pump("write", rooms.work.concurrency, lease_s, rooms.ready_to_write, verbs)

    async def _claim(self, most: int) -> Sequence[QueuedWrite]:
        lease_s = self._rooms.work.lease.total_seconds()
        return await self._rooms.outbox.claim(self._rooms.store.fresh_claim(), time.time(), lease_s, most)

    async def _waits(self) -> bool:
        return await self._rooms.outbox.waits(time.time())

    async def _run(self, write: QueuedWrite) -> None:
        started = time.perf_counter()
        try:
            await self._rooms.leases.must_lead()
        except NotHere as other:
            await self._rooms.outbox.leave(write, time.time() + other.delay_s)
            return
        try:
            await self._deliver(write)
        except NotStored:
            raise
        except SidecarError as error:
            await self._after(write, error)
        STAGE_SECONDS.labels("write").observe(time.perf_counter() - started)

    async def _after(self, write: QueuedWrite, error: SidecarError) -> None:
        rooms = self._rooms
        if isinstance(error, TooEarly):
            return await rooms.outbox.release(write, time.time() + error.delay_s, failed=False)
        next_step = await aftermath(error, write.failures, rooms.gate, rooms.work)
        if next_step.what == "bury":
            await self._bury(write, next_step.reason)
        elif next_step.what == "release":
            await rooms.outbox.release(write, time.time() + next_step.pause_s, failed=False)
        elif next_step.what == "again":
            await rooms.outbox.release(write, time.time() + next_step.pause_s, failed=True)
        return None

    async def _release(self, write: QueuedWrite) -> None:
        await self._rooms.outbox.release(write, time.time(), failed=False)

    async def _extend(self, writes: Sequence[QueuedWrite]) -> None:
        await self._rooms.outbox.extend(writes, time.time() + self._rooms.work.lease.total_seconds())

    async def _deliver(self, write: QueuedWrite) -> None:
        rooms = self._rooms
        stored = await rooms.archive.latest(write.identity)
        a = stored.conclusion.assessment if stored else None
        if stored is None or a is None or not rooms.models.knows(a.model):
            raise Rejected("unknown_model")
        if stored.revision > write.revision:
            await rooms.store.commit(rooms.outbox.settled(write, "superseded", None, time.time()))
            return
        manifest = await rooms.models.of_result(a.model, a.version, a.model_digest)
        ladder = LadderWriter(
            rooms.client, await rooms.gate.capability(), self._ladder, lambda: self._must_go_on(stored, chart)
        )
        chart = await self._chart(write, stored, manifest, ladder)
        if (refused := self._refused(stored, chart)) is not None:
            await rooms.store.commit(*self._cancelled(write, stored, refused))
            return
        result = await rooms.deliverer.deliver(write, stored, manifest, ladder, rooms.clock().timestamp())
        now = time.time()
        steps = [rooms.outbox.settled(write, result.state, result.reason, now)]
        if result.effect is not None:
            steps.append(rooms.outbox.keep(write, result.effect, now))
        if result.reason == "patient_merged":
            steps.append(rooms.archive.for_review(stored.conclusion.evidence.patient, "patient_merged"))
        await rooms.store.commit(*steps)
        DELIVERIES.labels(manifest.name, result.state).inc()
        if result.state == "written":
            EVENT_TO_WRITE_SECONDS.labels(manifest.name).observe(now - write.heard_at)

    async def _chart(self, write: QueuedWrite, stored: Stored, manifest: Manifest, ladder: LadderWriter) -> _Chart:
        """What is there; where that is not known, and matters, the chart is asked."""
        if await self._rooms.outbox.effect(write.identity) is None:
            if write.attempts == 1 or self._refused(stored, _Chart()) is None:
                return _Chart()
            if not await self._rooms.deliverer.is_there(stored, manifest, ladder, write.identity):
                return _Chart()
        before = None if stored.arm.writes else await charted(self._rooms.archive, write.identity, stored.revision)
        digest = stored.conclusion.assessment.model_digest
        return _Chart(holds=True, by_it=before is not None and before.conclusion.assessment.model_digest == digest)

    def _refused(self, stored: Stored, chart: _Chart) -> str | None:
        """Why the log does not let this be written. What is charted may always be ended and withdrawn.

        It may be corrected by a version that writes, and by the one that said it.
        """
        a, models = stored.conclusion.assessment, self._rooms.models
        if chart.holds and (stored.status == "entered-in-error" or a.vector.ended):
            return None
        if models.is_withdrawn(a.model, a.model_digest):
            return "version_withdrawn"
        revises = chart.holds and (stored.arm.writes or chart.by_it)
        may = revises or (stored.arm.writes and models.may_chart(a.model, a.model_digest))
        return None if may else "not_promoted"

    def _cancelled(self, write: QueuedWrite, stored: Stored, reason: str) -> list[Step]:
        """Steps that end a write; what a withdrawn version said is looked at again by the version in force."""
        steps = [self._rooms.outbox.settled(write, "cancelled", reason, time.time())]
        if reason == "version_withdrawn":
            patient = Reference("Patient", stored.conclusion.evidence.patient.value)
            steps += self._rooms.events.recorded(Event("withdrawn", time.time(), patient))
        return steps

    async def _must_go_on(self, stored: Stored, chart: _Chart) -> None:
        """Asked before each request that writes.

        Raises:
            TooEarly: writing was stopped, or this version may not any more.
        """
        await self._rooms.registry.may_write()
        if (refused := self._refused(stored, chart)) is not None:
            raise TooEarly(refused, 0.0)

    async def _bury(self, write: QueuedWrite, reason: str) -> None:
        rooms = self._rooms
        stored = None
        with contextlib.suppress(NotHere):
            stored = await rooms.archive.by_id(write.assessment_id)
        await rooms.store.commit(rooms.outbox.settled(write, "buried", reason, time.time()))
        DELIVERIES.labels(stored.conclusion.assessment.model if stored else "unknown", "buried").inc()
