"""The policy accounts for every element of R4, and a policy that does not, or says what it cannot mean, does not load."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.deid import load_policy, load_rules
from sidecar.deid.definitions import r4
from sidecar.errors import Misconfigured

SHIPPED = Path(__file__).resolve().parents[3] / "sidecar" / "deid" / "rules.toml"
TEXT = SHIPPED.read_text()
POLICY = load_policy()
# What can hold a name, a number of a record or an address is not kept, whoever asks for it.
NEVER = {
    "Address", "Annotation", "Attachment", "ContactPoint", "HumanName", "Identifier", "Meta", "Narrative", "Signature",
    "base64Binary", "canonical", "markdown", "oid", "string", "time", "uri", "url", "uuid", "xhtml",
}  # fmt: skip
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


def refused(text):
    """The problems of a policy; none when it loads."""
    found = []
    for load in (load_policy, load_rules):
        try:
            load(text.encode())
        except Misconfigured as error:
            found.append(error.problems)
    assert len(found) in {0, 2}, "the two readers of one file disagree on whether it is sound"
    return found[0] if found else []


def changed(old, new):
    assert old in TEXT
    return TEXT.replace(old, new, 1)


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


def test_whatever_is_wrong_is_told_at_once():
    broken = changed('"valueInteger"', '"valueIntegre"')
    broken = broken.replace('birthDate = "birth"', 'birthDate = "keep"').replace(
        "schema = 2", 'schema = 2\nunits2 = ["kg"]'
    )
    problems = "\n".join(refused(broken))
    assert "keep.Observation.valueIntegre: R4 has no such element" in problems
    assert 'did you mean "valueInteger"?' in problems
    assert "keep.Observation.valueInteger: R4 has it (integer), and it is named nowhere" in problems
    assert "keep.Patient.birthDate: tells an age" in problems
    assert "unknown key units2" in problems


NAMED = [m for m in re.finditer(r'"([A-Za-z]+(?:\[x\])?)"', TEXT) if m.start() > TEXT.index("[keep.Resource]")]
LISTED = [
    m for m in NAMED if '= "' not in TEXT[m.start() - 4 : m.start() + 1] and "{" not in TEXT[m.start() - 14 : m.start()]
]


def where(match):
    """The table in which an element is named, and the list: keep or omit."""
    header = re.findall(r"^\[keep\.([\w.]+)\]$", TEXT[: match.start()], re.MULTILINE)[-1]
    key = re.findall(r"^(keep|omit\.\w+) = \[", TEXT[: match.start()], re.MULTILINE)[-1]
    return header, key


def elements_of(path):
    type_name, *rest = path.split(".")
    table = r4().find(type_name).elements
    for name in rest:
        table = table[name].parts
    return table


def test_the_properties_below_have_the_whole_file_to_change():
    assert len(LISTED) > 500
    assert Counter(where(m)[1] for m in LISTED)["keep"] > 250


@settings(max_examples=60, deadline=None, print_blob=True)
@given(st.sampled_from(LISTED))
def test_an_element_that_is_misspelt_does_not_load(match):
    assert any("R4 has no" in p for p in refused(TEXT[: match.end(1)] + "x" + TEXT[match.end(1) :]))


@settings(max_examples=60, deadline=None, print_blob=True)
@given(st.sampled_from(LISTED))
def test_an_element_that_is_left_out_does_not_load(match):
    rest = TEXT[match.end() :]
    name = match[1].removesuffix("[x]")
    problems = refused(TEXT[: match.start()] + rest.removeprefix(","))
    assert any(name in p and "named nowhere" in p for p in problems), problems


@settings(max_examples=60, deadline=None, print_blob=True)
@given(st.sampled_from(LISTED))
def test_an_element_that_is_named_twice_does_not_load(match):
    assert any("named twice" in p for p in refused(TEXT[: match.end()] + f', "{match[1]}"' + TEXT[match.end() :]))


@settings(max_examples=60, deadline=None, print_blob=True)
@given(st.sampled_from([m for m in LISTED if where(m)[1] == "keep"]), st.sampled_from(["hash", "perturb", "", "omb"]))
def test_a_word_that_means_nothing_does_not_load(match, word):
    path, _ = where(match)
    cut = TEXT[: match.start()] + TEXT[match.end() :].removeprefix(",")
    assert any(
        "not a word for this element" in p
        for p in refused(cut.replace(f"[keep.{path}]\n", f'[keep.{path}]\n{match[1]} = "{word}"\n'))
    )


def never_kept(match):
    path, key = where(match)
    element = elements_of(path).get(match[1])
    return key != "keep" and element is not None and element.kind in NEVER


@settings(max_examples=60, deadline=None, print_blob=True)
@given(st.sampled_from([m for m in LISTED if never_kept(m)]))
def test_text_names_and_addresses_that_somebody_wants_kept_do_not_load(match):
    path, _ = where(match)
    cut = TEXT[: match.start()] + TEXT[match.end() :].removeprefix(",")
    problems = refused(cut.replace(f"[keep.{path}]\n", f'[keep.{path}]\n{match[1]} = "keep"\n'))
    assert any(
        p.startswith(f"deid rules: keep.{path}.{match[1]}: ") and "can be kept; omit it" in p for p in problems
    ) or any("crosses in one way only" in p for p in problems)


def modifiers():
    for match in LISTED:
        path, key = where(match)
        element = elements_of(path).get(match[1])
        if key == "keep" and element is not None and element.modifier:
            yield pytest.param(match, id=f"{path}.{match[1]}")


@pytest.mark.parametrize("match", [*modifiers()])
def test_what_may_turn_a_statement_into_its_opposite_cannot_be_omitted(match):
    path, _ = where(match)
    cut = TEXT[: match.start()] + TEXT[match.end() :].removeprefix(",")
    problems = refused(
        re.sub(rf"(\[keep\.{re.escape(path)}\]\n)", rf'\1omit.extension = ["{match[1]}"]\n', cut, count=1)
    )
    assert any("changes what a statement means" in p for p in problems), problems


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[keep.Media]", "[keep.Medium]", "keep.Medium: no type that the policy knows"),
        ("[keep.Media]", "[keep.Medium]", "keep.Media: has no table"),
        ("[keep.Period]", "[keep.Money]", "keep.Period: has no table, and elements of this type are kept"),
        ("[keep.Period]", "[keep.Money]", "keep.Money: has a table, and no element of this type is kept"),
        ("[keep.Period]", "[keep.Age]", "keep.Age: no type that the policy knows"),
        ("[keep.Observation.referenceRange]", "[keep.Observation.referenceRanges]", "R4 has no such element"),
        ('place = "says where', 'places = "says where', "why: each reason is explained once and used: place, places"),
        ('address = "place"', 'address = "keep"', "keep.Patient.address: nothing of type Address can be kept"),
        ('fullUrl = "relink"', 'fullUrl = "keep"', "keep.Bundle.entry.fullUrl: nothing of type uri can be kept"),
        ('id = "token"', 'id = "keep"', "keep.Resource.id: nothing of type id can be kept"),
        ('omit.unread = ["meta", "language"]', 'omit.unread = ["meta"]\nlanguage = "keep"', "a code of no list in R4"),
        ('us-core-birthsex" = "code"', 'us-core-birthsex" = "omb"', "keep.extension: only"),
        ('us-core-birthsex" = "code"', 'us-core-birthplace" = "code"', "keep.extension: only"),
        ('extension = "by_url"', 'extension = "refuse"', 'must be "by_url"'),
        ('system = { listed = "systems" }', 'system = { listed = "units" }', "keep.Coding: crosses in one way only"),
        ('linkId = { listed = "link_ids" }', 'linkId = { listed = "links" }', "linkId: there is no such list"),
        ('birthDate = "birth"', 'birthDate = { listed = "units" }', "nothing of type date can be looked up in a list"),
        ('linkId = { listed = "link_ids" }', 'linkId = "keep"', "linkId: nothing of type string can be kept"),
        ('"http://loinc.org",', '"http://loinc.org", "http://loinc.org",', "systems lists twice: http://loinc.org"),
        ('"056-089"', '"089-056"', "zip3.populated: write"),
        ("[zip3]", "[zip5]", "unknown key zip5"),
        ("[keep.Goal.target]", "[keep.Goal.targets]", "keep.Goal.target: R4 has it"),
        ('birthDate = "age"', 'birthDay = "age"', 'read.Patient.birthDay: R4 has no such element; did you mean "birthDate"?'),
        ('birthDate = "age"', 'birthDate = "time"', "read.Patient.birthDate: time cannot read date"),
        ('focus = "refuse"', "", "read.Observation.focus: changes what a statement means, so it must be read"),
        ('usable = ["final",', 'usable = ["finale",', "read.Observation.status.usable: R4 has no finale"),
        ('usable = ["confirmed"]', 'usable = ["confirmd"]', "read.Condition.verificationStatus.usable: R4 has no confirmd"),
        ("[read.Condition]", "[read.Konditions]", 'read.Konditions: no resource type that the policy knows; did you mean "Condition"?'),
        ("[read.Observation]", '[read.Observation]\nnote = "absent"', "read.Observation.note: absent cannot read Annotation"),
        ("[read.Encounter]", '[read.Encounter]\nlocation = "refuse"', "read.Encounter.location: read, but not kept"),
    ],
)  # fmt: skip
def test_a_policy_that_says_what_it_cannot_mean_does_not_load(old, new, said):
    assert any(said in p for p in refused(changed(old, new))), refused(changed(old, new))


@pytest.mark.parametrize("value", ["3", '"all"', "[]", "[3]", "{ listed = 3 }", "{ a = 1 }"])
@pytest.mark.parametrize("key", ["systems", "why", "zip3", "read", "keep", "keep.Observation", "keep.Observation.status", "keep.Patient.omit",
                                 "keep.extension", "keep.DomainResource", "keep.omit", "read.Observation", "read.Observation.status"])  # fmt: skip
def test_a_value_of_the_wrong_kind_is_a_problem_and_no_crash(key, value):
    assert refused(f"schema = 2\n{key} = {value}\n")


def test_a_type_may_be_left_out_by_name():
    start = TEXT.index("[keep.Goal]")
    without = TEXT[:start] + TEXT[TEXT.index("[keep.Coverage]") :]
    assert refused(without)
    narrowed = without.replace("\n[keep.extension]\n", '\n[keep.omit]\nunread = ["Goal"]\n\n[keep.extension]\n')
    assert refused(narrowed) == []
    assert "Goal" not in load_policy(narrowed.encode()).types
