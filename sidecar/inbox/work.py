"""Work: one row a patient and model, however many events wait behind it. Order is kept per patient.

A claim is a lease with a token of its own; every later statement names the token, so a worker whose lease ran out can
no longer change anything (`ClaimLost`).
"""

from dataclasses import dataclass

from sidecar.records import PatientId, Redacted
from sidecar.store import Cipher, Statement, Step, Store

CLAIM = Statement(
    "claim_work",
    "UPDATE work SET claim = :claim, lease_until = :lease_until, claimed_event_id = last_event_id "
    "WHERE (patient_key, model) IN (SELECT patient_key, model FROM work "
    "WHERE due_at <= :now AND lease_until <= :now ORDER BY due_at LIMIT :most) "
    "RETURNING patient_key, model, patient, first_heard_at, claimed_event_id, attempts",
)
FOCUSES = Statement(
    "focuses",
    "SELECT DISTINCT event.focus_key FROM cause JOIN event ON event.id = cause.event_id "
    "WHERE cause.patient_key = :patient_key AND cause.model = :model AND cause.assessment_id IS NULL "
    "AND cause.event_id <= :last AND event.focus_key IS NOT NULL",
)
FENCE = Statement(
    "fence_work",
    "UPDATE work SET claim = NULL, lease_until = 0, attempts = 0 "
    "WHERE patient_key = :patient_key AND model = :model AND claim = :claim",
)
CLEAR = Statement(
    "clear_work",
    "DELETE FROM work WHERE patient_key = :patient_key AND model = :model AND claim IS NULL AND last_event_id <= :last",
)
ANSWER = Statement(
    "answer",
    "UPDATE cause SET assessment_id = :assessment_id WHERE patient_key = :patient_key AND model = :model "
    "AND assessment_id IS NULL AND event_id <= :last",
)
COMPLETE = Statement(
    "complete",
    "UPDATE event SET state = 'done', reason = :reason, done_at = :now WHERE state = 'routed' AND id IN "
    "(SELECT event_id FROM cause WHERE patient_key = :patient_key AND model = :model "
    "AND assessment_id IS NULL AND event_id <= :last) "
    "AND NOT EXISTS (SELECT 1 FROM cause WHERE cause.event_id = event.id "
    "AND cause.assessment_id IS NULL AND cause.model <> :model)",
)
RELEASE = Statement(
    "release_work",
    "UPDATE work SET claim = NULL, lease_until = 0, due_at = :due_at, attempts = attempts + :tried "
    "WHERE patient_key = :patient_key AND model = :model AND claim = :claim",
)
BURY_EVENTS = Statement(
    "bury_routed",
    "UPDATE event SET state = 'buried', reason = :reason, done_at = :now WHERE state = 'routed' AND id IN "
    "(SELECT event_id FROM cause WHERE patient_key = :patient_key AND model = :model "
    "AND assessment_id IS NULL AND event_id <= :last)",
)
REPLAY = Statement(
    "replay_work",
    "UPDATE event SET state = 'pending', reason = NULL, attempts = 0, due_at = 0, done_at = NULL, patient_key = NULL "
    "WHERE state = 'buried' AND patient_key IS NOT NULL AND (:id IS NULL OR id = :id) RETURNING id",
)
FORGET_CAUSES = Statement(
    "forget_causes",
    "DELETE FROM cause WHERE assessment_id IS NULL AND event_id IN (SELECT id FROM event WHERE state = 'pending')",
)


@dataclass(frozen=True, slots=True)
class Claim:
    """The fence: which row, and the token that must still be on it."""

    token: str
    patient_key: bytes
    model: str
    last_event_id: int


@dataclass(frozen=True, slots=True, repr=False)
class WorkItem(Redacted):
    """One patient to assess with one model. `focus_keys` fingerprint the resources that changed."""

    claim: Claim
    patient: PatientId
    heard_at: float
    attempts: int
    focus_keys: frozenset[bytes]


class WorkBox:
    """The verbs of work once the patient is known."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher

    async def claim(self, token: str, now: float, lease_s: float, most: int) -> list[WorkItem]:
        """Own up to `most` due rows until `now + lease_s`, those due longest first."""
        row = {"claim": token, "now": now, "lease_until": now + lease_s, "most": most}
        (rows,) = await self._store.commit(Step(CLAIM, [row]))
        items = []
        for r in rows:
            claim = Claim(token, r["patient_key"], r["model"], r["claimed_event_id"])
            sealed_row = claim.patient_key + b"|" + claim.model.encode()
            found = await self._store.read(
                FOCUSES, patient_key=claim.patient_key, model=claim.model, last=claim.last_event_id
            )
            items.append(
                WorkItem(
                    claim=claim,
                    patient=PatientId(self._cipher.open("work.patient", sealed_row, r["patient"]).decode()),
                    heard_at=r["first_heard_at"],
                    attempts=r["attempts"],
                    focus_keys=frozenset(f["focus_key"] for f in found),
                )
            )
        return items

    def settled(self, claim: Claim, assessment_id: str, reason: str, now: float) -> list[Step]:
        """Steps that complete every event behind `claim` with one assessment. Fenced by the claim."""
        row = _fence(claim)
        return [
            Step(FENCE, [row], expect=1),
            Step(CLEAR, [row | {"last": claim.last_event_id}]),
            Step(COMPLETE, [row | {"last": claim.last_event_id, "reason": reason, "now": now}]),
            Step(ANSWER, [row | {"assessment_id": assessment_id, "last": claim.last_event_id}]),
        ]

    def buried(self, claim: Claim, reason: str, now: float) -> list[Step]:
        """Steps that set aside every event behind `claim`. They can be replayed."""
        row = _fence(claim)
        last = {"last": claim.last_event_id}
        return [
            Step(FENCE, [row], expect=1),
            Step(CLEAR, [row | last]),
            Step(BURY_EVENTS, [row | last | {"reason": reason, "now": now}]),
        ]

    async def release(self, claim: Claim, due_at: float, *, tried: bool) -> None:
        """Give a claim back, counting the attempt or not. A lost claim is left alone."""
        await self._store.commit(Step(RELEASE, [_fence(claim) | {"due_at": due_at, "tried": int(tried)}]))


def _fence(claim: Claim) -> dict[str, object]:
    return {"patient_key": claim.patient_key, "model": claim.model, "claim": claim.token}
