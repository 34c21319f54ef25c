"""Read again what still-valid assessments rest on: R4 Subscriptions are silent about deletes.

A reading that changed or vanished becomes an event like any other, so `sidecar.worker` corrects what rested on it.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime

from sidecar.evidence import Archive
from sidecar.fhir import references
from sidecar.fhir.client import EhrClient
from sidecar.inbox import EventBox
from sidecar.records import Event, Reference, Stored

PAGE = 40
IDS = 50
SOURCE = "review"


async def review(client: EhrClient, archive: Archive, box: EventBox, clock: Callable[[], datetime]) -> int:
    """One pass; how many readings had changed unheard.

    Raises:
        Unavailable, Retryable: the EHR did not answer; the next pass starts again.
    """
    changed, after = 0, (clock().timestamp(), "")
    while page := await archive.valid(after, PAGE):
        after = (page[-1].conclusion.evidence.valid_until.timestamp(), page[-1].id)
        changed += await _review_page(client, box, page)
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
