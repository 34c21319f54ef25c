"""A card is complete when every mandatory attribute is given, and a scaffold's is not."""

import pytest

from sidecar.errors import Misconfigured
from sidecar.manifest import missing_mandatory
from sidecar.manifest.attributes import ATTRIBUTES, GROUPS
from sidecar.manifest.card import parse_card

HEAD = """schema = 1
model = "early_warning"
version = "1.0.0"
measurable_objective = "Fewer unplanned admissions to intensive care."
responder = "The nurse in charge of the ward"
[[hazards]]
hazard = "A low probability is read as no risk."
harm = "Late treatment."
control = "The note says what the model does not see."
"""


def text(head=HEAD, *, without=(), **changed):
    said = dict.fromkeys(ATTRIBUTES, ("provided", "As published.")) | changed
    tables = [f'[attributes.{n}]\nstatus = "{s}"\ntext = "{t}"\n' for n, (s, t) in said.items() if n not in without]
    return head + "".join(tables)


def missing(said):
    return missing_mandatory(parse_card(said, "card.toml"))


def refused(said):
    with pytest.raises(Misconfigured) as error:
        parse_card(said, "card.toml")
    return " ".join(error.value.problems)


def test_the_rule_has_thirty_one_attributes_in_nine_groups_each_at_its_place():
    places = [one.place for _, group in GROUPS for one in group]
    assert (len(GROUPS), len(places), len(set(places)), len(ATTRIBUTES)) == (9, 31, 31, 31)
    assert [len(group) for _, group in GROUPS] == [4, 4, 2, 4, 2, 4, 5, 4, 2]
    assert all(one.place.startswith(f"({n})") for n, (_, group) in enumerate(GROUPS, 1) for one in group)


def test_a_card_that_gives_everything_lacks_nothing():
    assert missing(text()) == ()


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_that_is_left_out_is_missed(name):
    assert missing(text(without=(name,))) == (name,)


@pytest.mark.parametrize("said", ["", "  ", "FILL IN: who made it"])
def test_an_attribute_without_words_of_the_author_is_missed(said):
    assert missing(text(developer=("provided", said))) == ("developer",)


def test_only_what_others_or_the_site_must_find_out_may_be_not_available():
    accepted = {name for name in ATTRIBUTES if missing(text(**{name: ("not_available", "Nobody has looked.")})) == ()}
    assert accepted == {
        "external_source", "external_party", "external_representativeness", "external_process", "validity_external",
        "fairness_external", "outcome_evaluations", "validity_local", "fairness_local",
    }  # fmt: skip


def test_what_it_is_for_and_for_whom_can_never_be_not_applicable():
    refused = {name for name in ATTRIBUTES if missing(text(**{name: ("not_applicable", "No data.")}))}
    assert refused == {
        "developer", "output", "output_type", "intended_use", "intended_patients", "intended_users", "decision_role",
        "out_of_scope", "known_risks", "demographic_inputs",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "name"),
    [("measurable_objective", "measurable_objective"), ("responder", "responder"), ("control", "hazards")],
)
def test_objective_responder_and_hazards_are_mandatory(line, name):
    lines = [f'{line} = ""' if said.startswith(line) else said for said in HEAD.splitlines()]
    assert missing(text("\n".join(lines) + "\n")) == (name,)


def test_no_hazard_and_no_card_are_nothing():
    head = HEAD.partition("[[hazards]]")[0]
    assert missing(text(head)) == ("hazards",)
    assert missing_mandatory(None) == ("measurable_objective", "responder", "hazards", *ATTRIBUTES)


def test_a_card_is_closed():
    assert "no source attribute is called developper" in refused(text(developper=("provided", "x")))
    assert 'unknown key respnder; did you mean "responder"?' in refused(HEAD.replace("responder", "respnder"))
    assert "attributes.funding.status" in refused(text(funding=("perhaps", "x")))
