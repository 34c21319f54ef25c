"""`sidecar score`: a file in, a line out for each Bundle, and an exit code that tells whether all could be judged."""

import copy
import json
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.cli import main
from sidecar.context import from_bundle
from sidecar.errors import Rejected
from tests.unit.chart import AT, bundle, measured, model, panel, person, stay, vitals

GOOD = bundle(person(), stay(), *vitals(respiratory_rate=measured("9279-1", 22, "/min")).values())


def score(content, *options):
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    done = CliRunner().invoke(main, ["score", "-", "--model", "news2", *options], input=raw)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def changed(change):
    content = copy.deepcopy(GOOD)
    change(content["entry"])
    return content


def test_a_bundle_gives_one_line_with_the_total_and_what_write_back_would_chart():
    code, (line,), _ = score(GOOD)
    assert (code, line["outcome"], line["score"], line["risk"]) == (0, "scored", 2, "low")
    assert sum(line["contributions"].values()) == line["score"]
    assert [r["resourceType"] for r in line["resources"]] == ["Device", "Observation", "RiskAssessment"]


def test_an_incomplete_set_gives_no_total_and_no_score_observation():
    chart = bundle(person(), stay(), *vitals(respiratory_rate=measured("9279-1", 30, "/min"), systolic_bp=panel(80), temperature=None).values())  # fmt: skip
    code, (line,), _ = score(chart)
    assert (code, line["outcome"], line["score"], line["at_least"]) == (0, "incomplete", None, 6)
    assert [r["resourceType"] for r in line["resources"]] == ["Device", "RiskAssessment"]


def test_a_patient_outside_the_cohort_gives_a_reason_and_nothing_to_chart():
    code, (line,), _ = score(bundle(person(birthDate="2015-01-01"), stay(), *vitals().values()))
    assert (code, line["outcome"], line["reasons"], line["resources"]) == (0, "not_scored", ["out_of_cohort:age"], [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda e: e[3]["resource"].update(subject={"reference": "Patient/p2"}), "another_patient"),
        (lambda e: e[3]["resource"].update(subject={"reference": "https://elsewhere.example/fhir/Patient/p1"}), "another_patient"),
        (lambda e: e[3]["resource"].update(subject={"reference": "Patient/p1/../p2"}), "another_patient"),
        (lambda e: e[3]["resource"].update(subject={"identifier": {"value": "p1"}}), "another_patient"),
        (lambda e: e[3]["resource"].pop("subject"), "another_patient"),
        (lambda e: e[1]["resource"].update(subject={"reference": "Patient/p2"}), "another_patient"),
        (lambda e: e[3]["resource"].update(id="a/../b"), "grammar:Observation.id"),
        (lambda e: e[3]["resource"].update(id=".."), "grammar:Observation.id"),
        (lambda e: e[3]["resource"].update(id="a" * 65), "grammar:Observation.id"),
        (lambda e: e[3]["resource"].pop("id"), "grammar:Observation.id"),
        (lambda e: e[0]["resource"].update(id="p_1"), "grammar:Patient.id"),
        (lambda e: e.append({"resource": person(id="p2")}), "several_patients:Bundle"),
        (lambda e: e.append({"resource": person()}), "several_patients:Bundle"),
        (lambda e: e.pop(0), "no_patient:Bundle"),
    ],
)  # fmt: skip
def test_a_bundle_that_mixes_people_or_breaks_the_grammar_is_refused(change, reason):
    code, (line,), _ = score(changed(change))
    assert (code, line["outcome"], line["reasons"], line["score"]) == (1, "not_scored", [reason], None)


@pytest.mark.parametrize("content", [{"resourceType": "Patient", "id": "p1"}, [], 3, None, "Bundle"])
def test_what_is_no_bundle_is_refused(content):
    code, (line,), _ = score(content)
    assert (code, line["reasons"]) == (1, ["shape:Bundle"])


@pytest.mark.parametrize("raw", [b"", b"not json", b'{"resourceType": "Bundle"', b"\xff\xfe", b'{\n "resourceType":\n'])
def test_what_is_not_json_is_one_refusal(raw):
    code, (line,), _ = score(raw)
    assert (code, line["reasons"]) == (1, ["shape:JSON"])


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_bad_line_of_ndjson_costs_only_itself(bad):
    lines = [json.dumps(GOOD).encode()] * 3
    lines[bad] = b'{"resourceType": "Bund'
    code, out, _ = score(b"\n".join(lines) + b"\n\n")
    assert code == 1
    assert [line["reasons"] for line in out] == [["shape:JSON"] if n == bad else [] for n in range(3)]


