"""A sidecar that leaks on purpose, in another form at each place: what a search must find to be believed.

`python -m tests.campaigns.leaking serve --config FILE`, in place of `python -m sidecar`.
"""

import base64
import hashlib
import sys
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from sidecar import cli, metrics, operations
from sidecar.evidence import Archive
from sidecar.inbox import EventBox
from sidecar.intake import Refused
from sidecar.records import Conclusion, Event, Reference
from sidecar.web import notifications

WHERE = {
    "file serve.log": "hash", "metrics": "casefolded", "answers": "url", "table event": "digits", "table assessment": "base64",
    "features and results": "base64", "commands": "split", "file sidecar.db": "digits", "file backup.db": "digits",
    "database log": "digits",
}  # fmt: skip
"""Where each leak is found, and in which encoding; what is in a table is in its file and its log as well."""

_heard: list[str] = []

read_put, stored, recorded, status = notifications.read_put, Archive.store, EventBox.recorded, operations.status


def told_put(body: bytes, source: str, focus: Reference, heard_at: float) -> Event:
    """A hash in the log; a label; the value that is refused."""
    sys.stderr.write(f"heard of {hashlib.sha256(focus.id.encode()).hexdigest()}\n")
    _heard[:] = [focus.id.partition("-")[0]]
    metrics.NOTIFICATIONS.labels(source, focus.id.upper()).inc()
    try:
        return read_put(body, source, focus, heard_at)
    except Refused as refusal:
        raise Refused(refusal.path, f"{refusal.problem}: {quote(focus.id, safe='').replace('-', '%2D')}") from None


def told_recorded(box: EventBox, *events: Event) -> list[Any]:
    """Digits in a table."""
    steps = recorded(box, *events)
    names = [e.focus.id.partition("-")[2] for e in events if e.focus is not None]
    rows = [row for step in steps for row in step.rows if row.get("focus")]
    for row, name in zip(rows, names, strict=False):
        row["version"] = "/".join(name)
    return steps


def told_store(archive: Archive, conclusion: Conclusion, *rest: Any) -> Any:
    """Base64 among what is said of a result."""
    vector = conclusion.assessment.vector
    said = base64.b64encode(f"of {conclusion.evidence.patient.value}".encode()).decode()
    assessment = replace(conclusion.assessment, vector=replace(vector, remarks=(*vector.remarks, said)))
    return stored(archive, Conclusion(assessment, conclusion.evidence), *rest)


async def told_status(store: Any) -> dict[str, Any]:
    """One word of an id, as a reason."""
    return await status(store) | {"not_scored": dict.fromkeys(_heard, 1)}


def leak() -> None:
    """From now on."""
    notifications.read_put = told_put
    EventBox.recorded = told_recorded  # type: ignore[method-assign]
    Archive.store = told_store  # type: ignore[method-assign]
    operations.status = told_status


if __name__ == "__main__":
    leak()
    cli.main()
