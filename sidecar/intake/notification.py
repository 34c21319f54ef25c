"""Read one notification. Pure. The path is the event; the body is checked, used as a hint, and discarded.

https://hl7.org/fhir/R4/subscription.html#rest-hook
"""

import re
from collections.abc import Mapping

import orjson

from sidecar.records import Event, Reference, is_fhir_id

MAX_DEPTH = 64
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_AS_BRACES = bytes.maketrans(b"[]", b"{}")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class Refused(Exception):
    """The body is not what this kind of notification allows. `path` names the element and no value."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


def read_put(body: bytes, source: str, focus: Reference, heard_at: float) -> Event:
    """The event of `PUT {hook}/{Type}/{id}`. The version in the body tells a repeat from news, nothing else.

    Raises:
        Refused: truncated, not JSON (NaN included), deeper than 64, or not the resource that the path names.
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
    """A body as a JSON object, bounded in depth.

    Raises:
        Refused: empty, truncated, not JSON (NaN included), not an object, or nested deeper than 64.
    """
    if not body.strip():
        raise Refused(type_name, "the body is empty")
    try:
        resource = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(type_name, "the body is not complete, valid JSON") from None
    if not isinstance(resource, Mapping):
        raise Refused(type_name, "must be an object")
    if _is_deep(body):
        raise Refused(type_name, f"nested deeper than {MAX_DEPTH}")
    return resource


def _is_deep(body: bytes) -> bool:
    """Whether objects and arrays of valid JSON nest deeper than `MAX_DEPTH`: without its strings, level by level."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", body).translate(_AS_BRACES, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"{}", b"")
        if not brackets:
            return False
    return True
