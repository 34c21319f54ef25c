"""Sums, changes, times and weights over a window; a body mass index; what absence means."""

import hashlib
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import manifest as manifests
from sidecar.errors import Misconfigured
from sidecar.manifest.codes import read_set
from tests.unit.chart import NEWS2, measured
from tests.unit.language import ICD, ago, all_told, diagnosis, manifest, told

HB = {"unit": "g/dL", "from": [{"codes": ["http://loinc.org|718-7"]}], "window": "48h"}
SETS = Path(manifests.__file__).parent / "valuesets"


def hb(value, hours, key=None, **more):
    return {**measured("718-7", value, "g/dL"), "effectiveDateTime": ago(hours=hours), "id": key or f"o{hours}", **more}


FALLING = [hb(14, 48), hb(13, 24), hb(10, 0)]


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ({"select": "slope", "per": "d"}, -2.0), ({"select": "slope", "per": "h"}, -2 / 24), ({"select": "delta"}, -4), ({"select": "sum"}, 37),
        ({"select": "first"}, 14), ({"select": "time_since", "unit": "h", "max_age": "48h"}, 0), ({"select": "any"}, 1),
        ({"select": "delta", "window": "24h"}, -3),
    ],
)  # fmt: skip
def test_a_window_comes_to_one_number(spec, value):
    assert told({**HB, **spec}, *FALLING).value == pytest.approx(value)


@pytest.mark.parametrize("spec", [{"select": "slope", "per": "d"}, {"select": "delta"}])
def test_one_moment_tells_no_change(spec):
    assert told({**HB, **spec}, hb(14, 3), hb(13, 3, "same")).reason == "few:x"
    assert told({**HB, **spec}).reason == "missing:x"


@given(
    st.lists(st.tuples(st.integers(0, 47), st.floats(5, 20)), min_size=2, max_size=8, unique_by=lambda pair: pair[0])
)
def test_a_slope_is_the_same_from_wherever_it_is_looked_at_and_scales_with_the_unit(points):
    chart = [hb(value, hours) for hours, value in points]
    by_day, by_hour = (told({**HB, "select": "slope", "per": per}, *chart).value for per in ("d", "h"))
    assert by_day == pytest.approx(24 * by_hour, abs=1e-9)
    mirrored = [hb(25 - value, hours) for hours, value in points]
    assert told({**HB, "select": "slope", "per": "d"}, *mirrored).value == pytest.approx(-by_day, abs=1e-9)


@pytest.mark.parametrize("select", ["first", "sum", "delta", "any", "slope", "time_since"])
def test_measurements_that_are_not_there_are_missing_and_never_none(select):
    spec = {**HB, "select": select, "max_age": "48h"}
    spec |= {"per": "h"} if select == "slope" else {"unit": "h"} if select == "time_since" else {}
    assert told(spec).reason == "missing:x"
    assert told(spec, hb(9, 60)).reason == "stale:x"
    assert told({**spec, "absent": 0}).value == 0


@pytest.mark.parametrize("select", ["sum", "delta", "slope", "first", "min", "latest"])
def test_a_newer_unusable_value_never_lets_an_older_one_stand_in(select):
    spec = {**HB, "select": select, "max_age": "48h"} | ({"per": "h"} if select == "slope" else {})
    odd = hb(9, 47 if select == "first" else 0, "odd", valueQuantity={"value": 9, "unit": "furlong"})
    found = told(spec, hb(14, 40), hb(13, 20), odd)
    assert (math.isnan(found.value), found.reason) == (True, "unit:x")


def test_nan_goes_to_the_graph_where_nothing_is_charted_or_all_is_too_old_and_not_where_it_cannot_be_read():
    spec = {**HB, "select": "latest", "max_age": "48h", "absent": math.nan}
    absent, stale, odd = (
        told(spec),
        told(spec, hb(9, 60)),
        told(spec, hb(9, 1, valueQuantity={"value": 9, "unit": "furlong"})),
    )
    assert (math.isnan(absent.value), absent.reason) == (True, None)
    assert (math.isnan(stale.value), stale.reason) == (True, None)
    assert odd.reason == "unit:x"


