"""A manifest of a graph without terms says how it is explained, and every contradiction is refused in a sentence."""

import pytest

from sidecar import manifest as manifests
from sidecar.errors import Misconfigured
from tests.unit.kidney import KFRE
from tests.unit.opaque import MANIFEST

TEXT = MANIFEST.format(sha256="0" * 64)
TYPICAL = "typical = { respiratory_rate = 16, spo2 = 97, systolic_bp = 120, pulse = 80 }"
EXPLANATION = f'[explanation]\nmethod = "occlusion"\n{TYPICAL}\n'
PROBABILITIES = 'probabilities = "probabilities"\n'
SECOND = """[[outputs]]
name = "within_two_days"
column = 0
horizon = { value = 48, unit = "h" }
code = "urn:ehr-sidecar:code|early-warning-48-hours"
display = "Risk of deterioration within 48 hours"
[result]"""
CHOSEN = '[choices.ward]\nlabel = "ward"\nwhy = "It matters."\nvalues = { surgery = 1, medicine = 0 }\n\n[cohort]'


def refused(tmp_path, text):
    path = tmp_path / "manifest.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Misconfigured) as error:
        manifests.load(path)
    return " ".join(error.value.problems)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (EXPLANATION, "", "is explained by Shapley values or occlusion: give [explanation]"),
        ('method = "occlusion"', 'method = "lime"', "explanation.method"),
        ('method = "occlusion"\n', "", "explanation.method"),
        ("typical =", "typicall =", 'unknown key explanation.typicall; did you mean "typical"?'),
        ("spo2 = 97, ", "", "explanation.typical has no value for: spo2"),
        ("spo2 = 97", "spo = 97", 'names what is no input of the graph: spo; did you mean "spo2"?'),
        ("spo2 = 97", "spo2 = 97, pulss = 3", 'names what is no input of the graph: pulss; did you mean "pulse"?'),
        ("spo2 = 97", "spo2 = 9.7", "explanation.typical.spo2 is no value that spo2 can have"),
        ("spo2 = 97", "spo2 = nan", "explanation.typical.spo2"),
        ("spo2 = 97", "spo2 = inf", "explanation.typical.spo2"),
        ('label = "heart rate"', 'label = "heart rate"\nrequired = false', "so required: pulse"),
        (PROBABILITIES, PROBABILITIES + 'total = "score"\n', "total, points and point_names belong together"),
        (PROBABILITIES, PROBABILITIES + 'point_names = ["pulse"]\n', "total, points and point_names belong together"),
        (PROBABILITIES, PROBABILITIES + 'total = "t"\npoints = "p"\npoint_names = ["pulse"]\n', "explain it exactly"),
        (PROBABILITIES, "", "needs outputs, graph.probabilities"),
        ("[vectors]", 'effect = "odds"\n[vectors]', "are about terms, and the graph gives none"),
        ("[vectors]", 'compared_with = "others"\n[vectors]', "are about terms, and the graph gives none"),
        ("[vectors]", 'components = [{ points = "pulse", code = "a|b", display = "c" }]\n[vectors]', "unknown points: pulse"),
        ("[result]", SECOND, "one probability is explained so: give one output"),
        ("column = 1", "column = -1", "column"),
        ("column = 1", "colum = 1", 'did you mean "column"?'),
        ('of = "probability"', 'of = "total"', "vectors name what the manifest does not have: total"),
        ('kind = "probability"', 'kind = "points"', "no outputs, explanation or graph.probabilities"),
        ("[cohort]", CHOSEN, "choices that are no input of the graph: ward"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_and_says_what(tmp_path, old, new, said):
    assert old in TEXT
    problems = refused(tmp_path, TEXT.replace(old, new, 1))
    assert said in problems, problems


def test_a_typical_choice_is_one_of_its_values(tmp_path):
    chosen = TEXT.replace('"pulse"]', '"pulse", "ward"]').replace("[cohort]", CHOSEN)
    path = tmp_path / "manifest.toml"
    path.write_text(chosen.replace("pulse = 80", "pulse = 80, ward = 0"), encoding="utf-8")
    assert manifests.load(path).say_value("ward", 0) == "medicine"
    assert "explanation.typical.ward is none of the choice's values" in refused(
        tmp_path, chosen.replace("pulse = 80", "pulse = 80, ward = 0.5")
    )


KIDNEY = (KFRE / "manifest.toml").read_text(encoding="utf-8")
FIRST, NEXT = 'name = "two_years"\n', 'name = "five_years"\n'


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({'effect = "hazard"\n': ""}, "terms need result.effect and result.compared_with"),
        ({FIRST: FIRST + "column = 0\n"}, "give column for every output or for none"),
        ({FIRST: FIRST + "column = 1\n", NEXT: NEXT + "column = 1\n"}, "two outputs have one column"),
        ({"[result]": f"{EXPLANATION}[result]"}, "explain it exactly"),
        ({'points = "terms"\n': ""}, "total, points and point_names belong together"),
    ],
)
def test_what_cannot_work_beside_terms_is_refused_too(tmp_path, changes, said):
    text = KIDNEY
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    problems = refused(tmp_path, text)
    assert said in problems, problems


SOURCE = 'codes = ["http://loinc.org|8867-4"]'


@pytest.mark.parametrize(
    ("source", "could", "could_not"),
    [
        ("plausible = [20, 250]", 80, 1.3),
        ("above = 100", 0.4, 80),
        ('values = { "a|yes" = 1, "a|no" = 0 }', 1, 2),
        ('values = { "a|yes" = 2 }\nambiguous = { "a|maybe" = 3 }', 3, 1),
    ],
)
def test_a_typical_value_is_one_that_a_reading_can_give(tmp_path, source, could, could_not):
    text = TEXT.replace("plausible = [20, 250]\n", "").replace(SOURCE, f"{SOURCE}\n{source}")
    (tmp_path / "manifest.toml").write_text(text.replace("pulse = 80", f"pulse = {could}"), encoding="utf-8")
    assert manifests.load(tmp_path / "manifest.toml").explanation.typical["pulse"] == could
    said = refused(tmp_path, text.replace("pulse = 80", f"pulse = {could_not}"))
    assert "explanation.typical.pulse is no value that pulse can have; which unit is it in?" in said


@pytest.mark.parametrize("more", ["absent = -1", 'select = "count"\nwindow = "4h"'])
def test_what_stands_for_absence_and_a_number_of_readings_are_not_measured_by_a_reading(tmp_path, more):
    text = TEXT.replace("plausible = [20, 250]\n", more + "\n").replace(SOURCE, f"{SOURCE}\nplausible = [20, 250]")
    (tmp_path / "manifest.toml").write_text(text.replace("pulse = 80", "pulse = -1"), encoding="utf-8")
    assert manifests.load(tmp_path / "manifest.toml").explanation.typical["pulse"] == -1
