"""`sidecar models new`: a model's folder from its graph, with every place that its author must fill in marked.

What the graph says of itself (names, types, sizes) is written; what it cannot say (what an input is, in which unit, for
whom, what follows from the answer) says FILL IN, and a folder that still does is refused by name and line.
"""

import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sidecar.commands.models_seal import seal
from sidecar.commands.templating import filled
from sidecar.errors import Misconfigured
from sidecar.manifest.attributes import GROUPS
from sidecar.manifest.card import UNFILLED
from sidecar.scoring import Tensor, signature

VERSION = "0.1.0"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_MAX_BYTES = 200 * 1024 * 1024
_FILES = ("manifest.toml", "card.toml")
_NONE: dict[str, object] = {"total": None, "points": None, "point_names": [], "probabilities": None, "column": 0}


def new(name: str, graph: Path, *, features: str | None, models_dir: Path) -> int:
    """Make `models_dir/name/0.1.0`; never writes into a folder that is there.

    Raises:
        Misconfigured: the name or the graph cannot be used, or the folder exists.
    """
    if _NAME.fullmatch(name) is None:
        raise Misconfigured([f'"{name}" cannot be a name: lower case letters, digits and _, a letter first'])
    content = _read(graph)
    inputs, outputs = signature(content, str(graph))
    taken, width = _input(inputs, graph)
    names = _features(features, width, graph)
    given = _outputs(outputs, names, graph)
    folder = models_dir / name / VERSION
    said = {"name": name, "version": VERSION, "mark": UNFILLED, "code": name.replace("_", "-"), "groups": GROUPS}
    said |= {"sha256": hashlib.sha256(content).hexdigest(), "input": taken, "features": names}
    files = {file: filled(f"{file}.j2", {**_NONE, **given, **said}) for file in _FILES}
    try:
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(content)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Misconfigured([f"{folder}: cannot be made ({type(error).__name__})"]) from None
    seal(folder)
    sys.stdout.write(_next(folder, sum(text.count(UNFILLED) for text in files.values())))
    return 0


def _read(graph: Path) -> bytes:
    try:
        with graph.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise Misconfigured([f"{graph}: cannot be read ({type(error).__name__})"]) from None
    if len(content) > _MAX_BYTES:
        raise Misconfigured([f"{graph}: larger than {_MAX_BYTES} bytes"])
    return content


def _input(inputs: Sequence[Tensor], graph: Path) -> tuple[str, int | None]:
    """The name of the one input, and how many features it takes."""
    if len(inputs) != 1 or len(inputs[0].shape) != 2 or not inputs[0].is_float:
        found = ", ".join(f"{t.name} {t.type} {list(t.shape)}" for t in inputs)
        raise Misconfigured([f"{graph}: needs one input of float or double, [N, F], a row a patient; it has: {found}"])
    return inputs[0].name, inputs[0].shape[1]


def _features(given: str | None, width: int | None, graph: Path) -> list[str]:
    if given is None and width is None:
        raise Misconfigured([f"{graph}: does not say how many inputs it takes; name them: --features age,sex,egfr"])
    names = [f"feature_{n}" for n in range(1, (width or 0) + 1)] if given is None else given.split(",")
    if bad := [n for n in names if _NAME.fullmatch(n) is None]:
        raise Misconfigured([f"--features: no names: {', '.join(bad)}; lower case letters, digits and _"])
    if len(set(names)) < len(names) or (width is not None and len(names) != width):
        raise Misconfigured([f"--features: give {width} different names, in the graph's order; there are {len(names)}"])
    return names


def _outputs(outputs: Sequence[Tensor], features: Sequence[str], graph: Path) -> dict[str, object]:
    """Which tensor is which: probabilities of a classifier; or a total with the points that sum to it, and more."""
    if any(t.type.startswith("seq(") for t in outputs):
        raise Misconfigured([f"{graph}: gives its probabilities as a list of tables; export it with zipmap=False"])
    tables = {t.name: t for t in outputs if t.is_float and len(t.shape) == 2}
    if len(tables) == 1:
        (only,) = tables.values()
        return {"probabilities": only.name, "column": 1 if only.shape[1] == 2 else 0}
    totals = [t for t in tables.values() if t.shape[1] == 1 and t.name != "probabilities"]
    wide = [t for t in tables.values() if t.shape[1] not in {None, 1} and t.name != "probabilities"]
    if len(totals) != 1 or len(wide) != 1 or len(tables) > 3:
        said = ", ".join(f"{t.name} {t.type} {list(t.shape)}" for t in outputs) or "none"
        wanted = "one table of probabilities [N, C]; or total [N, 1] and points [N, P], which sum to it"
        more = "and for a probability a table named probabilities as well"
        raise Misconfigured([f"{graph}: cannot tell what it gives ({said}). It should give {wanted}, {more}"])
    count = wide[0].shape[1] or 1
    names = list(features) if len(features) == count else [f"{UNFILLED}: the input of this point"] * count
    more_said: dict[str, object] = {"probabilities": "probabilities"} if len(tables) == 3 else {}
    return {"total": totals[0].name, "points": wide[0].name, "point_names": names, **more_said}


def _next(folder: Path, places: int) -> str:
    return f"""made {folder}: model.onnx, manifest.toml and card.toml, with {places} places to fill in

1. Fill in manifest.toml: for each input its code, unit, range and age; what the result means.
2. Fill in card.toml.
3. Put rows with what the trained model said into vectors.json, and a Bundle with what you expect into golden/.
4. sidecar models seal {folder}
5. sidecar models check {folder}
6. sidecar score bundle.json --model {folder.parent.name} --models-dir {folder.parents[1]}
"""
