"""The ward page, over the wire: it never calls a number the current score that is not one."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from time import thread_time
from typing import Any

import aiohttp
import orjson
import pytest

from sidecar.sandbox.ward_page import Unscored
from tests.ward import NOON, UCUM, Ward, ago, observation, open_ward


def text_of(html: str) -> str:
    """What a reader sees: no tags, one space between words."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def shown(row: dict[str, Any]) -> str:
    """What is seen of a row before it is opened."""
    return text_of(row["html"].partition("</summary>")[0])


@pytest.fixture
async def ward() -> AsyncIterator[Ward]:
    async with open_ward() as ward:
        yield ward


async def test_a_valid_total_is_shown_with_its_band_in_words(ward):
    await ward.admit("p1", name="Lee", gender="female", birthDate="1950-03-02")
    await ward.total("p1", 7, "high")
    row = await ward.row("p1")
    assert (row["kind"], row["total"], row["band"]) == ("total", "7", "high")
    said = shown(row)
    assert "high: emergency response" in said
    assert "Bed 1 Lee 75 y, female reason of p1" in said
    assert "No current score" not in said


async def test_an_expired_total_is_no_current_score_because_it_expired(ward):
    await ward.admit("p1")
    await ward.total("p1", 7, "high", hours=1)
    ward.now = NOON + timedelta(hours=5)
    row = await ward.row("p1")
    assert (row["kind"], row["total"], row["band"], row["level"]) == ("none", None, None, 0)
    assert "No current score because the last result held until 17:00." in shown(row)


async def test_a_later_failure_to_score_is_no_current_score_with_its_reasons(ward):
    await ward.admit("p1")
    await ward.total("p1", 7, "high", hours=1)
    ward.unscored["p1"] = Unscored(("lactate too old", "pulse not charted"), NOON - timedelta(minutes=30))
    row = await ward.row("p1")
    assert (row["kind"], row["total"]) == ("none", None)
    assert "No current score because lactate too old; pulse not charted." in shown(row)


async def test_a_failure_to_score_before_the_total_does_not_hide_it(ward):
    await ward.admit("p1")
    await ward.total("p1", 7, "high", hours=1)
    ward.unscored["p1"] = Unscored(("pulse not charted",), NOON - timedelta(hours=2))
    assert (await ward.row("p1"))["total"] == "7"


async def test_a_patient_without_any_result_is_said_to_have_none(ward):
    await ward.admit("p1")
    assert "No current score because nothing was scored yet." in shown(await ward.row("p1"))
    assert "RR not charted" in shown(await ward.row("p1"))


async def test_an_incomplete_result_is_never_a_total_even_if_it_cites_one(ward):
    await ward.admit("p1")
    await ward.total("p1", 9, "high", status="preliminary")
    row = await ward.row("p1")
    assert row["total"] is None
    assert "oldest first: incomplete." in row["html"]
    await ward.incomplete("p1", 8, "high", hours=0.5, urgent=True)
    row = await ward.row("p1")
    assert (row["kind"], row["total"], row["urgent"]) == ("incomplete", None, True)
    said = shown(row)
    assert said.startswith("≥ 8 Urgent at least 8, incomplete No current score, because temperature not charted.")
    assert "8 incomplete" not in said


async def test_an_urgent_incomplete_result_is_not_silenced_by_a_failure_to_score(ward):
    await ward.admit("p1")
    await ward.incomplete("p1", 8, "high", urgent=True)
    ward.unscored["p1"] = Unscored(("temperature not charted",), NOON)
    row = await ward.row("p1")
    assert (row["kind"], row["urgent"], row["because"]) == ("incomplete", True, "temperature not charted")


async def test_an_incomplete_result_expires_as_a_total_does(ward):
    await ward.admit("p1")
    await ward.incomplete("p1", 8, "high", urgent=True)
    ward.now = NOON + timedelta(hours=6)
    row = await ward.row("p1")
    assert (row["kind"], row["urgent"]) == ("none", False)


async def test_an_entered_in_error_result_is_as_if_it_had_never_been(ward):
    await ward.admit("p1")
    await ward.total("p1", 2, "low", hours=2)
    newest = await ward.total("p1", 7, "high", hours=1)
    assert (await ward.row("p1"))["total"] == "7"
    await ward.ehr.write(newest | {"status": "entered-in-error"})
    row = await ward.row("p1")
    assert row["total"] == "2"
    assert row["html"].count("<polyline") == 0


async def test_a_deleted_result_is_forgotten(ward):
    await ward.admit("p1")
    newest = await ward.total("p1", 7, "high")
    assert (await ward.row("p1"))["total"] == "7"
    await ward.ehr.remove("RiskAssessment", newest["id"])
    assert (await ward.row("p1"))["kind"] == "none"


