"""A result is as sensitive as what it rests on, and its words do not name what would reveal a condition."""

from zoneinfo import ZoneInfo

import pytest

from sidecar.commands.score import line_of
from sidecar.deid import inherited, is_sensitive, load_rules
from sidecar.errors import Misconfigured
from sidecar.explanation import reason_in_words
from tests.unit.chart import (
    AT,
    LOINC,
    REPO,
    SCT,
    amount,
    bundle,
    concept,
    model,
    observation,
    panel,
    person,
    rules,
    scale,
    stay,
    vitals,
)
from tests.unit.kidney import ICD, acr, chronic, condition, creatinine, judge, judge_ckd, kfre

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


def labelled(*labels):
    return {"security": [dict(zip(("system", "code"), label.split("|"), strict=True)) for label in labels]}


RESTRICTED = labelled(f"{CONFIDENTIALITY}|R")


def result(**changes):
    """What would be written of a ward patient with a raised pulse and breathing rate."""
    chart = bundle(person(), stay(), *vitals(**{"pulse": fast(), **changes}).values())
    said = line_of(chart, model(), rules(), AT, ZoneInfo("UTC"))
    return said, {r["resourceType"]: r for r in said["resources"]}


def fast(**more):
    return observation(f"{LOINC}|8867-4", valueQuantity=amount(135, "/min"), **more)


def test_a_result_inherits_the_labels_of_what_it_rests_on_and_of_confidentiality_the_highest():
    said, made = result(respiratory_rate=observation(
        f"{LOINC}|9279-1", valueQuantity=amount(26, "/min"), meta=labelled(f"{CONFIDENTIALITY}|N", f"{ACT}|PSY", "urn:site|VIP")
    ))  # fmt: skip
    for kind in ("RiskAssessment", "Observation"):
        codes = {f"{c['system']}|{c['code']}" for c in made[kind]["meta"]["security"]}
        assert codes >= {f"{CONFIDENTIALITY}|N", f"{ACT}|PSY", "urn:site|VIP"}
    assert said["outcome"] == "scored"


@pytest.mark.parametrize("order", [("N", "R"), ("R", "N"), ("R", "L"), ("U", "R")])
def test_of_several_degrees_of_confidentiality_only_the_highest_is_inherited(order):
    found = inherited({"meta": labelled(f"{CONFIDENTIALITY}|{degree}")} for degree in order)
    assert found == (f"{CONFIDENTIALITY}|R",)


@pytest.mark.parametrize(
    "bad", [None, [], "x", [{"system": 1, "code": {}}], {"system": "a"}, [{"system": "a\nb", "code": "c"}]]
)
def test_a_label_of_another_shape_is_no_label(bad):
    assert inherited([{"meta": {"security": bad}}, {"meta": bad}]) == ()


@pytest.mark.parametrize("label", [f"{ACT}|HIV", f"{CONFIDENTIALITY}|R", f"{ACT}|42CFRPart2"])
def test_no_words_name_an_input_that_a_label_holds_back_and_the_total_counts_it_all_the_same(label):
    breathing = {"valueQuantity": amount(26, "/min")}
    plain, _ = result(respiratory_rate=observation(f"{LOINC}|9279-1", **breathing))
    held, made = result(respiratory_rate=observation(f"{LOINC}|9279-1", meta=labelled(label), **breathing))
    risk = made["RiskAssessment"]
    words = words_of(made.values())
    assert plain["score"] == held["score"] > 3
    assert "espiratory rate" in str(plain["resources"])
    assert "espiratory rate" not in words
    assert "pulse 135" in words.casefold()
    assert "sensitive" in risk["prediction"][0]["rationale"]


def test_what_is_held_back_cannot_be_found_by_taking_the_others_from_the_total():
    """The total is 5, and the pulse's 3 beside it would tell of 2 more."""
    plain, open_ = result(
        pulse=fast(), respiratory_rate=observation(f"{LOINC}|9279-1", valueQuantity=amount(22, "/min"))
    )
    held, made = result(
        respiratory_rate=observation(f"{LOINC}|9279-1", meta=RESTRICTED, valueQuantity=amount(22, "/min"))
    )
    assert plain["score"] == held["score"] == 5
    assert len(open_["Observation"]["component"]) > 5
    assert "pulse 135/min, 3 points" in open_["RiskAssessment"]["note"][0]["text"]
    assert "component" not in made["Observation"]
    assert "points" not in made["RiskAssessment"]["note"][0]["text"]
    (prediction,) = made["RiskAssessment"]["prediction"]
    assert prediction["rationale"] == "pulse 135/min; an input is not named (sensitive), so no input has a number here"


