"""Train a site's own no-show model: will the patient come to the appointment, asked a day before it?

No weights are shipped. The known public data (Vitoria, Brazil, 2016) are licensed for non-commercial use, and missed
appointments depend on the place: a site trains on its own history. There a good part of such models' discrimination is
that appointments of the same day are kept; they are left out here, as nobody can be reminded of them.

The file holds R4 Appointments, one JSON resource a line, plain or gzipped, as a bulk export gives them. Counted are
those with a patient, a `start` and a `created` at least a day before it, that became `fulfilled` (or `arrived`,
`checked-in`) or `noshow`. Cancelled ones are no outcome. History is what the file holds of two years before.

Run `python train.py train --data FILE --out DIR/no_show/1.0.0` (with the extra `train`), then
`sidecar models seal DIR/no_show/1.0.0`. `evaluate --data FILE --model DIR/no_show/1.0.0` holds the result against
another file, such as that of the year after.
"""

import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from sidecar.training import BadData, Cases, Recipe, Shape, open_text, run

DAY_S = 86_400.0
ASKED_S = DAY_S
"""How long before an appointment the model is asked."""
HISTORY_S = 730 * DAY_S
MISSED, KEPT = frozenset({"noshow"}), frozenset({"fulfilled", "arrived", "checked-in"})
SHAPES = (
    Shape("booked_ahead", "linear", (0.0, 3.0, 7.0, 14.0, 30.0, 90.0)),
    Shape("missed_before", "linear", (0.0, 1.0, 2.0, 4.0)),
    Shape("kept_before", "linear", (0.0, 1.0, 3.0, 8.0)),
)


@dataclass(frozen=True, slots=True)
class Appointment:
    """One that came to an end: whose, when it was made and for when, in seconds, and whether it was missed."""

    patient: str
    made: float
    start: float
    missed: bool


def read(path: Path) -> Cases:
    """The appointments in `path` that a reminder could have been sent for.

    Raises:
        BadData: it is not a file of Appointments, or none of them can be used.
    """
    found, excluded = [], 0
    for line, resource in _resources(path):
        one = _appointment(resource, f"{path}: line {line}")
        if one is None:
            excluded += 1
        else:
            found.append(one)
    if not found:
        raise BadData(f"{path}: holds no Appointment with patient, start, created and an outcome")
    found.sort(key=lambda a: (a.start, a.patient, a.made))
    times: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for one in found:
        times[one.patient, one.missed].append(one.start)
    asked = [a for a in found if a.start - a.made >= ASKED_S]
    cases = Cases(
        inputs=np.array([_inputs(a, times) for a in asked]).reshape(-1, len(SHAPES)),
        outcome=np.array([float(a.missed) for a in asked]),
        patients=np.array([a.patient for a in asked], dtype=str),
        weight=np.ones(len(asked)),
        groups={},
        order=np.array([a.start for a in asked]),
        excluded=excluded + len(found) - len(asked),
    )
    return cases.with_both_outcomes(path)


def _inputs(one: Appointment, times: dict[tuple[str, bool], list[float]]) -> tuple[float, float, float]:
    """As the chart stands a day before: days since it was made, and what became of earlier ones in two years."""
    at = one.start - ASKED_S
    counts = []
    for missed in (True, False):
        starts = times[one.patient, missed]
        counts.append(float(bisect_left(starts, at) - bisect_left(starts, at - HISTORY_S)))
    return (at - one.made) / DAY_S, counts[0], counts[1]


def _resources(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                resource = orjson.loads(line)
            except orjson.JSONDecodeError:
                raise BadData(f"{path}: line {number} is no JSON; one Appointment a line is wanted") from None
            if not isinstance(resource, dict) or resource.get("resourceType") != "Appointment":
                raise BadData(f"{path}: line {number} is no Appointment")
            yield number, resource


def _appointment(resource: dict[str, Any], place: str) -> Appointment | None:
    status, start, made = (resource.get(name) for name in ("status", "start", "created"))
    patient = next(iter(_patients(resource)), None)
    if status not in MISSED | KEPT or patient is None or start is None or made is None:
        return None
    return Appointment(
        patient, _seconds(made, f"{place}, created"), _seconds(start, f"{place}, start"), status in MISSED
    )


def _patients(resource: dict[str, Any]) -> Iterator[str]:
    for each in resource.get("participant") or []:
        actor = each.get("actor") if isinstance(each, dict) else None
        reference = actor.get("reference") if isinstance(actor, dict) else None
        if isinstance(reference, str) and reference.startswith("Patient/"):
            yield reference


def _seconds(moment: object, place: str) -> float:
    try:
        found = datetime.fromisoformat(str(moment))
    except ValueError:
        raise BadData(f"{place}: is not a moment") from None
    if found.tzinfo is None:
        raise BadData(f"{place}: has no time zone")
    return found.timestamp()


RECIPE = Recipe(
    name="no_show",
    version="1.0.0",
    names=tuple(shape.name for shape in SHAPES),
    read=read,
    shapes=lambda _inputs: SHAPES,
    penalties=(0.00001, 0.001, 0.01),
    whose="the site's own appointments",
    seed=20160429,
    edges={"booked_ahead": (1, 3, 7, 14, 30, 90), "missed_before": (1, 2, 4), "kept_before": (1, 3, 8)},
    manifest="manifest.template.toml",
)

if __name__ == "__main__":
    sys.exit(run(RECIPE, Path(__file__).parent))
