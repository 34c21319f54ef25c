"""The general engine: any FHIR R4 resource to a de-identified FHIR R4 resource, by the same policy as the path. Pure.

Deny by default: what `[keep.*]` of `rules.toml` does not name is dropped, what modifies a meaning and is not
interpreted refuses its resource, and whatever stays is written anew. It is for extracts, for reviews by an officer, and
the second witness to what `boundary.py` lets through.
"""

from sidecar.deid.general.engine import Engine
from sidecar.deid.general.names import KeyedNames, Names, Vault, VaultNames
from sidecar.deid.general.tally import Done, Tally
from sidecar.deid.mode import Mode

__all__ = ["Done", "Engine", "KeyedNames", "Mode", "Names", "Tally", "Vault", "VaultNames"]
