"""The whole path agrees with two independent implementations of NEWS2 on every shared vector, however it is charted."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.records import Outcome
from tests.unit.chart import (
    ALERT,
    CONFUSED,
    LOINC,
    REPO,
    SCT,
    Resource,
    answered,
    judge,
    measured,
    panel,
    scale,
)

SHARED = REPO.parent / "shared" / "vectors" / "news2.json"
if not SHARED.is_file():
    pytest.skip(f"missing: {SHARED}", allow_module_level=True)
VECTORS = [(v["inputs"], v["expected"]["score"]) for v in json.loads(SHARED.read_text())["vectors"]]
NO, YES = f"{SCT}|373067005", f"{SCT}|373066001"
ACVPU = f"{SCT}|1104441000000107"
Inputs = dict[str, Any]
Charting = dict[str, Callable[[Inputs], Resource]]

PLAIN: Charting = {
    "respiratory_rate": lambda v: measured("9279-1", v["respiratory_rate"], "/min"),
    "spo2": lambda v: measured("59408-5", v["spo2"], "%"),
    "on_oxygen": lambda v: measured("3151-8", 2 if v["on_oxygen"] else 0, "L/min"),
    "systolic_bp": lambda v: measured("8480-6", v["systolic_bp"], "mm[Hg]"),
    "pulse": lambda v: measured("8867-4", v["pulse"], "/min"),
    "consciousness": lambda v: answered(ACVPU, ALERT if v["consciousness"] == "alert" else CONFUSED),
    "temperature": lambda v: measured("8310-5", v["temperature"], "Cel"),
}
STYLES: dict[str, Charting] = {
    "plain": {},
    "fahrenheit": {"temperature": lambda v: measured("8310-5", round(v["temperature"] * 9 / 5 + 32, 6), "[degF]")},
    "blood pressure panel": {"systolic_bp": lambda v: panel(v["systolic_bp"])},
    "kilopascal": {"systolic_bp": lambda v: measured("8480-6", v["systolic_bp"] / 7.500615758456564, "kPa")},
    "SpO2 as 2708-6": {"spo2": lambda v: measured("2708-6", v["spo2"], "%")},
    "annotated units": {
        "respiratory_rate": lambda v: measured("9279-1", v["respiratory_rate"], "{breaths}/min"),
        "pulse": lambda v: measured("8867-4", v["pulse"], "{beats}/min"),
    },
    "coma score": {
        "consciousness": lambda v: measured("9269-2", 15 if v["consciousness"] == "alert" else 14, "{score}")
    },
    "FiO2": {"on_oxygen": lambda v: measured("3150-6", 28 if v["on_oxygen"] else 21, "%")},
    "oxygen in mL/min": {"on_oxygen": lambda v: measured("3151-8", 500 if v["on_oxygen"] else 0, "mL/min")},
    "oxygen therapy yes or no": {
        "on_oxygen": lambda v: answered(f"{SCT}|371825009", YES if v["on_oxygen"] else NO),
    },
    "air or oxygen": {
        "on_oxygen": lambda v: answered(
            f"{SCT}|1104331000000105", f"{SCT}|371825009" if v["on_oxygen"] else f"{SCT}|722742002"
        ),
    },
    "AVPU at a site where Alert counts": {
        "consciousness": lambda v: answered(
            f"{LOINC}|80288-4", f"{LOINC}|{'LA9340-6' if v['consciousness'] == 'alert' else 'LA17108-4'}"
        ),
    },
}


def chart(inputs: Inputs, style: Charting) -> list[Resource]:
    readings = [write(inputs) for write in {**PLAIN, **style}.values()]
    return [*readings, scale(2)] if inputs["spo2_scale"] == 2 else readings


@pytest.mark.parametrize("style", STYLES, ids=lambda name: name.replace(" ", "-"))
def test_every_shared_vector_gives_the_published_total_however_it_is_charted(style):
    switches = ("avpu_alert_excludes_new_confusion",) if style.startswith("AVPU") else ()
    wrong = []
    for inputs, expected in VECTORS:
        found = judge(chart(inputs, STYLES[style]), *switches).assessment
        if (found.outcome, found.score) != (Outcome.SCORED, expected):
            wrong.append((inputs, expected, found.outcome, found.score, found.reasons))
    assert len(VECTORS) >= 84
    assert wrong == []


def test_contributions_of_every_shared_vector_sum_to_its_total():
    for inputs, expected in VECTORS:
        found = judge(chart(inputs, {})).assessment
        assert len(found.contributions) == 7
        assert sum(found.contributions.values()) == expected


def test_the_vectors_reach_every_number_of_points_of_every_parameter():
    seen = {(name, p) for inputs, _ in VECTORS for name, p in judge(chart(inputs, {})).assessment.contributions.items()}
    steps = {
        "respiratory_rate": {0, 1, 2, 3}, "spo2": {0, 1, 2, 3}, "on_oxygen": {0, 2}, "systolic_bp": {0, 1, 2, 3},
        "pulse": {0, 1, 2, 3}, "consciousness": {0, 3}, "temperature": {0, 1, 2, 3},
    }  # fmt: skip
    assert seen == {(name, points) for name, all_points in steps.items() for points in all_points}
