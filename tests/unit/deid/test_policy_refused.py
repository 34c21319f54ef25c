"""A policy that leaves out an element of R4, or says what it cannot mean, does not load, whatever else is wrong with it."""

import re
from bisect import bisect
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.deid import load_policy
from sidecar.deid.definitions import r4
from tests.unit.deid.policy_text import NEVER, TEXT, changed, refused


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


COMMENTS = [range(*m.span()) for m in re.finditer(r"^#.*$", TEXT, re.MULTILINE)]
# Every name in a list of [keep.*]: the words in quotes that are no values and stand in no comment.
LISTED = [
    m
    for m in re.finditer(r'"([A-Za-z]+(?:\[x\])?)"', TEXT)
    if m.start() > TEXT.index("[keep.Resource]")
    and not any(m.start() in comment for comment in COMMENTS)
    and '= "' not in TEXT[m.start() - 4 : m.start() + 1]
    and "{" not in TEXT[m.start() - 14 : m.start()]
]


HEADERS = [(m.start(), m[1]) for m in re.finditer(r"^\[keep\.([\w.]+)\]$", TEXT, re.MULTILINE)]
LISTS = [(m.start(), m[1]) for m in re.finditer(r"^(keep|omit\.\w+) = \[", TEXT, re.MULTILINE)]


def where(match):
    """The table in which an element is named, and the list: keep or omit."""
    return tuple(starts[bisect(starts, (match.start(), "~")) - 1][1] for starts in (HEADERS, LISTS))


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
        ('omit.unread = ["language"]', 'language = "keep"', "a code of no list in R4"),
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
        ('parameters = ["patient", "resource", "result", "return", "subject"]', 'parameters = "patient"', "parameters must be a list of strings"),
        ('parameters = ["patient", "resource", "result", "return", "subject"]', 'parameters = ["patient", 5]', "parameters must be a list of strings"),
        ("birth_codes = [", "birth_code = [", "birth_codes must be a list of strings"),
        ("loinc.org|80904-6", "loinc.com|80904-6", "birth_codes: http://loinc.com|80904-6: must be a listed system"),
        ('request = "deleted"', 'request = "keep"', "Bundle.entry.request: has elements of its own"),
        ('meta = "labels"', 'meta = "keep"', "Resource.meta: nothing of type Meta can be kept"),
        ("v3-ActCode|HIV", "v3-ActCodes|HIV", "sensitive.labels: http://terminology.hl7.org/CodeSystem/v3-ActCodes|HIV: must be"),
        ('sct = ["http://snomed.info/sct"]', 'sct = ["http://snomed.info/sct2"]', "sensitive.codes: http://snomed.info/sct2 is none of"),
        ('icd-9 = ["http://hl7.org/fhir/sid/icd-9-cm"]', 'icd-9 = ["http://hl7.org/fhir/sid/icd-12"]', "sensitive.beginnings: http://hl7.org/fhir/sid/icd-12 is none of"),
        ("[read.Condition]", '[read.Condition]\ncategory = "verification"', "read.Condition.category: verification reads one of Condition.clinicalStatus"),
        ("[sensitive]", "[sensitive]\nlabel = []", "sensitive.label must be a table of lists"),
        ("[sensitive.hiv]", "[sensitive.hiv]\nloink = []", "sensitive.hiv.loink: sensitive.systems names no such system"),
        ('"F18..F19*"', '"F19..F18*"', 'F19..F18*: write "F10*", or "F10..F16*" for seven, in order'),
        ("[sensitive.hiv]", '[sensitive.hiv]\nsct = ["7200002", "7200002"]\n[sensitive.more]', "sensitive.hiv.sct lists twice: 7200002"),
        ("loinc.org|30525-0", "loinc.org/30525-0", "age_codes: http://loinc.org/30525-0: must be a listed system"),
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
@pytest.mark.parametrize("key", ["systems", "sensitive", "why", "zip3", "read", "keep", "keep.Observation", "keep.Observation.status", "keep.Patient.omit",
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


WORDS = {
    "birth": "Patient.birthDate", "death": "Patient.deceasedDateTime", "place": "Patient.address", "relink": "Bundle.entry.fullUrl",
    "token": "Resource.id", "of_system": "Coding.code", "type_name": "Reference.type", "ucum": "Quantity.system",
    "by_url": "DomainResource.extension",
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, _, name in (w.rpartition(".") for w in WORDS.values())]
)
def test_a_word_for_one_element_means_nothing_at_another(word, path, name):
    own = next(w for w, at in WORDS.items() if at == f"{path}.{name}")
    start = TEXT.index(f"\n[keep.{path}]\n")
    text = TEXT[:start] + TEXT[start:].replace(f'\n{name} = "{own}"\n', f'\n{name} = "{word}"\n', 1)
    assert (text == TEXT) == (word == own)
    problems = refused(text)
    if word == own:
        assert problems == []
    else:
        assert any(
            p.startswith(f"deid rules: keep.{path}") and ("not a word" in p or "one way only" in p) for p in problems
        )


@pytest.mark.parametrize("name", ["bornDate", "bornPeriod", "deceasedDate"])
def test_a_relatives_date_of_birth_or_death_cannot_be_kept(name):
    text = changed("\n[keep.FamilyMemberHistory]\n", f'\n[keep.FamilyMemberHistory]\n{name} = "keep"\n')
    text = re.sub(rf'(omit\.relative = .*?)"{name}"(, )?', r"\1", text)
    assert any(f"keep.FamilyMemberHistory.{name}: tells an age" in p for p in refused(text)), refused(text)


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [
        ("CodeableConcept", 'keep = ["coding"]', 'omit.link = ["coding"]'),
        ("Coding", 'omit.unread = ["userSelected"]', 'keep = ["userSelected"]'),
        ("Coding", 'code = "of_system"', 'omit.link = ["code"]'),
        ("Quantity", 'code = { listed = "units" }', 'code = { listed = "age_codes" }'),
        ("Quantity", 'unit = { listed = "units" }', 'omit.link = ["unit"]'),
        ("Quantity", 'system = "ucum"', 'system = "refuse"'),
        ("Quantity", 'keep = ["value", "comparator"]', 'keep = ["comparator"]\nvalue = "refuse"'),
        ("Reference", 'type = "type_name"', 'omit.link = ["type"]'),
        ("Reference", 'reference = "token"', 'omit.link = ["reference"]'),
    ],
)
def test_a_table_that_the_code_would_not_obey_does_not_load(table, old, new):
    start = TEXT.index(f"\n[keep.{table}]\n")
    text = TEXT[:start] + TEXT[start:].replace(old, new, 1)
    assert text != TEXT
    assert any(f"keep.{table}: crosses in one way only" in p for p in refused(text)), refused(text)


