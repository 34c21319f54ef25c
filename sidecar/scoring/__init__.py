"""Model folders, verified, and their ONNX sessions. The score goes on to `sidecar.explanation`."""

from sidecar.scoring.model import (
    LoadedModel,
    card_of,
    load_model,
    load_models,
    open_folder,
    version_folder,
    versions,
    warm,
)

__all__ = [
    "LoadedModel",
    "card_of",
    "load_model",
    "load_models",
    "open_folder",
    "version_folder",
    "versions",
    "warm",
]