async def test_a_corrected_result_says_so(ward):
    await ward.admit("p1")
    await ward.total("p1", 7, "high")
    await ward.total("p1", 5, "medium", status="corrected")
    row = await ward.row("p1")
    assert (row["total"], row["says"]) == ("5", "medium: urgent response (corrected)")


async def test_the_score_of_an_earlier_stay_is_not_the_score_of_this_one(ward):
    await ward.admit("p1")
    await ward.total("p1", 7, "high", encounter={"reference": "Encounter/an-earlier-one"})
    assert (await ward.row("p1"))["kind"] == "none"


@pytest.mark.parametrize(
    ("patient", "status", "said"),
    [
        ({}, "finished", "because the patient was discharged at 11:00."),
        ({"deceasedBoolean": True}, "in-progress", "because the patient died."),
        ({"deceasedDateTime": "2026-03-01"}, "finished", "because the patient died."),
    ],
)
async def test_who_left_has_no_current_score(ward, patient, status, said):
    await ward.admit("p1", **patient)
    await ward.total("p1", 7, "high")
    end = {"end": ago(1)} if status == "finished" else {}
    await ward.stay("p1", status, {"start": ago(24), **end})
    row = await ward.row("p1")
    assert (row["kind"], row["total"], row["level"]) == ("none", None, 0)
    assert f"No current score {said}" in shown(row)


async def test_an_urgent_incomplete_result_of_who_left_is_not_urgent_any_more(ward):
    await ward.admit("p1", deceasedBoolean=True)
    await ward.incomplete("p1", 8, "high", urgent=True)
    row = await ward.row("p1")
    assert (row["kind"], row["urgent"], row["because"]) == ("none", False, "the patient died")


async def test_who_left_long_ago_is_off_the_page(ward):
    await ward.admit("p1")
    await ward.stay("p1", "finished", {"start": ago(24), "end": ago(1)})
    assert await ward.order() == ["p1"]
    ward.now += timedelta(hours=12)
    assert await ward.order() == []
    assert "Nobody is on the ward yet" in await ward.get()


async def test_rows_are_ordered_by_urgency_then_by_bed(ward):
    for key in ("low", "left", "none", "medium", "high", "urgent", "high2", "lowmed"):
        await ward.admit(key)
    await ward.total("low", 1, "low")
    await ward.total("medium", 5, "medium")
    await ward.total("high", 7, "high")
    await ward.total("high2", 15, "high")
    await ward.total("lowmed", 3, "low-medium")
    await ward.total("left", 9, "high")
    await ward.incomplete("urgent", 5, "medium", urgent=True)
    await ward.stay("left", "finished", {"start": ago(24), "end": ago(1)})
    assert await ward.order() == ["high", "urgent", "high2", "medium", "lowmed", "none", "low", "left"]
    html = await ward.get()
    assert re.findall(r'data-row="(\w+)"', html) == await ward.order()


async def test_a_bed_is_kept_whatever_happens_to_its_patient(ward):
    for key in ("p1", "p2", "p3"):
        await ward.admit(key)
    before = {row["id"]: row["bed"] for row in (await ward.state())["rows"]}
    await ward.stay("p1", "finished", {"start": ago(24), "end": ago(1)})
    await ward.admit("p4")
    after = {row["id"]: row["bed"] for row in (await ward.state())["rows"]}
    assert before == {"p1": 1, "p2": 2, "p3": 3}
    assert after == {**before, "p4": 4}


async def test_the_trend_breaks_where_a_result_is_incomplete_and_says_so(ward):
    await ward.admit("p1")
    for hours, points in ((6, 2), (5, 3), (3, 5), (2, 6)):
        await ward.total("p1", points, "low", hours=hours)
    await ward.incomplete("p1", 1, "low", hours=4)
    html = (await ward.row("p1"))["html"]
    assert 'aria-label="Trend, oldest first: 2, 3, incomplete, 5, 6."' in html
    assert html.count("<polyline") == 2
    assert html.count('class="gap"') == 1
    assert "06:00 2 07:00 3 08:00 incomplete 09:00 5 10:00 6" in text_of(html)


async def test_vitals_are_the_newest_by_effective_time_with_their_age(ward):
    await ward.admit("p1")
    await ward.reading("p1", "8867-4", 112, "/min", hours=0.5)
    await ward.reading("p1", "8867-4", 70, "/min", hours=4)  # charted late
    await ward.reading("p1", "8310-5", 38.4, "Cel", hours=2.25)
    withdrawn = observation("p1", "9279-1", 0.1) | {"status": "entered-in-error"}
    await ward.ehr.write(withdrawn | {"valueQuantity": {"value": 99, "code": "/min", "system": UCUM}})
    said = shown(await ward.row("p1"))
    assert "RR not charted" in said
    assert "Pulse 112 /min 30 min ago Consc. not charted Temp 38.4 °C 2 h 15 ago" in said


