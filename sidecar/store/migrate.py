"""Bring a schema to `HEAD`. alembic is imported here and only here: 0.2 s that only a first start pays."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from sidecar.errors import Misconfigured

NEWER = "made by another version of the sidecar; install that version or newer"


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
