"""Model folders, verified, and their ONNX sessions. The score goes on to `sidecar.explanation`."""

from sidecar.scoring.model import LoadedModel, declared, load_model, load_models, load_newest

__all__ = ["LoadedModel", "declared", "load_model", "load_models", "load_newest"]
