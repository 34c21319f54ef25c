"""Secrets that notifications bring: one a Subscription, renewed with it, so that a leaked one is soon worth nothing.

Whoever may read a Subscription reads its header, so the site's own hook secret never goes there: each secret is
derived from it (HKDF, RFC 5869) and a stored nonce. The hook secret itself is taken, too,
for Subscriptions made by hand.
"""

import asyncio
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

import orjson
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sidecar.store import Statement, Store

OVERLAP_S = 300.0
"""How long the secret before is taken after the EHR confirmed the new one: notifications may still be on their way."""
READ_AGAIN_S = 0.1
"""A notification with an unknown secret waits for the next look into the database, and there is one in this time."""
READ_ANYWAY_S = 60.0
"""How old a look may be: a secret that is no longer in force is taken for no longer."""

SECRETS = Statement("hook_secrets", "SELECT source, secrets FROM subscription WHERE secrets IS NOT NULL")


@dataclass(frozen=True, slots=True)
class Nonce:
    """What a secret is derived with, and when the EHR was seen to have it; None before."""

    value: str
    confirmed_at: float | None = None

    @classmethod
    def new(cls) -> "Nonce":
        """One that was never used."""
        return cls(uuid4().hex)


def load_nonces(stored: str | None) -> tuple[Nonce, ...]:
    """Newest first; the inverse of `dump_nonces`."""
    return tuple(Nonce(value, at) for value, at in orjson.loads(stored)) if stored else ()


def dump_nonces(nonces: Sequence[Nonce]) -> str:
    """The form that is stored."""
    return orjson.dumps([[n.value, n.confirmed_at] for n in nonces]).decode()


def in_force(nonces: Sequence[Nonce], now: float) -> tuple[Nonce, ...]:
    """Those whose secrets are taken: the newest that the EHR has had for `OVERLAP_S`, and all that came after it."""
    kept = []
    for nonce in nonces:
        kept.append(nonce)
        if nonce.confirmed_at is not None and now - nonce.confirmed_at > OVERLAP_S:
            break
    return tuple(kept)


def bearer(secret: str, source: str, nonce: Nonce) -> str:
    """The Authorization header of one Subscription's notifications."""
    info = f"sidecar hook {source} {nonce.value}".encode()
    return "Bearer " + HKDF(SHA256(), 32, salt=None, info=info).derive(secret.encode()).hex()


class HookSecrets:
    """Tells whether a notification brings a secret that its source was given."""

    def __init__(self, store: Store, secret: str) -> None:
        self._store, self._secret = store, secret
        self._by_hand = f"Bearer {secret}".encode()
        self._headers: dict[str, tuple[bytes, ...]] = {}
        self._reading = asyncio.Lock()
        self._read_at = -READ_AGAIN_S

    async def allows(self, source: str, header: bytes) -> bool:
        """Whether `header` is in force for `source`, compared in constant time."""
        asked_at = time.monotonic()
        fresh = asked_at - self._read_at < READ_ANYWAY_S
        if hmac.compare_digest(header, self._by_hand) or (fresh and self._is_known(source, header)):
            return True
        async with self._reading:
            if self._read_at < asked_at:
                await asyncio.sleep(self._read_at + READ_AGAIN_S - asked_at)
                await self._read()
        return self._is_known(source, header)

    async def _read(self) -> None:
        """Take over what was renewed, by this process or another."""
        began = time.monotonic()
        rows = await self._store.read(SECRETS)
        self._headers = {row["source"]: self._derived(row["source"], row["secrets"]) for row in rows}
        self._read_at = began

    def _derived(self, source: str, stored: str) -> tuple[bytes, ...]:
        nonces = in_force(load_nonces(stored), time.time())
        return tuple(bearer(self._secret, source, nonce).encode() for nonce in nonces)

    def _is_known(self, source: str, header: bytes) -> bool:
        matches = [hmac.compare_digest(header, known) for known in self._headers.get(source, ())]
        return any(matches)
