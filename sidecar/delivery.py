"""Claim queued writes and deliver them; one write at a time for one identity."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from uuid import uuid4

from sidecar.errors import ClaimLost, Rejected, Retryable, SidecarError, Unavailable
from sidecar.evidence import Archive
from sidecar.fhir.capability import Ladder
from sidecar.fhir.client import EhrClient
from sidecar.fhir.gate import Gate
from sidecar.metrics import DELIVERIES, EVENT_TO_WRITE_SECONDS, STAGE_SECONDS
from sidecar.pipeline import RunningModel
from sidecar.pump import Pump, Verbs
from sidecar.settings import Work
from sidecar.store import Store
from sidecar.writeback import Deliverer, LadderWriter, Outbox, QueuedWrite

MAX_PAUSE_S = 60.0


class Delivery:
    """Delivers claimed writes."""

    def __init__(  # noqa: PLR0913, PLR0917 -- a composition of rooms, built once in app.py
        self, client: EhrClient, gate: Gate, store: Store, outbox: Outbox, archive: Archive, deliverer: Deliverer,
        models: Mapping[str, RunningModel], ladder: Ladder | None, work: Work, clock: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._client, self._gate, self._store = client, gate, store
        self._outbox, self._archive, self._deliverer = outbox, archive, deliverer
        self._models, self._ladder, self._work, self._clock = models, ladder, work, clock
        verbs = Verbs(self._claim, self._run, self._bury, self._release)
        self.pump: Pump[QueuedWrite] = Pump("write", work.concurrency, gate.ready, verbs)

    async def _claim(self, most: int) -> Sequence[QueuedWrite]:
        return await self._outbox.claim(uuid4().hex, time.time(), self._work.lease.total_seconds(), most)

    async def _run(self, write: QueuedWrite) -> None:
        started = time.perf_counter()
        try:
            await self._deliver(write)
        except ClaimLost:
            return
        except Unavailable as down:
            self._gate.shut(down)
            await self._release(write)
        except Rejected as refusal:
            await self._bury(write, refusal.reason)
        except SidecarError as error:
            await self._again(write, error)
        STAGE_SECONDS.labels("write").observe(time.perf_counter() - started)

    async def _release(self, write: QueuedWrite) -> None:
        """Give it back. The request may have arrived: the attempt counts, so the next one looks before it writes."""
        await self._outbox.release(write, time.time(), tried=True)

    async def _again(self, write: QueuedWrite, error: SidecarError) -> None:
        if write.attempts >= self._work.max_attempts:
            await self._bury(write, error.reason)
            return
        pause = error.delay_s if isinstance(error, Retryable) else 1.0
        await self._outbox.release(write, time.time() + min(pause * 2**write.attempts, MAX_PAUSE_S), tried=True)

    async def _deliver(self, write: QueuedWrite) -> None:
        stored = await self._archive.by_id(write.assessment_id)
        model = self._models.get(stored.conclusion.assessment.model) if stored else None
        if stored is None or model is None:
            raise Rejected("unknown_model")
        ladder = LadderWriter(self._client, await self._gate.capability(), self._ladder)
        manifest = model.loaded.manifest
        result = await self._deliverer.deliver(write, stored, manifest, ladder, self._clock().timestamp())
        now = time.time()
        steps = [self._outbox.settled(write, result.state, result.reason, now)]
        if result.effect is not None:
            steps.append(self._outbox.keep(write, result.effect, now))
        if result.reason == "patient_merged":
            steps.append(self._archive.for_review(stored.conclusion.evidence.patient, "patient_merged"))
        await self._store.commit(*steps)
        DELIVERIES.labels(manifest.name, result.state).inc()
        if result.state == "written":
            EVENT_TO_WRITE_SECONDS.labels(manifest.name).observe(now - write.heard_at)

    async def _bury(self, write: QueuedWrite, reason: str) -> None:
        await self._store.commit(self._outbox.settled(write, "buried", reason, time.time()))
        DELIVERIES.labels("any", "buried").inc()
