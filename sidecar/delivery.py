"""Claim queued writes and deliver them; one write at a time for one identity."""

import contextlib
import time
from collections.abc import Sequence

from sidecar.aftermath import aftermath
from sidecar.errors import NotHere, NotStored, Rejected, SidecarError, TooEarly
from sidecar.fhir.capability import Ladder
from sidecar.metrics import DELIVERIES, EVENT_TO_WRITE_SECONDS, STAGE_SECONDS
from sidecar.pump import Pump, Verbs
from sidecar.records import Arm
from sidecar.rooms import Rooms
from sidecar.writeback import LadderWriter, QueuedWrite


class Delivery:
    """Delivers claimed writes. `ladder` overrides what the CapabilityStatement says."""

    def __init__(self, rooms: Rooms, ladder: Ladder | None) -> None:
        self._rooms, self._ladder = rooms, ladder
        verbs = Verbs(self._claim, self._run, self._bury, self._release, self._extend, self._waits)
        lease_s = rooms.work.lease.total_seconds()
        self.pump: Pump[QueuedWrite] = Pump("write", rooms.work.concurrency, lease_s, rooms.ready, verbs)

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
        model = rooms.models.get(stored.conclusion.assessment.model) if stored else None
        if stored is None or model is None:
            raise Rejected("unknown_model")
        if stored.revision > write.revision:
            await rooms.store.commit(rooms.outbox.settled(write, "superseded", None, time.time()))
            return
        if model.arm is Arm.SHADOW and await rooms.outbox.effect(write.identity) is None and write.attempts == 1:
            await rooms.store.commit(rooms.outbox.settled(write, "cancelled", "not_promoted", time.time()))
            return
        ladder = LadderWriter(rooms.client, await rooms.gate.capability(), self._ladder)
        manifest = model.loaded.manifest
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

    async def _bury(self, write: QueuedWrite, reason: str) -> None:
        rooms = self._rooms
        stored = None
        with contextlib.suppress(NotHere):
            stored = await rooms.archive.by_id(write.assessment_id)
        await rooms.store.commit(rooms.outbox.settled(write, "buried", reason, time.time()))
        DELIVERIES.labels(stored.conclusion.assessment.model if stored else "unknown", "buried").inc()
