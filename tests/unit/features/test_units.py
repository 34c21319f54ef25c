"""A unit is converted by a fixed table or refused, never guessed."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.features.units import converter, plain

KNOWN = [
    ("[degF]", "Cel", 98.6, 37.0),
    ("[degF]", "Cel", 32, 0.0),
    ("[degF]", "Cel", -40, -40.0),
    ("K", "Cel", 310.15, 37.0),
    ("kPa", "mm[Hg]", 16, 120.00985),
    ("mL/min", "L/min", 2000, 2.0),
    ("l/min", "L/min", 2, 2.0),
    ("Cel", "Cel", 37, 37.0),
    ("{beats}/min", "/min", 70, 70.0),
    ("{score}", "1", 15, 15.0),
    ("{count}", "{score}", 15, 15.0),
]
# What a unit of this table means, from the definitions themselves: (dimension, size of one, zero).
MEANING = {
    "Cel": ("temperature", 1.0, 273.15), "K": ("temperature", 1.0, 0.0), "[degF]": ("temperature", 5 / 9, 459.67 * 5 / 9),
    "mm[Hg]": ("pressure", 133.322387415, 0.0), "kPa": ("pressure", 1000.0, 0.0),
    "L/min": ("flow", 1.0, 0.0), "l/min": ("flow", 1.0, 0.0), "mL/min": ("flow", 0.001, 0.0),
    "kg": ("mass", 1.0, 0.0), "g": ("mass", 0.001, 0.0), "[lb_av]": ("mass", 0.45359237, 0.0), "lb": ("mass", 0.45359237, 0.0),
    "[oz_av]": ("mass", 0.45359237 / 16, 0.0), "cm": ("length", 0.01, 0.0), "m": ("length", 1.0, 0.0), "mm": ("length", 0.001, 0.0),
    "[in_i]": ("length", 0.0254, 0.0), "[ft_i]": ("length", 0.0254 * 12, 0.0),
    "g/L": ("density", 1.0, 0.0), "g/dL": ("density", 10.0, 0.0), "mg/dL": ("density", 0.01, 0.0), "mg/L": ("density", 0.001, 0.0),
    "mg/mL": ("density", 1.0, 0.0), "ug/mL": ("density", 0.001, 0.0), "ug/dL": ("density", 1e-5, 0.0), "g/dl": ("density", 10.0, 0.0),
    "mmol/L": ("amount", 1.0, 0.0), "umol/L": ("amount", 0.001, 0.0), "µmol/L": ("amount", 0.001, 0.0),
    "/uL": ("cells", 1e9, 0.0), "10*3/uL": ("cells", 1e12, 0.0), "10*9/L": ("cells", 1e12, 0.0), "K/uL": ("cells", 1e12, 0.0),
    "10*6/uL": ("cells", 1e15, 0.0), "10*12/L": ("cells", 1e15, 0.0), "10*6/L": ("cells", 1e9, 0.0), "{cells}/uL": ("cells", 1e9, 0.0),
    "meq/L": ("charge", 1.0, 0.0), "mEq/L": ("charge", 1.0, 0.0), "kg/m2": ("index", 1.0, 0.0), "kg/m²": ("index", 1.0, 0.0),
    "/min": ("rate", 1.0, 0.0), "%": ("percent", 1.0, 0.0), "1": ("unity", 1.0, 0.0),
}  # fmt: skip


@pytest.mark.parametrize(("written", "wanted", "value", "expected"), KNOWN)
def test_known_values_convert(written, wanted, value, expected):
    convert = converter(written, wanted)
    assert convert is not None
    assert convert(value) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("written", "wanted"),
    [("1", "%"), ("%", "1"), (None, "%"), (None, "/min"), (None, "Cel"), ("unknown", "unknown?"), ("/h", "/min"),
     ("Cel", "[degF]"), ("degC", "Cel"), ("mmHg", "mm[Hg]"), ("", "/min"), ("cm[H2O]", "mm[Hg]")],
)  # fmt: skip
def test_what_the_table_does_not_hold_is_refused(written, wanted):
    assert converter(written, wanted) is None


def test_a_missing_unit_is_accepted_only_for_points():
    assert converter(None, "{score}") is not None
    assert all(converter(None, unit) is None for unit in MEANING if unit != "1")


@settings(print_blob=True)
@given(
    st.sampled_from(sorted(MEANING)),
    st.sampled_from(sorted(MEANING)),
    st.floats(-1e4, 1e4, allow_nan=False),
)
def test_a_conversion_never_changes_the_dimension_and_agrees_with_the_definitions(written, wanted, value):
    convert = converter(written, wanted)
    dimension, size, zero = MEANING[written]
    dimension_wanted, size_wanted, zero_wanted = MEANING[wanted]
    if convert is None:
        return
    assert dimension == dimension_wanted
    assert math.isclose(convert(value), (value * size + zero - zero_wanted) / size_wanted, rel_tol=1e-7, abs_tol=1e-6)


@settings(print_blob=True)
@given(st.text(max_size=12), st.sampled_from(sorted(MEANING)))
def test_no_text_that_is_not_a_unit_of_the_table_is_ever_converted(written, wanted):
    convert = converter(written, wanted)
    if convert is not None:
        assert plain(written) in MEANING
        assert MEANING[plain(written)][0] == MEANING[wanted][0]
