"""What the chart holds under an identity, or soon will: which revision, and so in which version's words."""

from sidecar.evidence.archive import COLUMNS, Archive
from sidecar.records import Stored
from sidecar.store import Statement

# A write that was begun and then overtaken may have reached the chart.
CHARTED = Statement(
    "charted",
    f"SELECT {COLUMNS} FROM assessment WHERE id = (SELECT assessment_id FROM delivery "  # noqa: S608 -- a constant
    "WHERE delivery.identity = :identity AND delivery.revision < :before AND (delivery.state IN "
    "('queued', 'written', 'buried') OR (delivery.state = 'superseded' AND delivery.attempts > 0)) "
    "ORDER BY delivery.revision DESC LIMIT 1)",
    quick=True,
)


async def charted(archive: Archive, identity: bytes, before: int) -> Stored | None:
    """The newest revision under `identity`, of those lower than `before`, that is in the chart or on its way."""
    found = await archive.found(CHARTED, identity=identity, before=before)
    return found[0] if found else None
