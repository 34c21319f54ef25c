"""Find events that no notification told us of: a `_lastUpdated` search from the watermark, with an overlap.

The watermark is the EHR's own clock (the newest `meta.lastUpdated` seen), so clock skew between the two costs nothing;
the overlap covers commits that became visible late. What is found twice is recorded once.
https://hl7.org/fhir/R4/search.html#lastUpdated
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sidecar.fhir import references
from sidecar.fhir.client import EhrClient
from sidecar.intake.sources import Source
from sidecar.records import Event
from sidecar.store import Statement, Step, Store

MAX_FOUND = 100_000
MAX_PAGES = 4_000
BATCH = 200
LONGEST_SKEW = timedelta(days=1)
"""Clocks of the EHR and of this machine differ by less; bounds the first search where the EHR ignores `_sort`."""

WATERMARK = Statement("watermark", "SELECT watermark FROM subscription WHERE source = :source")
ADVANCE = Statement(
    "advance",
    "INSERT INTO subscription (source, status, watermark) VALUES (:source, 'unknown', :watermark) "
    "ON CONFLICT (source) DO UPDATE SET watermark = excluded.watermark",
)

Record = Callable[..., Awaitable[None]]


class CatchUp:
    """Searches one EHR. `record` is the inbox's verb."""

    def __init__(self, client: EhrClient, store: Store, record: Record, overlap: timedelta) -> None:
        self._client, self._store, self._record, self._overlap = client, store, record, overlap

    async def run(self, source: Source, heard_at: float) -> int:
        """Record every event of `source` since the watermark; how many were found, repeats included.

        The first run has no past to catch up with: it begins at the EHR's present, by the EHR's clock.

        Raises:
            Unavailable, Retryable: the EHR did not answer; the watermark stays.
        """
        mark = await self._watermark(source) or await self._present(source, heard_at)
        since = mark - self._overlap
        query = dict(source.query) | {
            "_lastUpdated": f"ge{since.isoformat(timespec='milliseconds')}", "_sort": "_lastUpdated", "_count": "200",
        }  # fmt: skip
        # One resource dated ahead must not carry the watermark past everything that comes before its day.
        latest = datetime.fromtimestamp(heard_at, UTC) + self._overlap
        found, newest, batch = 0, mark, list[Event]()
        async for resource in self._client.search(source.type, query, MAX_FOUND, MAX_PAGES):
            event, updated = _event(resource, source, heard_at)
            if event is None:
                continue
            found += 1
            newest = max(newest, min(updated or newest, latest))
            batch.append(event)
            if len(batch) >= BATCH:
                await self._keep(source, batch, newest)
        await self._keep(source, batch, newest)
        return found

    async def _keep(self, source: Source, batch: list[Event], newest: datetime) -> None:
        """Record a batch, then advance: results come oldest first, so a search cut short is gone on with next time."""
        if batch:
            await self._record(*batch)
            batch.clear()
        await self._store.commit(Step(ADVANCE, [{"source": source.name, "watermark": newest.isoformat()}]))

    async def _present(self, source: Source, heard_at: float) -> datetime:
        """When the newest resource of `source` was stored; no more than `LONGEST_SKEW` before `heard_at`."""
        earliest = datetime.fromtimestamp(heard_at, UTC) - LONGEST_SKEW
        query = dict(source.query) | {"_sort": "-_lastUpdated", "_count": "1"}
        async for resource in self._client.search(source.type, query):
            _, updated = _event(resource, source, heard_at)
            return max(updated or earliest, earliest)
        return earliest

    async def _watermark(self, source: Source) -> datetime | None:
        rows = await self._store.read(WATERMARK, source=source.name)
        mark = rows[0]["watermark"] if rows else None
        return datetime.fromisoformat(mark) if mark else None


def _event(resource: Mapping[str, Any], source: Source, heard_at: float) -> tuple[Event | None, datetime | None]:
    focus = references.identity(resource)
    if focus is None or focus.type != source.type:
        return None, None
    text = (resource.get("meta") or {}).get("lastUpdated")
    try:
        updated = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        updated = None
    if updated is not None and updated.tzinfo is None:
        updated = None
    return Event(source.name, heard_at, focus, text if isinstance(text, str) else None), updated
