"""How several readings become one number: latest, min, max, mean, count, each within its window."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.features import Extractor, SiteChoices
from sidecar.manifest import Manifest
from sidecar.records import DeidentifiedSnapshot, Fact

CODE = "http://loinc.org|2524-7"
HOUR = 3600.0


def manifest(**feature):
    return Manifest.model_validate(
        {
            "schema": 1, "name": "tiny", "version": "1.0.0", "title": "Tiny", "kind": "points", "validity": "6h",
            "spread": "24h",
            "graph": {
                "sha256": "0" * 64, "features": ["lactate"], "total": "score", "points": "points", "point_names": ["lactate"],
            },
            "features": {
                "lactate": {"label": "lactate", "unit": "mmol/L", "max_age": "4h", "from": [{"codes": [CODE]}], **feature}
            },
            "bands": [{"risk": "low", "text": "low", "at_least": 0}],
            "incomplete": {"urgent_at_least": 5, "urgent_any_points": 3},
            "result": {"code": "urn:x|y", "display": "tiny", "outcome": "tiny", "risk_system": "urn:x"},
        }
    )  # fmt: skip


def fact(hours, value, **more):
    known = {"unit": "mmol/L", "value": value, **more}
    return Fact(index=int(hours * 60), type="Observation", codes=(CODE,), seconds=-hours * HOUR, **known)


def run(spec, *facts):
    clean = DeidentifiedSnapshot((50, 50), False, False, True, facts, "digest")
    vector, _ = Extractor(manifest(**spec), SiteChoices()).run(clean)
    return vector.features[0]


READINGS = (fact(3, 4.0), fact(2, 1.0), fact(1, 2.0))


@pytest.mark.parametrize(
    ("select", "expected"), [("latest", 2.0), ("min", 1.0), ("max", 4.0), ("mean", 7 / 3), ("count", 3)]
)
def test_each_selection_gives_its_number(select, expected):
    assert run({"select": select}, *READINGS).value == pytest.approx(expected)


@pytest.mark.parametrize(("select", "expected"), [("min", 1.0), ("max", 4.0), ("mean", 7 / 3), ("count", 3)])
def test_a_window_says_how_old_a_reading_may_be_where_nothing_else_does(select, expected):
    assert run({"select": select, "max_age": "0s", "window": "8h"}, *READINGS).value == pytest.approx(expected)
    assert run({"select": "max", "max_age": "0s", "window": "30m"}, *READINGS).reason == "stale:lactate"


@pytest.mark.parametrize("select", ["min", "max", "mean", "count"])
def test_it_rests_on_every_reading_in_its_window(select):
    found = run({"select": select}, *READINGS, fact(30, 9.0))
    assert {found.index, *found.others} == {60, 120, 180}


@pytest.mark.parametrize(("select", "expected"), [("min", 1.0), ("max", 2.0), ("mean", 1.5), ("count", 2)])
def test_a_window_leaves_out_what_is_older(select, expected):
    assert run({"select": select, "window": "2h"}, *READINGS).value == expected


def test_a_window_wider_than_the_maximum_age_needs_one_recent_reading():
    spec = {"select": "max", "window": "24h"}
    assert run(spec, fact(20, 9.0), fact(1, 2.0)).value == 9.0
    assert run(spec, fact(20, 9.0), fact(5, 2.0)).reason == "stale:lactate"


@pytest.mark.parametrize("select", ["min", "max", "mean"])
def test_a_window_without_a_reading_is_stale_though_the_last_one_is_young_enough(select):
    found = run({"select": select, "window": "1h"}, fact(2, 9.0))
    assert math.isnan(found.value)
    assert found.reason == "stale:lactate"


def test_an_empty_window_counts_zero():
    assert run({"select": "count", "window": "1h"}, fact(2, 9.0)).value == 0


@pytest.mark.parametrize("select", ["min", "max", "mean", "count"])
def test_one_unusable_reading_in_the_window_makes_the_whole_missing(select):
    found = run({"select": select}, *READINGS, fact(2.5, None, trouble="comparator"))
    assert found.reason == "comparator:lactate"


def test_an_unusable_reading_before_the_window_does_not_matter():
    assert run({"select": "max", "window": "2h"}, *READINGS, fact(2.5, 9.0, unit="mg/dL")).value == 2.0


@pytest.mark.parametrize("select", ["min", "max"])
def test_an_extreme_points_to_the_reading_it_came_from(select):
    chosen = min(READINGS, key=lambda f: f.value) if select == "min" else max(READINGS, key=lambda f: f.value)
    assert run({"select": select}, *READINGS).index == chosen.index


@pytest.mark.parametrize("select", ["latest", "min", "max", "mean", "count"])
def test_nothing_charted_is_missing_and_not_zero(select):
    found = run({"select": select})
    assert math.isnan(found.value)
    assert found.reason == "missing:lactate"


def test_a_declared_absent_value_stands_for_nothing_charted():
    assert run({"absent": 0.0}).value == 0.0


def test_a_declared_absent_value_does_not_stand_for_an_unusable_reading():
    assert run({"absent": 0.0}, fact(1, None, trouble="comparator")).reason == "comparator:lactate"


@settings(max_examples=200, deadline=None, print_blob=True)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 50)), min_size=1, max_size=8),
    st.sampled_from(["latest", "min", "max", "mean", "count"]),
    st.randoms(use_true_random=False),
)
def test_no_selection_depends_on_the_order_of_readings(readings, select, random):
    facts = [fact(hours, value) for hours, value in readings]
    shuffled = list(facts)
    random.shuffle(shuffled)
    assert run({"select": select}, *facts).value == run({"select": select}, *shuffled).value
