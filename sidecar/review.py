"""Read again what still-valid assessments rest on: R4 Subscriptions are silent about deletes.

A reading that changed or vanished becomes an event like any other, so `sidecar.worker` corrects what rested on it. Only
results in force are looked at, and a bounded number of them a pass: results that hold for months are many.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sidecar.evidence import Archive
from sidecar.fhir import references
from sidecar.fhir.client import EhrClient
from sidecar.inbox import EventBox
from sidecar.records import Event, Reference, Stored

PAGE = 40
IDS = 50
SOURCE = "review"
PAGES = 100
"""Pages a pass: some 250 searches where a result rests on three readings."""


@dataclass(slots=True)
class Sweep:
    """Where a pass stopped at its bound: the next goes on from there, and after the last result with the first."""

    after: tuple[float, str] = (0.0, "")


async def review(
    client: EhrClient, archive: Archive, box: EventBox, clock: Callable[[], datetime], sweep: Sweep | None = None
) -> int:
    """One pass over up to `PAGES` pages of results in force; how many readings had changed unheard.

    Raises:
        Unavailable, Retryable: the EHR did not answer; the next pass goes on behind the page that failed, so that one
            restricted reading does not keep the rest from being looked at. It has its turn again.
    """
    sweep, changed = sweep or Sweep(), 0
    sweep.after = max(sweep.after, (clock().timestamp(), ""))
    for _ in range(PAGES):
        page = await archive.valid(sweep.after, PAGE)
        whole = len(page) == PAGE
        sweep.after = (page[-1].conclusion.evidence.valid_until.timestamp(), page[-1].id) if whole else (0.0, "")
        changed += await _review_page(client, box, page)
        if not whole:
            break
    return changed


async def _review_page(client: EhrClient, box: EventBox, page: Iterable[Stored]) -> int:
    rests: dict[str, dict[str, set[str | None]]] = defaultdict(lambda: defaultdict(set))
    for stored in page:
        for reference in stored.conclusion.evidence.basis:
            rests[reference.type][reference.id].add(reference.version)
    events = []
    for type_name, versions in rests.items():
        there = await _versions(client, type_name, sorted(versions))
        for logical_id, known in versions.items():
            if there.get(logical_id) is None or known != {there[logical_id]}:
                events.append(Event(SOURCE, time.time(), Reference(type_name, logical_id)))
    if events:
        await box.record(*events)
    return len(events)


async def _versions(client: EhrClient, type_name: str, ids: list[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for at in range(0, len(ids), IDS):
        query = {"_id": ",".join(ids[at : at + IDS]), "_count": str(IDS)}
        async for resource in client.search(type_name, query):
            own = references.identity(resource)
            if own is not None:
                found[own.id] = own.version
    return found
