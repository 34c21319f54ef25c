"""`sidecar deid rules` shows an officer every element that R4 has, what happens to it, and why it is left out."""

import json

import pytest
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.deid import Mode, load_policy, load_rules
from sidecar.deid.definitions import r4


def run(*arguments):
    return CliRunner().invoke(main, ["deid", "rules", *arguments], env={"COLUMNS": "120"})


def elements(*names):
    done = run(*names, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)["elements"]


def test_every_element_of_every_type_is_shown_exactly_once():
    shown = [(row["of"], row["element"]) for row in elements()]
    assert len(shown) == len(set(shown))
    assert [(row["of"], row["element"]) for row in elements("Goal", "Patient", "Goal")] == [
        each for name in ("Goal", "Patient") for each in shown if each[0].partition(".")[0] == name
    ]
    for name in r4().resources:
        assert {element for of, element in shown if of == name} >= r4().elements(name).keys(), name
    inside = {of for of, _ in shown}
    assert {
        "Observation.component",
        "QuestionnaireResponse.item.answer",
        "Timing.repeat",
        "Bundle.entry.search",
    } <= inside


def test_whatever_is_dropped_says_why_and_nothing_else_does():
    for row in elements():
        kept_by_url = row["element"] == "extension" and row["of"] in r4().resources
        assert (row["does"] == "dropped") == bool(row["why"]) or kept_by_url, row


def test_what_a_model_reads_is_shown_beside_what_happens_elsewhere():
    rows = {(row["of"], row["element"]): row for row in elements("Observation", "Patient")}
    assert rows["Observation", "valueQuantity"]["read"] == "quantity"
    assert rows["Observation.component", "valueQuantity"]["read"] == "quantity"
    assert rows["Observation", "valueString"]["read"] == "uninterpreted"
    assert rows["Observation", "valueString"]["why"] == "free text, in which a name may stand"
    assert rows["Observation", "status"]["does"] == "if it is one of 8 codes; else the resource is refused"
    assert rows["Patient", "birthDate"] == {
        "of": "Patient", "element": "birthDate", "does": "birth date, by the mode", "read": "age", "why": None,
    }  # fmt: skip
    read = {(of, name) for of in ("Observation", "Patient") for name in load_rules().types[of]}
    assert {key for key, row in rows.items() if row["read"] and "." not in key[0]} == read


def test_the_policy_shown_is_the_one_that_is_named_by_its_digest():
    said = json.loads(run("Patient", "--json").stdout)
    policy = load_policy()
    assert (said["digest"], said["systems"], said["units"]) == (
        policy.digest,
        sorted(policy.systems),
        sorted(policy.units),
    )
    assert said["own_codes"] == sorted(policy.own_codes)
    assert said["zip3"]["restricted"] == sorted(policy.restricted_zip3)
    text = run("Patient").stdout.replace("\n", "")
    assert "http://snomed.info/sct|86406008" in said["sensitive"]["codes"]
    assert "http://snomed.info/sct|86406008" in run().stdout
    assert "http://snomed.info/sct|86406008" not in text
    assert set(said["sensitive"]["labels"]) == load_rules().sensitive.labels
    assert policy.digest in text
    for mode in Mode:
        assert said["assessments"][mode] == load_rules(mode=mode).digest
        assert f"{mode}: {load_rules(mode=mode).digest}" in text


def test_a_table_can_be_read_by_a_person():
    said = run("Patient", "Quantity").stdout
    assert "Patient.link" in said
    assert "birth date, by the mode" in said
    assert "dropped: free text, in which a name may stand" in said
    assert "Encounter" not in said


@pytest.mark.parametrize("arguments", [("Observaton",), ("Observaton", "--json")])
def test_a_type_that_the_policy_does_not_have_is_refused_with_the_nearest_one(arguments):
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == 'sidecar: the policy has no type Observaton; did you mean "Observation"?\n'