@pytest.mark.parametrize("name", ["us-core-race", "us-core-ethnicity", "us-core-birthsex"])
def test_an_extension_is_read_in_one_way_only(name):
    line = next(line for line in TEXT.splitlines() if line.startswith('"') and f'{name}"' in line)
    other = line.replace('"omb"', '"code"') if "omb" in line else line.replace('"code"', '"omb"')
    assert any("keep.extension: only" in p for p in refused(changed(line, other)))
    without = refused(changed(line + "\n", ""))
    assert without == (
        []
        if "omb" in line
        else ["deid rules: read.Patient.extension: read, but keep.extension has no us-core-birthsex"]
    )


@pytest.mark.parametrize(
    "path",
    ["Observation.component", "Patient.link", "Timing.repeat", "Bundle.entry", "QuestionnaireResponse.item.answer"],
)
def test_an_element_with_elements_of_its_own_is_kept_by_a_table_and_not_by_a_word(path):
    above, _, name = path.rpartition(".")
    start = TEXT.index(f"\n[keep.{path}]\n")
    end = min(m.start() for m in re.finditer(rf"\n(#.*\n)*\[keep\.(?!{re.escape(path)}\.)", TEXT) if m.start() > start)
    cut = TEXT[:start] + TEXT[end:]
    text = cut.replace(f"\n[keep.{above}]\n", f'\n[keep.{above}]\n{name} = "keep"\n')
    assert any(f"keep.{path}: has elements of its own" in p for p in refused(text)), refused(text)


def test_two_elements_that_are_alike_are_kept_both_or_neither():
    start = TEXT.index("[keep.Observation.referenceRange]")
    cut = TEXT[:start] + TEXT[TEXT.index("[keep.Observation.component]") :]
    text = cut.replace("\n[keep.Observation]\n", '\n[keep.Observation]\nomit.rare = ["referenceRange"]\n')
    assert any("is like Observation.referenceRange, which is not kept" in p for p in refused(text)), refused(text)


@pytest.mark.parametrize("written", ["[]", '["36"]', '["0366"]', '["036-"]', '["036-035"]', '["٠٣٦"]', "[36]", '"036"'])
def test_a_postal_area_that_is_none_does_not_load(written):
    text = re.sub(r"(restricted = )\[.*?\]", rf"\g<1>{written}", TEXT, count=1, flags=re.DOTALL)
    assert any("zip3.restricted" in p for p in refused(text))


def test_a_range_of_postal_areas_has_both_its_ends():
    text = re.sub(r"(restricted = )\[.*?\]", r'\g<1>["036", "059-061"]', TEXT, count=1, flags=re.DOTALL)
    assert load_policy(text.encode()).restricted_zip3 == {"036", "059", "060", "061"}
