"""Deliver one stored revision: look at the patient again, then write Device, Observation, RiskAssessment in order."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidecar.errors import Rejected, SidecarError
from sidecar.fhir import references
from sidecar.fhir.client import EhrClient
from sidecar.manifest import Manifest
from sidecar.records import Evidence, Outcome, Reference, Stored
from sidecar.writeback.ladder import LadderWriter
from sidecar.writeback.outbox import Effect, Outbox, QueuedWrite
from sidecar.writeback.render import Links, device, observation, risk_assessment, score_stub
from sidecar.writeback.sending import Sending, SendingWrite, longest_s

_DEATHS = ("deceasedBoolean", "deceasedDateTime", "_deceasedDateTime")  # the last: dead, and nobody knows since when
_ENDED = ("finished", "cancelled", "entered-in-error")


@dataclass(frozen=True, slots=True)
class Delivered:
    """How a write ended: `written` with what the chart now holds, or why not."""

    state: str
    reason: str | None = None
    effect: Effect | None = None


@dataclass(frozen=True, slots=True)
class Conventions:
    """How this EHR takes points (`{score}`, `{ScoreOf}`, `integer`) and probabilities (see `risk_assessment`)."""

    score_value: str = "{score}"
    probability: str = "percent"


@dataclass(frozen=True, slots=True)
class Wording:
    """What explanation says of an assessment; handed in, because rooms do not know each other."""

    rationale: Callable[[Any, Manifest], str]
    rationales: Callable[[Any, Manifest], Mapping[str, str]]
    reason: Callable[..., str]


@dataclass(frozen=True, slots=True)
class _Writes:
    write: QueuedWrite
    ladder: LadderWriter
    known: Effect
    sending: Sending

    @property
    def look_first(self) -> bool:
        return self.write.attempts > 1


class Deliverer:
    """Delivers through one client."""

    def __init__(self, client: EhrClient, outbox: Outbox, wording: Wording, conventions: Conventions) -> None:
        self._client, self._outbox = client, outbox
        self._wording, self._conventions = wording, conventions
        self._making_device = asyncio.Lock()

    async def deliver(
        self, write: QueuedWrite, stored: Stored, manifest: Manifest, ladder: LadderWriter, now: float
    ) -> Delivered:
        """Write `stored`, or say why it must not be written any more. Repeating it has the same single effect.

        Raises:
            Rejected: it can never be written as it is.
            Unavailable, Retryable, TooEarly: not known to be written; repeat.
            ClaimLost: somebody else has it by now.
        """
        known = await self._outbox.effect(write.identity)
        evidence = stored.conclusion.evidence
        if known is None and (write.attempts > 1 or write.revision > 1):
            known = await self._look(stored, manifest, ladder, write.identity)
        refusal = await self._recheck(stored, manifest, already_charted=known is not None)
        if refusal is not None:
            return Delivered("cancelled", refusal, known)
        if known is None and now > evidence.valid_until.timestamp():
            return Delivered("expired", "expired:before_delivery")
        if known is None and stored.status == "entered-in-error":
            return Delivered("cancelled", "never_charted")
        links = self._links(stored, manifest, write.identity, await self._device(stored, manifest, ladder))
        await self._outbox.must_hold(write, time.time())
        sending = SendingWrite(self._outbox, write, self._client.timeout_s)
        writes = _Writes(write, ladder, known or Effect(None, None), sending)
        return Delivered("written", None, await self._write(stored, manifest, links, writes))

    async def is_there(self, stored: Stored, manifest: Manifest, ladder: LadderWriter, identity: bytes) -> bool:
        """Whether the chart holds anything of this result, after an attempt whose answer was lost."""
        return await self._look(stored, manifest, ladder, identity) is not None

    async def _look(self, stored: Stored, manifest: Manifest, ladder: LadderWriter, identity: bytes) -> Effect | None:
        """What the chart holds of an earlier attempt whose answer was lost."""
        links = self._links(stored, manifest, identity, "Device/unknown")
        risk_id = score_id = None
        if ladder.takes("RiskAssessment"):
            risk_id = await ladder.locate(risk_assessment(stored.conclusion, manifest, links))
        if ladder.takes("Observation"):
            score_id = await ladder.locate(score_stub(stored.conclusion, identity))
        return Effect(risk_id, score_id) if risk_id or score_id else None

    def _links(self, stored: Stored, manifest: Manifest, identity: bytes, device_reference: str) -> Links:
        return Links(
            identity=identity,
            status=stored.status,
            device=device_reference,
            rationale=self._wording.rationale(stored.conclusion.assessment, manifest),
            rationales=self._wording.rationales(stored.conclusion.assessment, manifest),
            reasons=self._reasons(stored, manifest),
            score_value=self._conventions.score_value,
            probability=self._conventions.probability,
        )

    async def _write(self, stored: Stored, manifest: Manifest, links: Links, writes: "_Writes") -> Effect:
        ladder, known, sending = writes.ladder, writes.known, writes.sending
        score_id, risk_id = known.observation, known.risk_assessment
        alone = not ladder.takes("RiskAssessment")
        links = replace(links, alone=alone)
        wanted = ladder.takes("Observation") and not (manifest.outputs and not alone)
        score = observation(stored.conclusion, manifest, links) if wanted else None
        if score is not None:
            score_id = await ladder.write(score, score_id, sending, look_first=writes.look_first)
            links = replace(links, observation=f"Observation/{score_id}")
        elif score_id is not None:
            await self._withdraw(score_id, stored.conclusion.evidence, writes)
        try:
            if not alone:
                body = risk_assessment(stored.conclusion, manifest, links)
                risk_id = await ladder.write(body, risk_id, sending, look_first=writes.look_first)
            elif score is None and score_id is None:  # a withdrawn result is a whole effect
                raise Rejected("ehr_cannot:RiskAssessment")
        except SidecarError:
            # Half a write is remembered, so that it can be withdrawn whatever becomes of the other half. No half is
            # none: what was remembered counts as charted, and is not judged by the patient's state again.
            if risk_id is not None or score_id is not None:
                await self._outbox.keep_now(writes.write, Effect(risk_id, score_id), time.time())
            raise
        return Effect(risk_id, score_id)

    async def _withdraw(self, logical_id: str, evidence: Evidence, writes: "_Writes") -> None:
        """A total that no longer stands: the assessment became incomplete."""
        there = await self._client.read(Reference("Observation", logical_id))
        if there is not None and there.get("status") != "entered-in-error":
            subject = references.of(there.get("subject"), self._client.base_url)
            if subject is None or subject.relative != f"Patient/{evidence.patient.value}":
                raise Rejected("another_patient")
            changed = {k: v for k, v in there.items() if k != "meta"} | {"status": "entered-in-error"}
            await writes.ladder.write(changed, logical_id, writes.sending, look_first=True)

    async def _device(self, stored: Stored, manifest: Manifest, ladder: LadderWriter) -> str:
        digest, devices = stored.conclusion.assessment.model_digest, self._outbox.devices
        # First writes run side by side: where only a search guards a create, two of them would make two Devices.
        async with self._making_device:
            remote_id = await devices.find(digest)
            if remote_id is None:
                making = devices.making(digest, longest_s(self._client.timeout_s))
                await making.take()
                try:
                    remote_id = await ladder.write(device(manifest, digest), None, making, look_first=True)
                    await devices.keep(digest, remote_id)
                finally:
                    await making.leave()
        return f"Device/{remote_id}"

    def _reasons(self, stored: Stored, manifest: Manifest) -> tuple[str, ...]:
        a = stored.conclusion.assessment
        return tuple(self._wording.reason(r, manifest, a.vector.features, a.withheld) for r in a.reasons)

    async def _recheck(self, stored: Stored, manifest: Manifest, *, already_charted: bool) -> str | None:
        """Why this must not be written now. What is charted already may still be corrected after death or discharge."""
        evidence = stored.conclusion.evidence
        patient = await self._client.read(Reference("Patient", evidence.patient.value))
        if patient is None:
            return "gone:patient"
        if _replaced(patient):
            return "patient_merged"
        if already_charted:
            return None
        if patient.get("active") is False:
            return "out_of_cohort:inactive"
        excluded = manifest.cohort.exclude
        if "deceased" in excluded and any(patient.get(name) for name in _DEATHS):
            return "out_of_cohort:deceased"
        return await self._recheck_stay(evidence) if evidence.encounter and "discharged" in excluded else None

    async def _recheck_stay(self, evidence: Evidence) -> str | None:
        stay = await self._client.read(Reference("Encounter", evidence.encounter.id if evidence.encounter else ""))
        if stay is None:
            return "gone:encounter"
        subject = references.of(stay.get("subject"), self._client.base_url)
        if subject is None or subject.id != evidence.patient.value:
            raise Rejected("another_patient")
        if stay.get("status") not in _ENDED or await self._is_elsewhere(evidence):
            return None
        return "out_of_cohort:discharged"

    async def _is_elsewhere(self, evidence: Evidence) -> bool:
        """Whether another stay is open: moved to a ward, not discharged."""
        query = {"patient": evidence.patient.value, "status": "arrived,triaged,in-progress,onleave"}
        async for stay in self._client.search("Encounter", query):
            subject = references.of(stay.get("subject"), self._client.base_url)
            if subject is not None and subject.id == evidence.patient.value:
                return True
        return False


def _replaced(patient: Mapping[str, Any]) -> bool:
    links = patient.get("link")
    return isinstance(links, list) and any(isinstance(x, Mapping) and x.get("type") == "replaced-by" for x in links)


def is_chartable(outcome: Outcome, *, urgent: bool) -> bool:
    """Whether a first revision goes into the chart: every total, and an incomplete one that cannot wait."""
    return outcome is Outcome.SCORED or (outcome is Outcome.INCOMPLETE and urgent)
