"""Turn the key ring of a database while servers use it: take a key, seal everything again under it, retire the old one.

Each value is replaced only if it is still the one that was opened, so a change that comes in between is never
overwritten. What a pass has done is seen by the next one from the values themselves: a pass that was interrupted goes
on where it stopped, whoever runs it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sidecar.errors import Misconfigured, NotHere, Rejected
from sidecar.store.cipher import Cipher
from sidecar.store.engine import SLOW_S, Row, Statement, Step, Store
from sidecar.store.inventory import SEALED, SealedColumn
from sidecar.store.leases import GONE_S
from sidecar.store.ring import LEAVE, LEFT, look_at_ring

PORTION = 250
"""Values of one transaction: few enough that no acknowledgement waits for it."""

TURN_S = 0.5
"""How long one step seals before it says how far it is."""

QUIET_S = 300.0
"""A key is retired no sooner after the last server stopped sealing with it: what it sealed may be stored later."""

SERVERS = Statement(
    "sealing_servers",
    "SELECT sealing, sealing_since FROM lease WHERE name LIKE 'process:%' AND until > :now",
)
# Those whose lease ended without a word: killed, cut off, or standing still.
GONE = Statement(
    "sealing_gone",
    "SELECT holder FROM lease WHERE (name LIKE 'gone:%' OR name LIKE 'process:%') AND sealing = :sealing "
    "AND until <= :now AND until > :since "
    "AND holder NOT IN (SELECT holder FROM lease WHERE name LIKE 'process:%' AND until > :now)",
)
RETIRE = Statement("retire_key", "UPDATE ring SET retired_at = :now WHERE name = :name AND retired_at IS NULL")


@cache
def _uses(place: SealedColumn) -> Statement:
    return Statement(
        f"uses_of_{place.table}_{place.column}",
        f"SELECT substr({place.column}, 1, 1) AS key, count(*) AS n FROM {place.table} "  # noqa: S608 -- constants
        f"WHERE {place.column} IS NOT NULL GROUP BY 1",
        within_s=SLOW_S,
    )


@cache
def _next(place: SealedColumn) -> Statement:
    """Values after a key of the table that are not sealed with the key whose number `prefix` is."""
    names = ", ".join(dict.fromkeys((*place.key, *place.row, place.column)))
    key = ", ".join(place.key)
    after = ", ".join(f":after_{name}" for name in place.key)
    return Statement(
        f"next_of_{place.table}_{place.column}",
        f"SELECT {names} FROM {place.table} WHERE ({key}) > ({after}) AND {place.column} IS NOT NULL "  # noqa: S608 -- constants
        f"AND substr({place.column}, 1, 1) <> :prefix ORDER BY {key} LIMIT :most",
        within_s=SLOW_S,
    )


@cache
def _again(place: SealedColumn) -> Statement:
    key = " AND ".join(f"{name} = :{name}" for name in place.key)
    return Statement(
        f"reseal_{place.table}_{place.column}",
        f"UPDATE {place.table} SET {place.column} = :sealed WHERE {key} AND {place.column} = :before",  # noqa: S608 -- constants
        sort_by=place.key,
    )


@dataclass(slots=True)
class _Pass:
    """How far one pass over all sealed columns is."""

    column: int
    after: Row
    resealed: int = 0
    unreadable: int = 0


class Rotation:
    """The verbs of a key ring in use. All of them may be repeated; what they return is JSON and holds no key."""

    def __init__(self, store: Store, cipher: Cipher, turn_s: float = TURN_S) -> None:
        self._store, self._cipher, self._turn_s = store, cipher, turn_s
        self._pass: _Pass | None = None

    async def state(self, *, count: bool) -> dict[str, Any]:
        """Which key seals, how many servers lag behind, which keys are known by which fingerprint, which were retired.

        With `count`, which looks at every row, also how many values each key has sealed.
        """
        await look_at_ring(self._store, self._cipher)
        left = await self._store.read(LEFT)
        values = sorted((await self._values()).items()) if count else ()
        return {
            "sealing": self._cipher.sealing,
            "lagging": await self._lagging(),
            "values": {str(number): uses for number, uses in values},
            "known": {r["name"]: bytes(r["fingerprint"]).hex() for r in left},
            "retired": [r["name"] for r in left if r["retired_at"] is not None],
        }

    async def leave(self, name: str, fingerprint: bytes) -> bool:
        """Give the number in `name` to a key, for good; False when another key has it."""
        await self._store.commit(Step(LEAVE, [{"name": name, "fingerprint": fingerprint}]))
        left = {r["name"]: bytes(r["fingerprint"]) for r in await self._store.read(LEFT)}
        return left.get(name) == fingerprint

    async def reseal(self, *, begin: bool) -> dict[str, Any]:
        """Seal again for one turn, from the beginning or where the last call stopped, and say how far it is.

        A turn is a portion at least, and as many as there is time for.

        Raises:
            Misconfigured: a server seals with another key, so what is sealed now may not open there.
        """
        await look_at_ring(self._store, self._cipher)
        if lagging := await self._lagging():
            what = f"{lagging} servers do not seal with key {self._cipher.sealing} yet"
            raise Misconfigured([f"{what}; give them this key file and try again"])
        if begin or self._pass is None:
            self._pass = _Pass(0, _before_all(SEALED[0]))
        end = time.monotonic() + self._turn_s
        at = self._pass
        await self._portion(at)
        while at.column < len(SEALED) and time.monotonic() < end:
            await self._portion(at)
        done = at.column == len(SEALED)
        self._pass = None if done else at
        return {"resealed": at.resealed, "unreadable": at.unreadable, "done": done, "sealing": self._cipher.sealing}

    async def _portion(self, at: _Pass) -> None:
        place, cipher = SEALED[at.column], self._cipher
        asked = {f"after_{name}": value for name, value in at.after.items()}
        rows = await self._store.read(_next(place), **asked, prefix=bytes([cipher.sealing]), most=PORTION)
        changed = []
        for row in rows:
            bound, before = place.row_key(row), bytes(row[place.column])
            try:
                sealed = cipher.seal(place.place, bound, cipher.open(place.place, bound, before))
            except (NotHere, Rejected):
                at.unreadable += 1
                continue
            changed.append({name: row[name] for name in place.key} | {"sealed": sealed, "before": before})
        if changed:
            await self._store.commit(Step(_again(place), changed))
        at.resealed += len(changed)
        if len(rows) == PORTION:
            at.after = {name: rows[-1][name] for name in place.key}
            return
        at.column += 1
        if at.column < len(SEALED):
            at.after = _before_all(SEALED[at.column])

    async def retire(self, number: int, now: float, *, anyway: bool = False) -> None:
        """Give a key up for good; whoever asked takes it out of the file next.

        With `anyway` also one that a server which vanished had, or that no copy of the ring holds any more: what they
        sealed then opens nowhere.

        Raises:
            Misconfigured: it seals, a value still needs it, or a server may still store what it sealed with it.
        """
        await look_at_ring(self._store, self._cipher)
        if (problem := await self._in_the_way(number, now, anyway=anyway)) is not None:
            raise Misconfigured([problem])
        await self._store.commit(Step(RETIRE, [{"name": f"key {number}", "now": now}]))

    async def _in_the_way(self, number: int, now: float, *, anyway: bool) -> str | None:
        """Why a key must not be retired."""
        key, values = f"key {number}", (await self._values()).get(number, 0)
        servers, gone = await self._servers(), await self._gone(number)
        quiet_s = QUIET_S - (now - max((row["sealing_since"] for row in servers if row["sealing"]), default=0.0))
        is_lost = number not in self._cipher.numbers
        needed = f"{key} is needed for {values} values"
        no_copy = "use the ring that has it; if there is none, --anyway gives up what it sealed, for good"
        back = f"{gone} servers vanished in the last 24 h while they sealed with {key}; make sure that they have ended"
        lost = "with --anyway, what they sealed and had not stored by now opens nowhere"
        found = (
            (key not in {r["name"] for r in await self._store.read(LEFT)}, f"this database knows no {key}"),
            (number == self._cipher.sealing, f"{key} seals; first: sidecar keys rotate, sidecar keys reseal"),
            (values and not is_lost, f"{needed}; first: sidecar keys reseal"),
            (values and not anyway, f"{needed} and is not in this ring; {no_copy}"),
            (
                any(row["sealing"] in {None, number} for row in servers),
                f"a server seals with {key}, or does not say with which; give it the new key file",
            ),
            (quiet_s > 0, f"what was sealed with {key} may still be on its way; try again in {quiet_s:.0f} s"),
            (gone and not anyway, f"{back}; {lost}"),
        )
        return next((said for holds, said in found if holds), None)

    async def _values(self) -> dict[int, int]:
        """How many values each key has sealed."""
        counts: dict[int, int] = {}
        for place in SEALED:
            for row in await self._store.read(_uses(place)):
                number = int.from_bytes(bytes(row["key"]))
                counts[number] = counts.get(number, 0) + row["n"]
        return counts

    async def _lagging(self) -> int:
        """How many servers seal with another key than this ring's, or do not say with which."""
        return sum(row["sealing"] != self._cipher.sealing for row in await self._servers())

    async def _servers(self) -> list[Mapping[str, Any]]:
        """With which key each server seals, and since when. Alone with a file, that is this process."""
        if self._store.alone:
            return [{"sealing": self._cipher.sealing, "sealing_since": self._cipher.sealing_since}]
        return list(await self._store.read(SERVERS, now=time.time()))

    async def _gone(self, number: int) -> int:
        """How many servers ended without a word while they sealed with a key. A file's lock says that none did."""
        if self._store.alone:
            return 0
        now = time.time()
        return len(await self._store.read(GONE, sealing=number, now=now, since=now - GONE_S))


def _before_all(place: SealedColumn) -> Row:
    """A key before every key of the table."""
    firsts: Mapping[str, object] = {"id": -1 if place.table == "event" else "", "model": ""}
    return {name: firsts.get(name, b"") for name in place.key}
