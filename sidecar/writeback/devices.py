"""The Device of each model version in the EHR: made once, by one process at a time, and remembered."""

import time

from sidecar.errors import TooEarly
from sidecar.store import END_LEASE, KEEP_LEASE, TAKE_LEASE, Statement, Step, Store

ASK_AGAIN_S = 1.0

FIND_DEVICE = Statement("find_device", "SELECT remote_id FROM device WHERE model_digest = :digest", quick=True)
KEEP_DEVICE = Statement(
    "keep_device",
    "INSERT INTO device (model_digest, remote_id) VALUES (:digest, :remote_id) "
    "ON CONFLICT (model_digest) DO UPDATE SET remote_id = excluded.remote_id",
)


class Making:
    """One attempt to make a Device, under a lease of its own: `take` it, `begin` and `end` a create, `leave`."""

    def __init__(self, store: Store, digest: str, longest_s: float) -> None:
        self._store, self._longest_s = store, longest_s
        # Named after the attempt and not the process: a later attempt of the same process must wait as well.
        self._row = {"name": f"device:{digest}", "holder": store.fresh_claim()}
        self._under_way = False

    async def take(self) -> None:
        """Make the Device now, and nobody else does.

        Raises:
            TooEarly: another process makes it, or a create of an earlier attempt may still be under way.
        """
        now = time.time()
        # The one process of a file does one thing at a time: only a create has to outlive it.
        until = now if self._store.alone else now + self._longest_s
        (taken,) = await self._store.commit(
            Step(TAKE_LEASE, [self._row | {"until": until, "now": now, "runs": None, "since": None}])
        )
        if not taken:
            raise TooEarly("device_being_made", ASK_AGAIN_S)

    async def begin(self) -> None:
        """Nobody makes this Device before the longest time has passed.

        Raises:
            TooEarly: looking for it took so long that another process has begun.
        """
        (kept,) = await self._store.commit(Step(KEEP_LEASE, [self._row | {"until": time.time() + self._longest_s}]))
        if not kept:
            raise TooEarly("device_being_made", ASK_AGAIN_S)
        self._under_way = True

    async def end(self) -> None:
        """What became of the create is known."""
        self._under_way = False

    async def leave(self) -> None:
        """Let others make it, unless a create may still be under way."""
        if not self._under_way:
            await self._store.commit(Step(END_LEASE, [self._row]))


class Devices:
    """The Devices that are known."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, str] = {}

    async def find(self, digest: str) -> str | None:
        """The id of a model version's Device in the EHR, once made; it is never made anew."""
        if digest not in self._known:
            for row in await self._store.read(FIND_DEVICE, digest=digest):
                self._known[digest] = str(row["remote_id"])
        return self._known.get(digest)

    async def keep(self, digest: str, remote_id: str) -> None:
        """Remember it."""
        await self._store.commit(Step(KEEP_DEVICE, [{"digest": digest, "remote_id": remote_id}]))

    def making(self, digest: str, longest_s: float) -> Making:
        """An attempt to make it; its creates last `longest_s` at most."""
        return Making(self._store, digest, longest_s)
