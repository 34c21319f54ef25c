"""Moving a recorded stay in time, and giving a repeated one new identities.

Pure. Birth dates move along with everything else, so that nobody's age changes.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sidecar.sandbox.moments import instant
from sidecar.sandbox.outcome import Resource

SHIFTED = frozenset(
    {
        "effectiveDateTime",
        "effectiveInstant",
        "issued",
        "recordedDate",
        "onsetDateTime",
        "abatementDateTime",
        "deceasedDateTime",
        "birthDate",
        "start",
        "end",
    },
)
"""The elements that hold times; `start` and `end` are those of any Period."""

_WHOLE_DATE = len("2020-01-01")


def shifted(resource: Resource, move: timedelta) -> Resource:
    """Return a copy of `resource` with all its times moved by `move`, each in the precision it had."""
    return {name: _shifted(name, value, move) for name, value in resource.items()}


def _shifted(name: str, value: Any, move: timedelta) -> Any:
    if isinstance(value, dict):
        return shifted(value, move)
    if isinstance(value, list):
        return [_shifted(name, each, move) for each in value]
    return moved(value, move) if name in SHIFTED and isinstance(value, str) else value


def moved(text: str, move: timedelta) -> str:
    """Return a FHIR date or dateTime moved by `move`; a bare date by the nearest whole days, times in UTC."""
    if "T" not in text:
        whole = text + "-01-01"[len(text) - _WHOLE_DATE :] if len(text) < _WHOLE_DATE else text
        days = timedelta(days=round(move / timedelta(days=1)))
        return (datetime.fromisoformat(whole) + days).date().isoformat()[: len(text)]
    at = datetime.fromisoformat(text)
    at = (at if at.tzinfo else at.replace(tzinfo=UTC)) + move
    return instant(at) if at.microsecond else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def next_lap(resources: Sequence[Resource], stay_name: str, lap: int) -> list[Resource]:
    """Return copies of a stay's resources with the ids, identifiers and references of lap `lap`.

    Lap 0 keeps what is recorded; a resource without an id gets one from the stay's name.
    """
    suffix = f"-lap{lap}" if lap else ""
    named = [{"id": f"{stay_name}-{n}", **resource} for n, resource in enumerate(resources)]
    references = [f"{each['resourceType']}/{each['id']}" for each in named]
    ids = {reference: reference + suffix for reference in references}
    return [_renamed(each, ids, suffix) | {"id": each["id"] + suffix} for each in named]


def _renamed(node: Any, ids: dict[str, str], suffix: str) -> Any:
    if isinstance(node, list):
        return [_renamed(each, ids, suffix) for each in node]
    if not isinstance(node, dict):
        return node
    result = {name: _renamed(value, ids, suffix) for name, value in node.items()}
    if isinstance(result.get("reference"), str):
        result["reference"] = ids.get(result["reference"], result["reference"])
    for identifier in result.get("identifier", []) if isinstance(result.get("identifier"), list) else []:
        if "value" in identifier:
            identifier["value"] += suffix
    return result
