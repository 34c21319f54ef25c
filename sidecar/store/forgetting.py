"""Forget a patient: delete everything that is stored of one, in every table.

Rows go at once. What copies of the database still hold (backups, its log, free pages) is sealed, and is unreadable from
the moment on at which the keys that sealed it are retired (`sidecar.store.rotation`): no copy holds a key of the ring.
"""

import time
from collections.abc import Sequence
from typing import Any

from sidecar.errors import Unavailable
from sidecar.store.cipher import Cipher
from sidecar.store.engine import SLOW_S, Row, Statement, Step, Store

ROUNDS = 5
"""A patient of whom something is heard just now has something new each time; the work that is left is then small."""

_THEIRS = "SELECT id FROM assessment WHERE patient_key = :patient_key"
# What another patient's work waits for is theirs: a reading may have been moved from one to the other.
_OTHERS = "SELECT 1 FROM cause WHERE cause.event_id = event.id AND cause.patient_key <> :patient_key"
FIND = {
    name: Statement(f"find_{name}", sql, within_s=SLOW_S)
    for name, sql in {
        "assessments": "SELECT id, identity FROM assessment WHERE patient_key = :patient_key",
        "causes": "SELECT event_id AS id FROM cause WHERE patient_key = :patient_key",
        "basis": f"SELECT resource_key, assessment_id FROM basis WHERE assessment_id IN ({_THEIRS})",  # noqa: S608 -- constants
        "events": "SELECT id FROM event WHERE patient_key = :patient_key "  # noqa: S608 -- constants
        "OR id IN (SELECT event_id FROM cause WHERE patient_key = :patient_key) OR ((focus_key = :person_key "
        f"OR (state NOT IN ('pending', 'buried') "  # a reading may be somebody else's by now: nobody has looked yet
        f"AND focus_key IN (SELECT resource_key FROM basis WHERE assessment_id IN ({_THEIRS})))) "
        f"AND NOT EXISTS ({_OTHERS}))",
        "work": "SELECT model FROM work WHERE patient_key = :patient_key",
        "writes": "SELECT assessment_id AS id FROM delivery WHERE patient_key = :patient_key",
    }.items()
}
# Who answers a shared event and who forgets its other patient take turns at it, as two that answer it do.
TAKE_TURNS = Statement(
    "take_turns_forgetting", "SELECT id FROM event WHERE id = :id FOR UPDATE", shared=True, sort_by=("id",)
)
# A repeat of what was forgotten is no news: its key stays, which names nobody.
REMEMBER = Statement(
    "remember_forgotten",
    "INSERT INTO seen (dedupe_key, seen_at) SELECT dedupe_key, :now FROM event "
    "WHERE id = :id AND dedupe_key IS NOT NULL ON CONFLICT DO NOTHING",
)
LEAVE_TO_OTHERS = Statement(
    "leave_to_others",
    "UPDATE event SET patient_key = (SELECT cause.patient_key FROM cause WHERE cause.event_id = event.id "  # noqa: S608 -- constants
    "AND cause.patient_key <> :patient_key ORDER BY cause.patient_key LIMIT 1) "
    f"WHERE id = :id AND patient_key = :patient_key AND EXISTS ({_OTHERS})",
)
DROP_EVENT = Statement("drop_event", f"DELETE FROM event WHERE id = :id AND NOT EXISTS ({_OTHERS})")  # noqa: S608 -- constants
DROP_CAUSE = Statement("drop_causes", "DELETE FROM cause WHERE event_id = :id AND patient_key = :patient_key")
COMPLETE = Statement(
    "complete_forgotten",
    "UPDATE event SET state = 'done', reason = 'forgotten', done_at = :now WHERE id = :id AND state = 'routed' "
    "AND NOT EXISTS (SELECT 1 FROM cause WHERE cause.event_id = event.id AND cause.assessment_id IS NULL)",
)
DROP_WORK = Statement("drop_work", "DELETE FROM work WHERE patient_key = :patient_key")
DROP_WRITES = Statement("drop_writes", "DELETE FROM delivery WHERE patient_key = :patient_key")
DROP_WRITE = Statement("drop_write", "DELETE FROM delivery WHERE identity = :identity")
DROP_EFFECT = Statement("drop_effect", "DELETE FROM effect WHERE identity = :identity")
DROP_BASIS = Statement(
    "drop_basis", "DELETE FROM basis WHERE resource_key = :resource_key AND assessment_id = :assessment_id"
)
DROP_ASSESSMENT = Statement("drop_assessment", "DELETE FROM assessment WHERE id = :id")


async def forget(store: Store, cipher: Cipher, patient: str) -> dict[str, Any]:
    """Delete what is stored of the patient with this id; how many rows, and the keys that copies were sealed with.

    Work that is under way comes to nothing: its claim is gone; only a request that is on its way to the EHR may still
    arrive. What is heard of the patient later begins anew. The chart in the EHR stays as it is.

    Raises:
        Unavailable: the patient is heard of faster than forgotten.
        NotStored: the database is away; repeat.
    """
    who = {"patient_key": cipher.token("patient", patient), "person_key": cipher.token("resource", "Patient", patient)}
    count = 0
    for _ in range(ROUNDS):
        found = {name: await _find(store, statement, who) for name, statement in FIND.items()}
        rows = sum(len(of_kind) for of_kind in found.values())
        if not rows:
            return {"rows": count, "keys": cipher.numbers}
        count += rows
        await store.commit(*_steps(found, who["patient_key"], time.time()))
    raise Unavailable("patient_busy")


async def _find(store: Store, statement: Statement, who: Row) -> Sequence[Row]:
    return await store.read(statement, **{name: value for name, value in who.items() if f":{name}" in statement.sql})


def _steps(found: dict[str, Sequence[Row]], patient_key: bytes, now: float) -> list[Step]:
    """What was found, gone in one transaction; what came in since is found by the next round."""
    theirs = {"patient_key": patient_key}
    events = [{"id": row["id"], "now": now} | theirs for row in found["events"]]
    causes = [{"id": row["id"]} | theirs for row in found["causes"]]
    identities = [{"identity": value} for value in {bytes(row["identity"]) for row in found["assessments"]}]
    basis = [{"resource_key": row["resource_key"], "assessment_id": row["assessment_id"]} for row in found["basis"]]
    return [
        Step(DROP_WORK, [theirs]),
        Step(TAKE_TURNS, events),
        Step(REMEMBER, events),
        Step(LEAVE_TO_OTHERS, events),
        Step(DROP_EVENT, events),
        Step(DROP_CAUSE, causes),
        Step(COMPLETE, events),
        Step(DROP_WRITES, [theirs]),
        Step(DROP_WRITE, identities),
        Step(DROP_EFFECT, identities),
        Step(DROP_BASIS, basis),
        Step(DROP_ASSESSMENT, [{"id": row["id"]} for row in found["assessments"]]),
    ]