def charlson(name, *codes, **more):
    text = (SETS / f"{name}.toml").read_bytes()
    groups = read_set(name, hashlib.sha256(text).hexdigest(), SETS).groups
    spec = {
        "select": "weights", "max_age": "36500d", "from": [{"type": "Condition", "history": True}],
        "groups": {g: group.model_dump() for g, group in groups.items()},
    }  # fmt: skip
    return told(spec, *(diagnosis(code, f"c{n}", **more) for n, code in enumerate(codes)))


@pytest.mark.parametrize(
    ("codes", "classical", "lace"),
    [
        ([], 0, 0), (["I21.4"], 1, 1), (["I50.9"], 1, 2), (["I50.9", "I50.1"], 1, 2), (["E11.9"], 1, 1), (["E11.9", "E11.22"], 2, 2),
        (["C50.9"], 2, 2), (["C50.9", "C78.0"], 6, 6), (["K70.3"], 1, 2), (["K70.3", "K72.9"], 3, 4), (["N18.3"], 2, 2), (["N18.5"], 2, 4),
        (["N18.3", "N18.6"], 2, 4), (["K70.3", "N18.2"], 3, 2), (["G30.9"], 1, 3), (["B20"], 6, 4), (["J44.1"], 1, 2), (["M05.9"], 1, 3),
        (["I10"], 0, 0), (["I50.9", "J44.1", "E11.9", "N18.4"], 5, 9),
    ],
)  # fmt: skip
def test_comorbidities_are_weighed_as_charlson_did_and_as_lace_does(codes, classical, lace):
    coded = [f"{ICD}|{code}" for code in codes]
    assert (charlson("charlson", *coded).value, charlson("charlson_lace", *coded).value) == (classical, lace)


def test_a_disease_that_is_over_still_weighs_and_one_that_never_was_does_not():
    system = "http://terminology.hl7.org/CodeSystem/condition-"
    over = {"clinicalStatus": {"coding": [{"system": f"{system}clinical", "code": "resolved"}]}}
    refuted = {"verificationStatus": {"coding": [{"system": f"{system}ver-status", "code": "refuted"}]}}
    assert charlson("charlson", f"{ICD}|I21.4", **over).value == 1
    assert charlson("charlson", f"{ICD}|I21.4", **refuted).value == 0


def test_a_disease_that_cannot_be_read_makes_the_sum_unknown_unless_it_makes_no_difference():
    odd = {"clinicalStatus": {"coding": [{"system": "urn:x", "code": "odd"}]}}
    unknown = charlson("charlson", f"{ICD}|C50.9", **odd)
    assert (math.isnan(unknown.value), unknown.reason) == (True, "status:x")


WEIGHT = {"unit": "kg", "max_age": "365d", "from": [{"codes": ["http://loinc.org|29463-7"]}], "plausible": [20, 400]}
HEIGHT = {"unit": "cm", "max_age": "3650d", "from": [{"codes": ["http://loinc.org|8302-2"]}], "plausible": [100, 250]}
BMI = {
    "derive": "bmi", "inputs": ["weight", "height"], "unit": "kg/m2", "max_age": "365d", "plausible": [10, 100],
    "from": [{"codes": ["http://loinc.org|39156-5"]}],
}  # fmt: skip


def bmi(*charted):
    return all_told(manifest({"weight": WEIGHT, "height": HEIGHT, "bmi": BMI}), *charted)["bmi"]


def taken(code, value, unit, days):
    return {**measured(code, value, unit), "effectiveDateTime": ago(days=days), "id": f"o{code}-{days}"}


@pytest.mark.parametrize(
    ("charted", "value", "reason"),
    [
        ([("29463-7", 80, "kg", 1), ("8302-2", 200, "cm", 9)], 20, None), ([("29463-7", 176.37, "[lb_av]", 1), ("8302-2", 78.74, "[in_i]", 9)], 20, None),
        ([("29463-7", 80, "kg", 1), ("8302-2", 2, "m", 9)], 20, None), ([("39156-5", 31, "kg/m2", 5)], 31, None),
        ([("29463-7", 80, "kg", 1), ("8302-2", 200, "cm", 9), ("39156-5", 31, "kg/m2", 5)], 20, None),
        ([("29463-7", 80, "kg", 6), ("8302-2", 200, "cm", 9), ("39156-5", 31, "kg/m2", 5)], 31, None),
        ([("29463-7", 80, "stone", 1), ("8302-2", 200, "cm", 9), ("39156-5", 31, "kg/m2", 5)], None, "unit:weight"),
        ([("29463-7", 80, "kg", 1)], None, "missing:height"), ([], None, "missing:weight"), ([("29463-7", 350, "kg", 1), ("8302-2", 150, "cm", 9)], None, "implausible:bmi"),
    ],
)  # fmt: skip
def test_a_body_mass_index_is_of_the_newest_that_is_charted(charted, value, reason):
    found = bmi(*(taken(*each) for each in charted))
    assert found.reason == reason
    assert value is None or found.value == pytest.approx(value, rel=1e-4)


