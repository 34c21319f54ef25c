"""One key ring a database: what was sealed or looked up with one is lost to another.

The first server leaves fingerprints of its keys, each later one compares. A ring may grow and turn; a key never
changes, and its number is never given to another one.
"""

import asyncio

from sidecar import log
from sidecar.errors import Misconfigured, NotStored
from sidecar.store.cipher import Cipher
from sidecar.store.engine import URGENT_S, Row, Statement, Step, Store
from sidecar.store.leases import LEASE_S, MARGIN_S

RING_S, AGAIN_S = 2.0, 0.5
"""How soon a running server takes what changed in its key file, at the latest; and looks again when it could not."""

VOUCHED_S = LEASE_S - MARGIN_S
"""How long after a look at a shared database's ring a key seals. Whoever was away for longer counts as gone there, so
its key may have been retired: it looks before it seals anything."""

LEAVE = Statement(
    "leave_fingerprints",
    "INSERT INTO ring (name, fingerprint) VALUES (:name, :fingerprint) ON CONFLICT (name) DO NOTHING",
    sort_by=("name",),
)
LEFT = Statement("fingerprints", "SELECT name, fingerprint, retired_at FROM ring ORDER BY name", within_s=URGENT_S)


async def check_ring(store: Store, cipher: Cipher, given_up: int | None = None) -> None:
    """Refuse a ring with which this database was not made, an older copy of it, or one that seals with a retired key.

    `given_up` is a key that may be missing: the one about to be retired because no copy of it is left.

    Raises:
        Misconfigured: a key is not the one that was used here under its name, or not any more, or is the newest and
            missing.
        NotStored: the database is away.
    """
    newest = _newest(await store.read(LEFT))
    if newest is not None and newest != given_up and newest not in cipher.listed:
        cure = f"put the newest copy of the ring in its place; if none is left: sidecar keys retire {newest} --anyway"
        raise Misconfigured([f"store.key_file: lacks key {newest}, the newest of this database; {cure}"])
    await _prove(store, cipher)


async def _prove(store: Store, cipher: Cipher) -> None:
    """Leave the fingerprints of our keys, unless others go by their names; then they seal, if the file says so."""
    ours, seen = dict(cipher.fingerprints), cipher.vouch(VOUCHED_S)
    # Looked at first: a ring that is refused leaves nothing behind.
    left = await store.read(LEFT)
    _compare(ours, left, cipher.wanted)
    newest = _newest(left)
    if f"key {newest}" in ours and newest not in cipher.listed:
        # A server goes on with the ring it has when an older copy is put in its place.
        raise Misconfigured([f"store.key_file: lacks key {newest}, which was in it; put the newest copy in its place"])
    await store.commit(Step(LEAVE, [{"name": name, "fingerprint": print_} for name, print_ in ours.items()]))
    _compare(ours, await store.read(LEFT), cipher.wanted)
    cipher.prove(frozenset(ours))
    if not store.alone:
        seen()


async def look_at_ring(store: Store, cipher: Cipher) -> None:
    """Take what changed in the key file. A ring that is not this database's is left out, and named in the log.

    A key that was retired while this server was away seals nothing more: no copy of it may be left.

    Raises:
        NotStored: the database is away; what is new waits.
    """
    cipher.look()
    seen = cipher.vouch(VOUCHED_S)
    retired = {r["name"] for r in await store.read(LEFT) if r["retired_at"] is not None}
    before, cipher.retired = cipher.retired, frozenset(n for n in cipher.numbers if f"key {n}" in retired)
    if not store.alone:
        seen()
    if cipher.sealing in cipher.retired - before:
        log.get().error("key retired", place="store", reason=f"key {cipher.sealing} was retired; nothing is sealed")
    if cipher.unproven:
        try:
            await _prove(store, cipher)
        except Misconfigured as error:
            cipher.disown()
            log.get().error("key file not taken", place="store", problem="; ".join(error.problems))


async def keep_ring(store: Store, cipher: Cipher) -> None:
    """Look for ever."""
    pause_s = RING_S
    while True:
        await asyncio.sleep(pause_s)
        pause_s = RING_S
        try:
            await look_at_ring(store, cipher)
        except NotStored as error:
            log.get().error("not stored", place="ring", reason=error.reason)
            pause_s = AGAIN_S


def _compare(ours: dict[str, bytes], left: list[Row], sealing: int) -> None:
    wrong = [r["name"] for r in left if ours.get(r["name"], bytes(r["fingerprint"])) != bytes(r["fingerprint"])]
    if wrong:
        problem = (
            f"store.key_file: another {' and '.join(wrong)} was used for this database; use the ring it was made with"
        )
        raise Misconfigured([problem])
    if f"key {sealing}" in {r["name"] for r in left if r["retired_at"] is not None}:
        raise Misconfigured([f"store.key_file: key {sealing} was retired; use the ring as it is since then"])


def _newest(left: list[Row]) -> int | None:
    """The number that was given last, among the keys that are in use."""
    numbers = (int(r["name"].removeprefix("key ")) for r in left if r["name"] != "lookup" and r["retired_at"] is None)
    return max(numbers, default=None)
