"""Bring a schema to `HEAD`. alembic is imported here and only here: 0.2 s that only a first start pays."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sidecar.errors import Misconfigured, Unavailable
from sidecar.store.engine import NEWER

ADVISORY_KEY = 0x65687273


def upgrade(connection: Connection, where: str) -> None:
    """Run what is missing inside the caller's transaction, which a failure leaves to be rolled back.

    Raises:
        Misconfigured: the schema is of a newer sidecar; `where` says which database.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise Misconfigured([f"{where}: {NEWER}"]) from None


def upgrade_file(path: Path) -> None:
    """Upgrade a SQLite file in one transaction: a process killed half-way leaves the schema that it found.

    Raises:
        Misconfigured: the schema is of a newer sidecar, or the file cannot be changed.
    """
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                upgrade(connection, str(path))
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")
    except DBAPIError as error:
        raise Misconfigured([f"{path}: cannot be used as a database ({type(error.orig).__name__})"]) from None
    finally:
        engine.dispose()


async def upgrade_shared(connect: Callable[[], Awaitable[Any]]) -> None:
    """Upgrade a PostgreSQL under an advisory lock and in one transaction: several starts at once make one schema.

    Raises:
        Misconfigured: the role may not make tables, or the schema is of a newer sidecar.
        Unavailable: the tables could not be made for another reason; the next start tries again.
    """
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_KEY})
            await connection.run_sync(lambda own: upgrade(own, "store.url"))
    except DBAPIError as error:
        cause = type(error.orig.__cause__ or error.orig).__name__ if error.orig else "unknown"
        if cause == "InsufficientPrivilegeError":
            raise Misconfigured([f"store.url: the role cannot make the tables ({cause})"]) from None
        raise Unavailable(f"store.url: the tables could not be made ({cause})") from None
    finally:
        await engine.dispose()
