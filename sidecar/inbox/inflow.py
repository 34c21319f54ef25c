"""How much more the inbox takes. The door asks before it reads a body; nothing here asks the database per request.

Refusing costs less than losing: a sender that hears 503 or 429 tries again, and what it does not send again is found by
the next search for missed events. What was acknowledged stays, and the work inside goes on.
https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3

Long before that, a process whose CPU is used up and that is `BEHIND_S` behind with what is due takes events one after
the other, at a little more than the rate at which they drain: each acknowledgement would take its time from the results
that wait. Senders have a bounded number of requests under way, so an answer that comes later slows them down, and
nothing is refused. An EHR that is slow or away does not slow them: then there is CPU left, and what it sends is safer
here.
"""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from sidecar import log
from sidecar.errors import NotStored
from sidecar.metrics import INTAKE_FULL, INTAKE_PACE
from sidecar.store import SLOW_S, Statement, Store

Why = Literal["inbox", "source", "disk", "commits"]
REASONS: tuple[Why, ...] = ("inbox", "source", "disk", "commits")

LOOK_S, SELDOM_S = 1.0, 10.0
LOOK_SHARE = 0.05
"""Counting a long queue must not slow it: looks take at most this share of the time, but there is one in `SELDOM_S`."""
SAY_AGAIN_S = 60.0
SMOOTHING = 0.3
SLOWEST_PER_S = 0.1
BEHIND_S, NO_CPU_LEFT, PACE, LEAST_PACE = 2.0, 0.85, 1.05, 50.0
"""Events are paced where something has been due for so long, and the process uses so much of a CPU: to `PACE` of what
drains, and never to fewer a second than the last, which cost next to nothing."""
STORED_S = 1.0
"""What ended so long ago is surely stored, so that each is counted as drained once."""
TOGETHER_S, LONGEST_TURN_S = 0.2, 2.0
"""The turns of so long come at once, so that they share a commit. None waits longer for its turn than the second:
senders of more requests at once than that allows are not slowed further."""
SOON_S, UNKNOWN_S, LONGEST_S = 1, 60, 300
"""Seconds to wait: for a commit under way, where nothing has drained yet, and at most."""

