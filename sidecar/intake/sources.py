"""The sources of events: one Subscription each. Pure.

Criteria never filter on status: R4 evaluates them on the new version only, and a reading that becomes
entered-in-error must still be heard of.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.manifest import Manifest

MOST_CODES = 60
"""More codes than these are not put into criteria."""


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
    codes: dict[str, set[str]] = {}
    for manifest in manifests:
        for kind in manifest.types:
            codes.setdefault(kind, set()).update(manifest.codes_of(kind))
    sources = [Source("patient", "Patient"), Source("encounter", "Encounter")]
    for kind in ("Observation", "Condition"):
        if found := codes.pop(kind, set()):
            # A beginning cannot be asked for, and servers refuse a long list: then it is all of them.
            whole = kind != "Observation" and (len(found) > MOST_CODES or any("*" in code for code in found))
            query = () if whole else (("code", ",".join(sorted(found))),)
            sources.append(Source(kind.lower(), kind, query))
    # An order's medicine may stand in another resource, so no codes are asked for.
    sources += [Source(kind.lower(), kind) for kind in sorted(codes) if kind != "Encounter"]
    return tuple(sources)