ICD10 = ("http://hl7.org/fhir/sid/icd-10", ICD, "http://fhir.de/CodeSystem/bfarm/icd-10-gm")
ICD9, ATC = "http://hl7.org/fhir/sid/icd-9-cm", "http://www.whocc.no/atc"


def coded(code):
    return is_sensitive({"code": concept(code)}, rules())


HELD = [
    *(f"{system}|{code}" for system in ICD10 for code in (
        "B20", "B20.1", "B24", "B240", "b22.7", "Z21", "O98.7", "O987", "O98.711", "F10", "F10.20", "F1020", "F16.1", "F18",
        "F19.9", "F20", "F32.1", "F3290", "F99", "A50", "A64", "A53.9", "Z72.5", "Z72.51", "O03.9", "O04", "O07.4", "T74.1",
        "X60", "X84.9", "U60.3", "U61.1", "D57.1", "K70.3", "R78.5",
    )),
    *(f"{ICD9}|{code}" for code in (
        "042", "079.53", "V08", "303.90", "30390", "304", "305.0", "305.2", "305.90", "291.81", "295.30", "302.85", "311",
        "319", "098.0", "635.9", "995.5", "995.85", "E950.1", "V62.84", "282.62",
    )),
    *(f"{LOINC}|{code}" for code in (
        "7917-8", "5221-7", "68961-2", "56888-1", "20447-9", "25836-8", "29893-5", "10351-5", "75626-2", "44261-6",
    )),
    *(f"{SCT}|{code}" for code in ("86406008", "62479008", "7200002", "5602001", "13746004", "58214004", "76272004", "57797005")),
    f"{ATC}|J05AR13", f"{ATC}|N07BC01", "http://hl7.org/fhir/sid/icpc-2|P76", "http://id.who.int/icd/release/11/mms|6C40.2",
    "http://hl7.org/fhir/sid/icd-10-pcs|10A07ZZ", "http://fhir.de/CodeSystem/bfarm/ops|9-647.0",
]  # fmt: skip
NAMED = [
    *(f"{system}|{code}" for system in ICD10 for code in (
        "B19.9", "B25", "Z20.5", "Z22.3", "O98.6", "O9", "F0", "F05", "F01.5", "F17.2", "A49", "A65", "Z72.4", "O02", "O08",
        "G20", "T73", "X59", "X85", "U62", "D56", "D58", "K71", "N18.5", "I10", "E11.9", "B2", "Z2",
    )),
    *(f"{ICD9}|{code}" for code in (
        "041", "045", "079.52", "V07", "305.1", "3051", "290.0", "293.0", "294.1", "310.0", "320", "305", "089", "100", "633",
        "640", "995.7", "V62.8", "282.5", "E949", "E960", "E96",
    )),
    f"{LOINC}|8867-4", f"{LOINC}|7917-9", f"{LOINC}|7917", f"{LOINC}|7917-81", f"{SCT}|8640600", f"{SCT}|864060081",
    f"{SCT}|709044004", f"{ATC}|J05AF10", f"{ATC}|N02AA01", "urn:site|B20", "http://hl7.org/fhir/sid/icpc-2|P17",
    "http://hl7.org/fhir/sid/icpc-2|P70", "http://fhir.de/CodeSystem/bfarm/ops|5-750", f"{LOINC}|B20",
]  # fmt: skip


@pytest.mark.parametrize("code", HELD)
def test_an_input_is_held_back_by_its_code_too(code):
    assert coded(code)


@pytest.mark.parametrize("code", NAMED)
def test_a_code_beside_a_listed_one_is_named(code):
    assert not coded(code)


HIV, PULSE = concept(f"{SCT}|86406008"), concept(f"{LOINC}|8867-4")


@pytest.mark.parametrize("element", [
    {"code": {"coding": [*PULSE["coding"], *HIV["coding"]]}},
    {"category": [PULSE, HIV]},
    {"valueCodeableConcept": HIV},
    {"component": [{"code": PULSE}, {"code": HIV, "valueQuantity": amount(3, "{count}")}]},
    {"component": [{"code": PULSE, "valueCodeableConcept": HIV}]},
    {"medicationCodeableConcept": HIV},
    {"reasonCode": [HIV]},
    {"class": HIV["coding"][0]},
    {"hospitalization": {"dischargeDisposition": HIV}},
    {"modality": HIV["coding"]},
    {"item": [{"item": [{"answer": [{"valueCoding": HIV["coding"][0]}]}]}]},
    {"evidence": [{"code": [HIV]}]},
    {"contained": [{"resourceType": "Medication", "code": HIV}]},
])  # fmt: skip
def test_an_input_is_held_back_by_any_coding_in_it(element):
    assert is_sensitive({"resourceType": "Observation", "code": PULSE, **element}, rules())


def nested(depth):
    inside = {"code": HIV}
    for _ in range(depth):
        inside = {"item": [inside]}
    return inside


