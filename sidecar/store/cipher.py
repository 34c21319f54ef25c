"""Encryption of identified columns and keyed look-up values.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce; the associated data binds a value to its table, column and
row, so ciphertext moved to another row does not open. Look-up keys are HMAC-SHA256 under a key of their own that is
never rotated, so finding a patient's rows needs no decryption.

The ring grows and shrinks while the server runs: its file is read again when it changed, at the latest when a value
names a key that is not known. A key that was read so opens at once, and seals only after the database has been asked
whether it is the one that goes by its number (`sidecar.store.ring`).
"""

import hmac
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from sidecar import log
from sidecar.errors import Misconfigured, NotHere, NotStored, Rejected
from sidecar.metrics import UNKNOWN_KEY
from sidecar.store.keyfile import Keys, read_keys

_NONCE_BYTES = 12
_NONCES = 256


class Cipher:
    """Seals with the active key, opens with any key of the ring.

    `sealing` is the number of the key that seals, `sealing_since` when it began to (0 when it always did here), and
    `wanted` the one that the file names; none seals that is among the `retired`. `fingerprints` tell keys from each
    other and not what they are.
    """

    def __init__(self, keys: Keys, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        """With a `path`, the ring follows that file."""
        self._path, self._clock = path, clock
        self._seen: tuple[int, ...] | None = None
        self._lookup = HMAC(keys.lookup, SHA256())
        self._keys = {number: AESGCM(key) for number, key in keys.keys.items()}
        self._listed, self.wanted = frozenset(keys.keys), keys.active
        self._unproven = frozenset[int]()
        self.retired = frozenset[int]()
        self.fingerprints: Mapping[str, bytes] = fingerprints(keys)
        self.sealing, self.sealing_since = keys.active, 0.0
        self._vouched_until = math.inf
        self._seals = (bytes([keys.active]), self._keys[keys.active])
        self._missed = set[int]()
        self._nonces = deque[bytes]()

    def token(self, *parts: str) -> bytes:
        """A keyed fingerprint of `parts`: equal parts, equal token; the parts cannot be found from it."""
        mac = self._lookup.copy()
        mac.update("\x1f".join(parts).encode())
        return mac.finalize()

    def seal(self, place: str, row: bytes, value: bytes) -> bytes:
        """Encrypt `value` for column `place` (`table.column`) of the row keyed `row`.

        Raises:
            NotStored: the key that seals was retired while this server was away, and its file has no other; or the
                database was away for so long that it may have been.
        """
        nonce = self._nonce()
        prefix, key = self._seals
        if self.sealing in self.retired:
            raise NotStored("sealed:key_retired")
        if self._clock() > self._vouched_until:
            raise NotStored("sealed:ring_not_seen")
        return prefix + nonce + key.encrypt(nonce, value, place.encode() + b"|" + row)

    def _nonce(self) -> bytes:
        """Random bytes that nobody else was given: a deque hands each out once, whichever thread asks."""
        try:
            return self._nonces.popleft()
        except IndexError:
            # Asking the system gives way to other threads; for each value, that cost more than the encryption.
            drawn = os.urandom(_NONCE_BYTES * _NONCES)
            mine, *others = (drawn[at : at + _NONCE_BYTES] for at in range(0, len(drawn), _NONCE_BYTES))
            self._nonces.extend(others)
            return mine

    def open(self, place: str, row: bytes, sealed: bytes) -> bytes:
        """The inverse of `seal`.

        Raises:
            NotHere: its key is not in this ring; in another server's it may be.
            Rejected: a changed value, or a value from another row.
        """
        number = sealed[0] if sealed else 0
        if number == 0:  # no ring has such a key
            raise Rejected("sealed:does_not_open")
        if number not in self._keys:
            self.look()
        key = self._keys.get(number)
        if key is None:
            raise self._miss(number)
        try:
            return key.decrypt(sealed[1:13], sealed[13:], place.encode() + b"|" + row)
        except (InvalidTag, ValueError):  # ValueError: too short to be ciphertext
            # Two rings may have grown apart under one number. Until the database has said which is its own, this says
            # nothing about the value.
            if number in self._unproven:
                raise self._miss(number) from None
            raise Rejected("sealed:does_not_open") from None

    def _miss(self, number: int) -> NotHere:
        UNKNOWN_KEY.inc()
        if number not in self._missed:
            self._missed.add(number)
            log.get().error("key missing", place="store", reason=f"key {number} is not in this server's ring")
        return NotHere("sealed:unknown_key")

    @property
    def numbers(self) -> list[int]:
        """The keys that open here."""
        return sorted(self._keys)

    @property
    def listed(self) -> frozenset[int]:
        """The keys that the file names."""
        return self._listed

    @property
    def unproven(self) -> bool:
        """Whether the file brought a key, or another choice of which one seals, that awaits `prove`."""
        return bool(self._unproven) or self.wanted != self.sealing

    def look(self) -> None:
        """Take what the key file brought since it was last read. A file that cannot be used changes nothing."""
        if self._path is None or (seen := _signature(self._path)) == self._seen:
            return
        self._seen = seen
        try:
            self._take(read_keys(self._path))
        except Misconfigured as error:
            log.get().error("key file not taken", place="store", problem="; ".join(error.problems))

    def _take(self, found: Keys) -> None:
        new = fingerprints(found)
        if changed := [name for name, print_ in self.fingerprints.items() if new.get(name, print_) != print_]:
            raise Misconfigured([f"another {' and '.join(changed)} than before"])
        # What seals goes on until its successor is proven, whatever the file says.
        kept = {n: key for n, key in self._keys.items() if n in found.keys or n == self.sealing}
        added = frozenset(found.keys) - kept.keys()
        self._keys = kept | {n: AESGCM(found.keys[n]) for n in added}
        self._listed, self.wanted = frozenset(found.keys), found.active
        self._unproven = (self._unproven & self._listed) | added
        self.fingerprints = {**self.fingerprints, **new}
        self._missed -= added

    def prove(self, names: frozenset[str]) -> None:
        """The database knows the keys `names` by these numbers: they seal, if the file says so."""
        self._unproven = frozenset(n for n in self._unproven if f"key {n}" not in names)
        if self.wanted in self._unproven or self.wanted not in self._keys:
            return
        if self.wanted != self.sealing:
            self._seals = (bytes([self.wanted]), self._keys[self.wanted])
            self.sealing, self.sealing_since = self.wanted, self._clock()
            log.get().info("key taken", place="store", reason=f"key {self.sealing} seals from now on")
        gone = self._keys.keys() - self._listed
        self._keys = {n: key for n, key in self._keys.items() if n in self._listed}
        self.fingerprints = {name: p for name, p in self.fingerprints.items() if name not in {f"key {n}" for n in gone}}

    def vouch(self, for_s: float) -> Callable[[], None]:
        """What to call when the database has said which keys are retired: they may seal for `for_s` from now on."""
        until = self._clock() + for_s

        def seen() -> None:
            self._vouched_until = until

        return seen

    def disown(self) -> None:
        """The database knows other keys by the numbers of what the file brought: as if it had not been read."""
        wrong, self._unproven = self._unproven, frozenset()
        self._keys = {n: key for n, key in self._keys.items() if n not in wrong}
        self.fingerprints = {
            name: p for name, p in self.fingerprints.items() if name not in {f"key {n}" for n in wrong}
        }
        self._listed, self.wanted = frozenset(self._keys), self.sealing


def fingerprints(keys: Keys) -> dict[str, bytes]:
    """Each key of a ring by its name, as it is left in the database."""
    named = {"lookup": keys.lookup} | {f"key {number}": key for number, key in keys.keys.items()}
    return {name: hmac.digest(key, b"ehr-sidecar ring", "sha256") for name, key in named.items()}


def load_keys(path: Path) -> Cipher:
    """A cipher with the ring at `path`, which it follows.

    Raises:
        Misconfigured: see `read_keys`.
    """
    return Cipher(read_keys(path), path)


def _signature(path: Path | None) -> tuple[int, ...] | None:
    """What changes whenever a file is replaced; None when it is not there."""
    try:
        there = path.stat() if path is not None else None
    except OSError:
        return None
    return (there.st_dev, there.st_ino, there.st_mtime_ns, there.st_size, there.st_mode) if there else None
