"""The kidney failure risk agrees with independent implementations: through the command, and from the chart on."""

import json
from datetime import timedelta

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.records import Outcome
from tests.unit.chart import AT, REPO
from tests.unit.kidney import KFRE, acr, creatinine, egfr, judge_ckd, who

SHARED = REPO.parent / "shared" / "vectors"
if not SHARED.is_dir():
    pytest.skip(f"missing: {SHARED}", allow_module_level=True)
EQUATION = json.loads((SHARED / "kfre_4var.json").read_text())["vectors"]
FILTRATION = json.loads((SHARED / "ckd_epi_2021.json").read_text())["vectors"]


@pytest.mark.parametrize(("file", "count"), [("kfre_4var", 37), ("ckd_epi_2021", 36)])
def test_every_shared_vector_agrees_through_the_command(file, count):
    done = CliRunner().invoke(main, ["models", "check", str(KFRE), "--vectors", str(SHARED / f"{file}.json"), "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["model"], found["agree"], found["total"]) == (0, "kfre_4var", count, count)
    assert found["worst"] < 1e-4


def test_every_shared_vector_of_news2_agrees_through_the_command():
    news2 = REPO / "models" / "news2"
    done = CliRunner().invoke(main, ["models", "check", str(news2), "--vectors", str(SHARED / "news2.json"), "--json"])
    assert json.loads(done.stdout) == {"model": "news2", "agree": 84, "total": 84, "worst": 0.0, "ignored": []}


def aged(years):
    """A birth date that many years ago, to the day: half a day off at most."""
    return (AT - timedelta(days=round(years * 365.25))).date().isoformat()


STYLES = {
    "mg/g": lambda v: acr(v["uacr_mg_per_g"]),
    "mg/mmol": lambda v: acr(v["uacr_mg_per_g"] / 8.84, "mg/mmol", "32294-1"),
    "g/g": lambda v: acr(v["uacr_mg_per_g"] / 1000, "g/g", "14959-1"),
}


@pytest.mark.parametrize("style", STYLES)
def test_every_shared_vector_agrees_from_the_chart_on_however_the_ratio_is_charted(style):
    far = []
    for vector in EQUATION:
        v = vector["inputs"]
        patient = who(gender="male" if v["male"] else "female", birthDate=aged(v["age_years"]))
        a = judge_ckd(egfr(v["egfr"]), STYLES[style](v), patient=patient, region=v["region"]).assessment
        assert a.outcome is Outcome.SCORED, a.reasons
        found = a.probabilities[{2: "two_years", 5: "five_years"}[v["years"]]]
        if abs(found - vector["expected"]["risk"]) > max(vector["expected"].get("atol", 0), 1e-4):
            far.append((v, vector["expected"], found))
    assert far == []


@pytest.mark.parametrize("unit", ["mg/dL", "umol/L"])
def test_every_shared_vector_of_the_filtration_rate_agrees_from_the_creatinine_on(unit):
    far = []
    for vector in FILTRATION:
        v, expected = vector["inputs"], vector["expected"]["egfr"]
        charted = creatinine(v["creatinine_mg_dl"] * (1 if unit == "mg/dL" else 88.4), unit)
        a = judge_ckd(charted, acr(), patient=who(gender=v["sex"], birthDate=aged(v["age_years"]))).assessment
        if 10 <= expected < 60:
            found = next(f.value for f in a.vector.features if f.name == "egfr")
            far += [(v, expected, found)] if abs(found - expected) > 0.005 else []
        else:
            far += [(v, expected, a.reasons)] if a.reasons != ("out_of_cohort:egfr",) else []
    assert far == []
