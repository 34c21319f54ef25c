"""A value between two charted steps is rounded half up, in the unit of the chart."""

import pytest

from tests.unit.chart import judge_set, measured

EDGES = {
    "respiratory_rate": (
        "9279-1",
        "/min",
        [(8.49, 3), (8.5, 1), (11.5, 0), (20.49, 0), (20.5, 2), (24.49, 2), (24.5, 3)],
    ),
    "spo2": ("59408-5", "%", [(91.49, 3), (91.5, 2), (93.5, 1), (95.49, 1), (95.5, 0)]),
    "systolic_bp": ("8480-6", "mm[Hg]", [(90.49, 3), (90.5, 2), (100.5, 1), (110.5, 0), (219.49, 0), (219.5, 3)]),
    "pulse": ("8867-4", "/min", [(40.49, 3), (40.5, 1), (50.5, 0), (90.49, 0), (90.5, 1), (110.5, 2), (130.5, 3)]),
    "temperature": (
        "8310-5",
        "Cel",
        [
            (35.0, 3),
            (35.04, 3),
            (35.05, 1),
            (35.1, 1),
            (36.04, 1),
            (36.05, 0),
            (38.04, 0),
            (38.05, 1),
            (39.04, 1),
            (39.05, 2),
        ],
    ),
}
FAHRENHEIT = [(95.0, 3), (95.1, 1), (96.8, 1), (96.98, 0), (100.4, 0), (100.49, 1), (102.2, 1), (102.29, 2), (102.4, 2)]


@pytest.mark.parametrize(
    ("name", "code", "unit", "value", "points"),
    [(name, code, unit, *edge) for name, (code, unit, edges) in EDGES.items() for edge in edges],
)
def test_halves_round_up(name, code, unit, value, points):
    assert judge_set(**{name: measured(code, value, unit)}).assessment.contributions[name] == points


@pytest.mark.parametrize(("value", "points"), FAHRENHEIT)
def test_fahrenheit_is_rounded_as_celsius(value, points):
    reading = measured("8310-5", value, "[degF]")
    assert judge_set(temperature=reading).assessment.contributions["temperature"] == points


@pytest.mark.parametrize(
    ("total", "risk"),
    [(0, "low"), (4, "low"), (5, "medium"), (6, "medium"), (7, "high"), (9, "high")],
)
def test_the_band_of_a_total_without_a_three(total, risk):
    parts = [
        ("respiratory_rate", measured("9279-1", 22, "/min"), 2),
        ("pulse", measured("8867-4", 112, "/min"), 2),
        ("on_oxygen", measured("3151-8", 2, "L/min"), 2),
        ("spo2", measured("59408-5", 93, "%"), 2),
        ("temperature", measured("8310-5", 38.5, "Cel"), 1),
    ]
    chosen, left = {}, total
    for name, reading, points in parts if total % 2 == 0 else reversed(parts):
        if points <= left:
            chosen[name], left = reading, left - points
    a = judge_set(**chosen).assessment
    assert (left, a.score, a.risk) == (0, total, risk)


def test_a_single_three_lifts_a_low_total_to_low_medium():
    a = judge_set(pulse=measured("8867-4", 135, "/min")).assessment
    assert (a.score, a.risk) == (3, "low-medium")
