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
from sidecar.store import Row, Statement, Step, Store

STARTING_S = 60.0
"""How long an EHR may take to activate what was asked for."""
SOON_S = 0.1
RARELY_S = 60.0

KEEP = Statement(
    "keep_subscription",
    "INSERT INTO subscription (source, remote_id, status, reason, checked_at, secrets, renewed_at, ends_at, heard_at, "
    "asked_at, numbers, look_at, failures) VALUES (:source, :remote_id, :status, :reason, :checked_at, :secrets, "
    ":renewed_at, :ends_at, :heard_at, :asked_at, :numbers, :look_at, :failures) "
    "ON CONFLICT (source) DO UPDATE SET remote_id = excluded.remote_id, status = excluded.status, "
    "reason = excluded.reason, checked_at = excluded.checked_at, secrets = excluded.secrets, "
    "renewed_at = excluded.renewed_at, ends_at = excluded.ends_at, heard_at = excluded.heard_at, "
    "asked_at = excluded.asked_at, numbers = excluded.numbers, look_at = excluded.look_at, "
    "failures = excluded.failures",
)
STATE = Statement("subscription_state", "SELECT * FROM subscription WHERE source = :source", quick=True)
ALL = Statement(
    "subscriptions",
    "SELECT source, remote_id, status, reason, watermark, checked_at, heard_at, ends_at FROM subscription",
)
NOTE = Statement(
    "note_notice",
    "INSERT INTO notice (source, kind, remote_id, since, numbers, unnamed, heard_at) "
    "VALUES (:source, :kind, :remote_id, :since, :numbers, :unnamed, :heard_at)",
    many="INSERT INTO notice (source, kind, remote_id, since, numbers, unnamed, heard_at) VALUES {rows}",
    columns=("source", "kind", "remote_id", "since", "numbers", "unnamed", "heard_at"),
)
NOTICES = Statement(
    "notices",
    "SELECT id, kind, remote_id, since, numbers, unnamed, heard_at FROM notice WHERE source = :source "
    "ORDER BY id LIMIT 1000",
)
FORGET_NOTICES = Statement("forget_notices", "DELETE FROM notice WHERE heard_at < :before")
COUNTED = Statement("counted_notice", "DELETE FROM notice WHERE id = :id")


@dataclass(frozen=True, slots=True)
class State:
    """One source's Subscription. Times are the wall clock's; `renewed_at` is when the EHR was asked last.

    `look_at` is when it is looked at next; `failures` counts the looks since it was seen to stay active.
    """

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
    look_at: float = 0.0
    failures: int = 0

    def is_stuck(self, status: str, now: float) -> bool:
        """Whether an EHR that says `status` will not tell us anything any more, unless it is asked again."""
        return status != "active" and not (status == "requested" and now - (self.renewed_at or 0) < STARTING_S)

    def is_silent(self, now: float, heartbeat_s: float) -> bool:
        """Whether nothing came for longer than two heartbeats since it was heard, asked about or renewed."""
        return now - max(self.heard_at or 0, self.asked_at or 0, self.renewed_at or 0) > 2 * heartbeat_s

    def looked(self, status: str, now: float, reason: str | None = None) -> Self:
        """After a look: the next is a minute away while it stays active, else after pauses that double to a minute."""
        stays = status == self.status == "active"
        failures = 0 if stays else self.failures + 1
        pause_s = RARELY_S if status == "active" else min(SOON_S * 2.0 ** min(failures, 16), RARELY_S)
        return self.at(status=status, reason=reason, checked_at=now, look_at=now + pause_s, failures=failures)

    def at(self, **changes: object) -> Self:
        """The state with changes."""
        return replace(self, **changes)  # type: ignore[arg-type]


def kept(state: State) -> Step:
    """A step that stores `state`."""
    row = {
        "source": state.source, "remote_id": state.remote_id, "status": state.status, "reason": state.reason,
        "checked_at": state.checked_at, "secrets": dump_nonces(state.nonces), "renewed_at": state.renewed_at,
        "ends_at": state.ends_at, "heard_at": state.heard_at, "asked_at": state.asked_at,
        "numbers": orjson.dumps(state.numbers.to_json()).decode(), "look_at": state.look_at,
        "failures": state.failures,
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
        row["look_at"], row["failures"],
    )  # fmt: skip


def noted(source: str, notice: Notice, heard_at: float) -> Step:
    """A step that keeps a notice until it is counted."""
    row = {
        "source": source, "kind": notice.kind, "remote_id": notice.subscription, "since": notice.since,
        "numbers": orjson.dumps(notice.numbers).decode(), "unnamed": int(notice.unnamed), "heard_at": heard_at,
    }  # fmt: skip
    return Step(NOTE, [row])


def forgotten(before: float) -> Step:
    """A step that forgets notices heard before `before`, which nobody counted."""
    return Step(FORGET_NOTICES, [{"before": before}])


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
