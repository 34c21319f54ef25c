"""What an error of PostgreSQL means to whoever asked: the database is away, or the work is at fault."""

import asyncpg

from sidecar.errors import ClaimLost, NotStored, Retryable, SidecarError

AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
BLOCKED = asyncpg.LockNotAvailableError
AWAY = (
    OSError, TimeoutError, SidecarError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError, asyncpg.PostgresSystemError, asyncpg.InternalClientError,
)  # fmt: skip


def is_away(error: Exception) -> bool:
    """Whether the database is away, or cannot store anything at all: not the fault of what was to be stored."""
    if isinstance(error, ClaimLost):
        return False
    return isinstance(error, AWAY) or (isinstance(error, asyncpg.InterfaceError) and not _is_unsendable(error))


def _is_unsendable(error: Exception) -> bool:
    """Whether the driver could not even say a value: its own DataError, which is no PostgresError."""
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)


def failure(error: Exception) -> Exception:
    """A statement that contradicts the data will do so again: that is the work's fault, not the database's."""
    if isinstance(error, ClaimLost | NotStored):
        return error
    name = type(error).__name__
    contradicts = isinstance(error, (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)) or _is_unsendable(
        error
    )
    return Retryable(f"store:{name}") if contradicts else NotStored(f"store:{name}")
