"""What the EHR can do, from its CapabilityStatement.

https://hl7.org/fhir/R4/capabilitystatement.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sidecar.errors import Retryable
from sidecar.fhir.client import EhrClient

Ladder = Literal["put", "conditional", "search"]


@dataclass(frozen=True, slots=True)
class TypeAbilities:
    """What may be done with one resource type."""

    create: bool = False
    update: bool = False
    update_create: bool = False
    conditional_create: bool = False
    search: frozenset[str] = frozenset()
    include: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Capability:
    """The parts of a CapabilityStatement that decide how we write."""

    types: Mapping[str, TypeAbilities]

    def of(self, type_name: str) -> TypeAbilities:
        """Abilities of a type; none when the server does not name it."""
        return self.types.get(type_name, TypeAbilities())

    def ladder(self, type_name: str) -> Ladder:
        """The best way the server supports to have exactly one effect for one key."""
        able = self.of(type_name)
        if able.update_create and able.update:
            return "put"
        return "conditional" if able.conditional_create else "search"


async def read(client: EhrClient) -> Capability:
    """Ask the server.

    Raises:
        Unavailable, Retryable: it did not answer, or not with a CapabilityStatement.
    """
    answer = await client.send("metadata", "GET", "metadata", ok={200})
    statement = answer.body
    if not isinstance(statement, Mapping) or statement.get("resourceType") != "CapabilityStatement":
        raise Retryable("ehr_shape:metadata")
    try:
        rest: Mapping[str, Any] = next((r for r in statement.get("rest") or () if r.get("mode") == "server"), {})
        return Capability({r["type"]: _type(r) for r in rest.get("resource") or () if isinstance(r.get("type"), str)})
    except (AttributeError, TypeError, KeyError):
        raise Retryable("ehr_shape:metadata") from None


def _type(resource: Mapping[str, Any]) -> TypeAbilities:
    interactions = {i.get("code") for i in resource.get("interaction") or ()}
    return TypeAbilities(
        create="create" in interactions,
        update="update" in interactions,
        update_create=resource.get("updateCreate") is True,
        conditional_create=resource.get("conditionalCreate") is True,
        search=frozenset(p["name"] for p in resource.get("searchParam") or () if isinstance(p.get("name"), str)),
        include=frozenset(value for value in resource.get("searchInclude") or () if isinstance(value, str)),
    )
