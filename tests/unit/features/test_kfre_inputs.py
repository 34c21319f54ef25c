"""What of a chart becomes an input of the kidney failure risk, and what never does."""

from datetime import timedelta

import pytest

from sidecar.records import Outcome
from tests.unit.chart import AT, LOINC, UCUM, observation
from tests.unit.kidney import EGFR_UNIT, acr, creatinine, egfr, judge_ckd, kfre, who

BIRTH_SEX = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex"
WORDS = {"system": UCUM}


def value(name, *chart, **how):
    """The input's value, or its reason."""
    a = judge_ckd(*chart, **how).assessment
    feature = next(f for f in a.vector.features if f.name == name)
    return feature.reason or pytest.approx(feature.value, rel=1e-9)


@pytest.mark.parametrize("code", ["9318-7", "14959-1", "32294-1", "30000-4"])
@pytest.mark.parametrize(
    ("charted", "unit"),
    [
        (250, "mg/g"), (250, "mg/g{creat}"), (250, "ug/mg"), (250_000, "ug/g"), (0.25, "g/g"), (0.25, "g/g{creat}"), (250, "g/kg"),
        (250 / 8.84, "mg/mmol"), (250 / 8.84, "mg/mmol{creat}"), (250 / 8.84, "g/mol"), (250_000 / 8.84, "mg/mol"),
    ],
)  # fmt: skip
def test_a_ratio_is_read_in_every_unit_of_its_kind(code, charted, unit):
    assert value("uacr", egfr(), acr(charted, unit, code)) == 250


@pytest.mark.parametrize("unit", ["mg/L", "mg/dL", "g/L", "%", "1", "mmol/L", "umol/L", "mg", "{Mr Smith}"])
def test_a_unit_that_is_none_of_a_ratio_is_refused(unit):
    assert value("uacr", egfr(), acr(250, unit)) == "unit:uacr"


@pytest.mark.parametrize("ratio", [0, -3, 0.01, 50_000])
def test_a_ratio_that_cannot_be_is_not_computed_with(ratio):
    assert value("uacr", egfr(), acr(ratio)) == "implausible:uacr"


def test_a_limit_is_no_value():
    below = observation(f"{LOINC}|9318-7", valueQuantity={"value": 3, "comparator": "<", "code": "mg/g", **WORDS})
    assert value("uacr", egfr(), below) == "comparator:uacr"
    above = observation(f"{LOINC}|98979-8", valueQuantity={"value": 60, "comparator": ">", "code": EGFR_UNIT, **WORDS})
    assert value("egfr", above, acr()) == "comparator:egfr"


@pytest.mark.parametrize(
    "quantity",
    [
        {"code": EGFR_UNIT, **WORDS}, {"code": "mL/min/1.73m2", **WORDS}, {"unit": "mL/min/1.73m2"}, {"unit": "mL/min/1.73 m2"},
        {"unit": "mL/min/1.73m²"}, {"unit": "ml/min/1.73m2"}, {"code": "mL/min/1.73.m2", **WORDS},
    ],
)  # fmt: skip
def test_a_filtration_rate_is_read_however_its_unit_is_spelt(quantity):
    assert value("egfr", observation(f"{LOINC}|98979-8", valueQuantity={"value": 31, **quantity}), acr()) == 31


@pytest.mark.parametrize("unit", ["mL/min", "ml/min", "L/min", "mg/dL", "1", "mL/min/{adult}"])
def test_a_clearance_that_is_not_indexed_to_body_surface_is_no_filtration_rate(unit):
    quantity = {"value": 31, "code": unit, **WORDS}
    assert value("egfr", observation(f"{LOINC}|98979-8", valueQuantity=quantity), acr()) == "unit:egfr"


@pytest.mark.parametrize("code", ["2160-0", "38483-4", "14682-9"])
@pytest.mark.parametrize(
    ("unit", "amount"), [("mg/dL", 2), ("mg/L", 20), ("umol/L", 176.8), ("mmol/L", 0.1768)]
)  # fmt: skip
def test_creatinine_is_read_by_its_unit_whatever_its_code_is(code, unit, amount):
    reading = creatinine(amount, unit)
    reading["code"]["coding"][0]["code"] = code
    assert value("egfr", reading, acr()) == value("egfr", creatinine(2), acr()).expected


@pytest.mark.parametrize("code", ["2160-0", "38483-4", "14682-9"])
@pytest.mark.parametrize("unit", ["mg/g", "mL/min", "1", "mg"])
def test_a_creatinine_in_a_unit_of_something_else_is_refused_by_its_own_name(code, unit):
    reading = creatinine(2, unit)
    reading["code"]["coding"][0]["code"] = code
    assert value("egfr", reading, acr()) == "unit:creatinine"


@pytest.mark.parametrize(("amount", "unit"), [(0, "mg/dL"), (50, "mg/dL"), (3000, "umol/L"), (2, "umol/L")])
def test_a_creatinine_that_cannot_be_is_not_computed_with(amount, unit):
    assert value("egfr", creatinine(amount, unit), acr()) == "implausible:creatinine"


@pytest.mark.parametrize("code", ["62238-1", "33914-3", "48642-3", "77147-7", "50210-4", "88293-6"])
def test_a_filtration_rate_by_another_equation_is_not_read_and_the_reason_names_the_one_that_is(code):
    other = observation(f"{LOINC}|{code}", valueQuantity={"value": 31, "code": EGFR_UNIT, **WORDS})
    assert value("egfr", other, acr()) == "missing:egfr"
    assert "2021" in kfre().manifest.features["egfr"].label