def test_good_ndjson_ends_with_zero_and_keeps_the_order_of_lines():
    worse = bundle(person(), stay(), *vitals(pulse=measured("8867-4", 135, "/min")).values())
    code, out, _ = score("\n".join(map(json.dumps, (GOOD, worse, GOOD))).encode())
    assert (code, [line["score"] for line in out]) == (0, [2, 3, 2])


@pytest.mark.parametrize(
    "url", ["urn:uuid:6e5b8b8e-0000-4000-8000-000000000001", "https://ehr.example/fhir/Patient/p1"]
)
def test_a_reference_by_full_url_finds_its_entry_in_the_bundle(url):
    content = copy.deepcopy(GOOD)
    content["entry"][0]["fullUrl"] = url
    for entry in content["entry"][1:]:
        entry["resource"]["subject"] = {"reference": url}
    code, (line,), _ = score(content)
    assert (code, line["score"]) == (0, 2)
    assert line["resources"][-1]["subject"] == {"reference": "Patient/p1"}


def test_without_at_the_moment_is_that_of_the_latest_reading():
    late = bundle(
        person(), stay(), *vitals(respiratory_rate=measured("9279-1", 22, "/min", -timedelta(hours=2))).values()
    )
    _, (line,), _ = score(late)
    assert line["resources"][-1]["occurrenceDateTime"].startswith("2026-03-01T14:00:00")


def test_without_at_a_reading_with_a_period_gives_the_moment_too():
    content = copy.deepcopy(GOOD)
    for entry in content["entry"][2:]:
        del entry["resource"]["effectiveDateTime"]
        entry["resource"]["effectivePeriod"] = {"start": "2026-03-01T11:50:00Z", "end": "2026-03-01T12:00:00Z"}
    assert score(content)[1][0]["score"] == 2


def test_with_at_the_chart_is_judged_as_of_that_moment():
    later = (AT + timedelta(hours=5)).isoformat()
    _, (line,), _ = score(GOOD, "--at", later)
    assert line["reasons"][0] == "stale:respiratory_rate"


def test_with_at_what_came_later_is_not_used():
    _, (line,), _ = score(GOOD, "--at", (AT - timedelta(hours=1)).isoformat())
    assert set(line["reasons"]) == {f"future:{name}" for name in vitals()}


@pytest.mark.parametrize(
    "at", ["2026-03-01T12:00:00", "2026-03-01", "noon", "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59Z"]
)
def test_a_moment_that_is_none_is_refused_with_an_example(at):
    code, out, said = score(GOOD, "--at", at, "--time-zone", "America/New_York")
    assert (code, out) == (2, [])
    assert "for example 2026-03-01T14:30:00+00:00" in said


def test_a_zone_that_is_none_is_refused():
    assert score(GOOD, "--time-zone", "Mars/Olympus")[0] == 2


def test_a_switch_of_the_manifest_can_be_turned_on():
    chart = bundle(person(), stay(), *vitals(on_oxygen=None).values())
    assert score(chart)[1][0]["outcome"] == "incomplete"
    assert score(chart, "--switch", "room_air_when_undocumented")[1][0]["score"] == 0


def test_an_unknown_switch_is_refused_by_name():
    code, out, said = score(GOOD, "--switch", "room_air")
    assert (code, out) == (2, [])
    assert "switches.room_air" in said


def test_an_unknown_model_is_refused_with_the_nearest_name():
    done = CliRunner().invoke(main, ["score", "-", "--model", "new2"], input=b"{}")
    assert done.exit_code == 2
    assert 'did you mean "news2"?' in done.stderr


def test_the_same_file_gives_the_same_bytes():
    assert score(GOOD) == score(GOOD)


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8) | st.just("0001-01-01T00:00:00Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["resource", "reference", "coding", "code"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def places(node, path=()):
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


@settings(max_examples=300, deadline=None, print_blob=True)
@given(st.sampled_from(list(places(GOOD))), GARBAGE)
def test_the_bundle_door_reads_or_refuses_and_never_crashes(place, garbage):
    content = copy.deepcopy(GOOD)
    node = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = garbage
    try:
        from_bundle(content, model().loaded.manifest.observation_codes, None, ZoneInfo("America/New_York"))
    except Rejected as refusal:
        assert ":" in refusal.reason or refusal.reason == "another_patient"  # noqa: PT017 -- most garbage is no refusal


@pytest.mark.parametrize("second", ["region=north_america", "region=other"])
def test_a_choice_made_twice_is_refused_instead_of_taking_the_last(second):
    options = ["--model", "kfre_4var", "--choice", "region=other", "--choice", second]
    done = CliRunner().invoke(main, ["score", "-", *options], input=json.dumps(GOOD).encode())
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--choice: region is given more than once" in done.stderr
