"""Read one notification. Pure. The path is the event; the body is checked, used as a hint, and discarded.

https://hl7.org/fhir/R4/subscription.html#rest-hook
"""

from collections.abc import Mapping

import orjson

from sidecar.records import Event, Reference, is_fhir_id


class Refused(Exception):
    """The body is not what this kind of notification allows. `path` names the element and no value."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


def read_put(body: bytes, source: str, focus: Reference, heard_at: float) -> Event:
    """The event of `PUT {hook}/{Type}/{id}`. The version in the body tells a repeat from news, nothing else.

    Raises:
        Refused: truncated, not JSON (NaN included), deeper than 1024, or not the resource that the path names.
    """
    resource = parse(body, focus.type)
    if resource.get("resourceType") != focus.type:
        raise Refused(f"{focus.type}.resourceType", "is not the type in the path")
    if resource.get("id") != focus.id:
        raise Refused(f"{focus.type}.id", "is not the id in the path")
    meta = resource.get("meta", {})
    if not isinstance(meta, Mapping):
        raise Refused(f"{focus.type}.meta", "must be an object")
    version, updated = meta.get("versionId"), meta.get("lastUpdated")
    if version is not None and not is_fhir_id(version):
        raise Refused(f"{focus.type}.meta.versionId", "is not a FHIR id")
    if updated is not None and (not isinstance(updated, str) or len(updated) > 64):
        raise Refused(f"{focus.type}.meta.lastUpdated", "is not an instant")
    return Event(source, heard_at, Reference(focus.type, focus.id, version), updated)


def parse(body: bytes, type_name: str) -> Mapping[str, object]:
    """A body as a JSON object. How deep it is does not matter: nothing here walks into what it does not know.

    Raises:
        Refused: empty, truncated, not JSON (NaN included), not an object, or nested deeper than the parser goes (1024).
    """
    if not body.strip():
        raise Refused(type_name, "the body is empty")
    try:
        resource = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(type_name, "the body is not complete, valid JSON, or deeper than 1024") from None
    if not isinstance(resource, Mapping):
        raise Refused(type_name, "must be an object")
    return resource
