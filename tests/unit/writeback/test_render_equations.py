"""What a clinician gets of the published equations, in the units and codes that EHRs use; golden pairs of files."""

import json

import pytest
from fhir.resources.R4B import get_fhir_model_class

from tests.unit.equations import FIXTURES, NAMES, golden, goldens, of_bundle

PAIRS = [(name, file) for name in NAMES for file in goldens(name)]


def said(name, file):
    line = of_bundle(name, golden(file), decided="site-decided" in file)
    return {key: line[key] for key in ("outcome", "reasons", "score", "risk", "resources")}


@pytest.mark.parametrize(("name", "file"), PAIRS)
def test_a_golden_input_renders_to_its_golden_output(name, file):
    assert said(name, file) == json.loads((FIXTURES / "expected" / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_every_model_has_golden_pairs_that_are_scored_and_one_that_is_not(name):
    files = goldens(name)
    assert sorted(path.name for path in (FIXTURES / "expected").glob(f"{name}-*.json")) == files
    outcomes = [json.loads((FIXTURES / "expected" / file).read_text(encoding="utf-8"))["outcome"] for file in files]
    assert {"scored", "not_scored"} <= set(outcomes) or name == "hospital_simplified"


@pytest.mark.parametrize(("name", "file"), PAIRS)
def test_every_golden_resource_is_valid_r4(name, file):
    made = json.loads((FIXTURES / "expected" / file).read_text(encoding="utf-8"))["resources"]
    for resource in [*made, *(entry["resource"] for entry in golden(file)["entry"])]:
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)


@pytest.mark.parametrize(("name", "file"), PAIRS)
def test_points_are_never_a_probability_and_contributions_sum_to_what_is_shown(name, file):
    line = of_bundle(name, golden(file), decided="site-decided" in file)
    if line["outcome"] != "scored":
        return
    assert sum(line["contributions"].values()) == pytest.approx(line["score"], abs=1e-9)
    written = json.dumps(line["resources"])
    assert ("probability" in written) == bool(line["probabilities"])


def test_a_diagnosis_that_would_reveal_itself_counts_and_is_not_named():
    line = of_bundle("lace", golden("lace-sensitive.json"))
    assert (line["score"], line["contributions"]["comorbidity"]) == (8, 5)
    assert "comorbidity" not in json.dumps(line["resources"])


ALCOHOL = {
    "resourceType": "Condition",
    "id": "alcohol",
    "subject": {"reference": "Patient/p1"},
    "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "F10.20"}]},
    "clinicalStatus": {
        "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]
    },
    "recordedDate": "2025-06-01T09:00:00Z",
}


def test_an_input_that_only_tells_of_a_sensitive_condition_is_in_nobodys_result():
    """A "no" in some results would tell that the others are a "yes", and so would the points of all the others."""
    chart = golden("has_bled-drugs.json")
    subject = next(e["resource"] for e in chart["entry"] if e["resource"]["resourceType"] == "Patient")["id"]
    ill = {**ALCOHOL, "subject": {"reference": f"Patient/{subject}"}}
    lines = [of_bundle("has_bled", {**chart, "entry": [*chart["entry"], *more]}) for more in ([], [{"resource": ill}])]
    assert [line["contributions"]["alcohol"] for line in lines] == [0, 1]
    for line in lines:
        made = {resource["resourceType"]: resource for resource in line["resources"]}
        written = json.dumps([{k: v for k, v in each.items() if k != "basis"} for each in line["resources"]])
        assert "alcohol" not in written
        assert "point" not in made["RiskAssessment"]["note"][0]["text"].partition("Points:")[0]
        assert "component" not in made["Observation"]
        assert "not named (sensitive)" in made["RiskAssessment"]["prediction"][0]["rationale"]
