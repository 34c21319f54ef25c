"""Which process is alive, and which one does what only one may do: leases in the database, renewed by a beat.

A process that was killed stops renewing: its duties go to others, and the claims that name it are freed, within
`LEASE_S`. A process that is only slow loses both, too, and stops before its next step: a duty is cancelled as soon as
its lease can no longer be relied on, and what it had claimed is fenced by the claim's token.
With SQLite the file's lock says that there is nobody else: every duty is ours, and nothing is written.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from sidecar import log
from sidecar.errors import ClaimLost, NotHere, NotStored
from sidecar.metrics import DUTIES, SUPERSEDED
from sidecar.store.engine import SLOW_S, URGENT_S, Row, Statement, Step, Store

LEASE_S = 8.0
BEAT_S, AGAIN_S = 2.0, 0.5
"""Between two beats, and after one that failed: a beat that takes `URGENT_S` may fail once and no duty is lost."""

GONE_S = 86_400.0
"""How long it is remembered with which key a process sealed whose lease has ended and was not given back."""

MARGIN_S = 2.0
"""How long before its end a lease is not relied on any more. Two clocks differ by less: each differs from the
database's by at most `durability.MOST_SKEW_S`."""

TAKE_LEASE = Statement(
    "take_lease",
    "INSERT INTO lease (name, holder, until, runs, since) VALUES (:name, :holder, :until, :runs, :since) "
    "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until, runs = excluded.runs, "
    "since = excluded.since "
    "WHERE lease.holder = excluded.holder OR lease.until <= :now RETURNING name",
    within_s=URGENT_S,
)
GIVE_BACK = Statement("give_back_leases", "DELETE FROM lease WHERE holder = :holder", within_s=URGENT_S)
SAY_SEALING = Statement(
    "say_sealing",
    "UPDATE lease SET sealing = :sealing, sealing_since = :sealing_since WHERE name = :name AND holder = :holder",
    within_s=URGENT_S,
)
KEEP_LEASE = Statement(
    "keep_lease", "UPDATE lease SET until = :until WHERE name = :name AND holder = :holder RETURNING name"
)
END_LEASE = Statement("end_lease", "DELETE FROM lease WHERE name = :name AND holder = :holder")
NEWEST = Statement(
    "newest_process",
    "SELECT runs FROM lease WHERE name LIKE 'process:%' AND until > :now ORDER BY since DESC, holder DESC LIMIT 1",
)
NEWEST_AT_ONCE = replace(NEWEST, within_s=URGENT_S)
DEAD = Statement("dead_processes", "SELECT holder FROM lease WHERE name LIKE 'process:%' AND until <= :now LIMIT 1")
# What a process that is gone sealed with counts for a while: it may come back, and store what it had sealed.
REMEMBER = Statement(
    "remember_processes",
    "INSERT INTO lease (name, holder, until, sealing, sealing_since) "
    "SELECT 'gone:' || holder, holder, until, sealing, sealing_since FROM lease "
    "WHERE name LIKE 'process:%' AND until <= :now "
    "ON CONFLICT (name) DO UPDATE SET until = excluded.until, sealing = excluded.sealing, "
    "sealing_since = excluded.sealing_since",
)
FORGET = Statement(
    "forget_processes",
    "DELETE FROM lease WHERE (name LIKE 'process:%' AND until <= :now) OR (name LIKE 'gone:%' AND until <= :before)",
)
_OPEN = {"event": "state = 'pending'", "work": "1 = 1", "delivery": "state = 'queued'"}
FREE_OWN = tuple(
    Statement(
        f"free_own_{table}",
        f"UPDATE {table} SET claim = NULL, lease_until = 0 WHERE substr(claim, 1, 32) = :holder AND {is_open}",  # noqa: S608 -- constants
        within_s=URGENT_S,
    )
    for table, is_open in _OPEN.items()
)
FREE = tuple(
    Statement(
        f"free_{table}",
        f"UPDATE {table} SET claim = NULL, lease_until = 0 WHERE claim IS NOT NULL AND {is_open} "  # noqa: S608 -- constants
        "AND substr(claim, 1, 32) NOT IN (SELECT holder FROM lease WHERE name LIKE 'process:%' AND until > :now)",
        within_s=SLOW_S,
    )
    for table, is_open in _OPEN.items()
)


@dataclass(frozen=True, slots=True)
class Says:
    """What a process says of itself with its lease: its models and settings, and the key it seals with since when."""

    runs: str = ""
    sealing: Callable[[], tuple[int, float]] = lambda: (0, 0.0)


NOTHING = Says()


