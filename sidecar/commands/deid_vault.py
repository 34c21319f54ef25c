"""Where random tokens are kept between runs of `sidecar deid`. The file says who everybody is: it is sealed."""

import fcntl
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from sidecar.errors import Misconfigured, NotHere, Rejected
from sidecar.store import Cipher

PLACE = "deid.vault"


def _write(file: FileIO, line: bytes) -> None:
    """All of it: a file without a buffer may take a part."""
    while line:
        line = line[file.write(line) :]


class MemoryVault:
    """Tokens of one run, forgotten at its end."""

    def __init__(self, kept: Mapping[str, str] | None = None) -> None:
        self._kept: dict[str, str] = dict(kept or {})

    def copy(self) -> "MemoryVault":
        """All that is kept, for what is not to be kept."""
        return MemoryVault(self._kept)

    def get(self, name: str) -> str | None:
        """What was put under `name`."""
        return self._kept.get(name)

    def put(self, name: str, value: str) -> None:
        """Keep it for this run."""
        self._kept[name] = value


class FileVault(MemoryVault):
    """Tokens in a file, a sealed line each, by the key ring. One run at a time has it.

    Raises:
        Misconfigured: it cannot be opened, is readable by others, in use, or does not open with this ring.
    """

    def __init__(self, path: Path, ring: Cipher) -> None:
        super().__init__()
        self._path, self._ring = path, ring
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise Misconfigured([f"{path}: cannot be opened ({error.strerror})"]) from None
        self._file = os.fdopen(descriptor, "a+b", buffering=0)
        try:
            self._claim()
            if self._read():
                self._turn()
        except BaseException:
            self._file.close()
            raise

    def _claim(self) -> None:
        if os.fstat(self._file.fileno()).st_mode & 0o077:
            raise Misconfigured([f"{self._path}: readable by others; run: chmod 600 {self._path}"])
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misconfigured([f"{self._path}: another run has it"]) from None
        if not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):  # replaced by whoever had it
            raise Misconfigured([f"{self._path}: another run has it"])

    def _read(self) -> bool:
        """Take what is in the file; whether it is to be written anew.

        It is when a line is sealed with another key than the ring's newest, or most lines are superseded.
        """
        self._file.seek(0)
        old, number = False, 0
        for number, line in enumerate(self._file.read().splitlines(), start=1):
            try:
                row, sealed = (bytes.fromhex(part) for part in line.decode().split())
                name, value = self._ring.open(PLACE, row, sealed).decode().rsplit("\n", 1)
            except (ValueError, NotHere, Rejected):
                problem = f"{self._path}: line {number} does not open with this key ring; nothing was written"
                raise Misconfigured([problem]) from None
            self._kept[name] = value
            old = old or sealed[0] != self._ring.sealing
        return old or number > 2 * len(self._kept)

    def _turn(self) -> None:
        """Seal every line again, so that older keys can be retired; in a new file that takes the place of the old."""
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            file = os.fdopen(
                os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600), "a+b", buffering=0
            )
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(file, b"".join(self._line(name, value) for name, value in self._kept.items()))
            os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise Misconfigured([f"{self._path}: cannot be replaced ({error.strerror})"]) from None
        self._file.close()
        self._file = file

    def put(self, name: str, value: str) -> None:
        """Keep it, in the file before anything that has it is written.

        Raises:
            Misconfigured: the file takes no more; it is as it was before.
        """
        end = os.fstat(self._file.fileno()).st_size
        try:
            _write(self._file, self._line(name, value))
        except OSError as error:
            os.ftruncate(self._file.fileno(), end)
            raise Misconfigured([f"{self._path}: cannot be written ({error.strerror}); the run has ended"]) from None
        super().put(name, value)

    def _line(self, name: str, value: str) -> bytes:
        row = self._ring.token("deid.vault", name)
        sealed = self._ring.seal(PLACE, row, f"{name}\n{value}".encode())
        return f"{row.hex()} {sealed.hex()}\n".encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
