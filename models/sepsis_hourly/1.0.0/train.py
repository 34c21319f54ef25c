"""Train `model.onnx`: sepsis within the next hours, asked every hour of an intensive care stay, from physiology alone.

Data: PhysioNet/Computing in Cardiology Challenge 2019, part of training set B, CC BY 4.0. Reyna MA, Josef CS, Jeter R,
et al. Early prediction of sepsis from clinical data: the PhysioNet/Computing in Cardiology Challenge 2019. Critical
Care Medicine 2020;48:210. The file is one table of the hours of all patients, divided by `|`, plain or gzipped.

The outcome is the challenge's `SepsisLabel`: 1 from 6 hours before the onset of sepsis (Sepsis-3) on, so that an hour
with 1 is one in which sepsis begins within about 6 hours, or has begun. Inputs are vital signs, laboratory results,
age and sex. Left out as care process: the hour of the stay (`ICULOS`), the unit, the time of admission,
how often anything was measured, and inspired oxygen and carbon dioxide in breath, which are there for the ventilated
only. Left out for its two kinds, which the data mix: calcium.

A result counts for as long as the manifest says: 8 hours for vital signs, 7 days for others. Hours without one of the
five vital signs of a partial NEWS2 get no score. Whether a laboratory result is there at all does go in, and is care
process too: `report.json` says what the model is worth without it.

Run `python models/sepsis_hourly/1.0.0/train.py train --data FILE --out DIR` (with the extra `train`); the same data
give the same bytes. `evaluate --data FILE` holds the shipped graph against any file of the same format.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.monitoring.performance import Predictions
from sidecar.training import BadData, Cases, Recipe, Shape, quantiles, read_table, run

Floats = npt.NDArray[np.float64]

VITAL_HOURS = 8
RESULT_HOURS = 168
DAY = 24
QUIET_HOURS = 12
THIN = 4
"""Of the hours without sepsis one in so many is fitted to, and stands for all."""
SEED = 20190803

# Name, column, and what is possible: anything else is taken as not charted.
VITALS = {
    "pulse": ("HR", 20.0, 250.0),
    "spo2": ("O2Sat", 50.0, 100.0),
    "temperature": ("Temp", 25.0, 45.0),
    "systolic_bp": ("SBP", 40.0, 300.0),
    "mean_bp": ("MAP", 20.0, 250.0),
    "diastolic_bp": ("DBP", 10.0, 200.0),
    "respiratory_rate": ("Resp", 1.0, 80.0),
}
RESULTS = {
    "ph": ("pH", 6.6, 7.9),
    "paco2": ("PaCO2", 10.0, 150.0),
    "urea_nitrogen": ("BUN", 1.0, 300.0),
    "creatinine": ("Creatinine", 0.1, 30.0),
    "bilirubin": ("Bilirubin_total", 0.1, 80.0),
    "glucose": ("Glucose", 10.0, 1500.0),
    "lactate": ("Lactate", 0.1, 30.0),
    "potassium": ("Potassium", 1.0, 12.0),
    "haemoglobin": ("Hgb", 2.0, 25.0),
    "leukocytes": ("WBC", 0.1, 400.0),
    "platelets": ("Platelets", 1.0, 2500.0),
    "ptt": ("PTT", 10.0, 300.0),
    "fibrinogen": ("Fibrinogen", 10.0, 2000.0),
    "troponin_i": ("TroponinI", 0.0, 1000.0),
}
DECIMALS = {"ph": 2, "creatinine": 2, "bilirubin": 1, "lactate": 1, "potassium": 1, "haemoglobin": 1}
DECIMALS |= {"temperature": 1, "temperature_max_24h": 1, "temperature_mean_8h": 1, "leukocytes": 1, "troponin_i": 2}
NEWS2_VITALS = ("respiratory_rate", "spo2", "systolic_bp", "pulse", "temperature")
EXTREMES: dict[str, tuple[str, Callable[[Floats, Floats], Floats]]] = {
    "temperature_max_24h": ("temperature", np.fmax),
    "pulse_max_24h": ("pulse", np.fmax),
    "respiratory_rate_max_24h": ("respiratory_rate", np.fmax),
    "systolic_bp_min_24h": ("systolic_bp", np.fmin),
    "mean_bp_min_24h": ("mean_bp", np.fmin),
}
MEANS = tuple(f"{name}_mean_8h" for name in VITALS)
NAMES = ("age", "sex", *VITALS, *RESULTS, *MEANS, *EXTREMES)
COLUMNS = [column for column, *_ in (VITALS | RESULTS).values()]
FIXED_EDGES = {"age": (30.0, 40.0, 50.0, 60.0, 70.0, 80.0), "sex": (0.5,)}


@dataclass(frozen=True, slots=True)
class Stays:
    """The hours of all patients, one after the other; `hour` counts those of a patient from 0."""

    hour: npt.NDArray[np.int64]

    def before(self, x: Floats, hours: int) -> Floats:
        """What `x` was so many hours before; NaN before the stay."""
        found = np.full(len(x), np.nan)
        found[hours:] = x[: len(x) - hours]
        found[self.hour < hours] = np.nan
        return found

    def latest(self, x: Floats, hours: int) -> Floats:
        """The newest known `x` that is no older than `hours`."""
        place = np.arange(len(x))
        known = np.maximum.accumulate(np.where(np.isfinite(x), place, -1))
        usable = (known >= place - self.hour) & (place - known <= hours)
        return np.where(usable, x[np.maximum(known, 0)], np.nan)

    def extreme(self, x: Floats, hours: int, of: Callable[[Floats, Floats], Floats]) -> Floats:
        """The largest or smallest known `x` of the last `hours`, this hour among them."""
        found = x
        for back in range(1, hours):
            found = of(found, self.before(x, back))
        return found

    def mean(self, x: Floats, hours: int) -> Floats:
        """The mean of the known `x` of the last `hours`, this hour among them."""
        known = np.isfinite(x).astype(np.float64)
        total, count = np.nan_to_num(x), known
        for back in range(1, hours):
            total = total + np.nan_to_num(self.before(x, back))
            count = count + np.nan_to_num(self.before(known, back))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def read(path: Path) -> Cases:
    """The hours in `path`.

    Raises:
        BadData: it is not a file of that format.
    """
    table = read_table(path, "|", text=["patient"], numbers=[*COLUMNS, "Age", "Gender", "ICULOS", "SepsisLabel"])
    patients, number = np.array(table.text["patient"]), table.numbers
    outcome = number["SepsisLabel"]
    if not np.isin(outcome, (0.0, 1.0)).all():
        raise BadData(f"{path}: SepsisLabel must be 0 or 1 in every row")
    stays = Stays(_hours(path, patients, number["ICULOS"]))
    inputs = np.column_stack([number["Age"], number["Gender"], *_physiology(number, stays)])
    chosen = np.random.default_rng(SEED).random(table.rows) < 1 / THIN
    return Cases(
        inputs=inputs,
        outcome=outcome,
        patients=patients,
        weight=np.where(outcome == 1, 1.0, np.where(chosen, float(THIN), 0.0)),
        groups=_groups(number["Age"], number["Gender"]),
        extra={
            "hour": stays.hour.astype(np.float64),
            "iculos": number["ICULOS"],
            "tests": _tests(number, stays),
        },
    ).with_both_outcomes(path)


def _hours(path: Path, patients: npt.NDArray[np.str_], iculos: Floats) -> npt.NDArray[np.int64]:
    """The place of each hour in its patient's rows, which must stand together and in order."""
    first = np.r_[True, patients[1:] != patients[:-1]]
    if int(first.sum()) != len(np.unique(patients)):
        raise BadData(f"{path}: the rows of a patient must stand together")
    if not (np.diff(iculos)[~first[1:]] == 1).all():
        raise BadData(f"{path}: ICULOS must count the hours of each patient one by one")
    place = np.arange(len(patients))
    return place - np.maximum.accumulate(np.where(first, place, 0))


