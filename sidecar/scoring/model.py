"""Load a model folder and run its graph.

A folder is `models/<name>/<version>/` with `manifest.toml` and the files it names by SHA-256. Bytes are verified,
then loaded as bytes: a path is never handed to the runtime, so external tensor files cannot be reached.
"""

import difflib
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from sidecar import manifest as manifests
from sidecar.errors import Misconfigured
from sidecar.manifest import Manifest
from sidecar.records import FeatureVector, Score

MAX_MODEL_BYTES = 200 * 1024 * 1024
_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A verified model, warm. `digest` is that of its manifest, which pins every file it uses."""

    manifest: Manifest
    digest: str
    reference: Mapping[str, Any]
    _session: Any
    _dtype: Any = np.float32

    def score(self, vector: FeatureVector) -> Score:
        """Run the graph on one patient. NaN in, NaN out: what is missing is never scored as normal.

        Shapes: features [1, F], in the type the graph declares; total [1, 1]; points [1, P]; probabilities [1, K].

        Raises:
            ValueError: a probability outside [0, 1], from a graph that says logits.
        """
        graph = self.manifest.graph
        row = np.array([[f.value for f in vector.features]], dtype=self._dtype)
        total, points, *more = self._session.run(_tensors(self.manifest), {graph.input: row})
        values = dict(zip(graph.point_names, (float(p) for p in points[0]), strict=True))
        names = (o.name for o in self.manifest.outputs)
        probabilities = dict(zip(names, (float(p) for p in more[0][0]), strict=True)) if more else {}
        if any(not 0 <= p <= 1 for p in probabilities.values() if not math.isnan(p)):
            raise ValueError("the graph gives a probability outside [0, 1]")
        return Score(total=float(total.reshape(-1)[0]), points=values, probabilities=probabilities)


def _tensors(manifest: Manifest) -> list[str]:
    graph = manifest.graph
    return [graph.total, graph.points, *([graph.probabilities] if graph.probabilities else [])]


def load_models(root: Path, names: Mapping[str, str | None]) -> dict[str, LoadedModel]:
    """Load each wanted model (name to version, None = the newest) from `root`.

    Raises:
        Misconfigured: listing everything wrong with every one of them.
    """
    loaded: dict[str, LoadedModel] = {}
    problems: list[str] = []
    for name, version in names.items():
        try:
            loaded[name] = load_model(_folder(root, name, version))
        except Misconfigured as error:
            problems += error.problems
    if problems:
        raise Misconfigured(problems)
    return loaded


def load_newest(folder: Path) -> LoadedModel:
    """Verify and load the newest version in a model's folder, `models/<name>`.

    Raises:
        Misconfigured: see `load_model`; or there is no version.
    """
    folder = folder.resolve()
    return load_model(_folder(folder.parent, folder.name, None))


def _folder(root: Path, name: str, version: str | None) -> Path:
    known = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; {root} holds: {', '.join(known) or 'no models'}"
        raise Misconfigured([f'unknown model "{name}"{hint}'])
    versions = sorted((p for p in (root / name).iterdir() if (p / "manifest.toml").is_file()), key=_order)
    chosen = versions[-1:] if version is None else [p for p in versions if p.name == version]
    if not chosen:
        have = ", ".join(p.name for p in versions) or "none"
        raise Misconfigured([f'model "{name}" has no version {version or "at all"}; versions there: {have}'])
    return chosen[0]


def _order(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in folder.name.split("."))


def load_model(folder: Path) -> LoadedModel:
    """Verify and load one folder.

    Raises:
        Misconfigured: the manifest does not parse, a digest is wrong, or the graph does not fit the manifest.
    """
    folder = folder.resolve()
    path = folder / "manifest.toml"
    declared = manifests.load(path)
    if (folder.parent.name, folder.name) != (declared.name, declared.version):
        raise Misconfigured([f"{path}: says {declared.name} {declared.version}, the folder says otherwise"])
    graph = _verified(folder / declared.graph.file, declared.graph.sha256)
    reference: Mapping[str, Any] = {}
    if declared.reference is not None:
        if declared.reference_sha256 is None:
            raise Misconfigured([f"{path}: reference needs reference_sha256"])
        reference = orjson.loads(_verified(folder / declared.reference, declared.reference_sha256))
    session = _session(graph, declared, path)
    model = LoadedModel(
        manifest=declared,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        reference=reference,
        _session=session,
        _dtype=_dtype(session, declared, path),
    )
    _check_shapes(model, path)
    return model


def _verified(path: Path, sha256: str) -> bytes:
    try:
        if path.stat().st_size > MAX_MODEL_BYTES:
            raise Misconfigured([f"{path}: larger than {MAX_MODEL_BYTES} bytes"])
        content = path.read_bytes()
    except OSError as error:
        raise Misconfigured([f"{path}: cannot be read ({type(error).__name__})"]) from None
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise Misconfigured([f"{path}: SHA-256 is {actual}, its manifest says {sha256}: not the reviewed file"])
    return content


def _session(graph: bytes, declared: Manifest, path: Path) -> Any:
    import onnxruntime as ort  # noqa: PLC0415 -- 0.3 s that --help and status must not pay

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 -- the runtime raises a family of its own for a bad graph
        raise Misconfigured([f"{path}: the runtime refuses the graph ({type(error).__name__})"]) from None
    have = {o.name for o in session.get_outputs()} | {i.name for i in session.get_inputs()}
    wanted = {declared.graph.input, *_tensors(declared)}
    if lost := wanted - have:
        raise Misconfigured([f"{path}: the graph has no tensor named {', '.join(sorted(lost))}"])
    return session


def _dtype(session: Any, declared: Manifest, path: Path) -> Any:
    """The type of the input: float64 where single precision would move a result, else float32."""
    kind = next(i.type for i in session.get_inputs() if i.name == declared.graph.input)
    if kind not in _DTYPES:
        raise Misconfigured([f"{path}: the input {declared.graph.input} is {kind}; make it float or double"])
    return _DTYPES[kind]


def _check_shapes(model: LoadedModel, path: Path) -> None:
    """Run once on nothing but NaN: shapes must fit, and the total must not be a number."""
    names = model.manifest.graph.features
    from sidecar.records import Feature  # noqa: PLC0415

    empty = FeatureVector(tuple(Feature(n, math.nan, "1") for n in names))
    try:
        score = model.score(empty)
    except Exception as error:  # noqa: BLE001 -- as above
        raise Misconfigured(
            [f"{path}: the graph does not take {len(names)} features ({type(error).__name__})"]
        ) from None
    if not all(map(math.isnan, (score.total, *score.probabilities.values()))):
        raise Misconfigured([f"{path}: the graph scores a patient of whom nothing is known"])
