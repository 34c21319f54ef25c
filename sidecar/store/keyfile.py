"""The key ring's file: one look-up key, numbered keys, and which of them seals.

A file is read as a whole or refused as a whole, with every problem at once, and no problem repeats a key. It is changed
by replacing it in one step: whoever reads sees the ring before or the ring after.
"""

import base64
import contextlib
import fcntl
import os
import secrets
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from sidecar.errors import Misconfigured
from sidecar.records import Redacted

KEY_BYTES = 32
MOST_KEYS = 255
"""A sealed value names its key in one byte, and 0 is no key."""

_LEAST_DISTINCT = 12
"""Different bytes in a key. 32 random ones have 24 or more nearly always; fewer than 12 is not chance."""

_NAMES = {"lookup", "active", "keys"}
_HEAD = "# Keys of the identified columns. Losing this file loses their contents; leaking it leaks them.\n"


@dataclass(frozen=True, slots=True, repr=False)
class Keys(Redacted):
    """A whole ring: the look-up key, the keys by number, and the number of the one that seals."""

    lookup: bytes
    keys: Mapping[int, bytes]
    active: int

    def grown(self, number: int, key: bytes) -> "Keys":
        """The ring with one key more, which does not seal yet."""
        return replace(self, keys={**self.keys, number: key})

    def turned(self, number: int) -> "Keys":
        """The ring with another of its keys sealing."""
        return replace(self, active=number)

    def without(self, number: int) -> "Keys":
        """The ring without a key that does not seal."""
        return replace(self, keys={n: key for n, key in self.keys.items() if n != number})


def fresh_key() -> bytes:
    """Random bytes for a key."""
    return secrets.token_bytes(KEY_BYTES)


def new_keys(path: Path) -> None:
    """Write a fresh key ring, readable by its owner only.

    Raises:
        Misconfigured: the file exists (keys are never overwritten), or cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Misconfigured([f"{path}: exists; keys are never overwritten"]) from None
    except OSError as error:
        raise Misconfigured([f"{path}: cannot be made ({error.strerror})"]) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_text(Keys(fresh_key(), {1: fresh_key()}, 1)))


def replace_keys(path: Path, keys: Keys) -> None:
    """Put `keys` in the place of the ring at `path`, in one step that survives a power cut. Its owner stays.

    Raises:
        Misconfigured: the folder cannot be written; the ring is as it was.
    """
    path = path.resolve()
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        before = path.stat()
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_text(keys))
            file.flush()
            os.fsync(descriptor)
            # Whoever rotates may be another user than the server, which must still be able to read it.
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, before.st_uid, before.st_gid)
        beside.replace(path)
        with _folder(path) as folder:
            os.fsync(folder)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise Misconfigured([f"{path}: cannot be replaced ({error.strerror})"]) from None


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Keep others from changing the ring at `path` meanwhile: of two changes at once, one would be lost.

    Raises:
        Misconfigured: somebody else changes it now, or the folder cannot be read.
    """
    with contextlib.ExitStack() as held:
        try:
            folder = held.enter_context(_folder(path.resolve()))
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misconfigured([f"{path}: is being changed by another command; try again when it has ended"]) from None
        except OSError as error:
            raise Misconfigured([f"{path}: cannot be changed ({error.strerror})"]) from None
        yield


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_keys(path: Path) -> Keys:
    """Read a key ring.

    Raises:
        Misconfigured: missing, open to others, somebody else's, malformed, or with keys that are short, repeated or no
            random bytes; every problem is listed.
    """
    content = _content(path)
    lookup = _key(content.get("lookup"))
    keys = content.get("keys")
    numbers = {str(n): n for n in range(1, MOST_KEYS + 1)}
    if lookup is None or not isinstance(keys, dict) or any(_key(key) is None for key in keys.values()):
        raise Misconfigured([f"{path}: needs lookup, active and a [keys] table of base64 keys"])
    named = {"lookup": lookup} | {f"key {n}": key for n, said in keys.items() if (key := _key(said)) is not None}
    problems = [f"holds {name!r}, which is no part of a key ring" for name in sorted(set(content) - _NAMES)]
    problems += [f"{name} must be {KEY_BYTES} random bytes: {why}" for name, k in named.items() if (why := _fault(k))]
    if len(set(named.values())) != len(named):
        problems.append("two keys are the same")
    active = content.get("active")
    if set(keys) - set(numbers) or type(active) is not int or str(active) not in keys:
        problems.append(f"active must name one of [keys], whose ids are 1 to {MOST_KEYS}")
    if problems or not isinstance(active, int):
        raise Misconfigured([f"{path}: {problem}" for problem in problems])
    return Keys(lookup, {numbers[n]: named[f"key {n}"] for n in keys}, active)


def _content(path: Path) -> dict[str, Any]:
    try:
        link = path.lstat()
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            there = os.fstat(descriptor)
            if not stat.S_ISREG(there.st_mode):
                raise Misconfigured([f"{path}: is no file"])
            if stat.S_ISLNK(link.st_mode) and link.st_uid != there.st_uid:
                raise Misconfigured([f"{path}: is a link to a file of another owner"])
            if there.st_uid not in {os.geteuid(), 0} and os.geteuid() != 0:
                raise Misconfigured([f"{path}: belongs to another user; chown it to the server's"])
            if there.st_mode & 0o077:
                raise Misconfigured([f"{path}: readable by others; run: chmod 600 {path}"])
            return tomllib.loads(file.read().decode())
    except FileNotFoundError:
        raise Misconfigured([f"{path}: no key file; make one with: sidecar keys new {path}"]) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured([f"{path}: cannot be read as a key file ({type(error).__name__})"]) from None


def _key(said: object) -> bytes | None:
    try:
        return base64.b64decode(said, validate=True) if isinstance(said, str) else None
    except ValueError:
        return None


def _fault(key: bytes) -> str | None:
    """Why `key` cannot have been drawn at random: each of these happens by chance less than once in 10^12 keys."""
    if len(key) != KEY_BYTES:
        return f"it has {len(key)}"
    if any(key == (key[:n] * KEY_BYTES)[:KEY_BYTES] for n in range(1, KEY_BYTES // 2 + 1)):
        return "it repeats itself"
    if len({(b - a) % 256 for a, b in pairwise(key)}) == 1:
        return "it counts"
    if len(set(key)) < _LEAST_DISTINCT:
        return "it has few different bytes"
    if all(0x20 <= byte < 0x7F or byte in b"\t\r\n" for byte in key):
        return "it is text"
    return None


def _text(keys: Keys) -> str:
    rows = "".join(f'{number} = "{_said(key)}"\n' for number, key in sorted(keys.keys.items()))
    return f'{_HEAD}lookup = "{_said(keys.lookup)}"\nactive = {keys.active}\n\n[keys]\n{rows}'


def _said(key: bytes) -> str:
    return base64.b64encode(key).decode()