def test_how_deep_a_chart_is_nested_does_not_matter():
    assert is_sensitive(nested(5_000), rules())


@pytest.mark.parametrize("odd", [
    {}, {"code": None}, {"code": []}, {"code": "86406008"}, {"code": {"coding": {}}}, {"code": {"coding": [None, 1, []]}},
    {"code": {"coding": [{"system": {}, "code": []}]}}, {"code": {"coding": [{"code": "86406008"}]}}, {"category": [None, "x"]},
    {"meta": None}, {"meta": {"security": 1}}, {"code": {"coding": [{"system": SCT, "code": 86406008}]}},
    {"code": {"coding": [{"system": None, "code": "B20"}]}}, {"code": {"coding": [{"system": {}, "code": "B20"}]}},
])  # fmt: skip
def test_what_is_no_coding_holds_nothing_back(odd):
    assert not is_sensitive(odd, rules())


@pytest.mark.parametrize("label", [
    f"{CONFIDENTIALITY}|R", f"{CONFIDENTIALITY}|V", *(f"{ACT}|{code}" for code in (
        "ETH", "SUD", "ETHUD", "OPIOIDUD", "PSY", "PSYTHPN", "MH", "BH", "HIV", "STD", "SDV", "SEX", "GDIS", "SCA", "42CFRPart2",
    )), "http://terminology.hl7.org/CodeSystem/v3-ActUSPrivacyLaw|42CFRPart2",
])  # fmt: skip
def test_an_input_is_held_back_by_its_label(label):
    assert is_sensitive({"meta": labelled(f"{CONFIDENTIALITY}|N", label)}, rules())


@pytest.mark.parametrize(
    "label", [f"{CONFIDENTIALITY}|{c}" for c in "ULMN"] + [f"{ACT}|IMP", "urn:site|HIV", f"{ACT}|hiv"]
)
def test_a_label_that_says_nothing_of_a_condition_holds_nothing_back(label):
    assert not is_sensitive({"meta": labelled(label)}, rules())


VERHOEFF = (
    [
        "0123456789",
        "1234067895",
        "2340178956",
        "3401289567",
        "4012395678",
        "5987604321",
        "6598710432",
        "7659821043",
        "8765932104",
        "9876543210",
    ],
    ["0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258"],
)


def snomed_checks(code):
    """https://docs.snomed.org/snomed-ct-specifications/snomed-ct-release-file-specification (check digit)."""
    turns, moves = VERHOEFF
    check = 0
    for at, digit in enumerate(reversed(code)):
        check = int(turns[check][int(moves[at % 8][int(digit)])])
    return check == 0


def loinc_checks(code):
    """https://loinc.org/kb/users-guide (mod 10)."""
    number, _, digit = code.partition("-")
    doubled = (int(each) * (2 - at % 2) for at, each in enumerate(reversed(number)))
    return (10 - sum(n // 10 + n % 10 for n in doubled) % 10) % 10 == int(digit)


def test_every_listed_code_of_snomed_and_loinc_has_its_check_digit():
    codes = rules().sensitive.codes
    assert len(codes[SCT]) > 70
    assert len(codes[LOINC]) > 70
    assert [code for code in codes[SCT] if not snomed_checks(code)] == []
    assert [code for code in codes[LOINC] if not loinc_checks(code)] == []
    assert not snomed_checks("86406009")
    assert not loinc_checks("7917-9")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("[sensitive.systems]", "[sensitive.system]"),
        ('sct = ["http', 'snomed = ["http'),
        ("[sensitive.systems]", "systems = 1\n[sensitive.others]"),
        ("labels = [", "labels = [1, "),
        ("labels = [", 'labels = ["urn:of-no-system", '),
        ('"86406008"', "86406008"),
        ('"86406008"', '"*"'),
        ('"86406008"', '"62479008"'),
        ("[sensitive.hiv]", "hiv = 1\n[sensitive.more]"),
        ('"http://www.ama-assn.org/go/cpt"]\natc', '"urn:of-no-system"]\natc'),
        ('  "F10..F16*"', '"F16..F10*"'),
        ('  "F10..F16*"', '"F10..F10*"'),
        ('  "F10..F16*"', '"F10..F161*"'),
        ('  "F10..F16*"', '"F10..G16*"'),
        ('  "F10..F16*"', '"F 1*"'),
        ('  "F10..F16*"', '"F000..F100*"'),
        ('  "F10..F16*"', '"f10*"'),
    ],
)
def test_a_list_of_what_is_sensitive_that_does_not_parse_stops_the_start(right, wrong):
    shipped = (REPO / "sidecar" / "deid" / "rules.toml").read_text()
    assert right in shipped
    with pytest.raises(Misconfigured, match="sensitive"):
        load_rules(shipped.replace(right, wrong, 1).encode())