class Leases:
    """The leases of one process. `beat` renews them; `alone` runs a duty only while its lease holds.

    `says.runs` is what the process runs, its models and settings. Where processes differ, those that run what the one
    started last runs do all the work, and the others only take notifications: no two models' results take turns.
    """

    def __init__(
        self, store: Store, duties: Iterable[str], clock: Callable[[], float] = time.time, says: Says = NOTHING
    ) -> None:
        self._store, self._clock = store, clock
        self._process = f"process:{store.owner}"
        self._until = dict.fromkeys([self._process, *duties], 0.0)
        self._taken = {duty: asyncio.Event() for duty in self._until}
        self._known_since = 0.0
        self._runs, self._sealing, self._since = says.runs, says.sealing, 0.0
        self._leads = asyncio.Event()
        self._is_newest = True
        self._looking: asyncio.Task[Sequence[Row]] | None = None

    def holds(self, duty: str) -> bool:
        """Whether `duty` is ours, for long enough to take one more step."""
        return self._store.alone or self._clock() < self._until[duty] - MARGIN_S

    def must_hold(self, duty: str) -> None:
        """Go on only if `duty` is still ours.

        Raises:
            ClaimLost: it is not, or may not be by the time a step has ended.
        """
        if not self.holds(duty):
            raise ClaimLost(f"lease_lost:{duty}")

    async def leading(self) -> None:
        """Wait until this process may claim work: nothing else is run by processes that were started later."""
        while not self._store.alone:
            await self._leads.wait()
            if self.holds(self._process):
                return
            self._leads.clear()  # this process stood still for long: the next beat says

    async def must_lead(self) -> None:
        """Go on with what was claimed only if nothing else is run by processes that were started later.

        What was claimed was heard before this look, so whoever is started after it has no claim to it.

        Raises:
            NotHere: another process has it to do.
            NotStored: the database is away.
        """
        if not self._store.alone and not self._runs_what(await self._newest()):
            raise NotHere("superseded", BEAT_S)

    async def _newest(self) -> Sequence[Row]:
        """A look that begins after this call; whoever calls before it begins shares it."""
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> Sequence[Row]:
        await asyncio.sleep(0)
        self._looking = None
        return await self._store.read(NEWEST, now=self._clock())

    def _runs_what(self, newest: Sequence[Row]) -> bool:
        return not newest or newest[0]["runs"] == self._runs

    async def beat(self) -> None:
        """Renew what is ours and take what is free; on SQLite, free what a predecessor had claimed.

        Raises:
            NotStored: the database is away; what is ours goes on to its end and no further.
        """
        now = self._clock()
        if self._store.alone:
            if not self._known_since:  # the file is ours: claims of a process that was killed belong to nobody
                await self._store.commit(*(Step(statement, [{"now": now}]) for statement in FREE))
                self._known_since = now
                self._until = dict.fromkeys(self._until, float("inf"))
                self._mark(self._until)
            return
        self._since = self._since or now
        # Duties that are left to others are not renewed: they end with their leases, here before there.
        asked = list(self._until) if self._is_newest else [self._process]
        row = {
            "holder": self._store.owner,
            "until": now + LEASE_S,
            "now": now,
            "runs": self._runs,
            "since": self._since,
        }
        sealing, sealing_since = self._sealing()
        said = {"name": self._process, "holder": self._store.owner}
        taken, newest, _ = await self._store.commit(
            Step(TAKE_LEASE, [row | {"name": name} for name in asked]),
            Step(NEWEST_AT_ONCE, [{"now": now}]),
            Step(SAY_SEALING, [said | {"sealing": sealing, "sealing_since": sealing_since}]),
        )
        mine = {r["name"] for r in taken}
        if now > self._until[self._process]:
            self._known_since = now
        self._until |= {name: now + LEASE_S if name in mine else 0.0 for name in asked}
        self._mark(mine)
        self._lead(is_newest=self._runs_what(newest))

    def _lead(self, *, is_newest: bool) -> None:
        if is_newest != self._is_newest:
            said = log.get().info if is_newest else log.get().error
            said("leads again" if is_newest else "superseded", place="leases", reason="other models or settings")
        self._is_newest = is_newest
        SUPERSEDED.set(not is_newest)
        if is_newest:
            self._leads.set()
        else:
            self._leads.clear()

    async def free(self) -> None:
        """Free what the dead had claimed.

        Raises:
            NotStored: the database is away.
        """
        now = self._clock()
        if self._store.alone or not self.holds(self._process):
            return
        # After an outage of the database everybody's lease has ended: wait until the living have renewed theirs.
        if now - self._known_since >= LEASE_S and await self._store.read(DEAD, now=now):
            row = {"now": now, "before": now - GONE_S}
            await self._store.commit(*(Step(statement, [row]) for statement in (*FREE, REMEMBER, FORGET)))
            log.get().warning("claims freed", reason="process_gone")

    def _mark(self, mine: Iterable[str]) -> None:
        for duty, taken in self._taken.items():
            if duty in mine and not taken.is_set():
                taken.set()
            elif duty not in mine:
                taken.clear()

    async def keep(self) -> None:
        """Beat for ever; freeing what the dead had claimed may take long and keeps no beat waiting."""
        await asyncio.gather(_for_ever(self.beat), _for_ever(self.free))

    async def alone(self, duty: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run `run` while `duty` is ours and cancel it when it is not; an error of its own ends this."""
        while True:
            await self._taken[duty].wait()
            task = asyncio.ensure_future(run())
            DUTIES.labels(duty).set(1)
            log.get().info("duty taken", place=duty)
            try:
                while self.holds(duty) and not task.done():
                    left_s = self._until[duty] - MARGIN_S - self._clock()
                    await asyncio.wait([task], timeout=min(max(left_s, 0.0), BEAT_S))
            finally:
                task.cancel()
                await asyncio.wait([task])
                DUTIES.labels(duty).set(0)
                log.get().info("duty left", place=duty)
            if not self.holds(duty):
                self._taken[duty].clear()
            if not task.cancelled():
                task.result()

    async def give_back(self) -> None:
        """Leave every duty, and what is still claimed, to the others at once; the last thing a process does."""
        if not self._store.alone:
            self._until = dict.fromkeys(self._until, 0.0)
            with contextlib.suppress(NotStored):
                await self._store.commit(*(Step(s, [{"holder": self._store.owner}]) for s in (*FREE_OWN, GIVE_BACK)))


async def _for_ever(run: Callable[[], Awaitable[None]]) -> None:
    while True:
        pause_s = BEAT_S
        try:
            await run()
        except NotStored as error:
            log.get().error("not stored", place="leases", reason=error.reason)
            pause_s = AGAIN_S
        await asyncio.sleep(pause_s)
