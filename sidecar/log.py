"""JSON logs without identifiers: only fields from a list pass, and exceptions are named by class, never by text."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

FIELDS = frozenset(
    {
        "event", "level", "timestamp", "reason", "source", "model", "version", "place", "error", "state", "count",
        "seconds", "status", "arm", "digest", "address", "problem",
    }
)  # fmt: skip
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def _only_known(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: value for name, value in entry.items() if name in FIELDS}


class _OnlyClass(logging.Handler):
    """Records of libraries: logger, level and exception class. Their text may quote a payload, so it is dropped."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        get().warning("library", source=record.name, error=error, status=record.levelname.lower())


def configure(level: str) -> None:
    """Log to standard error from now on."""
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


def get() -> Any:
    """The logger."""
    return structlog.get_logger()
