"""Secrets that somebody else rotates: the file is looked at before each use, and taken when it changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from sidecar import log
from sidecar.errors import Misconfigured

Held = TypeVar("Held")


class Rotating(Generic[Held]):
    """What `read` makes of a file now. A changed file that cannot be used is logged once, and the last good one kept.

    `file` is None when the secret comes from the environment, which does not change.
    """

    def __init__(self, file: Path | None, read: Callable[[], Held]) -> None:
        """Read for the first time.

        Raises:
            Misconfigured: what `read` finds wrong.
        """
        self._file, self._read = file, read
        self._mark = self._look()
        self._held = read()
        self.changes = 0

    def now(self) -> Held:
        """The newest usable content; costs one `stat`."""
        mark = self._look()
        if mark != self._mark:
            self._mark = mark
            try:
                self._held = self._read()
                self.changes += 1
            except Misconfigured as error:
                log.get().warning("rotated secret not usable", problem="; ".join(error.problems))
            except Exception as error:  # noqa: BLE001 -- whatever a half-written file does to its reader
                log.get().warning("rotated secret not usable", error=type(error).__name__)
        return self._held

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.stat() if self._file is not None else None
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_ino, found.st_size) if found else None
