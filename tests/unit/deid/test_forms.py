"""What stands in the place of a code is one of its system, or it goes: names, dates and numbers of people do not pass."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.deid.forms import OWN, form_of, is_loinc, is_snomed, looks_like_a_code
from sidecar.deid.general import Mode
from tests.unit.deid.general import engine, policy, say
from tests.unit.deid.test_definitions import JAR, REPO

PEOPLE = [
    "Smith", "SMITH", "Mary Smith", "O'Neill", "Smith-Jones", "smith.john", "Nguyễn", "123-45-6789", "123456789", "555-123-4567", "1-555-123-4567",
    "5551234567", "15551234567", "555-1234", "5551234", "1950-05-04", "19500504", "05041950", "04.05.1950", "04-05-50", "1950", "1950-05", "98052",
    "98052-1830", "MRN1234567", "MRN-12345678", "A1234567", "H12345678Z", "123456", "a b", "8867-4 ", "8867-4\n", "", "x", "٣٤٥-٦", "john@example.org",
    "10.0.0.12", "https://x/1", "urn:oid:1", "X" * 40 + "1", "smith-john", "john-smith-born-12mar", "N5551234567", "N15551234567",
]  # fmt: skip
RXNORM, SNOMED, LOINC = "http://www.nlm.nih.gov/research/umls/rxnorm", "http://snomed.info/sct", "http://loinc.org"
# What cannot be told from a code of its system, as all that is known of either is its digits.
SAME_FORM = {
    "http://www.ama-assn.org/go/cpt": {"98052"},
    RXNORM: {"1950", "98052", "123456"},
}
GOOD = {
    LOINC: ["8867-4", "2160-0", "LA33-6", "LA18976-3", "LP29693-6", "3150-6", "80904-6"],
    SNOMED: ["22298006", "1104051000000101", "404684003", "900000000000207008"],
    RXNORM: ["316049", "2001499", "161"],
    "http://hl7.org/fhir/sid/icd-10-cm": ["E84.0", "S72.001A", "I10", "E840"],
    "http://hl7.org/fhir/sid/icd-9-cm": ["250.00", "V10.3", "E849.0", "401", "54.51"],
    "http://hl7.org/fhir/sid/icd-10-pcs": ["0DTJ4ZZ"],
    "http://www.cms.gov/Medicare/Coding/ICD10": ["E84.0", "0DTJ4ZZ"],
    "http://id.who.int/icd/release/11/mms": ["5A11", "CA40.0", "1A00"],
    "http://fhir.de/CodeSystem/bfarm/icd-10-gm": ["E11.90"],
    "http://fhir.de/CodeSystem/bfarm/ops": ["5-470.11"],
    "http://hl7.org/fhir/sid/icpc-2": ["T90"],
    "http://www.ama-assn.org/go/cpt": ["99213", "0001A"],
    "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets": ["T1019"],
    "http://terminology.hl7.org/CodeSystem/icd-o-3": ["C50.9", "8140/3"],
    "http://www.whocc.no/atc": ["C09AA05", "N02"],
    "http://hl7.org/fhir/sid/ndc": ["0206-8862-02", "00206886202"],
    "http://hl7.org/fhir/sid/cvx": ["140", "08"],
    "http://fdasis.nlm.nih.gov": ["362O9ITL9D"],
    "http://hl7.org/fhir/ndfrt": ["N0000007508"],
    "urn:oid:2.16.840.1.113883.6.238": ["2106-3", "1002-5", "2186-5"],
    "urn:iso:std:iso:11073:10101": ["150456", "147842"],
    "http://terminology.hl7.org/CodeSystem/observation-category": ["vital-signs"],
    "http://terminology.hl7.org/CodeSystem/v3-ActCode": ["IMP", "PSY"],
    "http://dicom.nema.org/resources/ontology/DCM": ["CT", "110114"],
    "http://unitsofmeasure.org": ["[in_i]"],
    "http://www.nubc.org/patient-discharge": ["01"],
    "https://dmd.nhs.uk": ["322236009"],
    "urn:ehr-sidecar:code": ["kfre-4var-2-years", "spo2-scale-1", "time-in-therapeutic-inr-range"],
}  # fmt: skip


def form(system):
    return form_of(system, policy().units, policy().own_codes)


@pytest.mark.parametrize("system", sorted(policy().systems))
def test_nothing_that_people_are_known_by_passes_as_a_code_of_a_listed_system(system):
    passed = {each for each in PEOPLE if form(system)(each)}
    assert passed <= SAME_FORM.get(system, set())


@pytest.mark.parametrize(("system", "code"), [(system, code) for system, codes in GOOD.items() for code in codes])
def test_a_code_of_a_listed_system_passes(system, code):
    assert system in policy().systems
    assert form(system)(code)
    out = engine(Mode.SAFE_HARBOR_RULES).resource(
        {"resourceType": "Procedure", "code": {"coding": [{"system": system, "code": code}]}}
    )
    assert out["code"]["coding"] == [{"system": system, "code": code}]


def test_every_listed_system_has_its_codes_its_check_digit_or_its_form():
    """None is left to the rule for systems that nobody knows."""
    assert [system for system in policy().systems if form(system) is looks_like_a_code] == []


def codes_of(value):
    """Every code of our own system in a JSON value."""
    if isinstance(value, dict):
        own = [value["code"]] if value.get("system") == OWN else []
        return [*own, *(code for each in value.values() for code in codes_of(each))]
    return [code for each in value for code in codes_of(each)] if isinstance(value, list) else []


def test_our_own_codes_are_those_that_the_shipped_models_ask_for_and_give_and_no_others():
    """Words between hyphens are names as well: no form tells `lace-comorbidity` from `smith-john`."""
    manifests = [*REPO.glob("models/*/*/manifest.toml"), *REPO.glob("models/*/*/manifest.template.toml")]
    declared = {code for path in manifests for code in re.findall(rf'{OWN}\|([^"]+)"', path.read_text())}
    assert len(manifests) > 8
    assert policy().own_codes == declared
    assert not [
        each for each in ("john-smith-1950", "lace-smith", "Lace", "lace-", "has-bled-12mar") if form(OWN)(each)
    ]
    charts = [path for root in ("fhir_fixtures", "models") for path in (REPO / root).rglob("*.json")]
    assert policy().own_codes >= {code for path in charts for code in codes_of(json.loads(path.read_bytes()))}


@pytest.mark.parametrize("written", ["GLU1", "a1c", "K-41", "12345-6", "VS.02"])
def test_of_a_system_that_a_site_adds_a_code_with_a_digit_passes(written):
    assert looks_like_a_code(written)


@pytest.mark.parametrize("written", PEOPLE)
def test_of_a_system_that_a_site_adds_nothing_that_people_are_known_by_passes(written):
    assert not looks_like_a_code(written)


@pytest.mark.parametrize(
    ("valid", "codes"), [(is_snomed, GOOD[SNOMED]), (is_loinc, ["8867-4", "2160-0", "LA33-6", "LA18976-3"])]
)
def test_every_other_digit_and_every_two_that_change_places_are_found(valid, codes):
    for code in codes:
        for place, digit in enumerate(code):
            others = [d for d in "0123456789" if d != digit and digit.isdigit()]
            assert not [d for d in others if valid(code[:place] + d + code[place + 1 :])], (code, place)
    if valid is is_snomed:
        for code in codes:
            swapped = [
                code[:i] + code[i + 1] + code[i] + code[i + 2 :] for i in range(len(code) - 1) if code[i] != code[i + 1]
            ]
            assert not [each for each in swapped if valid(each)]


@pytest.mark.parametrize("system", [RXNORM, SNOMED])
def test_a_date_of_eight_digits_is_no_number_of_a_drug_and_of_100_less_than_one_a_concept(system):
    dates = [
        f"{year}{month:02}{day:02}" for year in range(1900, 2031) for month in range(1, 13) for day in range(1, 32)
    ]
    found = [d for d in dates if form(system)(d)]
    turned = [d for d in dates if form(system)(f"{d[6:]}{d[4:6]}{d[:4]}")]
    say(f"{system}: {len(found)} of {len(dates)} dates pass, {len(turned)} with the day first")
    assert len(found) < (1 if system == RXNORM else len(dates) / 100)
    assert len(turned) < len(dates) / 100


def test_one_record_number_in_some_hundred_passes_as_snomed_and_that_is_said():
    draw = random.Random(20261125)
    say("seed 20261125")
    passed = sum(is_snomed(str(draw.randrange(10**7, 10**8))) for _ in range(100_000))
    say(f"{passed} of 100,000 random numbers of eight digits have the form and the check digit of SNOMED CT")
    assert passed < 400


@pytest.mark.parametrize(
    "system",
    [
        SNOMED,
        LOINC,
        "http://hl7.org/fhir/sid/cvx",
        "http://terminology.hl7.org/CodeSystem/v3-ActCode",
        "http://unitsofmeasure.org",
    ],
)
@pytest.mark.parametrize("code", [8, ["IMP"], {"value": "IMP"}, True, None])
def test_what_is_no_text_is_no_code_and_ends_nothing(system, code):
    coded = [{"system": system, "code": code}, {"system": [system], "code": "IMP"}, {"code": "IMP"}, "IMP", None]
    out = engine().resource({"resourceType": "Procedure", "status": "completed", "code": {"coding": coded}})
    assert out == {"resourceType": "Procedure", "status": "completed"}


def test_the_status_of_a_condition_or_an_allergy_is_of_its_own_system():
    stated = "http://terminology.hl7.org/CodeSystem/"
    for type_name, prefix in (("Condition", "condition"), ("AllergyIntolerance", "allergyintolerance")):
        judge = engine()
        right = {"system": f"{stated}{prefix}-clinical", "code": "active"}
        wrong = {"system": f"{stated}v2-0493", "code": "I"}
        out = judge.resource(
            {
                "resourceType": type_name,
                "clinicalStatus": {"coding": [wrong, right, {"system": LOINC, "code": "8867-4"}]},
            }
        )
        assert out["clinicalStatus"] == {"coding": [right]}
        ver = f"{stated}{prefix if prefix == 'allergyintolerance' else 'condition'}-{'verification' if prefix == 'allergyintolerance' else 'ver-status'}"
        good = {"resourceType": type_name, "verificationStatus": {"coding": [{"system": ver, "code": "refuted"}]}}
        assert judge.resource(good) == good
        for name, code in (
            ("clinicalStatus", wrong),
            ("verificationStatus", {"system": SNOMED, "code": "410605003"}),
            ("verificationStatus", {"system": ver, "code": "Smith"}),
        ):
            assert judge.resource({"resourceType": type_name, name: {"coding": [code]}}) is None
        assert set(judge.tally.refused) == {
            f"modifier:{type_name}.clinicalStatus",
            f"modifier:{type_name}.verificationStatus",
        }


@pytest.mark.skipif(not JAR.is_file(), reason=f"{JAR.name} is not on this machine, so the file cannot be built again")
def test_the_codes_that_r4_defines_are_built_again_to_the_same_bytes(tmp_path):
    command = [sys.executable, "-m", "fhir_fixtures.make_code_systems", JAR, "--to", tmp_path / "codes.json"]
    subprocess.run(command, check=True, capture_output=True, cwd=REPO)
    shipped = Path(REPO / "sidecar" / "deid" / "code_systems.json").read_bytes()
    assert (tmp_path / "codes.json").read_bytes() == shipped
    assert not re.search(rb'"_', shipped)
