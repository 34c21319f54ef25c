"""Events as they were heard, until their patient is known.

`record` is idempotent: a versioned event on (source, type, id, version, lastUpdated); an unversioned one, and an empty
ping, merges only with one that is not yet claimed, since after the claim it may be news. `lastUpdated` is part of the
key because a server that restarts from nothing numbers its versions from 1 again.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.errors import NotHere, Rejected
from sidecar.records import Event, PatientId, Redacted, Reference
from sidecar.store import SKIP_LOCKED, SLOW_S, Cipher, Row, Statement, Step, Store, Unsure, row_key

RECORD = Statement(
    "record",
    "INSERT INTO event (source, focus_type, focus, focus_key, version, dedupe_key, heard_at) "
    "SELECT :source, :focus_type, :focus, :focus_key, :version, :dedupe_key, :heard_at "
    "WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seen.dedupe_key = :dedupe_key) "
    "ON CONFLICT DO NOTHING",
    wakes="events",
    sort_by=("dedupe_key",),
    many="INSERT INTO event (source, focus_type, focus, focus_key, version, dedupe_key, heard_at) "
    "SELECT * FROM (VALUES {rows}) AS heard "
    "WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seen.dedupe_key = heard.column6) "
    "ON CONFLICT DO NOTHING",
    columns=("source", "focus_type", "focus", "focus_key", "version", "dedupe_key", "heard_at"),
)
RECORD_UNVERSIONED = Statement(
    "record_unversioned",
    "INSERT INTO event (source, focus_type, focus, focus_key, version, merge_key, heard_at) "
    "VALUES (:source, :focus_type, :focus, :focus_key, :version, :merge_key, :heard_at) "
    "ON CONFLICT DO NOTHING",
    wakes="events",
    sort_by=("merge_key",),
)
PING = Statement(
    "record_ping",
    "INSERT INTO event (source, merge_key, heard_at) VALUES (:source, :merge_key, :heard_at) "
    "ON CONFLICT (merge_key) DO UPDATE SET heard_at = "
    "CASE WHEN excluded.heard_at > event.heard_at THEN excluded.heard_at ELSE event.heard_at END",
    wakes="events",
    sort_by=("merge_key",),
)
"""The newest ping of those that merged says since when a search is owed: an earlier search does not answer it."""
MOST_PRUNED = 2000
_CLAIM = (
    "WITH picked AS (SELECT id FROM event WHERE state = 'pending' AND due_at <= :now AND lease_until <= :now "  # noqa: S608 -- constants
    f"AND focus_type IS {{}} NULL ORDER BY due_at, id LIMIT :most {SKIP_LOCKED}) "
    "UPDATE event SET claim = :claim, lease_until = :lease_until, merge_key = NULL, attempts = attempts + 1 "
    "WHERE id IN (SELECT id FROM picked) "
    "RETURNING id, source, focus_type, focus, focus_key, version, heard_at, attempts"
)
CLAIM = Statement("claim_events", _CLAIM.format("NOT"), durable=False)
CLAIM_PINGS = Statement("claim_pings", _CLAIM.format(""), durable=False)
_WAITING = (
    "SELECT 1 AS yes FROM event WHERE state = 'pending' AND due_at <= :now AND lease_until <= :now "
    "AND focus_type IS {} NULL LIMIT 1"
)
WAITING = Statement("waiting_events", _WAITING.format("NOT"), quick=True)
WAITING_PINGS = Statement("waiting_pings", _WAITING.format(""), quick=True)
UNCLAIM = Statement(
    "unclaim_events",
    "UPDATE event SET claim = NULL, lease_until = 0, attempts = attempts - 1 "
    "WHERE state = 'pending' AND claim = :claim",
)
EXTEND = Statement(
    "extend_events",
    "UPDATE event SET lease_until = :lease_until WHERE id = :id AND claim = :claim",
    sort_by=("id",),
    durable=False,
)
RELEASE = Statement(
    "release_events",
    "UPDATE event SET claim = NULL, lease_until = 0, due_at = :due_at, attempts = attempts - :untried "
    "WHERE id = :id AND claim = :claim",
)
BURY = Statement(
    "bury_event",
    "UPDATE event SET state = 'buried', reason = :reason, claim = NULL, lease_until = 0, done_at = :now "
    "WHERE id = :id AND claim = :claim",
)
FINISH = Statement(
    "finish_event",
    "UPDATE event SET state = 'done', reason = :reason, claim = NULL, lease_until = 0, done_at = :now, "
    "patient_key = :patient_key, "
    "dedupe_key = CASE WHEN :forget = 1 THEN NULL ELSE dedupe_key END WHERE id = :id AND claim = :claim",
)
ROUTE = Statement(
    "route_event",
    "UPDATE event SET state = 'routed', patient_key = :patient_key, version = :shown, claim = NULL, lease_until = 0 "
    "WHERE id = :id AND claim = :claim",
    durable=False,
    leads=True,
    sort_by=("id",),
)
CAUSE = Statement(
    "cause",
    "INSERT INTO cause (event_id, model, patient_key) VALUES (:id, :model, :patient_key) "
    "ON CONFLICT (event_id, model, patient_key) DO UPDATE SET assessment_id = NULL",
    durable=False,
)
WAIT = Statement(
    "wait",
    "INSERT INTO work (patient_key, model, patient, first_heard_at, due_at, last_event_id) "
    "VALUES (:patient_key, :model, :patient, :heard_at, :due_at, :id) "
    "ON CONFLICT (patient_key, model) DO UPDATE SET "
    "first_heard_at = CASE WHEN work.last_event_id <= work.claimed_event_id "
    "THEN excluded.first_heard_at ELSE work.first_heard_at END, "
    "due_at = CASE WHEN work.last_event_id <= work.claimed_event_id THEN excluded.due_at "
    "WHEN work.due_at <= :now THEN work.due_at "  # it has waited long enough: whoever begins it takes this one along
    "WHEN excluded.due_at < work.first_heard_at + :max_wait THEN excluded.due_at "
    "ELSE work.first_heard_at + :max_wait END, "
    "last_event_id = CASE WHEN excluded.last_event_id > work.last_event_id "
    "THEN excluded.last_event_id ELSE work.last_event_id + 1 END",
    wakes="work",
    durable=False,
    sort_by=("patient_key", "model"),
)
REPLAY = Statement(
    "replay_events",
    "UPDATE event SET state = 'pending', reason = NULL, attempts = 0, due_at = 0, done_at = NULL "
    "WHERE state = 'buried' AND patient_key IS NULL AND (id = :id OR :id IS NULL) RETURNING id",
    wakes="events",
)
ANSWERED_PINGS = Statement(
    "answered_pings",
    "UPDATE event SET state = 'done', reason = 'caught_up', done_at = :now, merge_key = NULL "
    "WHERE source = :source AND focus_type IS NULL AND state = 'pending' AND claim IS NULL AND heard_at <= :began",
)
PORTION = Statement(
    "prune_portion",
    "SELECT done_at FROM event WHERE state = 'done' AND done_at < :before ORDER BY done_at LIMIT 1 OFFSET :most",
    within_s=SLOW_S,
)
REMEMBER = Statement(
    "remember",
    "INSERT INTO seen (dedupe_key, seen_at) SELECT dedupe_key, done_at FROM event "
    "WHERE state = 'done' AND done_at < :before AND dedupe_key IS NOT NULL ON CONFLICT DO NOTHING",
    within_s=SLOW_S,
)
PRUNE_CAUSES = Statement(
    "prune_causes",
    "DELETE FROM cause WHERE event_id IN (SELECT id FROM event WHERE state = 'done' AND done_at < :before)",
    within_s=SLOW_S,
)
PRUNE = Statement("prune", "DELETE FROM event WHERE state = 'done' AND done_at < :before", within_s=SLOW_S)
FORGET = Statement("forget", "DELETE FROM seen WHERE seen_at < :before", within_s=SLOW_S)
DEPTH = Statement(
    "depth",
    "SELECT count(*) AS waiting, min(heard_at) AS oldest FROM event WHERE state IN ('pending', 'routed')",
)


OPAQUE = "opaque"
_COUNTER = re.compile(r"[0-9]{1,9}")


def _shown(version: str | None) -> str | None:
    """`version` as it may stand in the open: a counter tells the order of versions; any other may be an identifier."""
    return version if version is None or _COUNTER.fullmatch(version) else OPAQUE


@dataclass(frozen=True, slots=True, repr=False)
class ClaimedEvent(Redacted):
    """An event that this worker owns until its lease ends. `focus` is None for a request to catch up.

    `attempts` counts this claim; claims that were given back untried are not in it.
    """

    id: int
    claim: str
    source: str
    focus: Reference | None
    focus_key: bytes | None
    heard_at: float
    attempts: int


@dataclass(frozen=True, slots=True)
class ModelWait:
    """How long events wait for each other before a model runs."""

    model: str
    debounce_s: float
    max_wait_s: float


class EventBox:
    """The verbs of the inbox before a patient is known."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher
        self._unsure = Unsure(store, UNCLAIM)

    async def record(self, *events: Event) -> None:
        """Make events durable; returning means they are on disk. Safe to repeat."""
        await self._store.commit(*self.recorded(*events))

    def recorded(self, *events: Event) -> list[Step]:
        """Steps that make events durable. Safe to repeat."""
        versioned, unversioned, pings = [], [], []
        for event in events:
            focus = event.focus
            if focus is None:
                key = self._cipher.token("catch_up", event.source)
                pings.append({"source": event.source, "merge_key": key, "heard_at": event.heard_at})
            elif focus.version is not None and event.updated_at is not None:
                versioned.append(self._versioned(event, focus, focus.version, event.updated_at))
            else:
                key = self._cipher.token("unversioned", event.source, focus.relative)
                unversioned.append(self._row(event, focus) | {"merge_key": key})
        found = ((RECORD, versioned), (RECORD_UNVERSIONED, unversioned), (PING, pings))
        return [Step(statement, rows) for statement, rows in found if rows]

    def _versioned(self, event: Event, focus: Reference, version: str, updated_at: str) -> dict[str, object]:
        row = self._row(event, focus)
        row["dedupe_key"] = self._cipher.token("event", event.source, focus.relative, version, updated_at)
        return row

    def _row(self, event: Event, focus: Reference) -> dict[str, object]:
        key = self._cipher.token("resource", focus.type, focus.id)
        return {
            "source": event.source,
            "focus_type": focus.type,
            "focus": self._cipher.seal("event.focus", key, focus.id.encode()),
            "focus_key": key,
            "version": _shown(focus.version),
            "heard_at": event.heard_at,
        }

    async def waits(self, now: float, *, pings: bool = False) -> bool:
        """Whether there is something to claim."""
        return bool(await self._store.read(WAITING_PINGS if pings else WAITING, now=now))

    async def claim(
        self, claim: str, now: float, lease_s: float, most: int = 32, *, pings: bool = False
    ) -> list[ClaimedEvent]:
        """Own up to `most` pending events until `now + lease_s`, those due longest first: resources, or `pings`.

        An event whose focus cannot be decrypted is set aside with that reason; one whose key another server may have is
        left to it. The others are not kept waiting.
        A claim of which nobody knows whether it was made (`NotStored`) is given back before the next one.
        """
        row = {"claim": claim, "now": now, "lease_until": now + lease_s, "most": most}
        async with self._unsure.claiming(claim):
            (rows,) = await self._store.commit(Step(CLAIM_PINGS if pings else CLAIM, [row]))
            events, lost, later = [], [], []
            for r in sorted(rows, key=lambda r: r["id"]):
                try:
                    events.append(self._claimed(r, claim))
                except NotHere as refusal:
                    later.append({"id": r["id"], "claim": claim, "due_at": now + refusal.delay_s, "untried": 1})
                except Rejected as refusal:
                    lost.append({"id": r["id"], "claim": claim, "reason": refusal.reason, "now": now})
            if lost or later:
                await self._store.commit(Step(BURY, lost), Step(RELEASE, later))
        return events

    def _claimed(self, r: Row, claim: str) -> ClaimedEvent:
        focus = None
        if r["focus_type"] is not None:
            opened = self._cipher.open("event.focus", r["focus_key"], r["focus"]).decode()
            focus = Reference(r["focus_type"], opened, r["version"])
        return ClaimedEvent(r["id"], claim, r["source"], focus, r["focus_key"], r["heard_at"], r["attempts"])

    def patient_key(self, patient: PatientId) -> bytes:
        """The fingerprint under which everything of a patient is stored."""
        return self._cipher.token("patient", patient.value)

    def routed(
        self, event: ClaimedEvent, waits: Sequence[tuple[PatientId, ModelWait]], now: float, shown: str | None = None
    ) -> list[Step]:
        """Steps that hand `event` to the work of whom it concerns, one row a patient and model. Fenced by the claim.

        `shown` is the version in which the focus must be seen in its patient's context; None when it need not be.
        """
        first = self.patient_key(waits[0][0])
        routed = {"id": event.id, "claim": event.claim, "patient_key": first, "shown": _shown(shown)}
        causes, work = list[Row](), list[Row]()
        for patient, wait in waits:
            key = self.patient_key(patient)
            row = row_key(key, wait.model)
            causes.append({"id": event.id, "model": wait.model, "patient_key": key})
            values = {
                "patient_key": key,
                "model": wait.model,
                "patient": self._cipher.seal("work.patient", row, patient.value.encode()),
                "heard_at": event.heard_at,
                "due_at": min(now + wait.debounce_s, max(now, event.heard_at + wait.max_wait_s)),
                "max_wait": wait.max_wait_s,
                "now": now,
                "id": event.id,
            }
            work.append(values)
        # All rows of a table in one step: whatever goes beside it, work rows are locked in one order.
        return [Step(ROUTE, [routed], expect=1), Step(CAUSE, causes), Step(WAIT, work)]

    async def extend(self, events: Sequence[ClaimedEvent], until: float) -> None:
        """Keep claims for longer; lost ones are left alone."""
        rows = [{"id": event.id, "claim": event.claim, "lease_until": until} for event in events]
        await self._store.commit(Step(EXTEND, rows))

    async def release(self, event: ClaimedEvent, due_at: float, *, tried: bool) -> None:
        """Give a claim back, counting the attempt or not. A lost claim is left alone."""
        row = {"id": event.id, "claim": event.claim, "due_at": due_at, "untried": int(not tried)}
        await self._store.commit(Step(RELEASE, [row]))

    def finished(
        self, event: ClaimedEvent, reason: str, now: float, *, whose: PatientId | None = None, forget: bool = False
    ) -> Step:
        """A step that ends an event which concerns no model, with its reason; `forget` lets it come again.

        Where it is known `whose` it is, it is forgotten with the patient.
        """
        row = {"id": event.id, "claim": event.claim, "reason": reason, "now": now, "forget": int(forget)}
        row["patient_key"] = self.patient_key(whose) if whose is not None else None
        return Step(FINISH, [row], expect=1)

    def answered_pings(self, source: str, began: float, now: float) -> Step:
        """A step that ends every ping heard before a catch-up began: one search answers them all."""
        return Step(ANSWERED_PINGS, [{"source": source, "began": began, "now": now}])

    def buried(self, event: ClaimedEvent, reason: str, now: float) -> Step:
        """A step that sets an event aside as a dead letter."""
        return Step(BURY, [{"id": event.id, "claim": event.claim, "reason": reason, "now": now}], expect=1)

    async def prune(self, now: float, retention_s: float, dedupe_retention_s: float) -> None:
        """Delete completed events past their retention, in portions; keep their dedupe keys for longer.

        Acknowledgements wait for a portion at most: all at once, a day's events held them up for seconds.
        """
        end, before = now - retention_s, 0.0
        while before < end:
            found = await self._store.read(PORTION, before=end, most=MOST_PRUNED)
            later = float(found[0]["done_at"]) if found else end
            before = later if later > before else end
            row = {"before": before}
            await self._store.commit(Step(REMEMBER, [row]), Step(PRUNE_CAUSES, [row]), Step(PRUNE, [row]))
        await self._store.commit(Step(FORGET, [{"before": now - dedupe_retention_s}]))
