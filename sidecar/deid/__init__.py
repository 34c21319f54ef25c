"""The boundary: what a model may know of a patient. Pure. The event goes on to `sidecar.features`.

Deny by default: `rules.toml` names what crosses, in FHIR's element names; everything else is dropped.
"""

from sidecar.deid.boundary import deidentify
from sidecar.deid.general import Done, Engine, KeyedNames, Names, Tally, Vault, VaultNames
from sidecar.deid.labels import inherited, is_sensitive, joined
from sidecar.deid.mode import Mode
from sidecar.deid.paths import unreadable
from sidecar.deid.policy import Keep, Policy, load_policy, load_rules
from sidecar.deid.rules import Rules
from sidecar.deid.times import instant

__all__ = [
    "Done",
    "Engine",
    "Keep",
    "KeyedNames",
    "Mode",
    "Names",
    "Policy",
    "Rules",
    "Tally",
    "Vault",
    "VaultNames",
    "deidentify",
    "inherited",
    "instant",
    "is_sensitive",
    "joined",
    "load_policy",
    "load_rules",
    "unreadable",
]
