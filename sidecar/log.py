"""JSON logs without identifiers: fields from a list, each of a form of its own, and exceptions by class and place.

What an exception says is never written: it may quote a payload. That holds for our own lines, for those of libraries,
for warnings, and for what nobody caught in a task, a thread, a finaliser or the process.
"""

import logging
import re
import sys
import threading
import warnings
from collections.abc import Mapping, MutableMapping
from pathlib import PurePath
from types import TracebackType
from typing import Any, TextIO

import structlog

_CODE = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_SENTENCE = re.compile(r"(?:[^0-9\x00-\x1f\x7f]*[0-9]){0,6}[^0-9\x00-\x1f\x7f]*")
_FORMS: Mapping[str, re.Pattern[str]] = {
    "event": re.compile(r"[a-z][a-z ]{0,63}"),
    "level": _NAME,
    "timestamp": re.compile(r"[0-9T:.Z-]{20,32}"),
    "reason": _SENTENCE,
    "source": _NAME,
    "model": _NAME,
    "version": _CODE,
    "place": _NAME,
    "error": _NAME,
    "at": re.compile(r"[A-Za-z0-9_.<>-]{1,128}:[0-9]{1,6}"),
    "state": _NAME,
    "count": re.compile(r"[0-9]{1,9}"),
    "seconds": re.compile(r"[0-9]{1,9}(?:\.[0-9]+)?"),
    "status": _NAME,
    "arm": _NAME,
    "digest": re.compile(r"[0-9a-f]{1,64}"),
    "address": re.compile(r"[0-9A-Za-z.:\[\]-]{1,64}:[0-9]{1,5}"),
    "problem": re.compile(r"[^\x00-\x1f\x7f]*"),
}
"""What a field may look like. A reason has a status or a key's id in it, and no number that is longer."""
FIELDS = frozenset(_FORMS)
LONGEST = 1024
WITHHELD = "withheld"
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def _only_known(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Fields from the list, and of them only what has their form."""
    return {name: value if _fits(name, value) else WITHHELD for name, value in entry.items() if name in FIELDS}


def _fits(name: str, value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, str | int | float):
        return False
    text = str(value)
    return len(text) <= LONGEST and _FORMS[name].fullmatch(text) is not None


class _OnlyClass(logging.Handler):
    """Records of libraries: logger, level and exception. Their text may quote a payload, so it is dropped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        error, at = None, None
        if record.exc_info and record.exc_info[0]:
            error, at = record.exc_info[0].__name__, _at(record.exc_info[2])
        level = next((name for name, least in _LEVELS.items() if record.levelno <= least), "error")
        try:
            get().warning("library", source=_logger(record.name), error=error, at=at, status=level)
        except Exception:  # noqa: BLE001 -- a log that cannot be written must not end what was logged
            self.handleError(record)


def _logger(name: str) -> str:
    """The module that a logger is named after: some are named after a connection as well."""
    while name and name not in sys.modules:
        name = name.rpartition(".")[0]
    return name or "other"


def _at(traceback: TracebackType | None) -> str | None:
    """Module and line of the innermost frame of ours; of any, when none is."""
    ours = last = None
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", "unknown"))
        last = f"{name}:{traceback.tb_lineno}"
        ours = last if name.partition(".")[0] == "sidecar" else ours
        traceback = traceback.tb_next
    return ours or last


def unexpected(place: str, error: BaseException) -> None:
    """An error that nobody expected: where it was caught, its class, and where it came from."""
    get().error("unexpected", place=place, error=type(error).__name__, at=_at(error.__traceback__))


def described(error: BaseException) -> str:
    """The same in words, for people at a terminal."""
    return f"unexpected {type(error).__name__} at {_at(error.__traceback__) or 'an unknown place'}"


def _warned(  # noqa: PLR0913, PLR0917 -- the interpreter calls with these
    message: Warning | str,  # noqa: ARG001 -- may quote a payload
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001 -- the interpreter's name
    line: str | None = None,  # noqa: ARG001 -- as above
) -> None:
    get().warning("warning", error=category.__name__, at=f"{PurePath(filename).name}:{lineno}")


def _hook(place: str, kind: type[BaseException] | None, traceback: TracebackType | None) -> None:
    name = "unknown" if kind is None else kind.__name__
    get().error("unexpected", place=place, error=name, at=_at(traceback))


def configure(level: str) -> None:
    """Log to standard error from now on, whoever speaks: we, libraries, and the interpreter."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _only_known,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_OnlyClass()], force=True)
    logging.raiseExceptions = False  # it would print what could not be logged
    warnings.showwarning = _warned
    sys.excepthook = lambda kind, _, traceback: _hook("process", kind, traceback)
    threading.excepthook = lambda told: _hook("thread", told.exc_type, told.exc_traceback)
    sys.unraisablehook = lambda told: _hook("finaliser", told.exc_type, told.exc_traceback)


def get() -> Any:
    """The logger."""
    return structlog.get_logger()
