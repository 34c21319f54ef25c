"""A site's own recalibration: two numbers on the log odds, said in the note, before the bands and the explanation."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.app import running_model
from sidecar.errors import Misconfigured
from sidecar.settings import ModelSettings
from sidecar.writeback import note
from tests.unit.opaque import MANIFEST, early_warning, fresh, judge, readings, vector

OWN = "recalibration = {{ intercept = -0.4, slope = 0.8, date = 2026-05-01, n = 1234 }}\n[[outputs.bands]]"
SITE = MANIFEST.replace("[[outputs.bands]]", OWN)
values = st.fixed_dictionaries(
    {
        "respiratory_rate": st.floats(8, 40), "spo2": st.floats(80, 100), "systolic_bp": st.floats(80, 180),
        "pulse": st.floats(40, 160),
    }
)  # fmt: skip


def log_odds(probability):
    return math.log(probability / (1 - probability))


@pytest.fixture(scope="module")
def site():
    return fresh(None, SITE)


@given(patient=values)
def test_the_log_odds_are_moved_by_the_two_numbers_and_by_nothing_else(site, patient):
    plain = early_warning().score(vector(patient)).probabilities["within_a_day"]
    own = site.score(vector(patient)).probabilities["within_a_day"]
    assert log_odds(own) == pytest.approx(-0.4 + 0.8 * log_odds(plain), abs=1e-6)


@given(patient=values)
def test_what_an_input_changes_is_a_change_of_the_recalibrated_probability(site, patient):
    score = site.score(vector(patient))
    other = site.score(vector(patient | {"pulse": 80.0}))
    expected = score.probabilities["within_a_day"] - other.probabilities["within_a_day"]
    assert score.changes["pulse"] == pytest.approx(expected, abs=1e-9)


def test_the_note_says_when_and_with_how_many_patients_and_the_band_follows(site):
    model = running_model(site, ModelSettings())
    conclusion = judge(*readings(spo2=97, systolic_bp=120, pulse=100), model=model)
    plain = judge(*readings(spo2=97, systolic_bp=120, pulse=100))
    manifest = site.manifest
    assert "Recalibrated for this site on 2026-05-01, with 1234 patients." in note.text(
        conclusion, manifest, "final", ()
    )
    assert "Recalibrated" not in note.text(plain, early_warning().manifest, "final", ())


@pytest.mark.parametrize(
    "wrong", ["slope = 0", "slope = -1", "slope = nan", "n = 0", "intercept = inf", 'date = "soon"']
)
def test_numbers_that_no_recalibration_has_are_refused(wrong):
    name = wrong.partition(" ")[0]
    kept = [
        part for part in ("intercept = -0.4", "slope = 0.8", "date = 2026-05-01", "n = 1234") if part.split()[0] != name
    ]
    with pytest.raises(Misconfigured, match=name):
        fresh(None, SITE.replace(OWN.partition("\n")[0], f"recalibration = {{{{ {', '.join([*kept, wrong])} }}}}"))
