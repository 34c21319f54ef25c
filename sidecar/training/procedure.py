"""Fit a recipe to cases and find out how good it is: by patients it has not seen, and by later ones.

The penalty and the calibration are chosen inside the rows a model may see; the patients held out are looked at once.
The model that ships is fitted to all patients, by the same steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.monitoring.performance import Floats, Predictions
from sidecar.training.additive import Additive, Shape, fit, patient_folds
from sidecar.training.cases import Cases, Recipe
from sidecar.training.report import figures_of, subgroups_of

FOLDS = 5
LATER = 0.75
"""Where the data have time: the share of rows, in its order, that the check by time is fitted to."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model, the penalty that was chosen for it, and its probabilities out of fold before calibration."""

    model: Additive
    penalty: float
    out_of_fold: Floats


def develop(recipe: Recipe, cases: Cases, penalties: tuple[float, ...], say: Say) -> Fitted:
    """Choose the penalty, fit, and calibrate on probabilities out of fold, all by the patients of `cases`."""
    shapes = recipe.shapes(cases.inputs)
    folds = patient_folds(cases.patients, FOLDS, recipe.seed)
    tried: dict[float, Floats] = {}
    for penalty in penalties:
        tried[penalty] = _out_of_fold(shapes, cases, folds, penalty)
        say(f"penalty {penalty:g}: log loss out of fold {_log_loss(cases.outcome, tried[penalty]):.6f}")
    best = min(tried, key=lambda p: _log_loss(cases.outcome, tried[p]))
    found = Predictions(cases.outcome, tried[best]).figures()
    say(f"calibration out of fold: slope {found['calibration_slope']:.4f}")
    model = _fit(shapes, cases, best).recalibrated(found["calibration_intercept"], found["calibration_slope"])
    return Fitted(model.rounded(), best, tried[best])


def assess(recipe: Recipe, cases: Cases, say: Say, draws: int) -> tuple[Additive, Mapping[str, Any]]:
    """The model of all patients, and a report of how the same steps do on patients that they have not seen."""
    held = patient_folds(cases.patients, FOLDS, recipe.seed + 1) == 0
    say(f"holding out {len(np.unique(cases.patients[held]))} patients, {int(held.sum())} rows")
    part = develop(recipe, cases.only(~held), recipe.penalties, say)
    test = cases.only(held)
    report: dict[str, Any] = {
        "rows": len(cases.outcome),
        "patients": len(np.unique(cases.patients)),
        "excluded_rows": cases.excluded,
        "seed": recipe.seed,
        "held_out": _figures(recipe, test, part.model.probability(test.inputs), draws),
    }
    if cases.order is not None:
        report |= _by_time(recipe, cases, part.penalty, say, draws)
    if recipe.variants:
        report["variants_held_out"] = _variants(recipe, cases, held, part.penalty, draws)
    say("fitting to all patients")
    whole = develop(recipe, cases, (part.penalty,), say)
    report["penalty"] = whole.penalty
    report["cross_validated"] = _cross_validated(recipe, cases, whole.out_of_fold, draws)
    return whole.model, report


def _cross_validated(recipe: Recipe, cases: Cases, out_of_fold: Floats, draws: int) -> dict[str, Any]:
    """Of every patient by a model that has not seen them; the calibration is that before the last step."""
    folds = patient_folds(cases.patients, FOLDS, recipe.seed)
    each = [Predictions(cases.outcome[folds == k], out_of_fold[folds == k]).figures() for k in range(FOLDS)]
    found = _figures(recipe, cases, out_of_fold, draws)
    found["auroc_by_fold"] = [round(f["auroc"], 6) for f in each]
    found["subgroups"] = subgroups_of(cases, out_of_fold, draws=draws // 4, seed=recipe.seed)
    return found


def _by_time(recipe: Recipe, cases: Cases, penalty: float, say: Say, draws: int) -> dict[str, Any]:
    """Fitted to the earlier rows: how it does on all later ones, and on those of patients who have no earlier one."""
    assert cases.order is not None
    early = cases.order < np.quantile(cases.order, LATER)
    model = develop(recipe, cases.only(early), (penalty,), say).model
    found = {}
    for name, chosen in (("later_rows", ~early), ("later_rows_of_other_patients", _others(cases, early))):
        test = cases.only(chosen)
        say(f"{name}: {len(test.outcome)}, fitted to {int(early.sum())} earlier ones")
        if len(np.unique(test.outcome)) == 2:
            found[name] = _figures(recipe, test, model.probability(test.inputs), draws)
    return found


def _others(cases: Cases, early: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return ~early & ~np.isin(cases.patients, cases.patients[early])


def _variants(recipe: Recipe, cases: Cases, held: Any, penalty: float, draws: int) -> dict[str, Any]:
    found = {}
    for name, variant in recipe.variants.items():
        inputs, shapes = variant(cases)
        other = replace(cases, inputs=inputs)
        test = other.only(held)
        said = _fit(shapes, other.only(~held), penalty).probability(test.inputs)
        found[name] = figures_of(test, said, draws=draws, seed=recipe.seed)
    return found


def _figures(recipe: Recipe, cases: Cases, probability: Floats, draws: int) -> dict[str, Any]:
    return figures_of(cases, probability, draws=draws, seed=recipe.seed) | dict(recipe.figures(cases, probability))


def _out_of_fold(shapes: tuple[Shape, ...], cases: Cases, folds: Any, penalty: float) -> Floats:
    found = np.full(len(cases.outcome), np.nan)
    for fold in range(FOLDS):
        mine = folds == fold
        found[mine] = _fit(shapes, cases.only(~mine), penalty).probability(cases.inputs[mine])
    return found


def _fit(shapes: tuple[Shape, ...], cases: Cases, penalty: float) -> Additive:
    used = cases.weight > 0
    return fit(shapes, cases.inputs[used], cases.outcome[used], cases.weight[used], penalty)


def _log_loss(outcome: Floats, probability: Floats) -> float:
    return float(-np.mean(np.log(np.where(outcome == 1, probability, 1 - probability))))
