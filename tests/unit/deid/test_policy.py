"""The policy accounts for every element of R4: each is kept in a way that can hold no name, or omitted for a reason."""

import re

import pytest

from sidecar.deid import load_policy
from sidecar.deid.definitions import r4
from tests.unit.deid.policy_text import NEVER

POLICY = load_policy()
RESTRICTED = [
    "036",
    "059",
    "063",
    "102",
    "202",
    "203",
    "204",
    "205",
    "369",
    "556",
    "692",
    "753",
    "772",
    "790",
    "821",
    "823",
    "830",
    "831",
    "878",
    "879",
    "884",
    "890",
    "893",
]


def tables():
    """Every table with the elements that R4 has there: path, kept, omitted, elements."""
    for name in (*POLICY.types, *POLICY.datatypes):
        yield from inside(name, {**POLICY.types, **POLICY.datatypes}[name], r4().elements(name))


def inside(path, kept, elements):
    yield path, kept, POLICY.omitted[path], elements
    for name, keep in kept.items():
        if keep.table is not None and elements[name].parts:
            inherited = {**r4().elements("BackboneElement")}
            yield from inside(f"{path}.{name}", keep.table, {**inherited, **elements[name].parts})


def test_every_element_of_r4_is_either_kept_or_omitted_for_a_reason():
    for path, kept, omitted, elements in tables():
        by_url = {"extension"} if path in POLICY.types and "contained" in elements else set()
        assert not kept.keys() & omitted, path
        assert kept.keys() | omitted | by_url == elements.keys(), path
        assert all(POLICY.why[f"{path}.{name}"] for name in omitted), path


def test_every_type_that_a_model_may_read_has_a_table():
    assert POLICY.types.keys() == r4().resources.keys()


def test_nothing_that_can_hold_a_name_is_kept_but_from_a_closed_list():
    for path, kept, _, elements in tables():
        for name, keep in kept.items():
            if keep.do == "keep" and elements[name].kind in NEVER:
                closed = keep.kind == "code" and keep.codes
                by_code = path in {"Coding", "Quantity", "Reference", "Age", "Count", "Distance", "Duration"}
                assert closed or by_code, f"{path}.{name}"


def test_what_is_kept_is_a_list_and_has_the_codes_as_r4_has_it():
    for path, kept, _, elements in tables():
        for name, keep in kept.items():
            element = elements[name]
            assert (keep.many, keep.modifier) == (element.many, element.modifier), f"{path}.{name}"
            if element.kind == "code" and element.codes:
                assert keep.codes == element.codes, f"{path}.{name}"
            assert keep.kind == element.kind or (keep.kind == "code" and keep.codes), f"{path}.{name}"
            assert (keep.table is not None) == (element.kind == "BackboneElement" and keep.do == "keep"), (
                f"{path}.{name}"
            )


def test_lists_of_the_policy_are_where_they_belong():
    quantity, coding = POLICY.datatypes["Quantity"], POLICY.datatypes["Coding"]
    item = POLICY.types["QuestionnaireResponse"]["item"].table
    assert quantity["code"].codes == quantity["unit"].codes == POLICY.units >= {"mmol/L", "%", "mm[Hg]"}
    assert coding["system"].codes == POLICY.systems >= {"http://loinc.org", "http://snomed.info/sct"}
    assert {"44250-9", "/44250-9"} <= item["linkId"].codes
    assert "http://loinc.org|30525-0" in POLICY.age_codes


def test_a_code_is_kept_only_among_the_codes_of_a_list():
    for path, kept, _, _ in tables():
        for name, keep in kept.items():
            assert keep.kind != "code" or keep.codes or f"{path}.{name}" == "Coding.code", f"{path}.{name}"


def test_what_may_turn_a_statement_into_its_opposite_is_never_omitted():
    for path, kept, _, elements in tables():
        for name, element in elements.items():
            assert not element.modifier or (name in kept and kept[name].modifier), f"{path}.{name}"


@pytest.mark.parametrize("name", ["modifierExtension", "implicitRules"])
def test_what_anybody_may_define_refuses_the_resource(name):
    assert all(kept[name].do == "refuse" for _, kept, _, elements in tables() if name in elements)


def test_a_table_that_contains_itself_is_the_same_table_all_the_way_down():
    item = POLICY.types["QuestionnaireResponse"]["item"].table
    assert item["item"].table is item["answer"].table["item"].table is item
    part = POLICY.types["Parameters"]["parameter"].table
    assert part["part"].table is part


def test_ages_and_durations_are_quantities_in_every_element():
    assert all(
        POLICY.datatypes[name] == POLICY.datatypes["Quantity"] for name in ("Age", "Count", "Distance", "Duration")
    )


def test_dates_of_birth_and_death_and_places_go_by_the_mode_and_not_as_others_do():
    patient = POLICY.types["Patient"]
    assert [patient[n].do for n in ("birthDate", "deceasedDateTime", "address")] == ["birth", "death", "place"]


def test_the_restricted_postal_areas_are_those_of_every_census_since_2000():
    assert sorted(POLICY.restricted_zip3) == RESTRICTED


def test_of_all_thousand_postal_areas_exactly_the_populated_ones_are_known():
    """Places that are known to be inhabited, and prefixes that are nobody's."""
    known = POLICY.populated_zip3
    assert len(known) == 891
    assert {"006", "010", "100", "331", "606", "800", "900", "941", "967", "995", "999"} <= known
    assert not known & {
        "000",
        "001",
        "004",
        "213",
        "269",
        "343",
        "345",
        "517",
        "529",
        "732",
        "771",
        "817",
        "861",
        "987",
    }
    assert all(re.fullmatch(r"\d{3}", each) for each in known | POLICY.restricted_zip3)
