"""`sidecar models check`: does a model folder agree with test vectors made by somebody else?

The values of a vector take the place of what extraction reads: from there on it is the path that serves, with the same
equations and the same verified graph.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from sidecar.errors import Misconfigured
from sidecar.features import OF_VALUE
from sidecar.manifest import Agreement, Manifest, Vectors
from sidecar.records import Feature, FeatureVector
from sidecar.scoring import LoadedModel, load_model, load_newest

_OF_A_FILE = {"model", "notes", "vectors"}
_OF_A_VECTOR = {"inputs", "expected", "source"}


@dataclass(slots=True)
class _Tally:
    """What a file of vectors came to. `worst` is the largest difference seen."""

    agree: int = 0
    total: int = 0
    worst: float | None = None
    ignored: set[str] = field(default_factory=set)
    disagree: list[str] = field(default_factory=list)


class _Unusable(Exception):
    """A vector that cannot be run as it is; the message says why."""


def check(folder: Path, file: Path, *, as_json: bool) -> int:
    """Run the vectors of `file` and print how many agree; 0 only if all of at least one do, else 1.

    Raises:
        Misconfigured: the folder is not a verified model, it maps no vectors, or the file is none of vectors.
    """
    model = load_model(folder) if (folder / "manifest.toml").is_file() else load_newest(folder)
    mapping = model.manifest.vectors
    if mapping is None:
        raise Misconfigured([f"{folder}: the manifest has no [vectors] table, so the names in {file} mean nothing"])
    content = _read(file)
    tally = _Tally(total=len(content["vectors"]))
    tally.ignored |= set(content) - _OF_A_FILE
    for number, vector in enumerate(content["vectors"], 1):
        try:
            _run(model, mapping, vector, tally)
        except _Unusable as why:
            tally.disagree.append(f"vector {number}: {why}")
    _print(model.manifest, tally, as_json=as_json)
    return 0 if tally.agree == tally.total > 0 else 1


def _read(file: Path) -> dict[str, Any]:
    try:
        content = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise Misconfigured([f"{file}: cannot be read as JSON ({type(error).__name__})"]) from None
    if not isinstance(content, dict) or not isinstance(content.get("vectors"), list):
        raise Misconfigured([f'{file}: not a file of vectors: {{"model": ..., "vectors": [...]}}'])
    return content


def _run(model: LoadedModel, mapping: Vectors, vector: object, tally: _Tally) -> None:
    """Compare one vector; it counts as agreeing when every value that is known is within its tolerance.

    Raises:
        _Unusable: not within it, or it cannot be run.
    """
    if not isinstance(vector, dict):
        raise _Unusable("not an object")
    inputs, expected = vector.get("inputs"), vector.get("expected")
    if not isinstance(inputs, dict) or not isinstance(expected, dict):
        raise _Unusable("inputs and expected must be objects")
    tally.ignored |= set(vector) - _OF_A_VECTOR
    tally.ignored |= {f"expected.{n}" for n in set(expected) - set(mapping.expected) - {"atol"}}
    if stray := set(inputs) - set(mapping.inputs) - {mapping.horizon}:
        raise _Unusable(f"inputs that [vectors] does not name: {', '.join(sorted(stray))}")
    wanted = {n: agreement for n, agreement in mapping.expected.items() if n in expected}
    if not wanted:
        raise _Unusable("nothing expected that [vectors] names")
    given = {mapping.inputs.get(name) for name in inputs}
    if same := sorted(n for n, agreement in wanted.items() if agreement.of in given):
        raise _Unusable(f"given and expected, which tests nothing: {', '.join(same)}")
    values = _values(model.manifest, mapping, inputs)
    far = []
    for name, agreement in wanted.items():
        found = _found(model, agreement, values, inputs.get(mapping.horizon or ""))
        off = abs(found - _number(name, expected[name]))
        tally.worst = off if tally.worst is None or not off <= tally.worst else tally.worst
        if not off <= _number("atol", expected.get("atol", agreement.atol)):
            far.append(f"{name} is {found:.10g}, expected {expected[name]}")
    if far:
        raise _Unusable("; ".join(far))
    tally.agree += 1


def _values(manifest: Manifest, mapping: Vectors, inputs: Mapping[str, Any]) -> dict[str, float]:
    """The graph's inputs, and what a feature is derived from, by the manifest's names."""
    values = {}
    for name, given in inputs.items():
        if name not in mapping.inputs:
            continue
        target = mapping.inputs[name]
        words = mapping.values.get(name, {})
        if target in manifest.choices:
            words = {**manifest.choices[target].values, **words}
        values[target] = words[given] if isinstance(given, str) and given in words else _number(name, given)
    return {**_derived(manifest, values), **values}


def _derived(manifest: Manifest, values: Mapping[str, float]) -> dict[str, float]:
    """What equations make of the values, for features that are not given."""
    about: dict[str, float] = {
        spec.derive: values.get(name, math.nan) for name, spec in manifest.features.items() if spec.derive
    }
    found = {}
    for name in manifest.graph.features:
        for source in manifest.features[name].sources if name in manifest.features else ():
            # `factor` 1 is the equation's own unit, which is the one a vector names.
            if source.derive and source.name and source.factor == 1 and source.name in values:
                years, male = about.get("age", math.nan), about.get("sex", math.nan)
                found[name] = OF_VALUE[source.derive](values[source.name], years, male)
    return found


def _found(model: LoadedModel, agreement: Agreement, values: Mapping[str, float], horizon: object) -> float:
    """What the model says in place of an expected value."""
    manifest = model.manifest
    if agreement.of in manifest.features:
        return values.get(agreement.of, math.nan)
    row = FeatureVector(tuple(Feature(n, values.get(n, math.nan), "1") for n in manifest.graph.features))
    score = model.score(row)
    if agreement.of == "total":
        return score.total
    output = next((o for o in manifest.outputs if o.horizon.value == horizon), None)
    if output is None:
        raise _Unusable(f"no output with the horizon {horizon}")
    return score.probabilities[output.name]


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float):  # a JSON true is 1, as models have it
        raise _Unusable(f"{name}: not a number, and [vectors.values] does not say what it means")
    return float(value)


def _print(manifest: Manifest, tally: _Tally, *, as_json: bool) -> None:
    for line in tally.disagree:
        sys.stderr.write(f"{line}\n")
    if tally.ignored:
        sys.stderr.write(f"not compared, because [vectors] does not name it: {', '.join(sorted(tally.ignored))}\n")
    worst = tally.worst if tally.worst is not None and math.isfinite(tally.worst) else None
    if as_json:
        said = {"model": manifest.name, "agree": tally.agree, "total": tally.total, "worst": worst}
        sys.stdout.write(orjson.dumps({**said, "ignored": sorted(tally.ignored)}).decode() + "\n")
        return
    largest = "" if worst is None else f", largest difference {worst:.3g}"
    sys.stdout.write(f"{manifest.name} {manifest.version}: {tally.agree} of {tally.total} agree{largest}\n")
