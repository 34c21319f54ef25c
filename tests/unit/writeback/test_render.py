"""What a clinician gets: valid FHIR, the same every time, and never a total where there is none."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from fhir.resources.R4B import get_fhir_model_class
from fhir.resources.R4B.device import Device
from fhir.resources.R4B.observation import Observation
from fhir.resources.R4B.riskassessment import RiskAssessment

from sidecar.context import from_bundle
from sidecar.explanation import rationale, reason_in_words
from sidecar.pipeline import conclude
from sidecar.records import ENDED, Conclusion, Outcome
from sidecar.writeback import Links, device, observation, risk_assessment
from sidecar.writeback.note import text
from tests.unit.chart import AT, POINTS, REPO, judge, judge_set, loaded, measured, model, panel, rules, scale, vitals

FIXTURES = REPO / "fhir_fixtures"
GOLDEN = sorted(path.name for path in (FIXTURES / "input").glob("news2-*.json"))
KINDS = {"Device": Device, "Observation": Observation, "RiskAssessment": RiskAssessment}
MANIFEST = loaded().manifest
SICK = {
    "respiratory_rate": measured("9279-1", 26, "/min"),
    "on_oxygen": measured("3151-8", 2, "L/min"),
    "systolic_bp": panel(95),
}


def links(conclusion, **more):
    a = conclusion.assessment
    known = {
        "identity": bytes(range(32)),
        "status": "final" if a.outcome is Outcome.SCORED else "preliminary",
        "device": "Device/d1",
        "rationale": rationale(a, MANIFEST),
        "reasons": tuple(reason_in_words(r, MANIFEST, a.vector.features) for r in a.reasons),
    }
    return Links(**{**known, **more})


def rendered(conclusion, **more):
    """Device, Observation where there is one, RiskAssessment; the digest of the manifest replaced by its name."""
    digest = conclusion.assessment.model_digest
    to = links(conclusion, device=f"Device/sd-{digest[:40]}", **more)
    total = observation(conclusion, MANIFEST, to)
    if total is not None:
        to = links(conclusion, device=to.device, observation=f"Observation/{total['id']}", **more)
    found = [device(MANIFEST, digest), total, risk_assessment(conclusion, MANIFEST, to)]
    written = json.dumps([r for r in found if r is not None])
    for part in (digest, digest[:40], digest[:12]):
        written = written.replace(part, "MANIFEST-DIGEST")
    return json.loads(written)


def of_input(name):
    chart = json.loads((FIXTURES / "input" / name).read_text(encoding="utf-8"))
    snapshot = from_bundle(chart, MANIFEST.observation_codes, None, ZoneInfo("Europe/London"))
    return conclude(snapshot, model(), rules())


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_input_renders_to_its_golden_output(name):
    conclusion = of_input(name)
    a = conclusion.assessment
    resources = rendered(conclusion) if a.outcome is not Outcome.NOT_SCORED else []
    found = {"outcome": a.outcome.value, "reasons": list(a.reasons), "resources": resources}
    assert found == json.loads((FIXTURES / "expected" / name).read_text(encoding="utf-8"))


def test_every_golden_input_has_an_output_and_every_output_an_input():
    assert len(GOLDEN) >= 4
    assert sorted(path.name for path in (FIXTURES / "expected").glob("news2-*.json")) == GOLDEN


@pytest.mark.parametrize("name", GOLDEN)
def test_every_golden_resource_is_valid_r4(name):
    for resource in json.loads((FIXTURES / "expected" / name).read_text(encoding="utf-8"))["resources"]:
        KINDS[resource["resourceType"]].model_validate(resource)
    for entry in json.loads((FIXTURES / "input" / name).read_text(encoding="utf-8"))["entry"]:
        get_fhir_model_class(entry["resource"]["resourceType"]).model_validate(entry["resource"])


CASES = {
    "zero": judge_set,
    "sick": lambda: judge_set(**SICK),
    "scale 2": lambda: judge_set(spo2_scale=scale(2)),
    "incomplete": lambda: judge_set(**SICK, temperature=None),
    "implausible": lambda: judge_set(spo2=measured("59408-5", 45, "%")),
    "assumed air": lambda: judge_set("room_air_when_undocumented", on_oxygen=None),
    "no encounter": lambda: judge([{**r, "encounter": {"reference": "Encounter/gone"}} for r in vitals().values()]),
}


@pytest.mark.parametrize("value", ["{score}", "{ScoreOf}", "1", "integer"])
@pytest.mark.parametrize("case", CASES)
def test_whatever_is_concluded_renders_to_valid_r4(case, value):
    for resource in rendered(CASES[case](), score_value=value):
        KINDS[resource["resourceType"]].model_validate(resource)


def test_the_same_conclusion_renders_to_the_same_bytes():
    assert json.dumps(rendered(judge_set(**SICK))) == json.dumps(rendered(judge_set(**SICK)))


def test_points_are_never_written_as_a_probability():
    assert not [key for key in rendered(judge_set(**SICK))[-1]["prediction"][0] if key.startswith("probability")]


def test_the_observation_has_one_component_for_each_parameter_and_they_sum_to_the_total():
    total = rendered(judge_set(**SICK))[1]
    assert len(total["component"]) == len(POINTS)
    assert sum(c["valueQuantity"]["value"] for c in total["component"]) == total["valueQuantity"]["value"] == 7


@pytest.mark.parametrize(("decided", "code"), [(None, "1104311000000102"), (scale(2), "1104321000000108")])
def test_the_saturation_component_is_that_of_the_scale_used(decided, code):
    codes = {c["code"]["coding"][0]["code"] for c in rendered(judge_set(spo2_scale=decided))[1]["component"]}
    assert codes & {"1104311000000102", "1104321000000108"} == {code}


def test_the_total_can_be_written_as_an_integer():
    total = rendered(judge_set(**SICK), score_value="integer")[1]
    assert (total["valueInteger"], "valueQuantity" in total) == (7, False)
    assert all("valueInteger" in c for c in total["component"])


def test_both_resources_cite_the_readings_in_the_version_that_was_read():
    reading = measured("9279-1", 26, "/min", meta={"versionId": "7"})
    _, total, risk = rendered(judge_set(respiratory_rate=reading))
    assert {"reference": f"Observation/{reading['id']}/_history/7"} in total["derivedFrom"]
    assert {"reference": f"Observation/{reading['id']}/_history/7"} in risk["basis"]
    assert risk["basis"][0] == {"reference": f"Observation/{total['id']}"}


def test_a_reading_that_was_not_used_is_not_cited():
    older = measured("9279-1", 16, "/min", timedelta(hours=1))
    cited = rendered(judge([*vitals().values(), older]))[-1]["basis"]
    assert f"Observation/{older['id']}" not in {each["reference"] for each in cited}


def test_a_result_holds_from_its_latest_reading_for_as_long_as_the_model_says():
    when = rendered(judge_set(**SICK))[-1]["prediction"][0]["whenPeriod"]
    start, end = (datetime.fromisoformat(when[side]) for side in ("start", "end"))
    assert (start, end - start) == (AT, MANIFEST.validity)


def test_the_band_of_a_total_is_coded():
    risk = rendered(judge_set(**SICK))[-1]["prediction"][0]["qualitativeRisk"]
    assert (risk["coding"][0]["code"], risk["text"]) == ("high", "high: emergency response")


def test_output_is_marked_as_asserted_by_a_machine():
    assert all(r["meta"]["security"][0]["code"] == "AIAST" for r in rendered(judge_set())[1:])


def test_a_server_that_reserves_numeric_ids_takes_ours():
    assert all(re.fullmatch(r"s[doc]-[0-9a-zA-Z\-]{15,61}", r["id"]) for r in rendered(judge_set()))


def note(conclusion, status="final"):
    return text(conclusion, MANIFEST, status, links(conclusion).reasons)


@pytest.mark.parametrize("gone", POINTS)
def test_the_note_of_an_incomplete_result_never_states_a_total(gone):
    said = note(judge_set(**{**SICK, gone: None}))
    assert "total" not in said.replace("This is not a total.", "")
    assert re.search(r"NEWS2 at least \d+, incomplete: ", said)


def test_the_note_states_a_total_with_its_band():
    assert note(judge_set(**SICK)).startswith("NEWS2 total 7 (high: emergency response). Inputs: ")


def test_the_note_prints_every_input_with_its_points_and_time():
    said = note(judge_set(**SICK))
    assert "respiratory rate 26/min, 3 points, at 1 Mar 2026 12:00 +0000" in said
    assert "temperature 37 °C, 0 points" in said
    assert all(MANIFEST.features[name].label in said for name in POINTS)


def test_the_note_gives_times_in_the_zone_of_the_facility():
    summer = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
    moved = [{**r, "effectiveDateTime": summer.isoformat()} for r in vitals().values()]
    assert "at 1 Jul 2026 13:00 +0100" in note(judge(moved, at=summer, tz="Europe/London"))


def test_an_assumption_is_in_the_note_and_has_no_time():
    said = note(CASES["assumed air"]())
    assert "oxygen therapy none (room air), 0 points;" in said
    assert "Oxygen was not documented and was taken as room air, as this site decided." in said


@pytest.mark.parametrize(
    ("status", "said"), [("entered-in-error", "ENTERED IN ERROR"), ("corrected", "Corrected after")]
)
def test_a_correction_opens_the_note(status, said):
    assert note(judge_set(), status).startswith(said)


def test_the_note_says_what_it_rests_on_and_what_it_is_not():
    said = note(judge_set())
    assert "Model news2 1.0.0" in said
    assert "Consent: not evaluated." in said
    assert "Royal College of Physicians" in said
    assert said.endswith("it does not replace clinical judgement.")


def test_a_total_that_is_no_longer_current_says_so_first_and_has_no_band():
    conclusion = judge_set(**SICK)
    a = conclusion.assessment
    said = replace(a.vector, remarks=(*a.vector.remarks, f"{ENDED}encounter has ended."))
    _, total, risk = rendered(Conclusion(replace(a, vector=said), conclusion.evidence), status="amended")
    assert "qualitativeRisk" not in risk["prediction"][0]
    assert "whenPeriod" in risk["prediction"][0]
    for resource in (total, risk):
        assert resource["note"][0]["text"].startswith("No longer current: encounter has ended. Until then: NEWS2 total")
        assert resource["note"][0]["text"].count("No longer current") == 1
    assert total["valueQuantity"]["value"] == a.score
