"""What only one process at a time does: keep the Subscriptions, search for what was missed, review, prune."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from sidecar import log
from sidecar.errors import SidecarError, Unavailable
from sidecar.records import Event
from sidecar.review import Sweep, review
from sidecar.rooms import Rooms
from sidecar.settings import Settings

PRUNE_S = 600.0
SOON_S = 0.1
RARELY_S = 60.0

Duty = Callable[[], Awaitable[None]]


class Duties:
    """The duties of one process, each without an end. `wake` says that there is something to claim."""

    def __init__(self, rooms: Rooms, settings: Settings, wake: Callable[[], None]) -> None:
        self._rooms, self._settings, self._wake = rooms, settings, wake

    @property
    def each(self) -> Mapping[str, Duty]:
        """By name."""
        return {
            "subscriptions": self._subscriptions,
            "catch-up": self._catch_up,
            "review": self._review,
            "prune": self._prune,
        }

    async def _subscriptions(self) -> None:
        """Create or adopt, then look again: soon while one is not active, ever less often, and rarely after.

        In between, follow what the topic Subscriptions tell of themselves.
        """
        rooms, pause_s, next_at = self._rooms, SOON_S, 0.0
        while True:
            await rooms.gate.ready()
            if time.monotonic() >= next_at:
                healthy = await self._outside(lambda: rooms.subscriptions.ensure(rooms.sources, time.time()))
                pause_s = RARELY_S if healthy else min(pause_s * 2, RARELY_S)
                next_at = time.monotonic() + pause_s
                pause_s = SOON_S if healthy else pause_s
            await self._outside(self._follow)
            await asyncio.sleep(min(rooms.follower.grace_s, max(0.0, next_at - time.monotonic())))

    async def _follow(self) -> bool:
        for source in self._rooms.sources:
            await self._rooms.follower.follow(source, time.time())
        return True

    async def _catch_up(self) -> None:
        """Search for missed events: at start, and at every interval."""
        while True:
            await self._rooms.gate.ready()
            for source in self._rooms.sources:
                await self._rooms.events.record(Event(source.name, time.time()))
            self._wake()
            await asyncio.sleep(self._settings.work.catch_up_interval.total_seconds())

    async def _review(self) -> None:
        rooms, sweep = self._rooms, Sweep()
        while True:
            await asyncio.sleep(self._settings.work.review_interval.total_seconds())
            await rooms.gate.ready()
            if await self._outside(lambda: review(rooms.client, rooms.archive, rooms.events, rooms.clock, sweep)):
                self._wake()

    async def _prune(self) -> None:
        store = self._settings.store
        while True:
            await self._rooms.events.prune(
                time.time(), store.retention.total_seconds(), store.dedupe_retention.total_seconds()
            )
            await asyncio.sleep(PRUNE_S)

    async def _outside(self, call: Callable[[], Awaitable[bool | int]]) -> bool | int:
        """A call to the EHR by a task of its own: a failure is logged, and shuts the gate when the EHR is away."""
        try:
            return await call()
        except Unavailable as down:
            if not await self._rooms.gate.is_away(down):
                log.get().warning("ehr call failed", reason=down.reason)
        except SidecarError as error:
            log.get().warning("ehr call failed", reason=error.reason)
        return False
