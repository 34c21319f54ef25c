"""Writes that wait for the EHR: queued in the assessment's own transaction, claimed with a lease, settled with a fence.

A newer revision supersedes an older one that nobody has begun to write; revisions of one identity go out in order, and
so do the results of one patient, whichever process delivers them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.errors import ClaimLost
from sidecar.records import Redacted
from sidecar.store import SKIP_LOCKED, Cipher, Statement, Step, Store, Unsure
from sidecar.writeback.devices import Devices

REPLACE = Statement(
    "replace_queued",
    "UPDATE delivery SET state = 'superseded', settled_at = :now WHERE identity = :identity AND state = 'queued' "
    "AND claim IS NULL AND attempts = 0",
)
QUEUE = Statement(
    "queue",
    "INSERT INTO delivery (assessment_id, identity, revision, heard_at, queued_at, due_at, patient_key) "
    "VALUES (:assessment_id, :identity, :revision, :heard_at, :now, :now, "
    "(SELECT patient_key FROM assessment WHERE id = :assessment_id))",
    wakes="writes",
)
# Claims of writes are made one after the other, across processes: whether another write of the same patient is under
# way must not be read from a picture that another claim has made old.
ONE_AT_A_TIME = Statement(
    "claim_writes_in_turn", "SELECT 1 AS yes FROM (SELECT pg_advisory_xact_lock(1701343859)) AS turn", shared=True
)
# A create may arrive although whoever sent it has gone, or its write has ended: nobody looks for it before its time.
_HELD_UP = (
    "EXISTS (SELECT 1 FROM delivery AS o WHERE o.identity = {0}.identity "
    "AND (o.sending_until > :now OR (o.revision < {0}.revision AND o.state = 'queued')))"
)
# An earlier write that waits without a failure of its own (it was too early, or another process's) is not overtaken.
CLAIM = Statement(
    "claim_writes",
    "WITH picked AS (SELECT d.assessment_id FROM delivery AS d "  # noqa: S608 -- constants
    "WHERE d.state = 'queued' AND d.due_at <= :now AND d.lease_until <= :now "
    f"AND NOT {_HELD_UP.format('d')} AND NOT EXISTS (SELECT 1 FROM delivery AS p "
    "WHERE p.patient_key = d.patient_key AND p.state = 'queued' AND p.assessment_id <> d.assessment_id "
    "AND (p.lease_until > :now OR ((p.due_at <= :now OR p.failures = 0) "
    "AND (p.queued_at, p.assessment_id) < (d.queued_at, d.assessment_id) "
    f"AND NOT {_HELD_UP.format('p')}))) "
    f"ORDER BY d.queued_at LIMIT :most {SKIP_LOCKED}) "
    "UPDATE delivery SET claim = :claim, lease_until = :lease_until, attempts = attempts + 1 "
    "WHERE assessment_id IN (SELECT assessment_id FROM picked) "
    "RETURNING assessment_id, identity, revision, heard_at, attempts, failures",
)
WAITING = Statement(
    "waiting_writes",
    "SELECT 1 AS yes FROM delivery WHERE state = 'queued' AND due_at <= :now AND lease_until <= :now LIMIT 1",
    quick=True,
)
UNCLAIM = Statement(
    "unclaim_writes", "UPDATE delivery SET claim = NULL, lease_until = 0 WHERE state = 'queued' AND claim = :claim"
)
HOLDS = Statement(
    "holds_write",
    "SELECT 1 AS yes FROM delivery WHERE assessment_id = :assessment_id AND claim = :claim AND lease_until > :now",
    quick=True,
)
SENDING = Statement(
    "sending",
    "UPDATE delivery SET sending_until = :until "
    "WHERE assessment_id = :assessment_id AND claim = :claim AND lease_until > :now",
)
SENT = Statement(
    "sent", "UPDATE delivery SET sending_until = 0 WHERE assessment_id = :assessment_id AND claim = :claim"
)
EXTEND = Statement(
    "extend_writes",
    "UPDATE delivery SET lease_until = :lease_until WHERE assessment_id = :assessment_id AND claim = :claim",
    sort_by=("assessment_id",),
)
REQUEUE = Statement(
    "requeue",
    "UPDATE delivery SET state = 'queued', reason = NULL, failures = 0, due_at = :now, settled_at = NULL "
    "WHERE assessment_id = :assessment_id AND state = 'cancelled' AND reason <> 'patient_merged'",
    wakes="writes",
)
SETTLE = Statement(
    "settle_write",
    "UPDATE delivery SET state = :state, reason = :reason, claim = NULL, lease_until = 0, settled_at = :now "
    "WHERE assessment_id = :assessment_id AND claim = :claim",
    leads=True,
    sort_by=("assessment_id",),
)
LEAVE = Statement(
    "leave_write",
    "UPDATE delivery SET claim = NULL, lease_until = 0, due_at = :due_at, attempts = attempts - 1 "
    "WHERE assessment_id = :assessment_id AND claim = :claim",
)
RELEASE = Statement(
    "release_write",
    "UPDATE delivery SET claim = NULL, lease_until = 0, due_at = :due_at, failures = failures + :failed "
    "WHERE assessment_id = :assessment_id AND claim = :claim",
)
EFFECT = Statement(
    "effect",
    "INSERT INTO effect (identity, risk_assessment, observation, revision, written_at) "
    "SELECT :identity, :risk_assessment, :observation, :revision, :now "
    "WHERE EXISTS (SELECT 1 FROM delivery WHERE identity = :identity) "  # else its patient was forgotten meanwhile
    "ON CONFLICT (identity) DO UPDATE SET risk_assessment = excluded.risk_assessment, "
    "observation = excluded.observation, revision = excluded.revision, written_at = excluded.written_at",
    sort_by=("identity",),
)
# Who remembers an effect and who forgets its patient take turns: each would else see the picture before the other.
IN_TURN = Statement(
    "effect_in_turn",
    "SELECT assessment_id FROM delivery WHERE identity = :identity ORDER BY assessment_id FOR UPDATE",
    shared=True,
)
FIND_EFFECT = Statement(
    "find_effect",
    "SELECT risk_assessment, observation, revision FROM effect WHERE identity = :identity",
    quick=True,
)
WAS_QUEUED = Statement(
    "was_queued",
    "SELECT 1 AS yes FROM delivery WHERE identity = :identity AND state IN ('queued', 'written', 'buried') LIMIT 1",
    quick=True,
)
REPLAY = Statement(
    "replay_writes",
    "UPDATE delivery SET state = 'queued', reason = NULL, failures = 0, due_at = 0, settled_at = NULL "
    "WHERE state = 'buried' AND (assessment_id = :id OR :id IS NULL) RETURNING assessment_id AS id",
    wakes="writes",
)
DEPTH = Statement(
    "delivery_depth",
    "SELECT count(*) AS waiting, min(queued_at) AS oldest FROM delivery WHERE state = 'queued'",
)


@dataclass(frozen=True, slots=True, repr=False)
class QueuedWrite(Redacted):
    """A write that this worker owns. `attempts` counts this one: above 1, it may have happened already.

    `failures` counts the attempts that the EHR failed, outages left out.
    """

    assessment_id: str
    claim: str
    identity: bytes
    revision: int
    heard_at: float
    attempts: int
    failures: int


@dataclass(frozen=True, slots=True, repr=False)
class Effect(Redacted):
    """What the chart holds under an identity: ids of its resources."""

    risk_assessment: str | None
    observation: str | None


class Outbox:
    """The verbs of queued writes."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher
        self._unsure = Unsure(store, UNCLAIM)
        self.devices = Devices(store)

    def queue(self, assessment_id: str, identity: bytes, heard_at: float, now: float) -> list[Step]:
        """Steps that queue a revision and retire older ones nobody has begun."""
        revision = int(assessment_id.rpartition(".")[2])
        row = {
            "assessment_id": assessment_id,
            "identity": identity,
            "revision": revision,
            "heard_at": heard_at,
            "now": now,
        }
        replaced = [Step(REPLACE, [{"identity": identity, "now": now}])] if revision > 1 else []
        return [*replaced, Step(QUEUE, [row])]

    async def was_queued(self, identity: bytes) -> bool:
        """Whether something under `identity` is in the chart or on its way."""
        return bool(await self._store.read(WAS_QUEUED, identity=identity))

    async def waits(self, now: float) -> bool:
        """Whether there may be something to claim: a write that waits for another of its patient counts."""
        return bool(await self._store.read(WAITING, now=now))

    async def claim(self, claim: str, now: float, lease_s: float, most: int) -> list[QueuedWrite]:
        """Own up to `most` writes, oldest first, at most one of a patient at a time.

        A write that failed and pauses holds up newer revisions of itself, and not the patient's other results.
        """
        row = {"claim": claim, "now": now, "lease_until": now + lease_s, "most": most}
        async with self._unsure.claiming(claim):
            _, rows = await self._store.commit(Step(ONE_AT_A_TIME), Step(CLAIM, [row]))
        return [
            QueuedWrite(
                r["assessment_id"], claim, r["identity"], r["revision"], r["heard_at"], r["attempts"], r["failures"]
            )
            for r in rows
        ]

    def settled(self, write: QueuedWrite, state: str, reason: str | None, now: float) -> Step:
        """A step that ends a write. Fenced by the claim."""
        row = {
            "assessment_id": write.assessment_id,
            "claim": write.claim,
            "state": state,
            "reason": reason,
            "now": now,
        }
        return Step(SETTLE, [row], expect=1)

    def requeue(self, assessment_id: str, now: float) -> Step:
        """A step that queues a cancelled write again: what stood in its way may be gone."""
        return Step(REQUEUE, [{"assessment_id": assessment_id, "now": now}])

    async def must_hold(self, write: QueuedWrite, now: float) -> None:
        """Go on to the EHR only if `write` is still ours: a process that was stopped for long must not write late.

        Raises:
            ClaimLost: its lease has run out, or somebody else has it.
        """
        if not await self._store.read(HOLDS, assessment_id=write.assessment_id, claim=write.claim, now=now):
            raise ClaimLost("claim_lost:write")

    async def sending(self, write: QueuedWrite, now: float, until: float) -> None:
        """Remember that a create which nothing but a search guards may be under way `until` then.

        Until then nobody is handed a write of this identity, whatever becomes of this one or of this process.

        Raises:
            ClaimLost: the lease has run out, or somebody else has it.
        """
        row = {"assessment_id": write.assessment_id, "claim": write.claim, "now": now, "until": until}
        await self._store.commit(Step(SENDING, [row], expect=1))

    async def sent(self, write: QueuedWrite) -> None:
        """What became of the create is known."""
        await self._store.commit(Step(SENT, [{"assessment_id": write.assessment_id, "claim": write.claim}]))

    async def extend(self, writes: Sequence[QueuedWrite], until: float) -> None:
        """Keep claims for longer; lost ones are left alone."""
        rows = [{"assessment_id": w.assessment_id, "claim": w.claim, "lease_until": until} for w in writes]
        await self._store.commit(Step(EXTEND, rows))

    async def release(self, write: QueuedWrite, due_at: float, *, failed: bool) -> None:
        """Give a claim back. It may have reached the EHR, so the next attempt looks first."""
        row = {
            "assessment_id": write.assessment_id,
            "claim": write.claim,
            "due_at": due_at,
            "failed": int(failed),
        }
        await self._store.commit(Step(RELEASE, [row]))

    async def leave(self, write: QueuedWrite, due_at: float) -> None:
        """Give a claim back with which nothing was begun: as if it had not been made."""
        row = {"assessment_id": write.assessment_id, "claim": write.claim, "due_at": due_at}
        await self._store.commit(Step(LEAVE, [row]))

    async def keep_now(self, write: QueuedWrite, effect: Effect, now: float) -> None:
        """Remember what the chart holds already, before the rest of a write is known."""
        await self._store.commit(Step(IN_TURN, [{"identity": write.identity}]), self.keep(write, effect, now))

    def keep(self, write: QueuedWrite, effect: Effect, now: float) -> Step:
        """A step that remembers what the chart holds."""
        row = {"identity": write.identity, "revision": write.revision, "now": now}
        for column, value in (
            ("risk_assessment", effect.risk_assessment),
            ("observation", effect.observation),
        ):
            row[column] = self._cipher.seal(f"effect.{column}", write.identity, value.encode()) if value else None
        return Step(EFFECT, [row])

    async def effect(self, identity: bytes) -> Effect | None:
        """What the chart holds under `identity`, as far as we know."""
        rows = await self._store.read(FIND_EFFECT, identity=identity)
        if not rows:
            return None
        ids = {
            c: self._cipher.open(f"effect.{c}", identity, rows[0][c]).decode() if rows[0][c] else None
            for c in ("risk_assessment", "observation")
        }
        return Effect(ids["risk_assessment"], ids["observation"])
