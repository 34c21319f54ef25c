"""Model folders, verified, and their ONNX sessions. The score goes on to `sidecar.explanation`."""

from sidecar.scoring.model import LoadedModel, load_model, load_models, open_folder

__all__ = ["LoadedModel", "load_model", "load_models", "open_folder"]