def _physiology(number: Mapping[str, Floats], stays: Stays) -> list[Floats]:
    """The inputs from `VITALS` on, in the order of `NAMES`."""
    charted = {name: _possible(number[column], low, high) for name, (column, low, high) in (VITALS | RESULTS).items()}
    return [
        *(stays.latest(charted[name], VITAL_HOURS) for name in VITALS),
        *(stays.latest(charted[name], RESULT_HOURS) for name in RESULTS),
        *(stays.mean(charted[name], VITAL_HOURS) for name in VITALS),
        *(stays.extreme(charted[name], DAY, of) for name, of in EXTREMES.values()),
    ]


def _tests(number: Mapping[str, Floats], stays: Stays) -> Floats:
    """How many laboratory results the last 24 hours brought."""
    now = np.zeros(len(stays.hour))
    for column, *_ in RESULTS.values():
        now += np.isfinite(number[column])
    total = now
    for back in range(1, DAY):
        total = total + np.nan_to_num(stays.before(now, back))
    return total


def _possible(x: Floats, low: float, high: float) -> Floats:
    return np.where((x >= low) & (x <= high), x, np.nan)


def _groups(age: Floats, gender: Floats) -> dict[str, npt.NDArray[np.str_]]:
    """The data tell sex and age, and no race."""
    bands = np.select([age < 40, age < 65, age < 80, age >= 80], ["<40", "40-64", "65-79", ">=80"], "")
    return {"sex": np.select([gender == 1, gender == 0], ["male", "female"], ""), "age": bands}


