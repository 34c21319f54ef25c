"""Claim a patient's work, assess, settle: complete, retry, or bury.

Storing the assessment, queueing its write and completing its events is one transaction. Assessments that rested on a
reading that has changed since are corrected in the same transaction.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from sidecar import pipeline
from sidecar.context import ContextReader
from sidecar.deid import Rules, instant
from sidecar.errors import ClaimLost, Rejected, Retryable, SidecarError, Unavailable
from sidecar.evidence import Archive
from sidecar.fhir import references
from sidecar.fhir.gate import Gate
from sidecar.inbox import WorkBox, WorkItem
from sidecar.metrics import ASSESSMENTS, BIN_OBSERVATIONS, EVENTS, NOT_SCORED, STAGE_SECONDS
from sidecar.monitoring import Bins
from sidecar.pipeline import RunningModel
from sidecar.pump import Pump, Verbs
from sidecar.records import Arm, Conclusion, Outcome, PatientSnapshot, Reference, Stored
from sidecar.settings import Work
from sidecar.store import Statement, Step, Store
from sidecar.writeback import Outbox, is_chartable

NEXT_DUE = Statement("next_due", "SELECT min(due_at) AS due FROM work WHERE lease_until <= :now")


class Worker:
    """Assesses claimed work."""

    def __init__(  # noqa: PLR0913, PLR0917 -- a composition of rooms, built once in app.py
        self, reader: ContextReader, gate: Gate, store: Store, box: WorkBox, archive: Archive, outbox: Outbox,
        models: Mapping[str, RunningModel], bins: Mapping[str, Mapping[str, Bins]], rules: Rules, work: Work,
        clock: Callable[[], datetime], written: Callable[[], None],
    ) -> None:  # fmt: skip
        self._reader, self._gate, self._store, self._box = reader, gate, store, box
        self._archive, self._outbox, self._models, self._bins = archive, outbox, models, bins
        self._rules, self._work, self._clock, self._written = rules, work, clock, written
        verbs = Verbs(self._claim, self._run, self._bury, self._release, self._next_due)
        self.pump: Pump[WorkItem] = Pump("assess", work.concurrency, gate.ready, verbs)

    async def _claim(self, most: int) -> Sequence[WorkItem]:
        return await self._box.claim(uuid4().hex, time.time(), self._work.lease.total_seconds(), most)

    async def _next_due(self) -> float | None:
        rows = await self._store.read(NEXT_DUE, now=time.time())
        due: float | None = rows[0]["due"]
        return due

    async def _run(self, item: WorkItem) -> None:
        try:
            await self._assess(item)
        except ClaimLost:
            return
        except Unavailable as down:
            self._gate.shut(down)
            await self._box.release(item.claim, time.time(), tried=False)
        except Rejected as refusal:
            await self._bury(item, refusal.reason)
        except SidecarError as error:
            await self._again(item, error)

    async def _again(self, item: WorkItem, error: SidecarError) -> None:
        if item.attempts + 1 >= self._work.max_attempts:
            await self._bury(item, error.reason)
            return
        pause = error.delay_s if isinstance(error, Retryable) else 1.0
        await self._box.release(item.claim, time.time() + pause * 2**item.attempts, tried=True)

    async def _bury(self, item: WorkItem, reason: str) -> None:
        await self._store.commit(*self._box.buried(item.claim, reason, time.time()))
        EVENTS.labels("buried").inc()

    async def _release(self, item: WorkItem) -> None:
        await self._box.release(item.claim, time.time(), tried=False)

    async def _assess(self, item: WorkItem) -> None:
        model = self._models.get(item.claim.model)
        if model is None:
            raise Rejected("unknown_model")
        started = time.perf_counter()
        conclusion, _ = await pipeline.assess(self._reader, item.patient, model, self._rules, self._clock())
        STAGE_SECONDS.labels("assess").observe(time.perf_counter() - started)
        assessment_id, steps = await self._keep(conclusion, item, model)
        resting = await self._archive.resting_on(item.claim.patient_key, model.name, item.focus_keys)
        current = self._archive.identity(conclusion)
        for old in resting:
            if old.identity != current:
                steps += await self._correct(old, item, model)
        outcome = conclusion.assessment.outcome
        started = time.perf_counter()
        settled = self._box.settled(item.claim, assessment_id, outcome.value, time.time())
        await self._store.commit(*settled, *steps)
        STAGE_SECONDS.labels("settle").observe(time.perf_counter() - started)
        self._count(conclusion, new=bool(steps))
        self._written()

    async def _keep(self, conclusion: Conclusion, item: WorkItem, model: RunningModel) -> tuple[str, list[Step]]:
        """The stored assessment of this conclusion: an existing revision when it says nothing new."""
        previous = await self._archive.latest(self._archive.identity(conclusion))
        status = _status(conclusion, previous)
        if (
            previous is not None
            and previous.status != "entered-in-error"
            and previous.content == self._archive.content(conclusion, previous.status)
        ):
            return previous.id, []
        return await self._revise(conclusion, previous, status, item, model)

    async def _revise(
        self,
        conclusion: Conclusion,
        previous: Stored | None,
        status: str,
        item: WorkItem,
        model: RunningModel,
    ) -> tuple[str, list[Step]]:
        assessment_id, steps = self._archive.store(conclusion, previous, status, model.arm)
        a = conclusion.assessment
        identity = previous.identity if previous else self._archive.identity(conclusion)
        charted = previous is not None and await self._outbox.was_queued(identity)
        if charted or (model.arm is Arm.CHAMPION and is_chartable(a.outcome, urgent=a.urgent)):
            steps += self._outbox.queue(assessment_id, identity, item.heard_at, time.time())
        return assessment_id, steps

    async def _correct(self, old: Stored, item: WorkItem, model: RunningModel) -> list[Step]:
        """What an older assessment becomes now that a reading it rested on has changed; nothing when it has not.

        It is computed again at its own moment, from what had been charted by then and what its readings say now.
        """
        then = old.conclusion.evidence.at
        snapshot = await self._reader.read(item.patient, model.need, then)
        now_there = {r.relative: r for s in snapshot.resources if (r := references.identity(s)) is not None}
        if all(_unchanged(r, now_there) for r in old.conclusion.evidence.basis):
            return []
        again = pipeline.conclude(_as_of(snapshot, old, then), model, self._rules)
        if again.assessment.outcome is Outcome.NOT_SCORED or self._archive.identity(again) != old.identity:
            _, steps = await self._revise(old.conclusion, old, "entered-in-error", item, model)
            return steps
        if self._archive.content(again, old.status) == old.content:
            return []
        _, steps = await self._revise(again, old, "corrected", item, model)
        return steps

    def _count(self, conclusion: Conclusion, *, new: bool) -> None:
        a = conclusion.assessment
        EVENTS.labels("assessed").inc()
        if not new:
            return
        ASSESSMENTS.labels(a.model, a.outcome.value).inc()
        for reason in a.reasons:
            NOT_SCORED.labels(a.model, reason).inc()
        bins = self._bins.get(a.model, {})
        for feature in a.vector.features:
            if feature.name in bins:
                BIN_OBSERVATIONS.labels(a.model, a.version, feature.name, bins[feature.name].of(feature.value)).inc()


def _status(conclusion: Conclusion, previous: Stored | None) -> str:
    """The FHIR status of a revision: what a reader must know about how it came to be."""
    complete = conclusion.assessment.outcome is Outcome.SCORED
    if previous is None or previous.status == "preliminary":
        return "final" if complete else "preliminary"
    before = {r.relative: r.version for r in previous.conclusion.evidence.basis}
    now = {r.relative: r.version for r in conclusion.evidence.basis}
    changed = any(now.get(name) != version for name, version in before.items())
    return "corrected" if changed or not complete else "amended"


def _unchanged(reference: Reference, now_there: Mapping[str, Reference]) -> bool:
    current = now_there.get(reference.relative)
    return current is not None and current.version == reference.version


def _as_of(snapshot: PatientSnapshot, old: Stored, then: datetime) -> PatientSnapshot:
    """The snapshot without what happened or was charted later, except what the old assessment rested on."""
    own = {r.relative for r in old.conclusion.evidence.basis}
    last = old.conclusion.evidence.occurred_at

    def known_then(resource: Mapping[str, Any]) -> bool:
        reference = references.identity(resource)
        if reference is not None and reference.relative in own:
            return True
        happened = instant(resource.get("effectiveDateTime"))
        updated = instant((resource.get("meta") or {}).get("lastUpdated"))
        return (happened is None or happened <= last) and (updated is None or updated <= then)

    return replace(snapshot, resources=tuple(r for r in snapshot.resources if known_then(r)))
