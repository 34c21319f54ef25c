"""`sidecar models check --vectors`: does a model folder agree with test vectors made by somebody else?

The values of a vector take the place of what extraction reads: from there on it is the path that serves, with the same
equations and the same verified graph, without what a site has recalibrated: vectors hold the answers of the model as
it was made. A vector that expects a number tests the equation, also for patients whom the path would refuse, which is
counted and said; one that expects null is of a patient who must get no result.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from sidecar.commands.models_values import UnusableVector, no_result, number, plain, values_of
from sidecar.errors import Misconfigured
from sidecar.explanation import conclude
from sidecar.manifest import Agreement, Manifest, Output, Vectors
from sidecar.records import Feature, FeatureVector, Outcome
from sidecar.scoring import LoadedModel

MAX_FILE_BYTES = 64 * 1024 * 1024
_OF_A_FILE = {"model", "notes", "vectors"}
_OF_A_VECTOR = {"inputs", "expected", "source"}


@dataclass(slots=True)
class Tally:
    """What a file of vectors came to.

    `worst` is the largest difference seen, `refused` how many vectors the path would not score.
    """

    agree: int = 0
    total: int = 0
    worst: float | None = None
    refused: int = 0
    ignored: set[str] = field(default_factory=set)
    disagree: list[str] = field(default_factory=list)


def check_vectors(model: LoadedModel, file: Path, *, as_json: bool) -> int:
    """Run the vectors of `file` and print how many agree; 0 only if all of at least one do, else 1.

    Raises:
        Misconfigured: the model maps no vectors, or the file is none of vectors.
    """
    tally = tally_of(model, file)
    _print(model.manifest, tally, as_json=as_json)
    return 0 if tally.agree == tally.total > 0 else 1


def tally_of(model: LoadedModel, file: Path) -> Tally:
    """How the vectors of `file` agree with the model as it was made.

    Raises:
        Misconfigured: see `check_vectors`.
    """
    mapping = model.manifest.vectors
    if mapping is None:
        raise Misconfigured(
            [f"{model.manifest.name}: the manifest has no [vectors] table, so the names in {file} mean nothing"]
        )
    model, content = model.as_trained, _read(file)
    mapping = mapping.of_file(content.get("model"))
    tally = Tally(total=len(content["vectors"]))
    tally.ignored |= set(content) - _OF_A_FILE
    for position, vector in enumerate(content["vectors"], 1):
        try:
            _run(model, mapping, vector, tally)
        except UnusableVector as why:
            tally.disagree.append(f"vector {position}: {why}")
    return tally


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise Misconfigured([f"{file}: larger than {MAX_FILE_BYTES} bytes; split it into several"])
        content = orjson.loads(raw)
    except (OSError, orjson.JSONDecodeError) as error:
        raise Misconfigured([f"{file}: cannot be read as JSON ({type(error).__name__})"]) from None
    if not isinstance(content, dict) or not isinstance(content.get("vectors"), list):
        raise Misconfigured([f'{file}: not a file of vectors: {{"model": ..., "vectors": [...]}}'])
    return content


def _run(model: LoadedModel, mapping: Vectors, vector: object, tally: Tally) -> None:
    """Compare one vector; it counts as agreeing when every value that is known is within its tolerance.

    Raises:
        UnusableVector: not within it, or it cannot be run.
    """
    if not isinstance(vector, dict):
        raise UnusableVector("not an object")
    inputs, expected = vector.get("inputs"), vector.get("expected")
    if not isinstance(inputs, dict) or not isinstance(expected, dict):
        raise UnusableVector("inputs and expected must be objects")
    tally.ignored |= set(vector) - _OF_A_VECTOR
    tally.ignored |= {f"expected.{n}" for n in set(expected) - set(mapping.expected) - {"atol"}}
    wanted = {n: agreement for n, agreement in mapping.expected.items() if n in expected}
    if not wanted:
        raise UnusableVector("nothing expected that [vectors] names")
    values = values_of(model.manifest, mapping, inputs)
    given = {mapping.inputs.get(name) for name in inputs}
    if same := sorted(n for n, agreement in wanted.items() if agreement.of in given):
        raise UnusableVector(f"given and expected, which tests nothing: {', '.join(same)}")
    found = _Found(model, values, inputs.get(mapping.horizon or ""))
    tally.refused += found.refused is not None
    far = []
    for name, agreement in wanted.items():
        atol = number("atol", expected["atol"]) if "atol" in expected else found.tolerance(agreement, expected[name])
        off = found.apart(name, agreement, expected[name])
        tally.worst = off if tally.worst is None or not off <= tally.worst else tally.worst
        if not off <= atol:
            far.append(f"{plain(name)} is {found.said(agreement)}, expected {plain(expected[name])}")
    if far:
        raise UnusableVector("; ".join(far))
    tally.agree += 1


class _Found:
    """What the model says of one vector's values. `refused` is why the path would give no result, if it would."""

    def __init__(self, model: LoadedModel, values: Mapping[str, float], horizon: object) -> None:
        manifest = model.manifest
        self._manifest, self._values, self._horizon = manifest, values, horizon
        self.refused = no_result(manifest, values)
        row = FeatureVector(tuple(Feature(n, values.get(n, math.nan), "1") for n in manifest.graph.features))
        try:
            self._score = model.score(row)
        except ValueError as error:
            raise UnusableVector(str(error)) from None
        self._concluded = conclude(manifest, row, self._score)

    def apart(self, name: str, agreement: Agreement, expected: object) -> float:
        """How far apart `expected` and what is found are; 0 or infinitely for words, and for a result that must not be.

        Raises:
            UnusableVector: `expected` is not of the kind that `agreement` compares.
        """
        if agreement.of == "risk":
            return 0.0 if self._agrees_in_words(name, agreement, expected) else math.inf
        found = self._number(agreement)
        if expected is None:
            return 0.0 if self.refused is not None or math.isnan(found) else math.inf
        return abs(found - number(name, expected))

    @staticmethod
    def tolerance(agreement: Agreement, expected: object) -> float:
        """How far apart they may be; words, and a result that must not be, not at all."""
        return agreement.tolerance(float(expected)) if isinstance(expected, int | float) else agreement.atol

    def said(self, agreement: Agreement) -> str:
        """What is found, for the sentence about a difference."""
        if agreement.of == "risk":
            return self._risk(agreement) or "none"
        return f"{self._number(agreement):.10g}"

    def _agrees_in_words(self, name: str, agreement: Agreement, expected: object) -> bool:
        found = self._risk(agreement)
        if expected is None:
            return self.refused is not None or found is None
        if not isinstance(expected, str):
            raise UnusableVector(f"{plain(name)}: not a word, and it is compared with a band")
        words = {word.casefold(): risk for word, risk in agreement.words.items()}
        return found is not None and found.casefold() == words.get(expected.casefold(), expected).casefold()

    def _number(self, agreement: Agreement) -> float:
        if agreement.of == "total":
            return self._score.total
        if agreement.of == "observed":
            risk = self._concluded.risk
            return next(
                (b.observed for b in self._manifest.bands if b.risk == risk and b.observed is not None), math.nan
            )
        if agreement.of in self._score.further:
            return self._score.further[agreement.of]
        if agreement.of in self._manifest.features:
            return self._values.get(agreement.of, math.nan)
        return self._score.probabilities[self._output(agreement).name]

    def _risk(self, agreement: Agreement) -> str | None:
        """The band's code; "" where there is a result and no band holds, None where there is no result."""
        if not self._manifest.outputs:
            return (self._concluded.risk or "") if self._concluded.outcome is Outcome.SCORED else None
        output = self._output(agreement)
        probability = self._score.probabilities[output.name]
        band = output.band(probability)
        return None if math.isnan(probability) else (band.risk if band else "")

    def _output(self, agreement: Agreement) -> Output:
        """The output of that name; else the one with the vector's horizon, or the only one."""
        outputs = self._manifest.outputs
        if named := [o for o in outputs if o.name == agreement.of]:
            return named[0]
        if len(outputs) > 1 or self._horizon is not None:
            outputs = tuple(o for o in outputs if o.horizon.value == self._horizon)
        if len(outputs) != 1:
            raise UnusableVector(f"no output with the horizon {plain(self._horizon)}")
        return outputs[0]


def _print(manifest: Manifest, tally: Tally, *, as_json: bool) -> None:
    for line in tally.disagree:
        sys.stderr.write(f"{line}\n")
    if tally.ignored:
        ignored = ", ".join(map(plain, sorted(tally.ignored)))
        sys.stderr.write(f"not compared, because [vectors] does not name it: {ignored}\n")
    if tally.refused:
        sys.stderr.write(f"{tally.refused} of {tally.total} are of patients whom the model is not for: no result\n")
    worst = tally.worst if tally.worst is not None and math.isfinite(tally.worst) else None
    if as_json:
        said = {"model": manifest.name, "agree": tally.agree, "total": tally.total, "worst": worst}
        sys.stdout.write(orjson.dumps({**said, "ignored": sorted(tally.ignored)}).decode() + "\n")
        return
    largest = "" if worst is None else f", largest difference {worst:.3g}"
    sys.stdout.write(f"{manifest.name} {manifest.version}: {tally.agree} of {tally.total} agree{largest}\n")