def shapes(inputs: Floats) -> tuple[Shape, ...]:
    """Bends at quantiles; the five vital signs, age and sex are necessary."""
    needed = {"age", "sex", *NEWS2_VITALS}
    found = []
    for place, name in enumerate(NAMES):
        if name == "sex":
            found.append(Shape(name, "codes", (0.0, 1.0)))
            continue
        decimals = DECIMALS.get(name, 0)
        found.append(Shape(name, "linear", quantiles(inputs[:, place], 5, decimals), missing=name not in needed))
    return tuple(found)


def figures(cases: Cases, probability: Floats) -> dict[str, Any]:
    """A partial NEWS2 on the same hours, and what alerts at some thresholds would be like."""
    news2 = Predictions(cases.outcome, partial_news2(cases.inputs)).figures()
    days = len(cases.outcome) / DAY
    top = {share: float(np.quantile(probability, 1 - share)) for share in (0.01, 0.02, 0.05, 0.1)}
    return {
        "partial_news2": {name: round(news2[name], 6) for name in ("auroc", "ap")},
        "alerts": [
            {"hours_flagged": share, **_alerts(cases, probability >= at, days), "at": round(at, 6)}
            for share, at in top.items()
        ],
    }


def _alerts(cases: Cases, flagged: npt.NDArray[np.bool_], days: float) -> dict[str, float]:
    """An alert is a flagged hour with none in the 12 hours before; its value is that sepsis is labelled there."""
    alerts = np.zeros(len(flagged), dtype=bool)
    last: dict[str, float] = {}
    for place in np.flatnonzero(flagged).tolist():
        patient, hour = cases.patients[place], cases.extra["hour"][place]
        if hour - last.get(patient, -np.inf) > QUIET_HOURS:
            alerts[place], last[patient] = True, hour
    ill = set(cases.patients[cases.outcome == 1].tolist())
    warned = set(cases.patients[flagged & (cases.outcome == 1)].tolist())
    return {
        "alerts_per_100_patient_days": round(100 * int(alerts.sum()) / days, 2),
        "alerts_with_sepsis": round(float(cases.outcome[alerts].mean()), 4) if alerts.any() else 0.0,
        "hours_with_sepsis": round(float(cases.outcome[flagged].mean()), 4),
        "septic_patients_flagged": round(len(warned) / len(ill), 4),
    }


def with_care_process(cases: Cases) -> tuple[Floats, tuple[Shape, ...]]:
    """For comparison only: the hour of the stay and the number of tests as further inputs."""
    more = (cases.extra["iculos"], cases.extra["tests"])
    named = zip(("iculos", "tests"), more, strict=True)
    extra = tuple(Shape(name, "linear", quantiles(column, 6, 0)) for name, column in named)
    return np.column_stack([cases.inputs, *more]), (*shapes(cases.inputs), *extra)


def without_absence(cases: Cases) -> tuple[Floats, tuple[Shape, ...]]:
    """For comparison only: what is absent is at its median, so that its absence says next to nothing."""
    inputs = cases.inputs
    filled = np.where(np.isnan(inputs), np.nanmedian(inputs, axis=0), inputs)
    return filled, tuple(replace(shape, missing=False) for shape in shapes(inputs))


STEPS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "respiratory_rate": ((8.5, 11.5, 20.5, 24.5), (3, 1, 0, 2, 3)),
    "spo2": ((91.5, 93.5, 95.5), (3, 2, 1, 0)),
    "systolic_bp": ((90.5, 100.5, 110.5, 219.5), (3, 2, 1, 0, 3)),
    "pulse": ((40.5, 50.5, 90.5, 110.5, 130.5), (3, 1, 0, 1, 2, 3)),
    "temperature": ((35.05, 36.05, 38.05, 39.05), (3, 1, 0, 1, 2)),
}


def partial_news2(inputs: Floats) -> Floats:
    """The points of NEWS2 (RCP 2017) that five vital signs give: without oxygen and consciousness."""
    total = np.zeros(len(inputs))
    for name, (edges, points) in STEPS.items():
        total += np.array(points)[np.searchsorted(edges, inputs[:, NAMES.index(name)], side="right")]
    return total / 20


RECIPE = Recipe(
    name="sepsis_hourly",
    version="1.0.0",
    names=NAMES,
    read=read,
    shapes=shapes,
    penalties=(0.003, 0.007, 0.02),
    whose="PhysioNet/CinC Challenge 2019, part of training set B (CC BY 4.0; Reyna et al. 2020)",
    seed=SEED,
    edges=FIXED_EDGES,
    figures=figures,
    variants={"with_care_process": with_care_process, "absent_results_at_the_median": without_absence},
)

if __name__ == "__main__":
    sys.exit(run(RECIPE, Path(__file__).parent))
