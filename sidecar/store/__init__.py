"""The database: one schema, one set of verbs, group commit. Rooms name statements; this room runs them."""

from sidecar.store.cipher import Cipher, load_keys, new_keys
from sidecar.store.engine import Row, Statement, Step, Store

__all__ = ["Cipher", "Row", "Statement", "Step", "Store", "load_keys", "new_keys"]
