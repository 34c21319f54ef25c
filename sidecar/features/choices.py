"""What a site decides of a model. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from sidecar.manifest import Manifest


@dataclass(frozen=True, slots=True)
class SiteChoices:
    """What a site decided for a model: switches, the choices it must make, maximum ages unlike the manifest's."""

    switches: Mapping[str, bool] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    max_age: Mapping[str, timedelta] = field(default_factory=dict)
    spread: timedelta | None = None


def open_choices(manifest: Manifest, made: Mapping[str, str]) -> list[str]:
    """A sentence for each choice that is not made, or is none: what there is to choose, where to set it, and why."""
    said = []
    for name, choice in manifest.choices.items():
        if made.get(name) not in choice.values:
            fault = "has an unknown value" if name in made else "is not set"
            options = " or ".join(f'"{value}"' for value in choice.values)
            said.append(
                f"models.{manifest.name}.choices.{name} {fault}: set it to {options} "
                f"(for `sidecar score`: --choice {name}={next(iter(choice.values))}). {choice.why}"
            )
    return said
