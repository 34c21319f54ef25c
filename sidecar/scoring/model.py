"""Verify and load model folders.

A folder is `models/<name>/<version>/` with `manifest.toml` and the files it names by SHA-256. Bytes are verified,
then loaded as bytes: a path is never handed to the runtime, so external tensor files cannot be reached.
"""

import contextlib
import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from sidecar import manifest as manifests
from sidecar.errors import Misconfigured
from sidecar.manifest import Manifest
from sidecar.records import FeatureVector, Score
from sidecar.scoring.graph import LoadedGraph, open_graph

MAX_MODEL_BYTES = 200 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A verified model, warm. `digest` is that of its manifest, which pins every file it uses."""

    manifest: Manifest
    digest: str
    reference: Mapping[str, Any]
    _graph: LoadedGraph

    def score(self, vector: FeatureVector) -> Score:
        """Run the graph on one patient. NaN in, NaN out: what is missing is never scored as normal.

        Raises:
            ValueError: a probability outside [0, 1], from a graph that says logits.
        """
        return self._graph.score([f.value for f in vector.features])


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


def declared(root: Path, names: Iterable[str]) -> list[Manifest]:
    """The manifests of every version of these models in `root` that can be read. Nothing else of them is looked at."""
    found = []
    for name in names:
        for folder in sorted((root / name).iterdir()) if (root / name).is_dir() else ():
            with contextlib.suppress(Misconfigured):
                found.append(manifests.load(folder / "manifest.toml"))
    return found


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
    return LoadedModel(
        manifest=declared,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        reference=reference,
        _graph=open_graph(graph, declared, path),
    )


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
