"""What only one process at a time does: keep the Subscriptions, search for what was missed, review, prune."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from sidecar import log
from sidecar.errors import SidecarError, Unavailable
from sidecar.intake import forgotten
from sidecar.metrics import SUBSCRIPTION_ACTIVE
from sidecar.records import Event
from sidecar.review import Sweep, review
from sidecar.rooms import Rooms
from sidecar.settings import Settings

DUTIES = ("subscriptions", "catch-up", "review", "prune")
PRUNE_S = 600.0
LOOK_S = 0.1
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
"""Before a source of which the EHR said nothing is looked at again; doubles with each failure in a row."""
NOTICES_S = 86_400.0
"""How long what was heard of a Subscription waits to be counted; days later it says nothing any more."""

Duty = Callable[[], Awaitable[None]]


class Duties:
    """The duties of one process, each without an end. `wake` says that there is something to claim."""

    def __init__(self, rooms: Rooms, settings: Settings, wake: Callable[[], None]) -> None:
        self._rooms, self._settings, self._wake = rooms, settings, wake

    @property
    def each(self) -> Mapping[str, Duty]:
        """By name."""
        return dict(zip(DUTIES, (self._subscriptions, self._catch_up, self._review, self._prune), strict=True))

    async def _subscriptions(self) -> None:
        """Create or adopt, follow, renew. One source's trouble does not keep the others waiting."""
        rooms = self._rooms
        pauses, resting = dict.fromkeys(rooms.sources, FIRST_PAUSE_S), dict.fromkeys(rooms.sources, 0.0)
        try:
            while True:
                await rooms.gate.ready()
                for source in [s for s in rooms.sources if time.monotonic() >= resting[s]]:
                    if await self._outside(partial(rooms.follower.follow, source, time.time())) is not None:
                        pauses[source] = FIRST_PAUSE_S
                        continue
                    resting[source] = time.monotonic() + pauses[source]
                    pauses[source] = min(2 * pauses[source], LONGEST_PAUSE_S)
                await asyncio.sleep(min(rooms.follower.grace_s, LOOK_S))
        finally:
            for source in rooms.sources:  # another process says from now on
                with contextlib.suppress(KeyError):
                    SUBSCRIPTION_ACTIVE.remove(source.name)

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
            await self._rooms.store.commit(forgotten(time.time() - NOTICES_S))
            await asyncio.sleep(PRUNE_S)

    async def _outside(self, call: Callable[[], Awaitable[int | None]]) -> int | None:
        """A call to the EHR by a task of its own: a failure is None and logged, and one that is away shuts the gate."""
        try:
            return await call() or 0
        except Unavailable as down:
            if not await self._rooms.gate.is_away(down):
                log.get().warning("ehr call failed", reason=down.reason)
        except SidecarError as error:
            log.get().warning("ehr call failed", reason=error.reason)
        return None
