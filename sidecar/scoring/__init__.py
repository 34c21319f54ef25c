"""Model folders, verified, and their ONNX sessions. The score goes on to `sidecar.explanation`."""

from sidecar.scoring.graph import Tensor, signature
from sidecar.scoring.model import (
    LoadedModel,
    card_of,
    declared,
    load_model,
    load_models,
    named_folder,
    open_folder,
    parse_reference,
    version_folder,
    versions,
    warm,
)

__all__ = [
    "LoadedModel",
    "Tensor",
    "card_of",
    "declared",
    "load_model",
    "load_models",
    "named_folder",
    "open_folder",
    "parse_reference",
    "signature",
    "version_folder",
    "versions",
    "warm",
]