def words_of(resources):
    """All that a person or a program reads of them, but for the links to what they rest on."""
    return str([{k: v for k, v in r.items() if k not in {"basis", "derivedFrom", "meta"}} for r in resources])


def test_an_implausible_value_that_is_held_back_is_not_shown_for_checking():
    said, _ = result(pulse=observation(f"{LOINC}|8867-4", valueQuantity=amount(290, "/min"), meta=RESTRICTED))
    words = words_of(said["resources"])
    assert said["outcome"] == "incomplete"
    assert "cannot be used" in words
    assert "pulse" not in words.casefold().replace("8867", "")
    assert "290" not in words


def test_when_all_that_counts_is_held_back_the_words_do_not_say_that_nothing_counts():
    said, made = result(pulse=fast(meta=RESTRICTED))
    assert said["score"] == 3
    assert made["RiskAssessment"]["prediction"][0]["rationale"] == "what it comes from is not named (sensitive)"


def test_a_component_that_tells_of_a_decision_that_is_held_back_is_left_out():
    plain, open_ = result(on_scale2=scale(2))
    held, made = result(on_scale2={**scale(2), "meta": RESTRICTED})
    assert "scale 2" in words_of(plain["resources"])
    assert "scale 2" not in words_of(held["resources"])
    assert "component" in open_["Observation"]
    assert "component" not in made["Observation"]


def test_a_remark_does_not_tell_of_the_reading_that_a_held_back_value_was_computed_from():
    told = judge_ckd(creatinine(2.3), acr()).assessment
    held = judge_ckd(creatinine(2.3, meta=RESTRICTED), acr()).assessment
    assert "serum creatinine 2.3" in str(told.vector.remarks)
    assert "creatinine" not in str(held.vector.remarks)
    assert held.probabilities == told.probabilities


def test_a_diagnosis_that_only_the_cohort_asks_for_labels_the_result_and_its_refusal_is_not_spelt_out():
    ill = {**chronic(), "meta": RESTRICTED}
    scored = judge(ill, creatinine(2.3), acr())
    assert scored.assessment.probabilities
    assert scored.evidence.labels == (f"{CONFIDENTIALITY}|R",)

    dialysis = {**condition(f"{SCT}|46177005"), "meta": RESTRICTED}
    refused = judge(chronic(), dialysis, creatinine(2.3), acr())
    a = refused.assessment
    assert a.reasons == ("out_of_cohort:dialysis",)
    said = reason_in_words(a.reasons[0], kfre().manifest, a.vector.features, a.withheld)
    assert "dialysis" not in said
    assert refused.evidence.labels == (f"{CONFIDENTIALITY}|R",)


def test_a_reason_by_the_name_of_a_source_does_not_tell_of_a_held_back_input():
    said = reason_in_words("comparator:creatinine", kfre().manifest, (), ("egfr",))
    assert "creatinine" not in said
    assert "not named" in said


def test_every_label_is_inherited_however_many_and_one_without_a_system_too():
    many = [{"system": "urn:site", "code": f"c{n}"} for n in range(99)]
    found = inherited([{"meta": {"security": [*many, {"code": "house"}]}}])
    assert len(found) == 100
    assert "|house" in found


@pytest.mark.parametrize("text", ["", "a|b", "a\nb", "x" * 201, None, 3])
def test_a_label_whose_code_is_no_word_is_not_inherited(text):
    assert inherited([{"meta": {"security": [{"system": "urn:site", "code": text}]}}]) == ()


def test_a_label_of_a_site_is_inherited_with_its_system_or_without_one():
    said = [{"system": "urn:site", "code": "x" * 200}, {"code": "VIP"}]
    assert inherited([{"meta": {"security": said}}]) == ("urn:site|" + "x" * 200, "|VIP")
    assert inherited([{"meta": {"security": [{"system": "a|b", "code": "VIP"}]}}]) == ()
    assert inherited([{"meta": {"security": [{"system": "", "code": "VIP"}]}}]) == ()


def test_what_has_a_harmless_label_is_still_judged_by_its_codes():
    harmless = {"meta": labelled(f"{CONFIDENTIALITY}|N"), "code": PULSE}
    assert not is_sensitive(harmless, rules())
    assert is_sensitive({**harmless, "code": HIV}, rules())
    assert not is_sensitive({"meta": [f"{ACT}|HIV"], "code": PULSE}, rules())


def test_a_plain_panel_with_its_category_holds_nothing_back():
    category = [concept("http://terminology.hl7.org/CodeSystem/observation-category|vital-signs")]
    assert not is_sensitive({**panel(120), "category": category, "note": [{"text": "F10"}]}, rules())
