"""What the database holds, column by column: what is sealed, to which row, and why the rest may lie in the open.

Data, for the tables of `sidecar.store.schema`. A test holds the two together: a new column without an entry here fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column of ciphertext. `row` names the columns that the associated data binds a value to, `key` the primary key.

    What a value is bound to never changes during its row's life; so a value that was moved does not open.
    """

    table: str
    column: str
    row: tuple[str, ...]
    key: tuple[str, ...]
    holds: str
    why: str

    @property
    def place(self) -> str:
        """`table.column`, as it goes into the associated data."""
        return f"{self.table}.{self.column}"

    def row_key(self, values: Mapping[str, Any]) -> bytes:
        """What a value of this row is bound to."""
        return row_key(*(values[name] for name in self.row))


def row_key(*parts: bytes | str | int) -> bytes:
    """The parts of a row's key as associated data. The same for whoever seals and whoever seals again."""
    return b"|".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)


SEALED = (
    SealedColumn("event", "focus", ("focus_key",), ("id",), "the id of the resource that changed", "to read it back"),
    SealedColumn(
        "work", "patient", ("patient_key", "model"), ("patient_key", "model"), "the Patient id", "to read the context"
    ),
    SealedColumn(
        "assessment",
        "evidence",
        ("identity", "revision"),
        ("id",),
        "Patient, Encounter and reading ids with versions, and times; of a model that uses an exact age, all that went "
        "in and came out, because the day of birth can be computed from it",
        "to write back, correct and replay",
    ),
    SealedColumn(
        "effect", "risk_assessment", ("identity",), ("identity",), "the id of what was written", "to correct it"
    ),
    SealedColumn("effect", "observation", ("identity",), ("identity",), "the id of what was written", "to correct it"),
)
"""Every column that holds what identifies somebody."""

FINGERPRINT, OURS, WORD, NAME, CLOCK = "fingerprint", "number of ours", "word", "name", "time of ours"
CLINICAL, DIGEST, FIGURES, SYSTEM, COUNTER = "clinical time", "digest", "figures", "system", "counter"
STAFF = "words of staff"

KINDS: Mapping[str, str] = {
    FINGERPRINT: "HMAC-SHA256 under the look-up key, or made of one: of a patient, a resource, an event, a result",
    OURS: "counted or drawn here: row numbers, claims, revisions, attempts, which key seals",
    WORD: "from a closed list",
    COUNTER: "a version of a resource, of up to nine digits; of any other the word opaque",
    NAME: "from the settings, a model or the code",
    CLOCK: "when this server did or will do something",
    CLINICAL: "of the readings and of the result, to the second: validity and order are asked for by it",
    DIGEST: "of models, rules, settings and keys",
    FIGURES: "what went into and came out of a model, after de-identification; empty for models that use an exact age",
    STAFF: "who of the staff let a model write, why and on what evidence, as they said it. It must not name a patient: "
    "whole dates and numbers of six digits are refused, no name is found, and forgetting a patient does not reach it",
    SYSTEM: "ids and positions of Subscriptions and Devices, which are of systems and of nobody",
}

OPEN: Mapping[str, Mapping[str, str]] = {
    "event": {
        "id": OURS, "source": NAME, "focus_type": WORD, "focus_key": FINGERPRINT, "version": COUNTER,
        "dedupe_key": FINGERPRINT, "merge_key": FINGERPRINT, "patient_key": FINGERPRINT, "heard_at": CLOCK,
        "state": WORD, "reason": WORD, "due_at": CLOCK, "claim": OURS, "lease_until": CLOCK, "attempts": OURS,
        "done_at": CLOCK,
    },
    "seen": {"dedupe_key": FINGERPRINT, "seen_at": CLOCK},
    "work": {
        "patient_key": FINGERPRINT, "model": NAME, "first_heard_at": CLOCK, "due_at": CLOCK, "last_event_id": OURS,
        "claimed_event_id": OURS, "claim": OURS, "lease_until": CLOCK, "attempts": OURS,
    },
    "cause": {"event_id": OURS, "model": NAME, "patient_key": FINGERPRINT, "assessment_id": FINGERPRINT},
    "assessment": {
        "id": FINGERPRINT, "identity": FINGERPRINT, "revision": OURS, "patient_key": FINGERPRINT, "model": NAME,
        "version": NAME, "model_digest": DIGEST, "policy_digest": DIGEST, "arm": WORD, "consent": WORD, "status": WORD,
        "outcome": WORD, "reasons": WORD, "score": FIGURES, "at_least": FIGURES, "risk": WORD, "urgent": WORD,
        "vector": FIGURES, "contributions": FIGURES, "content": FINGERPRINT, "assessed_at": CLINICAL,
        "occurred_at": CLINICAL, "valid_until": CLINICAL, "latest": OURS, "review": WORD,
    },
    "basis": {"resource_key": FINGERPRINT, "assessment_id": FINGERPRINT},
    "delivery": {
        "assessment_id": FINGERPRINT, "identity": FINGERPRINT, "revision": OURS, "state": WORD, "reason": WORD,
        "heard_at": CLOCK, "queued_at": CLOCK, "due_at": CLOCK, "claim": OURS, "lease_until": CLOCK, "attempts": OURS,
        "failures": OURS, "settled_at": CLOCK, "patient_key": FINGERPRINT, "sending_until": CLOCK,
    },
    "effect": {"identity": FINGERPRINT, "revision": OURS, "written_at": CLOCK},
    "device": {"model_digest": DIGEST, "remote_id": SYSTEM},
    "subscription": {
        "source": NAME, "remote_id": SYSTEM, "status": WORD, "reason": WORD, "watermark": SYSTEM, "checked_at": CLOCK,
        "secrets": OURS, "renewed_at": CLOCK, "ends_at": CLOCK, "heard_at": CLOCK, "asked_at": CLOCK,
        "numbers": SYSTEM, "look_at": CLOCK, "failures": OURS,
    },
    "notice": {
        "id": OURS, "source": NAME, "kind": WORD, "remote_id": SYSTEM, "since": SYSTEM, "numbers": SYSTEM,
        "unnamed": OURS, "heard_at": CLOCK,
    },
    "lease": {
        "name": NAME, "holder": OURS, "until": CLOCK, "runs": DIGEST, "since": CLOCK, "sealing": OURS,
        "sealing_since": CLOCK,
    },
    "model_version": {"name": NAME, "version": NAME, "digest": DIGEST, "first_seen_at": CLOCK},
    "transition": {
        "number": OURS, "at": CLOCK, "what": WORD, "model": NAME, "version": NAME, "model_digest": DIGEST,
        "percent": OURS, "by_what": WORD, "who": STAFF, "why": STAFF, "evidence": STAFF, "override_reason": STAFF,
        "previous": FINGERPRINT, "digest": FINGERPRINT,
    },
    "ring": {"name": OURS, "fingerprint": DIGEST, "retired_at": CLOCK},
}  # fmt: skip
"""Every other column, and what is in it: nothing of this names anybody, though much of it can be linked."""
