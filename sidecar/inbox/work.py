"""Work: one row a patient and model, however many events wait behind it. Order is kept per patient.

A claim is a lease with a token of its own; every later statement names the token, so a worker whose lease ran out can
no longer change anything (`ClaimLost`). A claim answers the events that it saw and no others: event numbers say when
we heard, not when an event was routed, so an older one may arrive while its patient is being assessed. A row of
`cause` without an assessment is a look that a model still owes an event; the work row stays while there is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sidecar.errors import NotHere, Rejected
from sidecar.records import PatientId, Redacted
from sidecar.store import SKIP_LOCKED, Cipher, Row, Statement, Step, Store, Unsure, row_key

CLAIM = Statement(
    "claim_work",
    "WITH picked AS (SELECT patient_key, model FROM work "  # noqa: S608 -- constants
    f"WHERE due_at <= :now AND lease_until <= :now ORDER BY due_at LIMIT :most {SKIP_LOCKED}) "
    "UPDATE work SET claim = :claim, lease_until = :lease_until, claimed_event_id = last_event_id, "
    "attempts = attempts + 1 WHERE (patient_key, model) IN (SELECT patient_key, model FROM picked) "
    "RETURNING patient_key, model, patient, first_heard_at, attempts",
    durable=False,
)
UNCLAIM = Statement(
    "unclaim_work", "UPDATE work SET claim = NULL, lease_until = 0, attempts = attempts - 1 WHERE claim = :claim"
)
CAUSES = Statement(
    "causes",
    "SELECT event.id, event.focus_key, event.version FROM cause JOIN event ON event.id = cause.event_id "
    "WHERE cause.patient_key = :patient_key AND cause.model = :model AND cause.assessment_id IS NULL",
    quick=True,
)
FENCE = Statement(
    "fence_work",
    "UPDATE work SET claim = NULL, lease_until = 0, attempts = 0 "
    "WHERE patient_key = :patient_key AND model = :model AND claim = :claim",
    leads=True,
    sort_by=("patient_key", "model"),
)
# Two models may answer one event at the same moment in two processes. Each would see the other's answer missing, and
# neither would complete it: so they take turns at the event. Its number orders them, whoever comes first.
TAKE_TURNS = Statement(
    "take_turns",
    "SELECT event.id FROM event WHERE event.id IN (SELECT event_id FROM cause WHERE cause.patient_key = :patient_key "
    "AND cause.model = :model AND cause.assessment_id IS NULL) ORDER BY event.id FOR UPDATE",
    shared=True,
    sort_by=("patient_key", "model"),
)
# Who answers an event last completes it: two that answer the same one never go step by step.
COMPLETE = Statement(
    "complete",
    "UPDATE event SET state = 'done', reason = :reason, done_at = :now WHERE state = 'routed' AND id = :id "
    "AND NOT EXISTS (SELECT 1 FROM cause WHERE cause.event_id = event.id "
    "AND cause.assessment_id IS NULL AND (cause.model <> :model OR cause.patient_key <> :patient_key))",
    sort_by=("id",),
    apart="id",
)
ANSWER = Statement(
    "answer",
    "UPDATE cause SET assessment_id = :assessment_id "
    "WHERE event_id = :id AND model = :model AND patient_key = :patient_key",
)
CLEAR = Statement(
    "clear_work",
    "DELETE FROM work WHERE patient_key = :patient_key AND model = :model AND claim IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM cause WHERE cause.patient_key = work.patient_key AND cause.model = work.model "
    "AND cause.assessment_id IS NULL)",
)
EXTEND = Statement(
    "extend_work",
    "UPDATE work SET lease_until = :lease_until WHERE patient_key = :patient_key AND model = :model AND claim = :claim",
    sort_by=("patient_key", "model"),
    durable=False,
)
RELEASE = Statement(
    "release_work",
    "UPDATE work SET claim = NULL, lease_until = 0, due_at = :due_at, attempts = attempts - :untried "
    "WHERE patient_key = :patient_key AND model = :model AND claim = :claim",
)
BURY_EVENT = Statement(
    "bury_routed",
    "UPDATE event SET state = 'buried', reason = :reason, done_at = :now WHERE state = 'routed' AND id = :id",
)
DROP_CAUSE = Statement(
    "drop_cause", "DELETE FROM cause WHERE event_id = :id AND model = :model AND patient_key = :patient_key"
)
REPLAY = Statement(
    "replay_work",
    "UPDATE event SET state = 'pending', reason = NULL, attempts = 0, due_at = 0, done_at = NULL, patient_key = NULL "
    "WHERE state = 'buried' AND patient_key IS NOT NULL AND (id = :id OR :id IS NULL) RETURNING id",
    wakes="events",
)
FORGET_CAUSES = Statement(
    "forget_causes",
    "DELETE FROM cause WHERE assessment_id IS NULL AND event_id IN (SELECT id FROM event WHERE state = 'pending')",
)


@dataclass(frozen=True, slots=True)
class Claim:
    """The fence: which row, the token that must still be on it, and the events it answers."""

    token: str
    patient_key: bytes
    model: str
    events: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class WorkItem(Redacted):
    """One patient to assess with one model. `focus_keys` fingerprint the resources that changed.

    `expected` are the versions in which some of them must be seen, because the EHR showed them before.

    `attempts` counts this claim; claims that were given back untried are not in it.
    """

    claim: Claim
    patient: PatientId
    heard_at: float
    attempts: int
    focus_keys: frozenset[bytes]
    expected: Mapping[bytes, str]


class WorkBox:
    """The verbs of work once the patient is known."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher
        self._unsure = Unsure(store, UNCLAIM)

    async def claim(self, token: str, now: float, lease_s: float, most: int) -> list[WorkItem]:
        """Own up to `most` due rows until `now + lease_s`, those due longest first.

        A row whose patient cannot be decrypted is set aside with that reason; one whose key another server may have is
        left to it. The others are not kept waiting.
        """
        row = {"claim": token, "now": now, "lease_until": now + lease_s, "most": most}
        async with self._unsure.claiming(token):
            (rows,) = await self._store.commit(Step(CLAIM, [row]))
            found = [await self._item(r, token, now) for r in rows]
        return [item for item in found if item is not None]

    async def _item(self, r: Row, token: str, now: float) -> WorkItem | None:
        causes = await self._store.read(CAUSES, patient_key=r["patient_key"], model=r["model"])
        claim = Claim(token, r["patient_key"], r["model"], tuple(c["id"] for c in causes))
        sealed_row = row_key(claim.patient_key, claim.model)
        try:
            patient = PatientId(self._cipher.open("work.patient", sealed_row, r["patient"]).decode())
        except NotHere as refusal:
            await self.release(claim, now + refusal.delay_s, tried=False)
            return None
        except Rejected as refusal:
            await self._store.commit(*self.buried(claim, refusal.reason, now))
            return None
        keys = frozenset(c["focus_key"] for c in causes if c["focus_key"] is not None)
        expected = {c["focus_key"]: c["version"] for c in causes if c["version"] is not None}
        return WorkItem(claim, patient, r["first_heard_at"], r["attempts"], keys, expected)

    def settled(self, claim: Claim, assessment_id: str, reason: str, now: float) -> list[Step]:
        """Steps that complete every event behind `claim` with one assessment. Fenced by the claim."""
        row = _fence(claim)
        ended = _row(claim) | {"reason": reason, "now": now}
        answered = _row(claim) | {"assessment_id": assessment_id}
        return [
            Step(FENCE, [row], expect=1),
            Step(TAKE_TURNS, [_row(claim)]),
            Step(COMPLETE, [ended | {"id": event_id} for event_id in claim.events]),
            Step(ANSWER, [answered | {"id": event_id} for event_id in claim.events]),
            Step(CLEAR, [_row(claim)]),
        ]

    def buried(self, claim: Claim, reason: str, now: float) -> list[Step]:
        """Steps that set aside every event behind `claim`. They can be replayed; other models still look at them."""
        return [
            Step(FENCE, [_fence(claim)], expect=1),
            Step(TAKE_TURNS, [_row(claim)]),
            Step(BURY_EVENT, [{"id": event_id, "reason": reason, "now": now} for event_id in claim.events]),
            Step(DROP_CAUSE, [_row(claim) | {"id": event_id} for event_id in claim.events]),
            Step(CLEAR, [_row(claim)]),
        ]

    async def extend(self, items: Sequence[WorkItem], until: float) -> None:
        """Keep claims for longer; lost ones are left alone."""
        await self._store.commit(Step(EXTEND, [_fence(item.claim) | {"lease_until": until} for item in items]))

    async def release(self, claim: Claim, due_at: float, *, tried: bool) -> None:
        """Give a claim back, counting the attempt or not. A lost claim is left alone."""
        await self._store.commit(Step(RELEASE, [_fence(claim) | {"due_at": due_at, "untried": int(not tried)}]))


def _row(claim: Claim) -> dict[str, object]:
    return {"patient_key": claim.patient_key, "model": claim.model}


def _fence(claim: Claim) -> dict[str, object]:
    return _row(claim) | {"claim": claim.token}
