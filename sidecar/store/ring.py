"""One key ring a database: what was sealed or looked up with one is lost to another.

The first server leaves fingerprints of its keys, each later one compares. A ring may grow; a key never changes.
"""

from sidecar.errors import Misconfigured
from sidecar.store.cipher import Cipher
from sidecar.store.engine import Statement, Step, Store

LEAVE = Statement(
    "leave_fingerprints",
    "INSERT INTO ring (name, fingerprint) VALUES (:name, :fingerprint) ON CONFLICT (name) DO NOTHING",
    sort_by=("name",),
)
LEFT = Statement("fingerprints", "SELECT name, fingerprint FROM ring ORDER BY name")


async def check_ring(store: Store, cipher: Cipher) -> None:
    """Refuse a ring with which this database was not made.

    Raises:
        Misconfigured: a key is not the one that was used here under its name.
        NotStored: the database is away.
    """
    ours = cipher.fingerprints
    # Looked at first: a ring that is refused leaves nothing behind.
    _compare(ours, {r["name"]: bytes(r["fingerprint"]) for r in await store.read(LEFT)})
    await store.commit(Step(LEAVE, [{"name": name, "fingerprint": print_} for name, print_ in ours.items()]))
    _compare(ours, {r["name"]: bytes(r["fingerprint"]) for r in await store.read(LEFT)})


def _compare(ours: dict[str, bytes], left: dict[str, bytes]) -> None:
    wrong = [name for name, print_ in left.items() if ours.get(name, print_) != print_]
    if wrong:
        problem = (
            f"store.key_file: another {' and '.join(wrong)} was used for this database; use the ring it was made with"
        )
        raise Misconfigured([problem])
