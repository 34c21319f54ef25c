"""The database: one schema, one set of verbs, SQLite or PostgreSQL. Rooms name statements; this room runs them."""

from pydantic import SecretStr

from sidecar.store.cipher import Cipher, load_keys
from sidecar.store.claims import Unsure
from sidecar.store.engine import HEAD, SKIP_LOCKED, SLOW_S, Row, Statement, Step, Store
from sidecar.store.forgetting import forget
from sidecar.store.inventory import row_key
from sidecar.store.keyfile import new_keys
from sidecar.store.leases import END_LEASE, KEEP_LEASE, TAKE_LEASE, Leases, Says
from sidecar.store.ring import check_ring, keep_ring
from sidecar.store.rotation import Rotation
from sidecar.store.sqlite import SqliteStore, room_beside

__all__ = [
    "END_LEASE", "HEAD", "KEEP_LEASE", "SKIP_LOCKED", "SLOW_S", "TAKE_LEASE", "Cipher", "Leases", "Rotation", "Row",
    "Says", "SqliteStore", "Statement", "Step", "Store", "Unsure", "check_ring", "forget", "keep_ring", "load_keys",
    "new_keys", "open_store", "room_beside", "row_key",
]  # fmt: skip


def open_store(url: str, password: SecretStr | None = None, *, migrate: bool = True) -> Store:
    """The database at `url`. Without `migrate`, a PostgreSQL whose tables are not of this version is refused.

    Raises:
        Misconfigured: listing why it cannot be used.
        Unavailable: it does not answer.
    """
    if url.startswith("sqlite:///"):
        return SqliteStore(url)
    from sidecar.store.postgres import PostgresStore  # noqa: PLC0415 -- its driver, for those who use it

    return PostgresStore(url, password.get_secret_value() if password else None, migrate=migrate)
