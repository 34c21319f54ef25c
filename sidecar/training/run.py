"""The command line of a training script: `train` makes the model's files, `evaluate` holds a file against the shipped.

`evaluate` writes JSON alone to standard output. What is wrong is one sentence on standard error, and the exit code 2.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from sidecar.errors import Misconfigured
from sidecar.training.cases import Recipe
from sidecar.training.files import reference_of, vectors_of
from sidecar.training.report import figures_of, subgroups_of
from sidecar.training.shipped import Shipped
from sidecar.training.table import BadData

DRAWS = 1000
_INDENTED = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY


def run(recipe: Recipe, folder: Path, arguments: Sequence[str] | None = None) -> int:
    """Obey the command line for the model in `folder`; the exit code."""
    asked = _parser(recipe).parse_args(arguments)
    try:
        return (
            train(recipe, folder, asked) if asked.command == "train" else evaluate(recipe, asked.model or folder, asked)
        )
    except BadData as problem:
        sys.stderr.write(f"{problem}\n")
    except Misconfigured as error:
        sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
    return 2


def _parser(recipe: Recipe) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"{recipe.name} {recipe.version}: {recipe.whose}")
    commands = parser.add_subparsers(dest="command", required=True)
    train_it = commands.add_parser("train", help="make model.onnx, vectors.json, reference.json and report.json")
    train_it.add_argument("--data", type=Path, required=True, help="the file of training data, plain or .gz")
    train_it.add_argument("--out", type=Path, required=True, help="the folder to write to; made where there is none")
    evaluate_it = commands.add_parser("evaluate", help="print figures of the shipped model on a file, as JSON")
    evaluate_it.add_argument("--data", type=Path, required=True, help="a file of the same format, plain or .gz")
    evaluate_it.add_argument("--model", type=Path, help="the folder of another model made by this script")
    evaluate_it.add_argument("--draws", type=int, default=DRAWS, help="bootstrap samples of patients (%(default)s)")
    evaluate_it.add_argument("--json", action="store_true", help="JSON, which is the only format there is")
    return parser


def train(recipe: Recipe, folder: Path, asked: argparse.Namespace) -> int:
    """Fit the recipe to a file and write the model's files.

    Raises:
        BadData: the file is not as it should be.
    """
    from sidecar.training.graph import onnx_bytes  # noqa: PLC0415 -- building needs onnx, evaluating does not
    from sidecar.training.procedure import assess  # noqa: PLC0415 -- the same

    began, data, out = time.monotonic(), asked.data, asked.out

    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.1f} s  {text}\n")

    say(f"reading {data}")
    cases = recipe.read(data)
    usable = cases.only(_complete(recipe, cases.inputs)).with_both_outcomes(data)
    say(f"{len(cases.outcome)} rows of the cohort, {len(usable.outcome)} with what the model needs")
    model, report = assess(recipe, usable, say, DRAWS // 2)
    files = {
        "model.onnx": onnx_bytes(model, recipe.name),
        "vectors.json": vectors_of(recipe, model, usable.inputs),
        "reference.json": reference_of(recipe, usable.inputs),
        "report.json": orjson.dumps({"data": recipe.whose, **report}, option=_INDENTED) + b"\n",
    }
    if recipe.manifest is not None:
        files["manifest.toml"] = (folder / recipe.manifest).read_bytes()
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_bytes(content)
        say(f"{name} {len(content)} bytes sha256 {hashlib.sha256(content).hexdigest()}")
    return 0


def _complete(recipe: Recipe, inputs: Any) -> Any:
    """Which rows have every input that has no value for its absence."""
    needed = [place for place, shape in enumerate(recipe.shapes(inputs)) if not shape.missing]
    return ~np.isnan(inputs[:, needed]).any(axis=1)


def evaluate(recipe: Recipe, folder: Path, asked: argparse.Namespace) -> int:
    """Print how the shipped model in `folder` does on a file of the training format.

    Raises:
        BadData: the file is not as it should be.
        Misconfigured: the folder is not the reviewed one.
    """
    shipped = Shipped(folder)
    cases = recipe.read(asked.data)
    probability = shipped.probability(cases.inputs)
    known = ~np.isnan(probability)
    scored, said = cases.only(known).with_both_outcomes(asked.data), probability[known]
    found = {
        "model": {"name": recipe.name, "version": recipe.version, "sha256": shipped.sha256},
        "rows": len(cases.outcome) + cases.excluded,
        "not_of_the_cohort": cases.excluded,
        "not_scored": int((~known).sum()),
        **figures_of(scored, said, draws=asked.draws, seed=recipe.seed),
        **recipe.figures(scored, said),
        "subgroups": subgroups_of(scored, said, draws=asked.draws // 4, seed=recipe.seed),
    }
    sys.stdout.buffer.write(orjson.dumps(found, option=_INDENTED) + b"\n")
    return 0
