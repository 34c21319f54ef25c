"""The ward page in a browser: it fills by itself, and says so when what it shows is old."""

import asyncio
from datetime import timedelta

import pytest
from playwright.async_api import expect

from sidecar.sandbox.ward_page import Unscored
from tests.browser.chromium import NO_SCRIPTS, why_missing
from tests.browser.cut import cut_before
from tests.peers.conftest import skip_without_peer
from tests.ports import free_port
from tests.ward import NOON, ago, open_ward

skip_without_peer(why_missing())
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def test_rows_and_scores_appear_without_a_reload(ward, read):
    page = await read(ward.url("/ward"))
    await expect(page.page.locator("#nobody")).to_be_visible()
    await page.live()
    await page.page.evaluate("window.mark = 'not reloaded'")
    await ward.admit("p1")
    await page.sees("p1", "No current score", "because nothing was scored yet")
    await ward.total("p1", 7, "high")
    await page.sees("p1", "7", "high: emergency response")
    await expect(page.page.locator("[data-field=urgent]")).to_have_text("1")
    await expect(page.page).to_have_title("(1) Practice ward")
    assert await page.page.evaluate("window.mark") == "not reloaded"


async def test_a_score_that_ends_while_the_page_is_open_stops_being_one(ward, read):
    await ward.admit("p1")
    await ward.total("p1", 7, "high")
    page = await read(ward.url("/ward"))
    await page.sees("p1", "high: emergency response")
    ward.now += timedelta(hours=6)
    await page.sees("p1", "No current score", "because the last result held until 17:00.")
    await expect(page.row("p1").locator(".points")).to_have_text("—")


async def test_everyone_without_a_score_is_said_to_have_none_and_why(ward, read):
    for key in ("expired", "unscored", "incomplete", "left", "died", "new"):
        await ward.admit(key, **({"deceasedBoolean": True} if key == "died" else {}))
        if key not in {"incomplete", "new"}:
            await ward.total(key, 9, "high", hours=7 if key == "expired" else 1)
    await ward.incomplete("incomplete", 8, "high", urgent=True)
    ward.unscored["unscored"] = Unscored(("pulse not charted",), NOON)
    await ward.stay("left", "finished", {"start": ago(24), "end": ago(0.5)})
    page = await read(ward.url("/ward"))
    await page.live()
    await page.sees("expired", "No current score", "because the last result held until 11:00.")
    await page.sees("unscored", "No current score", "because pulse not charted.")
    await page.sees("left", "No current score", "because the patient was discharged at 11:30.")
    await page.sees("died", "No current score", "because the patient died.")
    await page.sees("new", "No current score", "because nothing was scored yet.")
    await page.sees("incomplete", "≥ 8", "Urgent", "No current score, because temperature not charted.")
    points = {key: await page.row(key).locator(".points").inner_text() for key in await page.order()}
    assert points == {
        "incomplete": "≥ 8", "expired": "—", "unscored": "—", "new": "—", "left": "—", "died": "—",
    }  # fmt: skip
    assert (await page.order())[0] == "incomplete"


async def test_a_page_whose_server_stops_says_so_and_goes_on_when_there_is_one_again(read):
    port = free_port()
    async with open_ward(port) as ward:
        await ward.admit("p1", name="Before")
        await ward.total("p1", 7, "high")
        await ward.admit("p2", name="Gone")
        page = await read(ward.url("/ward"))
        await page.live()
        url = page.page.url
    await page.not_live()
    await expect(page.page.locator("#stale")).to_contain_text("Not live. What is shown is from 12:00 ward time")
    await expect(page.page).to_have_title("Not live: Practice ward")
    assert "line-through" in await page.row("p1").locator(".points").evaluate("e => getComputedStyle(e).textDecoration")
    async with open_ward(port) as ward:
        await ward.admit("p1", name="After")
        await ward.total("p1", 2, "low")
        await page.live()
        assert page.page.url == url
        await page.sees("p1", "After", "low: ward-based response")
        assert await page.order() == ["p1"]
        assert await page.row("p1").locator(".points").evaluate("e => getComputedStyle(e).textDecorationLine") == "none"


async def test_a_connection_that_is_silent_without_an_end_is_not_believed_for_long(ward, read):
    await ward.admit("p1")
    await ward.total("p1", 7, "high")
    async with cut_before(ward.ehr.base_url) as cut:
        page = await read(f"{cut.origin}/ward")
        await page.live()
        cut.silent = True
        before = asyncio.get_running_loop().time()
        await page.not_live()
        assert asyncio.get_running_loop().time() - before < 15
        await ward.total("p1", 5, "medium", hours=0.5)
        cut.silent = False
        await page.live()
        await page.sees("p1", "medium: urgent response")


async def test_a_quiet_ward_is_still_live(ward, read):
    await ward.admit("p1")
    page = await read(ward.url("/ward"))
    await page.live()
    await page.page.evaluate(
        "window.was = []; new MutationObserver(() => window.was.push(document.getElementById('link').textContent))"
        ".observe(document.getElementById('link'), {childList: true, characterData: true, subtree: true})"
    )
    with pytest.raises(AssertionError):
        await expect(page.page.locator("#stale")).to_be_visible(timeout=13_000)
    assert set(await page.page.evaluate("window.was")) <= {"live"}


async def test_a_page_whose_script_does_not_come_says_that_it_is_not_live(ward, read):
    await ward.admit("p1")
    await ward.total("p1", 7, "high")
    async with cut_before(ward.ehr.base_url) as cut:
        cut.refused = "/ward/ward.js"
        page = await read(f"{cut.origin}/ward")
        await expect(page.page.locator("#stale")).to_be_visible(timeout=20_000)
        page.console.clear()  # the browser's own word about the script


async def test_without_scripts_the_page_shows_the_state_and_renews_itself(ward, read):
    await ward.admit("p1")
    await ward.total("p1", 7, "high")
    page = await read(ward.url("/ward"), settings=NO_SCRIPTS)
    await expect(page.page.locator("#link")).to_have_text("reloads every 10 s", use_inner_text=True)
    await expect(page.page.locator("#stale")).to_be_hidden()
    await page.sees("p1", "high: emergency response")
    await ward.total("p1", 5, "medium", hours=0.5)
    await page.sees("p1", "medium: urgent response")


async def test_a_patient_who_is_off_the_page_keeps_no_score_while_the_order_is_held(ward, read):
    for key in ("p1", "p2"):
        await ward.admit(key)
        await ward.total(key, 7, "high")
    page = await read(ward.url("/ward"))
    await page.live()
    await page.row("p2").locator("summary").focus()
    await ward.stay("p1", "entered-in-error", {"start": ago(24)})
    await page.sees("p1", "No current score, because this patient is not on the page any more.")
    await expect(page.row("p1").locator(".points")).to_have_text("—")
    await page.page.get_by_role("button", name="Sort now").click()
    await expect(page.row("p1")).to_have_count(0)
    await ward.stay("p1", "in-progress", {"start": ago(24)})
    await page.sees("p1", "high: emergency response")
