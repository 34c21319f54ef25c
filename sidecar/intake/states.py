"""What is known of each Subscription, one row a source, and the notices that wait to be counted.

Only the process that keeps the Subscriptions writes the rows; every process writes notices. The catch-up search keeps
its watermark in the same row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import orjson

from sidecar.intake.bundle import Notice
from sidecar.intake.hook_secrets import Nonce, dump_nonces, load_nonces
from sidecar.intake.numbers import Numbers
from sidecar.intake.wanted import is_due
from sidecar.store import Row, Statement, Step, Store

STARTING_S = 60.0
"""How long a Subscription that was asked for is looked at often."""

KEEP = Statement(
    "keep_subscription",
    "INSERT INTO subscription (source, remote_id, status, reason, checked_at, secrets, renewed_at, ends_at, heard_at, "
    "asked_at, numbers) VALUES (:source, :remote_id, :status, :reason, :checked_at, :secrets, :renewed_at, :ends_at, "
    ":heard_at, :asked_at, :numbers) "
    "ON CONFLICT (source) DO UPDATE SET remote_id = excluded.remote_id, status = excluded.status, "
    "reason = excluded.reason, checked_at = excluded.checked_at, secrets = excluded.secrets, "
    "renewed_at = excluded.renewed_at, ends_at = excluded.ends_at, heard_at = excluded.heard_at, "
    "asked_at = excluded.asked_at, numbers = excluded.numbers",
)
STATE = Statement("subscription_state", "SELECT * FROM subscription WHERE source = :source")
ALL = Statement(
    "subscriptions",
    "SELECT source, remote_id, status, reason, watermark, checked_at, heard_at, ends_at FROM subscription",
)
NOTE = Statement(
    "note_notice",
    "INSERT INTO notice (source, kind, remote_id, since, numbers, unnamed, heard_at) "
    "VALUES (:source, :kind, :remote_id, :since, :numbers, :unnamed, :heard_at)",
)
NOTICES = Statement(
    "notices",
    "SELECT id, kind, remote_id, since, numbers, unnamed, heard_at FROM notice WHERE source = :source "
    "ORDER BY id LIMIT 1000",
)
COUNTED = Statement("counted_notice", "DELETE FROM notice WHERE id = :id")


@dataclass(frozen=True, slots=True)
class State:
    """One source's Subscription. Times are the wall clock's; `renewed_at` is when the EHR was asked last."""

    source: str
    remote_id: str | None = None
    status: str = "unknown"
    reason: str | None = None
    checked_at: float | None = None
    nonces: tuple[Nonce, ...] = ()
    renewed_at: float | None = None
    ends_at: float | None = None
    heard_at: float | None = None
    asked_at: float | None = None
    numbers: Numbers = field(default_factory=Numbers)

    def is_due(self, now: float) -> bool:
        """Whether the Subscription must be renewed."""
        return is_due(self.renewed_at, self.ends_at, now)

    def is_starting(self, now: float) -> bool:
        """Whether the EHR was asked a moment ago and has not said yes yet."""
        return self.status == "requested" and now - (self.renewed_at or 0) < STARTING_S

    def is_silent(self, now: float, heartbeat_s: float) -> bool:
        """Whether nothing came for longer than two heartbeats since it was heard, asked about or renewed."""
        return now - max(self.heard_at or 0, self.asked_at or 0, self.renewed_at or 0) > 2 * heartbeat_s

    def at(self, **changes: object) -> Self:
        """The state with changes."""
        return replace(self, **changes)  # type: ignore[arg-type]


def kept(state: State) -> Step:
    """A step that stores `state`."""
    row = {
        "source": state.source, "remote_id": state.remote_id, "status": state.status, "reason": state.reason,
        "checked_at": state.checked_at, "secrets": dump_nonces(state.nonces), "renewed_at": state.renewed_at,
        "ends_at": state.ends_at, "heard_at": state.heard_at, "asked_at": state.asked_at,
        "numbers": orjson.dumps(state.numbers.to_json()).decode(),
    }  # fmt: skip
    return Step(KEEP, [row])


async def load_state(store: Store, source: str) -> State:
    """What is known of `source`'s Subscription; a fresh state when nothing is."""
    rows = await store.read(STATE, source=source)
    if not rows:
        return State(source)
    row = rows[0]
    return State(
        source, row["remote_id"], row["status"], row["reason"], row["checked_at"], load_nonces(row["secrets"]),
        row["renewed_at"], row["ends_at"], row["heard_at"], row["asked_at"],
        Numbers.from_json(orjson.loads(row["numbers"])) if row["numbers"] else Numbers(),
    )  # fmt: skip


def noted(source: str, notice: Notice, heard_at: float) -> Step:
    """A step that keeps a notice until it is counted."""
    row = {
        "source": source, "kind": notice.kind, "remote_id": notice.subscription, "since": notice.since,
        "numbers": orjson.dumps(notice.numbers).decode(), "unnamed": int(notice.unnamed), "heard_at": heard_at,
    }  # fmt: skip
    return Step(NOTE, [row])


def count(state: State, notices: Sequence[Row]) -> State:
    """`state` after `notices`, in the order in which they came. Another Subscription's numbers are not ours."""
    for row in notices:
        if row["remote_id"] is not None and state.remote_id is not None and row["remote_id"] != state.remote_id:
            continue
        numbers, at = state.numbers, row["heard_at"]
        told = orjson.loads(row["numbers"])
        if told or row["since"] is not None:
            numbers = numbers.heard(told, row["since"], at, covered=bool(row["unnamed"]))
        state = state.at(numbers=numbers, heard_at=max(state.heard_at or 0.0, at))
    return state
