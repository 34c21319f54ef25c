"""Load verified model folders.

A folder is `models/<name>/<version>/` with `manifest.toml` and the files it names by SHA-256. Bytes are verified,
then loaded as bytes: a path is never handed to the runtime, so external tensor files cannot be reached.
"""

import contextlib
import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from sidecar.errors import Misconfigured
from sidecar.manifest import Card, Manifest, ModelFolder, read_folder
from sidecar.manifest.card import FILE as CARD
from sidecar.manifest.card import parse_card
from sidecar.manifest.folder import MANIFEST
from sidecar.records import FeatureVector, Score
from sidecar.scoring.graph import LoadedGraph, open_graph


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A verified model, warm. `digest` is that of its manifest, which pins every file it uses."""

    manifest: Manifest
    digest: str
    reference: Mapping[str, Any]
    card: Card | None
    _graph: LoadedGraph

    @property
    def is_slow(self) -> bool:
        """Whether a score takes milliseconds, and should not keep other patients waiting."""
        return self._graph.prototypes is not None

    @property
    def as_trained(self) -> "LoadedModel":
        """The same without what a site has recalibrated: what says the trained model's own answers."""
        if not any(output.recalibration for output in self.manifest.outputs):
            return self
        outputs = tuple(o.model_copy(update={"recalibration": None}) for o in self.manifest.outputs)
        return replace(
            self,
            manifest=self.manifest.model_copy(update={"outputs": outputs}),
            _graph=replace(self._graph, recalibrations=()),
        )

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
            loaded[name] = load_model(named_folder(root, name, version))
        except Misconfigured as error:
            problems += error.problems
    if problems:
        raise Misconfigured(problems)
    return loaded


def open_folder(folder: Path) -> LoadedModel:
    """Verify and load a version's folder, or the newest version in a model's folder, `models/<name>`.

    Raises:
        Misconfigured: see `load_model`; or there is no version.
    """
    return load_model(version_folder(folder))


def declared(root: Path, names: Iterable[str]) -> list[Manifest]:
    """The manifests of every version of these models in `root` whose folder is in order. No graph is opened."""
    found = []
    for name in names:
        for folder in sorted((root / name).iterdir()) if (root / name).is_dir() else ():
            with contextlib.suppress(Misconfigured):
                found.append(read_folder(folder).manifest)
    return found


def version_folder(folder: Path) -> Path:
    """`folder`, or the newest version in it when it is a model's, `models/<name>`.

    Raises:
        Misconfigured: there is no version.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 -- resolve() would follow a link that the folder itself is
    return folder if (folder / MANIFEST).is_file() else named_folder(folder.parent, folder.name, None)


def named_folder(root: Path, name: str, version: str | None) -> Path:
    """The folder of a model's version (None = the newest) below `root`.

    Raises:
        Misconfigured: there is none of that name or version.
    """
    known = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; {root} holds: {', '.join(known) or 'no models'}"
        raise Misconfigured([f'unknown model "{name}"{hint}'])
    known_versions = versions(root / name)
    chosen = known_versions[-1:] if version is None else [p for p in known_versions if p.name == version]
    if not chosen:
        have = ", ".join(p.name for p in known_versions) or "none"
        raise Misconfigured([f'model "{name}" has no version {version or "at all"}; versions there: {have}'])
    return chosen[0]


def versions(folder: Path) -> list[Path]:
    """The folders of a model's versions, the newest last."""
    return sorted((p for p in folder.iterdir() if (p / MANIFEST).is_file()), key=_order)


def _order(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in folder.name.split("."))


def load_model(folder: Path) -> LoadedModel:
    """Verify and load one folder: from the bytes that were verified, and from nothing else.

    Raises:
        Misconfigured: something is in the folder that must not be, the manifest does not parse, a digest is wrong, or
            the graph does not fit the manifest.
    """
    return warm(read_folder(folder))


def warm(found: ModelFolder) -> LoadedModel:
    """The model of a folder that has been read and verified.

    Raises:
        Misconfigured: the graph holds what it must not or does not fit the manifest, or another file has a wrong form.
    """
    declared, path = found.manifest, found.path / MANIFEST
    reference: Mapping[str, Any] = {}
    if declared.reference is not None:
        reference = parse_reference(found.files[declared.reference], str(found.path / declared.reference))
    return LoadedModel(
        manifest=declared,
        digest=found.digest,
        reference=reference,
        card=card_of(found),
        _graph=open_graph(found.files[declared.graph.file], declared, path, _prototypes(found)),
    )


class _Prototypes(BaseModel):
    """Rows that stand for those a model was made with, in the order of `features`."""

    model_config = ConfigDict(extra="forbid")

    features: tuple[str, ...]
    rows: tuple[tuple[FiniteFloat, ...], ...] = Field(min_length=2, max_length=200)


def _prototypes(found: ModelFolder) -> tuple[tuple[float, ...], ...]:
    """What Shapley values compare with; nothing where the model is explained in another way.

    Raises:
        Misconfigured: the file is not in the folder, or not of this graph.
    """
    name = found.manifest.explanation.prototypes if found.manifest.explanation else None
    if name is None:
        return ()
    path, features = found.path / name, found.manifest.graph.features
    if name not in found.files:
        raise Misconfigured([f"{path}: explanation.prototypes names it, and it is not among the manifest's [files]"])
    try:
        said = _Prototypes.model_validate_json(found.files[name])
    except ValidationError as error:
        raise Misconfigured([f"{path}: {one['loc']}: {one['msg']}" for one in error.errors()[:5]]) from None
    if said.features != features or any(len(row) != len(features) for row in said.rows):
        raise Misconfigured([f"{path}: features and rows must be as graph.features are: {', '.join(features)}"])
    return said.rows


def card_of(found: ModelFolder) -> Card | None:
    """The model's card, if its folder has one.

    Raises:
        Misconfigured: it does not parse, or is another model's.
    """
    if CARD not in found.files:
        return None
    path, manifest = str(found.path / CARD), found.manifest
    card = parse_card(found.files[CARD].decode(), path)
    if (card.model, card.version) != (manifest.name, manifest.version):
        raise Misconfigured([f"{path}: is the card of {card.model} {card.version}"])
    return card


class _Bins(BaseModel):
    """How one input is distributed: a count for each bin between ascending edges, and for missing."""

    model_config = ConfigDict(extra="forbid")

    edges: list[FiniteFloat]
    counts: list[Annotated[int, Field(ge=0)]]

    @model_validator(mode="after")
    def _fit(self) -> "_Bins":
        if len(self.counts) != len(self.edges) + 2:
            raise ValueError("give a count for each bin and one for missing: two more than edges")
        if sorted(set(self.edges)) != self.edges:
            raise ValueError("edges must ascend")
        return self


class _Reference(BaseModel):
    """`reference.json`: what drift is measured against."""

    model_config = ConfigDict(extra="forbid")

    source: str
    features: dict[str, _Bins]


def parse_reference(content: bytes, source: str) -> Mapping[str, Any]:
    """A reference distribution.

    Raises:
        Misconfigured: it is none.
    """
    try:
        return _Reference.model_validate_json(content).model_dump()
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise Misconfigured([f"{source}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found]) from None