async def test_a_vital_shows_the_points_that_its_newest_reading_gives_to_the_score(ward):
    await ward.admit("p1")
    pulse = await ward.reading("p1", "8867-4", 112, "/min")
    rate = await ward.reading("p1", "9279-1", 26, "/min")
    components = [_points("1104351000000103", 2), _points("1104301000000104", 3)]
    await ward.total("p1", 5, "medium", basis=[{"reference": pulse}, {"reference": rate}], components=components)
    said = shown(await ward.row("p1"))
    assert "RR gives +3 26 /min" in said
    assert "Pulse gives +2 112 /min" in said


async def test_points_are_not_shown_beside_a_reading_that_the_score_does_not_rest_on(ward):
    await ward.admit("p1")
    pulse = await ward.reading("p1", "8867-4", 112, "/min")
    rate = await ward.reading("p1", "9279-1", 26, "/min")
    components = [_points("1104351000000103", 2), _points("1104301000000104", 3)]
    await ward.total("p1", 5, "medium", basis=[{"reference": pulse}, {"reference": rate}], components=components)
    await ward.reading("p1", "8867-4", 80, "/min", hours=0.5)
    corrected = ward.ehr.read("Observation", rate.split("/")[1])
    await ward.ehr.write(corrected | {"valueQuantity": corrected["valueQuantity"] | {"value": 16}})
    said = shown(await ward.row("p1"))
    assert "Pulse 80 /min" in said
    assert "RR 16 /min" in said
    assert "gives" not in said


async def test_points_go_when_the_score_is_not_current_any_more(ward):
    await ward.admit("p1")
    pulse = await ward.reading("p1", "8867-4", 112, "/min")
    components = [_points("1104351000000103", 2)]
    await ward.total("p1", 2, "low", basis=[{"reference": pulse}], components=components)
    assert "gives +2" in shown(await ward.row("p1"))
    ward.now += timedelta(hours=5)
    assert "gives" not in shown(await ward.row("p1"))


async def test_of_two_readings_of_one_moment_the_one_that_was_scored_is_shown(ward):
    await ward.admit("p1")
    coma = await ward.reading("p1", "9269-2", 12, "{score}")
    alert = observation("p1", "80288-4", 1) | {"valueCodeableConcept": {"text": "Alert"}}
    await ward.ehr.write(alert)
    assert "Consc. Alert" in shown(await ward.row("p1"))
    components = [_points("1104361000000100", 3)]
    await ward.total("p1", 3, "low-medium", basis=[{"reference": coma}], components=components)
    assert "Consc. gives +3 GCS 12" in shown(await ward.row("p1"))


def _points(code: str, points: int) -> dict[str, Any]:
    return {"code": {"coding": [{"system": "http://snomed.info/sct", "code": code}]}, "valueInteger": points}


async def test_latency_is_from_the_newest_input_as_it_was_then_to_the_result(ward):
    await ward.admit("p1")
    old = await ward.reading("p1", "9279-1", 18, "/min")
    ward.wall += timedelta(seconds=60)
    new = await ward.reading("p1", "8867-4", 90, "/min")
    ward.wall += timedelta(milliseconds=250)
    await ward.total("p1", 3, "low", basis=[{"reference": old}, {"reference": new}])
    ward.wall += timedelta(seconds=60)
    later = ward.ehr.read("Observation", new.split("/")[1])
    await ward.ehr.write(later | {"note": [{"text": "looked at again"}]})
    state = await ward.state()
    assert state["fields"]["p50"] == "250 ms"
    said = text_of(state["rows"][0]["html"])
    assert "In the chart after 250 ms" in said
    assert "name of score" not in said
    assert "name of 8867-4 90 /min (changed since) 11:00" in said


async def test_the_header_counts_what_the_rows_say(ward):
    for key in ("p1", "p2", "p3"):
        await ward.admit(key)
    await ward.total("p1", 7, "high")
    await ward.incomplete("p2", 6, "medium", urgent=True)
    fields = (await ward.state())["fields"]
    wanted = {"clock": "12:00", "events": "3 of 40", "written": "2", "admitted": "3", "urgent": "2", "unknown": "2"}
    assert {name: fields[name] for name in wanted} == wanted


