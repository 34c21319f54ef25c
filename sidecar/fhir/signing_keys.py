"""The private keys that sign us in to the EHR: a JWK Set in a file, the first key signs, all are published.

A key stays published after another took its place, because the EHR may have fetched the set before.
https://hl7.org/fhir/smart-app-launch/client-confidential-asymmetric.html https://www.rfc-editor.org/rfc/rfc7517
"""

import base64
import contextlib
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from sidecar.errors import Misconfigured
from sidecar.records import Redacted

ALGORITHMS = ("ES384", "RS384")
"""What SMART asks every client to be able to sign with."""
KEPT = 3
"""Keys in a file after a rotation: the new one, and those that the EHR may still know us by."""
MIN_RSA_BITS = 2048
RSA_BITS = 3072
CURVE = "P-384"

_PUBLIC = ("kty", "use", "alg", "kid", "n", "e", "crv", "x", "y")
_KID = re.compile(r"[!-~]{1,128}")
_ALG_OF = {"RSA": "RS384", "EC": "ES384"}


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey(Redacted):
    """One private key, what it is called, and the one algorithm it signs with."""

    kid: str
    algorithm: str
    key: RSAKey | ECKey


@dataclass(frozen=True, slots=True, repr=False)
class SigningKeys(Redacted):
    """All keys of a file, in its order."""

    keys: tuple[SigningKey, ...]

    def public(self) -> dict[str, Any]:
        """The JWK Set to publish: public members only, whatever the file holds."""
        known = ((k.key.as_dict(private=False), k) for k in self.keys)
        whole = ({**members, "kid": k.kid, "alg": k.algorithm, "use": "sig"} for members, k in known)
        return {"keys": [{name: members[name] for name in _PUBLIC if name in members} for members in whole]}

    def usable(self, algorithms: Collection[str] | None) -> tuple[SigningKey, ...]:
        """The keys that a server with these `algorithms` verifies, the one to try first at the front; None is any."""
        return tuple(k for k in self.keys if algorithms is None or k.algorithm in algorithms)


def load_signing_keys(path: Path) -> SigningKeys:
    """Read a private JWK Set.

    Raises:
        Misconfigured: missing, open to everyone, or with keys that SMART does not allow; every problem is listed.
    """
    found = _entries(path)
    problems: list[str] = []
    keys = [key for number, entry in enumerate(found, 1) if (key := _key(entry, number, problems)) is not None]
    names = Counter(e.get("kid") for e in found if isinstance(e, Mapping) and isinstance(e.get("kid"), str))
    problems += ["two keys have the same kid" for count in names.values() if count > 1]
    if problems:
        raise Misconfigured([f"{path}: {problem}" for problem in problems])
    return SigningKeys(tuple(keys))


def new_signing_keys(path: Path, algorithm: str) -> SigningKeys:
    """Write a set of one fresh key, readable by its owner only; returns it.

    Raises:
        Misconfigured: the file exists (keys are never overwritten), or cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Misconfigured([f"{path}: exists; keys are never overwritten, use --rotate"]) from None
    except OSError as error:
        raise Misconfigured([f"{path}: cannot be made ({error.strerror})"]) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(_text([_fresh(algorithm)]))
    return load_signing_keys(path)


def rotate_signing_keys(path: Path, algorithm: str) -> SigningKeys:
    """Put a fresh key in front; the newest `KEPT - 1` of the others stay. The file is replaced in one step.

    Raises:
        Misconfigured: the file is not a usable set, or its folder cannot be written.
    """
    path = path.resolve()
    load_signing_keys(path)
    kept = _entries(path)[: KEPT - 1]
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        before = path.stat()
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_text([_fresh(algorithm), *kept]))
            file.flush()
            os.fsync(descriptor)
            # Whoever rotates may be another user than the server, which must still be able to read it.
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fchmod(descriptor, before.st_mode & 0o770)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise Misconfigured([f"{path}: cannot be replaced ({error.strerror})"]) from None
    return load_signing_keys(path)


def _entries(path: Path) -> list[Any]:
    try:
        mode, raw = path.stat().st_mode, path.read_bytes()
    except FileNotFoundError:
        raise Misconfigured([f"{path}: no such file; make it with: sidecar keys smart {path}"]) from None
    except OSError as error:
        raise Misconfigured([f"{path}: cannot be read ({error.strerror})"]) from None
    if mode & 0o007:
        raise Misconfigured([f"{path}: open to everyone; run: chmod 600 {path}"])
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError:
        content = None
    keys = content.get("keys") if isinstance(content, Mapping) else None
    if not isinstance(keys, list) or not keys:
        raise Misconfigured([f'{path}: not a JWK Set with at least one key ({{"keys": [...]}})'])
    return keys


def _key(entry: Any, number: int, problems: list[str]) -> SigningKey | None:
    """The key of an entry; None, and why, when it is none."""
    found = list(_faults(entry))
    key: RSAKey | ECKey | None = None
    if not found:
        try:
            # A private part that belongs to another public part is found out here, not by the EHR.
            key = RSAKey.import_key(entry) if entry["kty"] == "RSA" else ECKey.import_key(entry)
        except (JoseError, ValueError, TypeError):
            found.append("its members do not make a private key")
    problems += [f"key {number}: {problem}" for problem in found]
    return None if found or key is None else SigningKey(entry["kid"], _ALG_OF[entry["kty"]], key)


def _faults(entry: Any) -> list[str]:
    if not isinstance(entry, Mapping):
        return ["is not an object"]
    found = []
    kind, kid = entry.get("kty"), entry.get("kid")
    if not isinstance(kind, str) or kind not in _ALG_OF:
        return ["its kty must be RSA or EC"]
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        found.append("needs a kid of 1 to 128 visible characters")
    if entry.get("alg", _ALG_OF[kind]) != _ALG_OF[kind]:
        found.append(f"its alg must be {_ALG_OF[kind]}")
    if kind == "EC" and entry.get("crv") != CURVE:
        found.append(f"its curve must be {CURVE}")
    if entry.get("use", "sig") != "sig":
        found.append('its use must be "sig"')
    if "d" not in entry:
        found.append("is a public key; the private one is needed")
    if kind == "RSA" and _bits(entry.get("n")) < MIN_RSA_BITS:
        found.append(f"its RSA modulus is shorter than {MIN_RSA_BITS} bits")
    return found


def _bits(member: object) -> int:
    """The length of a base64url number; 0 when it is none."""
    try:
        return int.from_bytes(base64.urlsafe_b64decode(f"{member}===")).bit_length()
    except ValueError:
        return 0


def _fresh(algorithm: str) -> dict[str, Any]:
    key = ECKey.generate_key(CURVE) if algorithm == "ES384" else RSAKey.generate_key(RSA_BITS)
    return {**key.as_dict(private=True), "kid": key.thumbprint(), "alg": algorithm, "use": "sig"}


def _text(keys: list[Any]) -> bytes:
    return orjson.dumps({"keys": keys}, option=orjson.OPT_INDENT_2) + b"\n"