def test_a_body_mass_index_cites_both_that_it_comes_from():
    found = bmi(taken("29463-7", 80, "kg", 1), taken("8302-2", 200, "cm", 9))
    assert len({found.index, *found.others}) == 2


VALUE_SET = 'schema = 1\ntitle = "Statins"\nsource = "ATC"\ncodes = ["http://www.whocc.no/atc|C10AA*"]\n'
FEATURE = """
[features.statin]
label = "statin"
unit = "1"
select = "any"
max_age = "3650d"
[[features.statin.from]]
type = "MedicationRequest"
valuesets = ["statins"]
[valuesets]
statins = "{digest}"
"""


def with_set(folder, content, digest=None, feature=FEATURE):
    (folder / "valuesets").mkdir()
    (folder / "valuesets" / "statins.toml").write_text(content)
    said = digest or hashlib.sha256(content.encode()).hexdigest()
    (folder / "manifest.toml").write_text((NEWS2 / "manifest.toml").read_text() + feature.replace("{digest}", said))
    return manifests.load(folder / "manifest.toml")


def test_a_value_set_beside_the_manifest_stands_for_its_codes(tmp_path):
    assert with_set(tmp_path, VALUE_SET).codes_of("MedicationRequest") == {"http://www.whocc.no/atc|C10AA*"}


@pytest.mark.parametrize(
    ("content", "digest", "said"),
    [
        (VALUE_SET, "0" * 64, "not the reviewed file"), (VALUE_SET.replace("codes", "code"), None, 'unknown key code; did you mean "codes"?'),
        (VALUE_SET.replace("http://www.whocc.no/atc|C10AA*", "http://loinc.org|27*"), None, "only these systems spell their hierarchy"),
        (VALUE_SET.replace("C10AA*", "C*AA"), None, 'one "*" at its end'), ("schema = ", None, "not valid TOML"),
    ],
)  # fmt: skip
def test_a_value_set_that_is_not_the_one_or_cannot_be_read_refuses_the_start(tmp_path, content, digest, said):
    with pytest.raises(Misconfigured) as refused:
        with_set(tmp_path, content, digest)
    assert any(said in problem for problem in refused.value.problems), refused.value.problems


def test_a_value_set_that_nobody_reads_or_pins_is_refused(tmp_path):
    with pytest.raises(Misconfigured, match="must name the same: statins"):
        with_set(tmp_path, VALUE_SET, feature=FEATURE.partition("[valuesets]")[0])


def test_a_set_that_ships_is_found_without_a_file_beside_the_manifest(tmp_path):
    text = (SETS / "charlson_lace.toml").read_bytes()
    feature = FEATURE.replace('select = "any"', 'select = "weights"').replace('["statins"]', '["charlson_lace"]')
    feature = feature.replace("statins =", "charlson_lace =").replace("MedicationRequest", "Condition")
    (tmp_path / "manifest.toml").write_text(
        (NEWS2 / "manifest.toml").read_text() + feature.replace("{digest}", hashlib.sha256(text).hexdigest())
    )
    loaded = manifests.load(tmp_path / "manifest.toml")
    assert loaded.features["statin"].groups["aids"].weight == 4
    assert "http://hl7.org/fhir/sid/icd-10-cm|I50*" in loaded.codes_of("Condition")


@pytest.mark.parametrize("codes", [("I50*", "I50.2"), ("I50.2", "I50*"), ("I50.2", "I50.2"), ("I5*", "I50*")])
def test_a_code_in_two_groups_is_refused(codes):
    groups = {f"g{n}": {"label": "g", "weight": 1, "codes": [f"{ICD}|{code}"]} for n, code in enumerate(codes)}
    with pytest.raises(ValueError, match="is in two groups"):
        manifest({"x": {"select": "weights", "max_age": "9d", "from": [{"type": "Condition"}], "groups": groups}})
