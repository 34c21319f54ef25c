"""Follows the log of transitions for one process, and appends to it for people and for the settings file.

One cheap look every `POLL_S` (at once, when another process says that it appended) keeps all processes together; no
event pays for a look of its own. Whoever is about to write asks `may_write`, which looks again when the last look is
older than `FRESH_S`: no write starts a second after `stop-writes`, also when the database is away.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

from sidecar import log
from sidecar.errors import Misconfigured, NotStored, TooEarly
from sidecar.fleet import Fleet
from sidecar.manifest import missing_mandatory
from sidecar.metrics import WRITES_STOPPED
from sidecar.pipeline import RunningModel
from sidecar.rollout import Ask, Book, Changed, Standings, Version, asked_by_settings, is_followed, stand
from sidecar.rollout.standing import WRITES

POLL_S, FRESH_S, LOOKS = 0.25, 0.5, 5
HELD_S = 1.0
"""Before a write that was held up is looked at again."""

Missing = Callable[[RunningModel], Sequence[str]]
"""Which attributes of its card a version lacks that it must have before it may write."""


def card_gaps(model: RunningModel) -> Sequence[str]:
    """What the card of its folder does not say and must; everything, when there is no card."""
    return missing_mandatory(model.loaded.card)


class Registry:
    """The log of one database, as one process sees it; `fleet` runs what stands in it."""

    def __init__(self, book: Book, fleet: Fleet, missing: Missing = card_gaps) -> None:
        self.book, self.fleet, self.missing = book, fleet, missing
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._woken, self._allowed = asyncio.Event(), asyncio.Event()
        self._is_changed, self._taken = False, -1
        self.changed: Callable[[], None] = lambda: None

    @property
    def stopped(self) -> bool:
        """Whether nothing is written: somebody said so, or the log cannot be believed."""
        return not self._allowed.is_set()

    async def begin(self) -> None:
        """Take what stands, and record what the settings say and the log does not know yet.

        Raises:
            Misconfigured: the log was changed, a version is not what it was, or a champion cannot be loaded. Without a
                canary the other patients have their champion: that is told, and the start goes on.
            NotStored: the database is away.
        """
        await self.follow_settings()
        await self.look()
        if problems := self.fleet.lacks():
            raise Misconfigured(problems)
        for problem in self.fleet.lacks_besides():
            log.get().warning("version not there", problem=problem)

    async def follow_settings(self) -> None:
        """Record what the settings file decides, as far as no person has decided otherwise.

        Raises:
            Misconfigured, NotStored: as `begin`.
        """
        for name, promoted in self.fleet.promotions.items():
            loaded = self.fleet.configured[name].loaded
            version = Version(loaded.manifest.version, loaded.digest)
            await self.book.seen(name, version)
            try:
                while await self.book.append(partial(self._asked, name, version, promoted)) is not None:
                    pass
            except Changed as error:
                raise Misconfigured([unbelievable(error)]) from None
            if not is_followed(promoted, version, stand(self.book.entries).of(name)):
                log.get().warning("promotion in the settings not followed", model=name, reason="the log decides")

    async def _asked(self, name: str, version: Version, promoted: tuple[str, str] | None, now: Standings) -> Ask | None:
        ask = asked_by_settings(name, version, promoted, now.of(name))
        if ask is not None and ask.what in WRITES:
            self.must_have_its_card(self.fleet.configured[name])
        return ask

    def must_have_its_card(self, model: RunningModel) -> None:
        """Refuse to let a version write whose card lacks what it must say.

        Raises:
            Misconfigured: naming what is missing.
        """
        if lacking := self.missing(model):
            manifest = model.loaded.manifest
            raise Misconfigured([f"{manifest.name} {manifest.version}: its card does not say {', '.join(lacking)}"])

    async def look(self) -> None:
        """Take what was appended since the last look.

        Raises:
            NotStored: the database is away; what stood goes on, and nothing is written.
        """
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        began = time.monotonic()
        try:
            await self.book.read()
        except Changed as error:
            if not self._is_changed:
                log.get().error("log of models changed", place="registry", reason=error.reason)
            self._is_changed = True
            self._let_write(allowed=False)
            self._looked_at = began
            return
        self._looked_at = began
        if self._is_changed or len(self.book.entries) != self._taken:
            self._is_changed, self._taken = False, len(self.book.entries)
            await self._take()
        elif not self.fleet.is_whole and await asyncio.to_thread(self.fleet.load, self.fleet.standings):
            self.fleet.take(self.fleet.standings)  # what was missing is there by now
            self.changed()

    async def _take(self) -> None:
        """A stop counts at once; versions when they are loaded, which takes as long as it takes."""
        standings = stand(self.book.entries)
        self._let_write(allowed=not standings.stopped)
        if self.fleet.lacks_any(standings):
            await asyncio.to_thread(self.fleet.load, standings)
        self.fleet.take(standings)
        self.changed()

    def _let_write(self, *, allowed: bool) -> None:
        (self._allowed.set if allowed else self._allowed.clear)()
        WRITES_STOPPED.set(not allowed)

    async def keep(self) -> None:
        """Look for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self.look()
            except NotStored as error:
                log.get().error("not stored", place="registry", reason=error.reason)

    def wake(self) -> None:
        """Another process has appended something."""
        self._woken.set()

    async def caught_up(self) -> None:
        """Look, if the last look was more than `FRESH_S` ago; whoever asks meanwhile shares the look.

        Raises:
            NotStored: the database is away.
        """
        if time.monotonic() - self._looked_at > FRESH_S:
            async with self._looking:
                if time.monotonic() - self._looked_at > FRESH_S:
                    await self._look()

    async def fresh(self) -> None:
        """Go on only with what stood at most `FRESH_S` ago.

        Raises:
            NotStored: the database is away, or slower than that.
        """
        for _ in range(LOOKS):
            await self.caught_up()
            if time.monotonic() - self._looked_at <= FRESH_S:
                return
        raise NotStored("store:slow")  # what it says is older than that by the time it is here

    async def may_write(self) -> None:
        """Go on to a write only if writing is allowed.

        Raises:
            TooEarly: it is stopped.
            NotStored: nobody knows.
        """
        await self.fresh()
        if self.stopped:
            raise TooEarly("writes_stopped", HELD_S)

    async def allowed(self) -> None:
        """Wait until writing is allowed."""
        await self._allowed.wait()


def unbelievable(error: Changed) -> str:
    """What to tell an operator."""
    number = error.reason.rpartition(":")[2]
    return f"the log of model transitions is not what was written, from entry {number} on; restore it from a backup"
