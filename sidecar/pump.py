"""A loop that claims as much as it has room for, runs it, and sleeps until it is woken or something falls due.

It is also the outermost frame of background work: an error nobody expected is logged by class, counted, and handed
to `bury`, so that it can neither be lost nor stop the loop.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sidecar import log, metrics
from sidecar.errors import NotStored, SidecarError

Item = TypeVar("Item")
POLL_S = 0.5
GATHER_S = 0.01
"""How long a backlog waits for others to finish, so that claims are made together."""
CUT_S = 1.5
"""For what a stop cut short to release its claims."""


@dataclass(frozen=True, slots=True)
class Verbs(Generic[Item]):
    """What a pump does: `claim(most)`, `run(item)`, `bury(item, reason)`, and when the next row falls due.

    `waiting()` looks, more cheaply than `claim` does, whether there may be something to claim now.
    `release(item)` gives back the claim of a run that was cut short; `extend(items)` keeps the claims of what still
    runs. A claim that is gone is left alone.
    """

    claim: Callable[[int], Awaitable[Sequence[Item]]]
    run: Callable[[Item], Awaitable[None]]
    bury: Callable[[Item, str], Awaitable[None]]
    release: Callable[[Item], Awaitable[None]]
    extend: Callable[[Sequence[Item]], Awaitable[None]]
    waiting: Callable[[], Awaitable[bool]]
    next_due: Callable[[], Awaitable[float | None]] | None = None


class Pump(Generic[Item]):
    """Runs up to `room` items at once. `ready` is awaited before each claim: a closed gate means no claims.

    Claims of what runs longer than a third of `lease_s` are extended, so that slow work is never done twice at once.
    """

    def __init__(
        self, name: str, room: int, lease_s: float, ready: Callable[[], Awaitable[None]], verbs: Verbs[Item]
    ) -> None:
        self.name, self._room, self._ready, self._verbs = name, room, ready, verbs
        self._beat_s = lease_s / 3
        self._woken = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._stopping = self._backlog = False
        self._running: dict[asyncio.Task[None], Item] = {}
        self._beat_at = time.monotonic() + self._beat_s
        self._owed: list[Item] = []

    def wake(self) -> None:
        """Something may be claimable now."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled or stopped."""
        while not self._stopping:
            await self._until_ready()
            await self._give_back()
            await self._room_for_some()
            self._woken.clear()
            free = self._room - len(self._running)
            async with self._claiming:
                claimed = await self._claim(free) if free > 0 and not self._stopping and await self._waiting() else ()
                for item in claimed:
                    task = asyncio.create_task(self._guarded(item), name=self.name)
                    self._running[task] = item
                    task.add_done_callback(self._finished)
            self._backlog = 0 < free <= len(claimed)
            if len(claimed) < free or free == 0:
                await self._sleep()

    async def _room_for_some(self) -> None:
        """While there is a backlog, claim for half the room at once: a claim for each item costs as much again."""
        if self._backlog and not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    while len(self._running) > self._room // 2:
                        self._woken.clear()
                        await self._woken.wait()

    async def _until_ready(self) -> None:
        """Wait for the gate, and keep the claims of what still runs meanwhile."""
        while True:
            await self._beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._beat_s):
                    return await self._ready()

    async def _beat(self) -> None:
        if self._running and time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + self._beat_s
            try:
                await self._verbs.extend(list(self._running.values()))
            except SidecarError as error:
                log.get().warning("claims not extended", place=self.name, reason=error.reason)

    async def stop(self, within_s: float) -> None:
        """Claim no more; wait for what is running, then cut it short, which releases its claim.

        Done `within_s` and `CUT_S` seconds from now, also when the database does not answer.
        """
        end = time.monotonic() + within_s
        self._stopping = True
        self._woken.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._claiming:
                pass  # what is being claimed at this moment runs, too
        if running := set(self._running):
            _, late = await asyncio.wait(running, timeout=max(end - time.monotonic(), 0.0))
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=CUT_S / 2)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._give_back(), CUT_S / 2)

    async def _waiting(self) -> bool:
        """Most looks find nothing: one that is woken by what it has just finished, above all."""
        try:
            return await self._verbs.waiting()
        except NotStored:
            return True  # the claim asks the same database, and says so
        except Exception as error:  # noqa: BLE001 -- the outermost frame of background work
            self.unexpected(error)
            return True

    async def _claim(self, most: int) -> Sequence[Item]:
        try:
            return await self._verbs.claim(most)
        except NotStored as error:
            log.get().error("not stored", place=self.name, reason=error.reason)
            return ()
        except Exception as error:  # noqa: BLE001 -- the outermost frame of background work
            self.unexpected(error)
            return ()

    async def _guarded(self, item: Item) -> None:
        try:
            await self._verbs.run(item)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await self._verbs.release(item)
            raise
        except NotStored as error:
            # Our own database, not this item: its claim is given back when the database takes it, else its lease ends.
            log.get().error("not stored", place=self.name, reason=error.reason)
            self._owed.append(item)
            await asyncio.sleep(POLL_S)
        except Exception as error:  # noqa: BLE001 -- the outermost frame of background work
            self.unexpected(error)
            with contextlib.suppress(Exception):
                await self._verbs.bury(item, f"unexpected:{type(error).__name__}")

    async def _give_back(self) -> None:
        """Release what could not be stored. What was stored after all has no claim left, and nothing happens to it."""
        with contextlib.suppress(SidecarError):
            while self._owed:
                item = self._owed.pop()  # ours now: `run` and `stop` may both be here
                try:
                    await self._verbs.release(item)
                except BaseException:
                    self._owed.append(item)
                    raise

    def unexpected(self, error: Exception) -> None:
        """Log and count an error that nobody expected, by its class."""
        metrics.LOGGED_ERRORS.labels(self.name).inc()
        log.unexpected(self.name, error)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._running.pop(task, None)
        self._woken.set()

    async def _sleep(self) -> None:
        wait = min(POLL_S, self._beat_s)
        if self._verbs.next_due is not None and len(self._running) < self._room:
            try:
                due = await self._verbs.next_due()
            except NotStored:
                due = None  # the claim, which asks the same database, has said so
            except Exception as error:  # noqa: BLE001 -- the outermost frame of background work
                self.unexpected(error)
                due = None
            if due is not None:
                wait = min(wait, max(due - time.time(), 0.001))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._woken.wait()
