"""Claim a patient's work, assess, settle: complete, retry, or bury.

Storing the assessment, queueing its write and completing its events is one transaction. Assessments that rested on a
reading that has changed since are corrected in the same transaction.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sidecar import log, pipeline
from sidecar.aftermath import PATIENCE, aftermath
from sidecar.context import unit_of
from sidecar.deid import instant, joined
from sidecar.errors import NotHere, NotStored, Rejected, Retryable, SidecarError
from sidecar.evidence import charted
from sidecar.explanation import reason_in_words
from sidecar.fhir import references
from sidecar.inbox import WorkItem
from sidecar.metrics import ASSESSMENTS, BIN_OBSERVATIONS, EVENTS, NOT_SCORED, STAGE_SECONDS
from sidecar.pipeline import RunningModel
from sidecar.pump import Pump, Verbs
from sidecar.records import ENDED, Conclusion, Outcome, PatientSnapshot, Reference, Stored, later
from sidecar.rooms import Rooms
from sidecar.store import Statement, Step
from sidecar.writeback import is_chartable

NEXT_DUE = Statement(
    "next_due", "SELECT due_at AS due FROM work WHERE lease_until <= :now ORDER BY due_at LIMIT 1", quick=True
)
CLOCK_SKEW = timedelta(minutes=5)
SAME_MOMENT = timedelta(milliseconds=1)
REPLACED = "replaced by newer results"
NOT_YET_VISIBLE = 4
"""Looks at a context that does not show what the EHR has shown before."""


@dataclass(frozen=True, slots=True)
class _Ending:
    """What stood until now does so no more: when that was seen, why in words, and with which security labels.

    A patient who left the cohort has no current result at all; newer readings end the results of moments `before` them.
    """

    at: datetime
    why: str
    labels: tuple[str, ...]
    before: datetime | None = None

    def ends(self, conclusion: Conclusion) -> bool:
        """Whether `conclusion` is in force and this ends it."""
        e = conclusion.evidence
        concerned = self.before is None or e.occurred_at < self.before - SAME_MOMENT
        return concerned and e.valid_until > self.at and not conclusion.assessment.vector.ended

    def of(self, conclusion: Conclusion) -> Conclusion:
        """`conclusion` as it stands in the chart from now on: no longer current."""
        a, e = conclusion.assessment, conclusion.evidence
        said = replace(a.vector, remarks=(*a.vector.remarks, f"{ENDED}{self.why}."))
        labels = joined((e.labels, self.labels))
        return Conclusion(replace(a, vector=said), replace(e, valid_until=max(self.at, e.occurred_at), labels=labels))


def _ending(conclusion: Conclusion, model: RunningModel) -> _Ending | None:
    """Set when the refusal is of the patient, or when newer readings end what rested on older ones."""
    a, at, manifest = conclusion.assessment, conclusion.evidence.at, model.loaded.manifest
    labels = conclusion.evidence.labels
    refused = a.outcome is Outcome.NOT_SCORED
    why = "; ".join(reason_in_words(r, manifest, a.vector.features, a.withheld) for r in a.reasons)
    if refused and not a.vector.features:
        # How the EHR answered says nothing of the patient.
        return None if set(a.reasons) & pipeline.ABOUT_THE_PATIENT else _Ending(at, why, labels)
    newest_at = pipeline.newest_reading_at(conclusion, manifest) if manifest.newer_ends_older else None
    if newest_at is None:
        return None
    unread = any(f.reason and f.seconds is not None for f in a.vector.features)
    failed = f"newer results {'cannot be read' if unread else 'give no result'}: {why}"
    return _Ending(at, failed if refused else REPLACED, labels, newest_at)


class Worker:
    """Assesses claimed work. `written` wakes the delivery."""

    def __init__(self, rooms: Rooms, written: Callable[[], None]) -> None:
        self._rooms, self._written = rooms, written
        verbs = Verbs(self._claim, self._run, self._bury, self._release, self._extend, self._waits, self._next_due)
        lease_s = rooms.work.lease.total_seconds()
        self.pump: Pump[WorkItem] = Pump("assess", rooms.work.concurrency, lease_s, rooms.ready, verbs)

    async def _claim(self, most: int) -> Sequence[WorkItem]:
        lease_s = self._rooms.work.lease.total_seconds()
        return await self._rooms.work_box.claim(self._rooms.store.fresh_claim(), time.time(), lease_s, most)

    async def _waits(self) -> bool:
        due = await self._next_due()
        return due is not None and due <= time.time()

    async def _next_due(self) -> float | None:
        rows = await self._rooms.store.read(NEXT_DUE, now=time.time())
        return float(rows[0]["due"]) if rows else None

    async def _run(self, item: WorkItem) -> None:
        try:
            await self._rooms.leases.must_lead()
            if item.attempts > self._rooms.work.max_attempts * PATIENCE:
                raise Rejected("worn_out:work")
            await self._assess(item)
        except NotStored:
            raise
        except SidecarError as error:
            await self._after(item, error)

    async def _after(self, item: WorkItem, error: SidecarError) -> None:
        rooms = self._rooms
        next_step = await aftermath(error, item.attempts - 1, rooms.gate, rooms.work)
        if next_step.what == "bury":
            await self._bury(item, next_step.reason)
        elif next_step.what == "release":
            await rooms.work_box.release(item.claim, time.time() + next_step.pause_s, tried=False)
        elif next_step.what == "again":
            await rooms.work_box.release(item.claim, time.time() + next_step.pause_s, tried=True)

    async def _release(self, item: WorkItem) -> None:
        await self._rooms.work_box.release(item.claim, time.time(), tried=False)

    async def _extend(self, items: Sequence[WorkItem]) -> None:
        await self._rooms.work_box.extend(items, time.time() + self._rooms.work.lease.total_seconds())

    async def _bury(self, item: WorkItem, reason: str) -> None:
        await self._rooms.store.commit(*self._rooms.work_box.buried(item.claim, reason, time.time()))
        EVENTS.labels("buried").inc(len(item.claim.events))

    async def _assess(self, item: WorkItem) -> None:
        rooms = self._rooms
        model = await self._chosen(item)
        if model is None:
            return
        conclusion = await pipeline.assess(
            rooms.reader, item.patient, model, rooms.rules, rooms.clock(), lambda seen: self._must_show(item, seen)
        )
        assessment_id, steps, new = await self._concluded(conclusion, item, model)
        outcome = conclusion.assessment.outcome
        if not rooms.models.runs(model):
            raise NotHere("another_version_by_now", 0.0)
        started = time.perf_counter()
        settled = rooms.work_box.settled(item.claim, assessment_id, outcome.value, time.time())
        await rooms.store.commit(*settled, *steps)
        STAGE_SECONDS.labels("settle").observe(time.perf_counter() - started)
        EVENTS.labels("assessed").inc(len(item.claim.events))
        if new:
            self._count(conclusion)
        self._written()

    async def _chosen(self, item: WorkItem) -> RunningModel | None:
        """The version that scores this patient; None when what was asked for has ended, and so has the work.

        Raises:
            Rejected: the settings run no such model.
            NotHere: its version is not loaded here.
        """
        rooms, track = self._rooms, item.claim.model
        if not rooms.models.knows(track):
            raise Rejected("unknown_model")
        await rooms.registry.caught_up()
        unit = await unit_of(rooms.client, item.patient) if rooms.models.asks_for_unit(track) else None
        model = rooms.models.chosen(track, item.claim.patient_key, unit)
        if model is None:
            await rooms.store.commit(*rooms.work_box.settled(item.claim, "ended", "version_ended", time.time()))
        return model

    async def _concluded(
        self, conclusion: Conclusion, item: WorkItem, model: RunningModel
    ) -> tuple[str, list[Step], bool]:
        """The id of what is now concluded, all that must be stored with it, and whether it is news."""
        archive, ending = self._rooms.archive, _ending(conclusion, model)
        standing = await archive.in_force(item.patient, model.name, ending.at.timestamp()) if ending else []
        resting = await archive.resting_on(item.claim.patient_key, model.name, item.focus_keys)
        scored = conclusion.assessment.outcome is not Outcome.NOT_SCORED
        newer = _newer(standing, ending, {old.identity for old in resting}) if scored else None
        if newer is None:
            assessment_id, identity, steps = await self._keep(conclusion, item, model)
        else:
            assessment_id, identity, steps = newer.id, newer.identity, []
        new, revised = bool(steps), {identity} if identity is not None else set()
        for old in resting:
            if old.identity != identity:
                done, more = await self._correct(old, item, model, ending)
                steps += more
                revised |= {old.identity} if done else set()
        for old in standing:
            if ending is not None and old.identity not in revised and ending.ends(old.conclusion):
                steps += await self._end(old, ending, item, model)
        return assessment_id, steps, new

    async def _keep(
        self, conclusion: Conclusion, item: WorkItem, model: RunningModel
    ) -> tuple[str, bytes | None, list[Step]]:
        """Id and identity of the stored assessment, and what must be stored: nothing when it says nothing new.

        There is no identity when what is charted is another version's, and not this one's to say again.
        """
        archive = self._rooms.archive
        spread_s = model.extractor.spread_s
        scored = conclusion.assessment.outcome is not Outcome.NOT_SCORED
        previous = await (
            archive.find(conclusion, spread_s) if scored else archive.latest(archive.identity(conclusion))
        )
        if previous is not None and await self._anothers(previous, model) is not None:
            withdrawn = previous.status == "entered-in-error"
            done, steps = (True, []) if withdrawn else await self._correct(previous, item, model, None)
            return previous.id, previous.identity if done else None, steps
        if previous is None or self._is_news(conclusion, previous, model):
            status = _status(conclusion, previous if await self._is_told(previous) else None)
            assessment_id, steps = await self._revise(conclusion, previous, status, item, model)
            return assessment_id, previous.identity if previous else archive.identity(conclusion), steps
        steps = [] if _same_versions(conclusion, previous) else archive.touched(previous, conclusion)
        a = conclusion.assessment
        if model.arm.writes and is_chartable(a.outcome, urgent=a.urgent):
            steps.append(self._rooms.outbox.requeue(previous.id, time.time()))
        return previous.id, previous.identity, steps

    async def _anothers(self, previous: Stored, model: RunningModel) -> Stored | None:
        """What the chart holds, if another version said it and `model` does not write: no numbers of its own then.

        What is there may be ended and withdrawn. It has the newest revision's number, and may be older.
        """
        if model.arm.writes:
            return None
        there = await charted(self._rooms.archive, previous.identity, previous.revision + 1)
        if there is None or there.conclusion.assessment.model_digest == model.loaded.digest:
            return None
        return replace(there, revision=previous.revision)

    async def _is_told(self, previous: Stored | None) -> bool:
        """Whether anybody may have read it: what was only in shadow is no former result to a reader."""
        return previous is not None and (previous.arm.writes or await self._rooms.outbox.was_queued(previous.identity))

    def _is_news(self, conclusion: Conclusion, previous: Stored, model: RunningModel) -> bool:
        """Whether it says something else, or is the first of its result that may be charted."""
        if previous.status == "entered-in-error" or (model.arm.writes and not previous.arm.writes):
            return True
        return self._rooms.archive.content(conclusion, previous.status) != previous.content

    async def _revise(
        self, conclusion: Conclusion, previous: Stored | None, status: str, item: WorkItem, model: RunningModel
    ) -> tuple[str, list[Step]]:
        archive, outbox = self._rooms.archive, self._rooms.outbox
        assessment_id, steps = archive.store(conclusion, previous, status, model.arm)
        a = conclusion.assessment
        identity = previous.identity if previous else archive.identity(conclusion)
        is_charted = previous is not None and await outbox.was_queued(identity)
        first = model.arm.writes and is_chartable(a.outcome, urgent=a.urgent) and not a.vector.ended
        if is_charted or first:
            steps += outbox.queue(assessment_id, identity, item.heard_at, time.time())
        return assessment_id, steps

    def _must_show(self, item: WorkItem, snapshot: PatientSnapshot) -> None:
        """Ask for another look when the search does not show yet what the EHR has shown already.

        Raises:
            Retryable: a focus is missing or older than it was; not after `NOT_YET_VISIBLE` looks.
        """
        if not item.expected or item.attempts > NOT_YET_VISIBLE:
            return
        missing = dict(item.expected)
        for resource in snapshot.resources:  # what was charted last comes first: few are looked at
            own = references.identity(resource)
            key = self._rooms.archive.resource_key(own) if own is not None else None
            version = missing.pop(key, None) if key is not None else None
            if own is not None and version is not None and _is_older(own.version, version):
                raise Retryable("not_yet_visible", 0.5)
            if not missing:
                return
        raise Retryable("not_yet_visible", 0.5)

    async def _end(self, old: Stored, ending: "_Ending", item: WorkItem, model: RunningModel) -> list[Step]:
        """End a result that holds: no surface may go on showing it as current."""
        status = old.status if old.status == "preliminary" else "amended"
        _, steps = await self._revise(ending.of(old.conclusion), old, status, item, model)
        return steps

    async def _correct(
        self, old: Stored, item: WorkItem, model: RunningModel, ending: "_Ending | None"
    ) -> tuple[bool, list[Step]]:
        """What an older assessment becomes now that a reading it rested on has changed; whether it was revised.

        It is computed again at its own moment, from what had been charted by then and what its readings say now.
        """
        newest, anothers = old.id, await self._anothers(old, model)
        old = anothers or old
        rooms, then = self._rooms, old.conclusion.evidence.at
        try:
            snapshot = await rooms.reader.read(item.patient, model.need, then, until=later(then, CLOCK_SKEW))
        except Rejected as refusal:
            log.get().warning("not corrected", model=model.name, reason=refusal.reason)
            return False, [rooms.archive.for_review(item.patient, f"not_corrected:{refusal.reason}")]
        there = {r.relative: r for s in snapshot.resources if (r := references.identity(s)) is not None}
        if all(_unchanged(r, there) for r in old.conclusion.evidence.basis):
            return False, []
        again = await pipeline.reckon(_as_of(snapshot, old, then), model, rooms.rules, still_in_cohort=True)
        if anothers and _same_readings(again, old):
            return False, rooms.archive.touched(old, again) if old.id == newest else []
        if anothers or again.assessment.outcome is Outcome.NOT_SCORED or not _same_moment(again, old):
            _, steps = await self._revise(old.conclusion, old, "entered-in-error", item, model)
            return True, steps
        again = _still_ended(again, old)
        if rooms.archive.content(again, old.status) == old.content:
            return False, rooms.archive.touched(old, again)
        if ending is not None and ending.ends(again):
            again = ending.of(again)
        _, steps = await self._revise(again, old, "corrected", item, model)
        return True, steps

    def _count(self, conclusion: Conclusion) -> None:
        a = conclusion.assessment
        ASSESSMENTS.labels(a.model, a.outcome.value).inc()
        for reason in a.reasons:
            NOT_SCORED.labels(a.model, reason).inc()
        bins = self._rooms.models.bins.get(a.model_digest, {})
        for feature in a.vector.features:
            if feature.name in bins:
                BIN_OBSERVATIONS.labels(a.model, a.version, feature.name, bins[feature.name].of(feature.value)).inc()


def _newer(standing: Sequence[Stored], ending: _Ending | None, asked: set[bytes]) -> Stored | None:
    """A result in force of a later moment than the newest readings seen, none of whose own readings is asked about.

    A search that does not show its readings (yet) proves nothing, and must not bring back what it has replaced.
    """
    if ending is None or ending.before is None:
        return None
    later_on = ending.before + SAME_MOMENT
    return next((s for s in standing if s.conclusion.evidence.occurred_at > later_on and s.identity not in asked), None)


def _status(conclusion: Conclusion, previous: Stored | None) -> str:
    """The FHIR status of a revision: what a reader must know about how it came to be."""
    complete = conclusion.assessment.outcome is Outcome.SCORED
    if previous is None or previous.status == "preliminary":
        return "final" if complete else "preliminary"
    before = {r.relative: r.version for r in previous.conclusion.evidence.basis}
    now = {r.relative: r.version for r in conclusion.evidence.basis}
    changed = any(now.get(name) != version for name, version in before.items())
    return "corrected" if changed or not complete else "amended"


def _still_ended(again: Conclusion, old: Stored) -> Conclusion:
    """A correction does not bring a result back that had been ended."""
    a, e = again.assessment, old.conclusion.evidence
    ended = old.conclusion.assessment.vector.ended
    said = replace(a.vector, remarks=(*a.vector.remarks, ended)) if ended else a.vector
    return Conclusion(replace(a, vector=said), replace(again.evidence, valid_until=e.valid_until))


def _same_versions(conclusion: Conclusion, previous: Stored) -> bool:
    now = {r.versioned for r in conclusion.evidence.basis}
    return now == {r.versioned for r in previous.conclusion.evidence.basis}


def _same_moment(again: Conclusion, old: Stored) -> bool:
    moved = again.evidence.occurred_at - old.conclusion.evidence.occurred_at
    return abs(moved.total_seconds()) < 0.001


def _same_readings(again: Conclusion, old: Stored) -> bool:
    """Whether the inputs of an older result say what they said, as far as another version reads the same ones."""
    before, now = old.conclusion, again
    if {r.relative for r in before.evidence.basis} != {r.relative for r in now.evidence.basis}:
        return False
    said = {f.name: (f.unit, repr(f.value), repr(f.shown)) for f in now.assessment.vector.features}
    features = before.assessment.vector.features
    return all(said.get(f.name) == (f.unit, repr(f.value), repr(f.shown)) for f in features)


def _is_older(version: str | None, than: str) -> bool:
    return version is not None and version.isdigit() and than.isdigit() and int(version) < int(than)


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