BY_SOURCE = Statement(
    "waiting_by_source",
    "SELECT source, count(*) AS n FROM event WHERE state IN ('pending', 'routed') GROUP BY source",
    within_s=SLOW_S,
)
# What ended, by when; not what is missing, which would call every repeat drained that was taken and is no news.
DRAINED = Statement(
    "drained", "SELECT count(*) AS n FROM event WHERE done_at > :since AND done_at <= :until", within_s=SLOW_S
)
# What nobody has begun although it is due: events wait for each other on purpose, and a search waits for room.
OVERDUE = Statement(
    "overdue",
    "SELECT min(since) AS since FROM ("
    "SELECT since FROM (SELECT CASE WHEN due_at > heard_at THEN due_at ELSE heard_at END AS since FROM event "
    "WHERE state = 'pending' AND due_at <= :now AND lease_until <= :now AND focus_type IS NOT NULL "
    "ORDER BY due_at, id LIMIT 1) AS told "
    "UNION ALL SELECT since FROM (SELECT due_at AS since FROM work WHERE due_at <= :now AND lease_until <= :now "
    "ORDER BY due_at LIMIT 1) AS owed) AS oldest",
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is held at most.

    `events` wait in the database: an hour of 55 events a second while the EHR does not answer, about 100 MB, worked off
    in 15 minutes by one core. One source may have `source_share` of them, so that a flood of readings does not keep
    discharges out. Once full, it takes again at `reopen_share` of that. `commits` are events on their way to the disk,
    which are in memory. With less than `free_bytes` beside the file nothing new is taken: the work inside needs them.
    """

    events: int = 200_000
    source_share: float = 0.8
    reopen_share: float = 0.95
    commits: int = 20_000
    free_bytes: int = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Full:
    """No room, why, and when to ask again."""

    reason: Why
    retry_after_s: int


class Inflow:
    """What waits, as last counted, and what was taken since.

    `free` tells the bytes left on the database's disk, `cpu_s` the CPU seconds that this process has used.
    """

    def __init__(
        self,
        store: Store,
        free: Callable[[], int] | None = None,
        bounds: Bounds | None = None,
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        self._store, self._free, self._bounds, self._cpu = store, free, bounds or Bounds(), cpu_s
        self._counted: Mapping[str, int] = {}
        self._taken: Counter[str] = Counter()
        self._under_way = 0
        self._shut: set[str] = set()
        self._disk_left: int | None = None
        self._looked_at: float | None = None
        self._drained_until = time.time() - STORED_S
        self._per_s = 0.0
        self._cpu_s = cpu_s()
        self._pace: float | None = None
        self._next_turn = 0.0
        self._refused: Counter[Why] = Counter()
        self._said: dict[Why, float] = {}
        self._announced: set[Why] = set()
        self._room = asyncio.Event()
        for reason in REASONS:
            INTAKE_FULL.labels(reason).set(0)

    def full(self, source: str, more: int = 1) -> Full | None:
        """Why `more` events of `source` are not taken now; None when they are. Asks nobody and waits for nothing.

        A request of more events than `commits` allows is taken when it is alone.
        """
        if self._is_disk_short():
            found = Full("disk", UNKNOWN_S)
        elif self._is_shut("", self._waiting(), self._bounds.events):
            found = Full("inbox", self._until_open(self._waiting(), self._bounds.events))
        elif self._is_shut(source, self._waiting_of(source), self._source_most):
            found = Full("source", self._until_open(self._waiting_of(source), self._source_most))
        elif self._under_way and self._under_way + more > self._bounds.commits:
            found = Full("commits", SOON_S)
        else:
            return None
        self._refused[found.reason] += 1
        self._say(found)
        return found

    async def turn(self) -> None:
        """Wait for one's turn where events are paced; elsewhere return at once."""
        if self._pace is None:
            return
        now = time.monotonic()
        self._next_turn = min(max(self._next_turn, now) + 1 / self._pace, now + LONGEST_TURN_S)
        await asyncio.sleep(math.ceil(self._next_turn / TOGETHER_S) * TOGETHER_S - now)

    @contextlib.contextmanager
    def taking(self, source: str, count: int) -> Iterator[None]:
        """While `count` events of `source` are on their way to the disk."""
        self._under_way += count
        try:
            yield
            self._taken[source] += count
        finally:
            self._under_way -= count

    @property
    def has_room(self) -> bool:
        """Whether the inbox takes what a search finds."""
        return not (self._is_disk_short() or self._is_shut("", self._waiting(), self._bounds.events))

    async def room(self) -> None:
        """Wait until it does."""
        while not self.has_room:
            self._room.clear()
            await self._room.wait()

    async def watch(self) -> None:
        """Count, again and again."""
        while True:
            began = time.monotonic()
            try:
                await self.look()
            except NotStored as error:
                log.get().error("not stored", place="inflow", reason=error.reason)
            await asyncio.sleep(min(max(LOOK_S, (time.monotonic() - began) / LOOK_SHARE), SELDOM_S))

    async def look(self) -> None:
        """Count what waits and what is free, and open what was full.

        Raises:
            NotStored: the database cannot be read; the last count stands.
        """
        if self._free is not None:
            try:
                self._disk_left = await asyncio.to_thread(self._free)
            except OSError:  # nobody knows; what does not fit fails to commit and is not acknowledged
                self._disk_left = None
        before, began, now = self._taken.copy(), time.monotonic(), time.time()
        counted = {row["source"]: int(row["n"]) for row in await self._store.read(BY_SOURCE)}
        (drained,) = await self._store.read(DRAINED, since=self._drained_until, until=now - STORED_S)
        (overdue,) = await self._store.read(OVERDUE, now=now)
        cpu_s = self._cpu()
        if self._looked_at is not None:
            took = max(began - self._looked_at, 0.001)
            self._per_s += SMOOTHING * (int(drained["n"]) / took - self._per_s)
            is_behind = overdue["since"] is not None and now - overdue["since"] > BEHIND_S
            self._set_pace(self._per_s * PACE if is_behind and cpu_s - self._cpu_s > NO_CPU_LEFT * took else None)
        self._counted, self._looked_at, self._cpu_s = counted, began, cpu_s
        self._drained_until = now - STORED_S
        self._taken -= before  # what was taken while we counted may be counted twice until the next look
        self._open()
        self._show()

    def report(self) -> dict[str, object]:
        """How it stands, for people."""
        return {
            "waiting": self._waiting(),
            "most": self._bounds.events,
            "drained_per_s": round(self._per_s, 1),
            "paced_per_s": None if self._pace is None else round(self._pace, 1),
            "full": [reason for reason in REASONS if self._is_full(reason)],
            "disk_free_bytes": self._disk_left,
        }

    @property
    def _source_most(self) -> int:
        return max(int(self._bounds.events * self._bounds.source_share), 1)

    def _waiting(self) -> int:
        return sum(self._counted.values()) + self._taken.total() + self._under_way

    def _waiting_of(self, source: str) -> int:
        return self._counted.get(source, 0) + self._taken[source]

    def _is_disk_short(self) -> bool:
        return self._disk_left is not None and self._disk_left < self._bounds.free_bytes

    def _is_shut(self, name: str, waiting: int, most: int) -> bool:
        """Whether `name` ("" for all) is full, or was and has not drained enough since."""
        if waiting >= most:
            self._shut.add(name)
        return name in self._shut

    def _reopens_at(self, most: int) -> int:
        return min(int(most * self._bounds.reopen_share), most - 1)

    def _until_open(self, waiting: int, most: int) -> int:
        """When there will be room, by how fast it drained of late."""
        over = max(waiting - self._reopens_at(most), 1)
        if self._per_s < SLOWEST_PER_S:
            return UNKNOWN_S
        return min(max(math.ceil(over / self._per_s), SOON_S), LONGEST_S)

    def _open(self) -> None:
        for name in list(self._shut):
            waiting, most = (
                (self._waiting_of(name), self._source_most) if name else (self._waiting(), self._bounds.events)
            )
            if waiting <= self._reopens_at(most):
                self._shut.discard(name)
        if "" not in self._shut and not self._is_disk_short():
            self._room.set()

    def _set_pace(self, per_s: float | None) -> None:
        self._pace = None if per_s is None else max(per_s, LEAST_PACE)
        INTAKE_PACE.set(self._pace or 0)

    def _is_full(self, reason: Why) -> bool:
        if reason == "disk":
            return self._is_disk_short()
        if reason == "commits":
            return self._under_way >= self._bounds.commits
        return ("" in self._shut) if reason == "inbox" else bool(self._shut - {""})

    def _show(self) -> None:
        for reason in REASONS:
            is_full = self._is_full(reason)
            INTAKE_FULL.labels(reason).set(is_full)
            if not is_full and reason in self._announced:
                self._announced.discard(reason)
                log.get().info(
                    "taking notifications again", reason=f"full:{reason}", count=self._refused.pop(reason, 0)
                )

    def _say(self, full: Full) -> None:
        """When it begins, and with how many were turned away; no more than once a minute."""
        now = time.monotonic()
        if now - self._said.get(full.reason, -math.inf) < SAY_AGAIN_S:
            return
        self._said[full.reason] = now
        self._announced.add(full.reason)
        INTAKE_FULL.labels(full.reason).set(1)
        log.get().warning(
            "turning notifications away", reason=f"full:{full.reason}", count=self._refused[full.reason],
            seconds=full.retry_after_s,
        )  # fmt: skip
