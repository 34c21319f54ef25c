"""The log and the versions in the database: read, verified, and only ever appended to.

Each entry holds the digest of the one before, keyed with the ring: whoever changes, removes or inserts an entry without
the key is found out. An entry's number is its primary key, so that of two who append at once one looks again.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sidecar.errors import Misconfigured, NotStored, Retryable, SidecarError
from sidecar.rollout.standing import Ask, Entry, Standings, Version, What, stand
from sidecar.store import Cipher, Row, Statement, Step, Store

TRIES = 20
UNSURE = "store:unsure"
"""The database did not say whether it took an entry."""
PAUSES_S = (0.1, 0.2, 0.4, 0.8)
"""Between looks at what became of one."""

_COLUMNS = (
    "number, at, what, model, version, model_digest, percent, by_what, who, why, evidence, override_reason, "
    "previous, digest"
)
NEWER = Statement(
    "newer_transitions",
    f"SELECT {_COLUMNS} FROM transition WHERE number > :number ORDER BY number",  # noqa: S608 -- a constant
    quick=True,
)
APPEND = Statement(
    "append_transition",
    f"INSERT INTO transition ({_COLUMNS}) VALUES (:number, :at, :what, :model, :version, :model_digest, :percent, "  # noqa: S608 -- a constant
    ":by_what, :who, :why, :evidence, :override_reason, :previous, :digest)",
    wakes="rollout",
)
KNOWN = Statement(
    "known_versions", "SELECT version, digest, first_seen_at FROM model_version WHERE name = :name ORDER BY 3, 1"
)
FIRST_SEEN = Statement(
    "first_seen",
    "INSERT INTO model_version (name, version, digest, first_seen_at) VALUES (:name, :version, :digest, :now) "
    "ON CONFLICT (name, version) DO NOTHING",
    sort_by=("name", "version"),
)

Decide = Callable[[Standings], Awaitable[Ask | None]]
"""What to append as things stand; None for nothing. Asked again when somebody else was quicker."""


class Changed(SidecarError):
    """The log is not what was written: an entry was changed, removed or inserted."""


class Book:
    """The log of one database. `entries` are those read so far, verified."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher
        self.entries: list[Entry] = []

    async def read(self) -> list[Entry]:
        """Entries that were appended since the last time, verified.

        Raises:
            Changed: the log was changed; nothing of it is taken.
            NotStored: the database is away.
        """
        rows = await self._store.read(NEWER, number=self._last)
        # Two may read side by side, and find the same: only what is still new counts.
        fresh = sorted((e for e in map(_entry, rows) if e.number > self._last), key=lambda entry: entry.number)
        before = self.entries[-1] if self.entries else None
        for entry in fresh:
            self._verify(entry, before)
            before = entry
        self.entries += fresh
        return fresh

    async def from_the_first(self) -> list[Entry]:
        """Every entry, read and verified anew.

        Raises:
            Changed, NotStored: as `read`.
        """
        again = Book(self._store, self._cipher)
        await again.read()
        if len(again.entries) < len(self.entries):
            raise Changed(f"log_changed:{len(again.entries) + 1}")
        return again.entries

    async def append(self, decide: Decide) -> Entry | None:
        """Append what `decide` says of the log as it is at that moment; None when it says nothing.

        Raises:
            Misconfigured: `decide` refuses, or too many others were quicker.
            Changed: as `read`.
            NotStored: the database is away; with the reason `UNSURE` the entry may be in the log or come into it yet.
        """
        for _ in range(TRIES):
            await self.read()
            ask = await decide(stand(self.entries))
            if ask is None:
                return None
            previous = self.entries[-1] if self.entries else None
            at = max(time.time(), previous.at if previous else 0.0)
            entry = Entry(self._last + 1, at, ask, previous.digest if previous else b"")
            row = _row(entry) | {"digest": self._digest(entry)}
            if await self._is_in(row):
                return self.entries[entry.number - 1]
        raise Misconfigured(["others are changing the models at this moment; look at what they did, and repeat"])

    async def _is_in(self, row: Row) -> bool:
        """Append `row`; whether it is in the log then, or somebody else's is in its place.

        An answer that was lost says nothing of what was done: an entry is never made twice.

        Raises:
            NotStored: nobody knows.
        """
        with contextlib.suppress(Retryable, NotStored):  # its number may be taken by itself, when the store asked twice
            await self._store.commit(Step(APPEND, [row]))
        for pause_s in PAUSES_S:
            with contextlib.suppress(NotStored):
                await self.read()
                break
            await asyncio.sleep(pause_s)
        if row["number"] > self._last:
            raise NotStored(UNSURE)
        found: Entry = self.entries[row["number"] - 1]
        return bool(found.digest == row["digest"])

    async def seen(self, name: str, version: Version) -> None:
        """Remember a version by its digest.

        Raises:
            Misconfigured: it was seen before with another digest.
        """
        row = {"name": name, "version": version.version, "digest": version.digest, "now": time.time()}
        await self._store.commit(Step(FIRST_SEEN, [row]))
        known = {r["version"]: r["digest"] for r in await self._store.read(KNOWN, name=name)}
        if known[version.version] != version.digest:
            problem = (
                f"model {name} {version.version} is not what it was: its digest is {version.digest[:12]}…, and it was "
                f"first seen here with {known[version.version][:12]}…; a changed model needs a new version"
            )
            raise Misconfigured([problem])

    @property
    def _last(self) -> int:
        return self.entries[-1].number if self.entries else 0

    def _verify(self, entry: Entry, before: Entry | None) -> None:
        expected = before.number + 1 if before else 1
        fits = entry.number == expected and entry.previous == (before.digest if before else b"")
        if not fits or entry.digest != self._digest(entry):
            raise Changed(f"log_changed:{min(entry.number, expected)}")

    def _digest(self, entry: Entry) -> bytes:
        said = {k: v.hex() if isinstance(v, bytes) else v for k, v in _row(entry).items()}
        return self._cipher.token("transition", json.dumps(said, sort_keys=True))


def _row(entry: Entry) -> dict[str, Any]:
    ask = entry.ask
    return {
        "number": entry.number,
        "at": entry.at,
        "what": ask.what.value,
        "model": ask.model,
        "version": ask.version.version if ask.version else None,
        "model_digest": ask.version.digest if ask.version else None,
        "percent": None if ask.percent is None else float(ask.percent),
        "by_what": ask.by,
        "who": ask.who,
        "why": ask.why,
        "evidence": ask.evidence,
        "override_reason": ask.override,
        "previous": entry.previous,
    }


def _entry(row: Row) -> Entry:
    version = Version(row["version"], row["model_digest"]) if row["version"] is not None else None
    ask = Ask(
        What(row["what"]), row["model"], row["who"], row["why"], version, row["percent"], row["by_what"],
        row["evidence"], row["override_reason"],
    )  # fmt: skip
    return Entry(row["number"], row["at"], ask, bytes(row["previous"]), bytes(row["digest"]))
