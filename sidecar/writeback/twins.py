"""What the chart holds more than once: one is kept, the others are withdrawn and predict nothing. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sidecar.records import is_fhir_id

WITHDRAWN = "entered-in-error"
NOT_APPLICABLE = {"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "not-applicable"}
_LAST = datetime.max.replace(tzinfo=UTC)


def kept(found: Sequence[Mapping[str, Any]]) -> str | None:
    """The id of the one that counts: the oldest that has not been withdrawn, else the oldest."""
    oldest = min(found, key=lambda r: (is_withdrawn(r), _updated(r), r["id"]), default=None)
    return str(oldest["id"]) if oldest else None


def is_withdrawn(resource: Mapping[str, Any]) -> bool:
    """Whether it says of itself that it does not count."""
    return resource.get("status") == WITHDRAWN


def withdrawn(twin: Mapping[str, Any], kept_id: str) -> dict[str, Any]:
    """`twin` as it must stand in the chart: in error, naming the one that counts, without any number to act on."""
    type_name = twin["resourceType"]
    changed = {k: v for k, v in twin.items() if k not in {"meta", "text", "prediction", "status"}}
    changed["status"] = WITHDRAWN
    meta = {k: v for k, v in (twin.get("meta") or {}).items() if k in {"profile", "security", "tag"}}
    if meta:
        changed["meta"] = meta
    if type_name == "Observation":
        changed = {k: v for k, v in changed.items() if k != "component" and not k.startswith("value")}
        changed["dataAbsentReason"] = {"coding": [NOT_APPLICABLE]}
    said = f"ENTERED IN ERROR: it was written twice. The one that counts is {type_name}/{kept_id}."
    changed["note"] = [{"text": said}, *(twin.get("note") or ())]
    return changed


def shaped(resource: Mapping[str, Any]) -> bool:
    """Whether it can be named."""
    return is_fhir_id(resource.get("id"))


def _updated(resource: Mapping[str, Any]) -> datetime:
    text = (resource.get("meta") or {}).get("lastUpdated")
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else _LAST
    except ValueError:
        return _LAST
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
