"""Which label values /metrics may show: what settings, manifests and code define, and nothing else."""

from collections.abc import Iterator

from sidecar.settings import Settings


def closed_sets(settings: Settings) -> dict[str, frozenset[str]]:
    return {}


def strange(exposition: str, settings: Settings) -> Iterator[tuple[str, str]]:
    """Labels outside the closed sets."""
    yield from ()
