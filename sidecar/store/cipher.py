"""Encryption of identified columns and keyed look-up values.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce; the associated data binds a value to its table, column and
row, so ciphertext moved to another row does not open. Look-up keys are HMAC-SHA256 under a key of their own that is
never rotated, so finding a patient's rows needs no decryption.
"""

import base64
import hmac
import os
import secrets
import tomllib
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from sidecar import log
from sidecar.errors import Misconfigured, NotHere, Rejected
from sidecar.metrics import UNKNOWN_KEY

_KEY_BYTES = 32
_NONCE_BYTES = 12
_NONCES = 256


class Cipher:
    """Seals with the active key, opens with any key of the ring."""

    def __init__(self, lookup: bytes, keys: Mapping[int, bytes], active: int) -> None:
        self._lookup = HMAC(lookup, SHA256())
        self._keys = {kid: AESGCM(key) for kid, key in keys.items()}
        self._active, self._prefix = self._keys[active], bytes([active])
        named = {"lookup": lookup} | {f"key {kid}": key for kid, key in keys.items()}
        self.fingerprints = {name: hmac.digest(key, b"ehr-sidecar ring", "sha256") for name, key in named.items()}
        self._missed = set[int]()
        self._nonces = deque[bytes]()

    def token(self, *parts: str) -> bytes:
        """A keyed fingerprint of `parts`: equal parts, equal token; the parts cannot be found from it."""
        mac = self._lookup.copy()
        mac.update("\x1f".join(parts).encode())
        return mac.finalize()

    def seal(self, place: str, row: bytes, value: bytes) -> bytes:
        """Encrypt `value` for column `place` (`table.column`) of the row keyed `row`."""
        nonce = self._nonce()
        return self._prefix + nonce + self._active.encrypt(nonce, value, place.encode() + b"|" + row)

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
        key = self._keys.get(sealed[0]) if sealed else None
        if not sealed or sealed[0] == 0:  # no ring has such a key
            raise Rejected("sealed:does_not_open")
        if key is None:
            self._miss(sealed[0])
            raise NotHere("sealed:unknown_key")
        try:
            return key.decrypt(sealed[1:13], sealed[13:], place.encode() + b"|" + row)
        except (InvalidTag, ValueError):  # ValueError: too short to be ciphertext
            raise Rejected("sealed:does_not_open") from None

    def _miss(self, kid: int) -> None:
        UNKNOWN_KEY.inc()
        if kid not in self._missed:
            self._missed.add(kid)
            log.get().error("key missing", place="store", reason=f"key {kid} is not in this server's ring")


def new_keys(path: Path) -> None:
    """Write a fresh key ring, readable by its owner only.

    Raises:
        Misconfigured: the file exists (keys are never overwritten), or cannot be made.
    """
    text = (
        "# Keys of the identified columns. Losing this file loses their contents; leaking it leaks them.\n"
        f'lookup = "{_fresh()}"\nactive = 1\n\n[keys]\n1 = "{_fresh()}"\n'
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Misconfigured([f"{path}: exists; keys are never overwritten"]) from None
    except OSError as error:
        raise Misconfigured([f"{path}: cannot be made ({error.strerror})"]) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _fresh() -> str:
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def load_keys(path: Path) -> Cipher:
    """Read a key ring.

    Raises:
        Misconfigured: missing, open to others, malformed, short, repeated or constant keys.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise Misconfigured([f"{path}: readable by others; run: chmod 600 {path}"])
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Misconfigured([f"{path}: no key file; make one with: sidecar keys new {path}"]) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured([f"{path}: cannot be read as a key file ({type(error).__name__})"]) from None
    try:
        lookup = base64.b64decode(content["lookup"], validate=True)
        keys = {int(kid): base64.b64decode(key, validate=True) for kid, key in content["keys"].items()}
        active = content["active"]
    except (KeyError, ValueError, TypeError, AttributeError):
        raise Misconfigured([f"{path}: needs lookup, active and a [keys] table of base64 keys"]) from None
    everything = [lookup, *keys.values()]
    if any(len(key) != _KEY_BYTES or len(set(key)) < 8 for key in everything):
        raise Misconfigured([f"{path}: every key must be {_KEY_BYTES} random bytes"])
    if len(set(everything)) != len(everything):
        raise Misconfigured([f"{path}: two keys are the same"])
    if active not in keys or not all(0 < kid < 256 for kid in keys):
        raise Misconfigured([f"{path}: active must name one of [keys], ids 1 to 255"])
    return Cipher(lookup, keys, active)