def remark(*chart):
    return " ".join(judge_ckd(*chart, acr()).assessment.vector.remarks)


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("chart", "said"),
    [
        ([egfr(31)], "as reported"),
        ([creatinine(2)], "computed"),
        ([creatinine(2), egfr(31)], "as reported"),
        ([creatinine(2), egfr(31, HOUR)], "computed"),
        ([creatinine(2, ago=HOUR), egfr(31)], "as reported"),
    ],
)
def test_the_newest_counts_reported_or_computed_and_of_one_moment_the_reported_one(chart, said):
    assert f"eGFR {said}" in remark(*chart)
    assert f"eGFR {said}" in remark(*reversed(chart))


def test_a_computed_rate_cites_the_creatinine_and_says_its_value_as_charted():
    conclusion = judge_ckd(creatinine(177, "umol/L"), acr())
    assert [r.id for r in conclusion.evidence.basis] == ["o-14682-9-0", "o-9318-7-0"]
    assert any(
        "from serum creatinine 177 µmol/L by the CKD-EPI 2021" in r for r in conclusion.assessment.vector.remarks
    )


def test_what_is_said_of_a_computed_rate_is_true_when_one_was_reported_an_hour_before():
    said = remark(creatinine(2), egfr(31, HOUR))
    assert "because no eGFR was reported at the same time or later" in said


def test_an_older_reported_rate_does_not_stand_in_for_a_newer_creatinine_that_cannot_be_read():
    assert value("egfr", egfr(31, HOUR), creatinine(2, "{Mr Smith}"), acr()) == "unit:creatinine"


@pytest.mark.parametrize(
    ("chart", "expected"),
    [
        ([egfr(31, timedelta(days=182)), acr()], ()),
        ([egfr(31, timedelta(days=184)), acr()], ("stale:egfr",)),
        ([egfr(31), acr(ago=timedelta(days=364))], ()),
        ([egfr(31), acr(ago=timedelta(days=366))], ("stale:uacr",)),
        ([egfr(31)], ("missing:uacr",)),
        ([acr()], ("missing:egfr",)),
    ],
)
def test_a_result_counts_for_as_long_as_the_manifest_says(chart, expected):
    assert judge_ckd(*chart).assessment.reasons == expected


def birth_sex(*codes):
    return {"extension": [{"url": BIRTH_SEX, "valueCode": code} for code in codes]}


@pytest.mark.parametrize(
    ("patient", "expected"),
    [
        ({"gender": "male"}, 1), ({"gender": "female"}, 0), ({"gender": "male", **birth_sex("M")}, 1), ({"gender": "female", **birth_sex("F")}, 0),
        ({"gender": None, **birth_sex("F")}, 0), ({"gender": "unknown", **birth_sex("M")}, 1), ({"gender": "male", **birth_sex("UNK")}, 1),
        ({"gender": None}, "missing:sex"), ({"gender": "other"}, "missing:sex"), ({"gender": "unknown"}, "missing:sex"), ({"gender": "Male"}, "missing:sex"),
        ({"gender": "male", **birth_sex("F")}, "contradictory:sex"), ({"gender": "other", **birth_sex("F")}, "contradictory:sex"),
        ({"gender": "female", **birth_sex("OTH")}, "contradictory:sex"), ({"gender": None, **birth_sex("M", "F")}, "contradictory:sex"),
        ({"gender": 1}, "missing:sex"), ({"gender": "male", "extension": [{"url": "urn:x", "valueCode": "F"}, "x", None]}, 1),
    ],
)  # fmt: skip
def test_sex_is_what_the_chart_says_and_is_never_guessed(patient, expected):
    assert value("sex", egfr(), acr(), patient=who(**patient)) == expected


def test_a_sex_that_is_not_known_is_said_once_though_two_inputs_need_it():
    assert judge_ckd(creatinine(2), acr(), patient=who(gender="other")).assessment.reasons == ("missing:sex",)


@pytest.mark.parametrize(
    ("born", "expected"),
    [
        ("1956-03-01", 70.0), ("1955-08-31", 70.5), ("1929-03-01", 97.0), ("1919-03-01", 107.0),
        ("1956", "imprecise:birth_date"), ("1956-03", "imprecise:birth_date"),
    ],
)  # fmt: skip
def test_age_is_exact_to_the_day_and_has_no_cap(born, expected):
    a = judge_ckd(egfr(), acr(), patient=who(birthDate=born)).assessment
    age = a.vector.features[0]
    assert (age.reason or age.value) == (expected if isinstance(expected, str) else pytest.approx(expected, abs=0.003))


def test_age_is_of_the_day_of_the_results_in_the_zone_of_the_facility():
    late = timedelta(hours=-11)  # 23:00 UTC: already the next day in Auckland
    ages = [
        judge_ckd(egfr(ago=late), acr(ago=late), tz=tz, at=AT - late).assessment.vector.features[0].value
        for tz in ("UTC", "Pacific/Auckland")
    ]
    assert ages[1] - ages[0] == pytest.approx(1 / 365.25)


@pytest.mark.parametrize("born", [None, "2027-01-01", "1 March 1956", "1956-02-30"])
def test_without_a_birth_date_there_is_no_risk(born):
    a = judge_ckd(egfr(), acr(), patient=who(birthDate=born)).assessment
    assert (a.outcome, a.reasons) == (Outcome.NOT_SCORED, ("missing:birth_date",))


def test_a_97_year_old_is_not_taken_for_a_90_year_old():
    at_97, at_90 = (
        judge_ckd(egfr(12), acr(2000), patient=who(birthDate=b)).assessment.probabilities["two_years"]
        for b in ("1929-03-01", "1936-03-01")
    )
    assert at_90 - at_97 > 0.04
