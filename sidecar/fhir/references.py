"""Parse FHIR references. They are compared and put into paths, never followed as URLs.

https://hl7.org/fhir/R4/references.html#literal
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

from sidecar.fhir.origin import Base
from sidecar.records import Reference, is_fhir_id, is_type_name

_RELATIVE = re.compile(
    r"(?P<type>[A-Z][A-Za-z]{1,63})/(?P<id>[A-Za-z0-9\-.]{1,64})(/_history/(?P<version>[A-Za-z0-9\-.]{1,64}))?"
)


def parse(value: object, base_url: str | None = None) -> Reference | None:
    """The resource that `value` names in the configured EHR, or None.

    Absolute references count only under `base_url`, whatever the case of its host and whether a default port is
    spelled out; other hosts, logical references, fragments and anything outside FHIR's grammar are None.
    """
    if not isinstance(value, str):
        return None
    if base_url is not None and value.startswith(base_url + "/"):
        value = value[len(base_url) + 1 :]
    elif base_url is not None and "://" in value and "#" not in value:
        value = _base(base_url).inside(value) or ""
    match = _RELATIVE.fullmatch(value)
    if match is None or not is_fhir_id(match["id"]):
        return None
    return Reference(match["type"], match["id"], match["version"])


@functools.lru_cache(maxsize=8)
def _base(base_url: str) -> Base:
    return Base(base_url)


def of(element: object, base_url: str | None = None) -> Reference | None:
    """The same for a Reference element (`{"reference": "Patient/1"}`)."""
    return parse(element.get("reference"), base_url) if isinstance(element, dict) else None


def identity(resource: Mapping[str, Any]) -> Reference | None:
    """The reference, with version, of a resource as read; None when its id or type is outside the grammar."""
    type_name, logical_id = resource.get("resourceType"), resource.get("id")
    if not is_type_name(type_name) or not is_fhir_id(logical_id):
        return None
    meta = resource.get("meta")
    version = meta.get("versionId") if isinstance(meta, dict) else None
    return Reference(str(type_name), str(logical_id), version if is_fhir_id(version) else None)


def codes(resource: Mapping[str, Any]) -> frozenset[str]:
    """Every `system|code` of an Observation or Condition and of its components."""
    found = _codes(resource.get("code"))
    for component in _listed(resource.get("component")):
        if isinstance(component, dict):
            found += _codes(component.get("code"))
    return frozenset(found)


def _codes(concept: object) -> list[str]:
    listed = _listed(concept.get("coding")) if isinstance(concept, dict) else []
    return [f"{coding.get('system')}|{coding.get('code')}" for coding in listed if isinstance(coding, dict)]


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