async def test_what_the_chart_says_is_escaped_everywhere(ward):
    attack = "<script>alert('x')</script>"
    await ward.admit("p1", name=attack)
    await ward.total("p1", 7, "high", note=[{"text": attack}])
    ward.unscored["p1"] = Unscored((attack,), NOON)
    for html in (await ward.get(), (await ward.row("p1"))["html"]):
        assert "<script>" not in html
        assert html.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") >= 3


@pytest.mark.parametrize("path", ["/", "/ward", "/ward/ward.css", "/ward/ward.js", "/ward/state.json", "/ward/feed"])
async def test_every_response_forbids_all_but_our_own_files_and_storing(ward, path):
    async with ward.session.get(ward.url(path)) as response:
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; ")
        assert policy.endswith("base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_page_needs_nothing_the_policy_forbids(ward):
    await ward.admit("p1")
    await ward.total("p1", 7, "high")
    html = await ward.get()
    assert re.findall(r"<script[^>]*>", html) == ['<script src="/ward/ward.js" defer>']
    assert "<style" not in html
    assert not re.search(r"<[^>]+\s(style|on\w+)\s*=", html)
    assert not re.search(r"""(src|href)=["'](?!/ward/|data:,|#)""", html)


async def test_the_page_is_complete_without_its_script(ward):
    await ward.admit("p1")
    await ward.total("p1", 7, "high")
    html = await ward.get()
    assert (await ward.row("p1"))["html"].strip() in html
    assert '<noscript><meta http-equiv="refresh"' in html
    assert "Royal College of Physicians" in html
    assert "it does not replace clinical judgement" in html


async def test_the_feed_pushes_a_write_and_only_the_rows_it_changed(ward):
    await ward.admit("p1")
    await ward.admit("p2")
    async with ward.session.get(ward.url("/ward/feed")) as response:
        assert response.content_type == "text/event-stream"
        first = await _event(response)
        assert [row["id"] for row in first["rows"]] == ["p1", "p2"]
        assert all(row["html"] for row in first["rows"])
        await ward.total("p2", 7, "high")
        second = await _event(response)
    assert [(row["id"], row["html"] is None) for row in second["rows"]] == [("p2", False), ("p1", True)]
    assert second["rows"][0]["announcement"] == "Bed 2, Lee: high: emergency response, total 7"


async def test_who_comes_back_to_the_page_is_sent_whole_again(ward):
    await ward.admit("p1")
    async with ward.session.get(ward.url("/ward/feed")) as response:
        assert (await _event(response))["rows"][0]["html"]
        await ward.stay("p1", "entered-in-error", {"start": ago(24)})
        assert (await _event(response))["rows"] == []
        await ward.stay("p1", "in-progress", {"start": ago(24)})
        assert (await _event(response))["rows"][0]["html"]


async def test_the_feed_is_never_silent_for_longer_than_a_page_believes_it(ward):
    await ward.admit("p1")
    async with ward.session.get(ward.url("/ward/feed")) as response:
        await _event(response)
        async with asyncio.timeout(10):
            while await response.content.readline() != b"event: beat\n":
                pass


async def test_the_feed_pushes_the_passing_of_a_validity_end(ward):
    await ward.admit("p1")
    await ward.total("p1", 7, "high", hours=1)
    async with ward.session.get(ward.url("/ward/feed")) as response:
        assert (await _event(response))["rows"][0]["total"] == "7"
        ward.now += timedelta(hours=5)
        assert (await _event(response))["rows"][0]["total"] is None


async def _event(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Read up to the next event, whatever else is on the stream."""
    while True:
        line = await response.content.readline()
        assert line, "the feed ended"
        if line.startswith(b"data: {"):
            return orjson.loads(line.removeprefix(b"data: "))


async def test_a_state_costs_what_changed_not_what_is_stored(ward):
    for number in range(20):
        await ward.admit(f"p{number}")
        await results(ward, f"p{number}", range(10))
    few = await cost_of_a_state(ward)
    for number in range(20):
        await results(ward, f"p{number}", range(10, 200))
    many = await cost_of_a_state(ward)
    assert many < 8 * few, (few, many)  # twenty times as much is stored


async def results(ward: Ward, key: str, numbers: range) -> None:
    for number in numbers:
        await ward.total(key, 7, "high", hours=round(3 - number / 100, 2))


async def cost_of_a_state(ward: Ward) -> float:
    """CPU seconds of this thread for a state when nothing changed but the time: the least of ten, so that a pause is not counted."""
    await ward.state()
    costs = []
    for _ in range(10):
        ward.now += timedelta(seconds=6)
        start = thread_time()
        await ward.state()
        costs.append(thread_time() - start)
    return min(costs)
