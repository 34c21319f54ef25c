"""What a model version said in shadow: stored, never charted, and counted before it may write."""

from collections.abc import AsyncIterator, Mapping

from sidecar.evidence.archive import COLUMNS, Archive
from sidecar.records import Stored
from sidecar.store import SLOW_S, Statement

PAGE = 1000
IN_SHADOW = Statement(
    "in_shadow",
    f"SELECT {COLUMNS} FROM assessment WHERE model IN (:track, :beside) AND model_digest = :digest "  # noqa: S608 -- a constant
    "AND arm = 'shadow' AND status <> 'entered-in-error' AND (patient_key, id) > (:patient_key, :id) "
    "ORDER BY patient_key, id LIMIT :most",
    within_s=SLOW_S,
)


async def in_shadow(
    archive: Archive, track: str, beside: str, digest: str, page: int = PAGE
) -> AsyncIterator[list[Stored]]:
    """The results of the version with this digest, patient by patient, in the order of the readings.

    It ran under `track`, or under `beside` when another had that. Of one result its last word counts; `page` rows are
    read at once.
    """
    after: tuple[bytes, str] = (b"", "")
    found: dict[bytes, Stored] = {}
    while True:
        rows = await archive.found(
            IN_SHADOW, track=track, beside=beside, digest=digest, patient_key=after[0], id=after[1], most=page
        )
        for stored in rows:
            if found and stored.patient_key != after[0]:
                yield _in_order(found)
                found = {}
            after = stored.patient_key, stored.id
            if stored.identity not in found or found[stored.identity].revision < stored.revision:
                found[stored.identity] = stored
        if len(rows) < page:
            break
    if found:
        yield _in_order(found)


def _in_order(found: Mapping[bytes, Stored]) -> list[Stored]:
    return sorted(found.values(), key=lambda stored: stored.conclusion.evidence.occurred_at)
