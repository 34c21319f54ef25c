"""The sources of events: one Subscription each. Pure.

Criteria never filter on status: R4 evaluates them on the new version only, and a reading that becomes
entered-in-error must still be heard of.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of event: its name (path and label), resource type and criteria."""

    name: str
    type: str
    query: tuple[tuple[str, str], ...] = ()

    @property
    def criteria(self) -> str:
        """The Subscription criteria; `Encounter?` means every Encounter."""
        return f"{self.type}?" + "&".join(f"{name}={value}" for name, value in self.query)


def sources_for(manifests: Iterable[Manifest]) -> tuple[Source, ...]:
    """What must be heard for these models: the readings they use, and what ends a patient's or a stay's scores."""
    observations: set[str] = set()
    conditions: set[str] = set()
    for manifest in manifests:
        observations |= manifest.observation_codes
        conditions |= manifest.codes_of("Condition")
    sources = [Source("patient", "Patient"), Source("encounter", "Encounter")]
    if observations:
        sources.append(Source("observation", "Observation", (("code", ",".join(sorted(observations))),)))
    if conditions:
        sources.append(Source("condition", "Condition", (("code", ",".join(sorted(conditions))),)))
    return tuple(sources)
