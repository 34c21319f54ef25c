"""One key ring a database: what was sealed or looked up with one is lost to another.

The first server leaves fingerprints of its keys, each later one compares. A ring may grow and turn; a key never
changes, and its number is never given to another one.
"""

import asyncio

from sidecar import log
from sidecar.errors import Misconfigured, NotStored
from sidecar.store.cipher import Cipher
from sidecar.store.engine import Row, Statement, Step, Store

RING_S = 2.0
"""How soon a running server takes what changed in its key file, at the latest."""

LEAVE = Statement(
    "leave_fingerprints",
    "INSERT INTO ring (name, fingerprint) VALUES (:name, :fingerprint) ON CONFLICT (name) DO NOTHING",
    sort_by=("name",),
)
LEFT = Statement("fingerprints", "SELECT name, fingerprint, retired_at FROM ring ORDER BY name")


async def check_ring(store: Store, cipher: Cipher) -> None:
    """Refuse a ring with which this database was not made, or that seals with a key which was retired.

    Raises:
        Misconfigured: a key is not the one that was used here under its name, or not any more.
        NotStored: the database is away.
    """
    ours = dict(cipher.fingerprints)
    # Looked at first: a ring that is refused leaves nothing behind.
    _compare(ours, await store.read(LEFT), cipher.wanted)
    await store.commit(Step(LEAVE, [{"name": name, "fingerprint": print_} for name, print_ in ours.items()]))
    _compare(ours, await store.read(LEFT), cipher.wanted)
    cipher.prove(frozenset(ours))


async def look_at_ring(store: Store, cipher: Cipher) -> None:
    """Take what changed in the key file. A ring that is not this database's is left out, and named in the log.

    A key that was retired while this server was away seals nothing more: no copy of it may be left.

    Raises:
        NotStored: the database is away; what is new waits.
    """
    cipher.look()
    retired = {r["name"] for r in await store.read(LEFT) if r["retired_at"] is not None}
    before, cipher.retired = cipher.retired, frozenset(n for n in cipher.numbers if f"key {n}" in retired)
    if cipher.sealing in cipher.retired - before:
        log.get().error("key retired", place="store", reason=f"key {cipher.sealing} was retired; nothing is sealed")
    if cipher.unproven:
        try:
            await check_ring(store, cipher)
        except Misconfigured as error:
            cipher.disown()
            log.get().error("key file not taken", place="store", problem="; ".join(error.problems))


async def keep_ring(store: Store, cipher: Cipher) -> None:
    """Look for ever."""
    while True:
        await asyncio.sleep(RING_S)
        try:
            await look_at_ring(store, cipher)
        except NotStored as error:
            log.get().error("not stored", place="ring", reason=error.reason)


def _compare(ours: dict[str, bytes], left: list[Row], sealing: int) -> None:
    wrong = [r["name"] for r in left if ours.get(r["name"], bytes(r["fingerprint"])) != bytes(r["fingerprint"])]
    if wrong:
        problem = (
            f"store.key_file: another {' and '.join(wrong)} was used for this database; use the ring it was made with"
        )
        raise Misconfigured([problem])
    if f"key {sealing}" in {r["name"] for r in left if r["retired_at"] is not None}:
        raise Misconfigured([f"store.key_file: key {sealing} was retired; use the ring as it is since then"])
