"""Without a mouse: everything can be reached, seen and opened, and nothing that comes in meanwhile takes it away."""

import pytest
from playwright.async_api import expect

from tests.browser.chromium import why_missing
from tests.browser.staffed import staff
from tests.peers.conftest import skip_without_peer

skip_without_peer(why_missing())
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]
OUTLINE = """(() => { const e = document.activeElement, s = getComputedStyle(e), box = e.getBoundingClientRect();
  const header = document.querySelector('header');
  const covered = getComputedStyle(header).position === 'sticky' ? header.getBoundingClientRect().bottom : 0;
  const notices = document.querySelector('.notices').getBoundingClientRect();
  return {style: s.outlineStyle, px: parseFloat(s.outlineWidth), top: box.top - covered,
          bottom: (notices.height ? notices.top : innerHeight) - box.bottom, height: box.height}; })()"""


async def rows(ward, *keys):
    for key in keys:
        await ward.admit(key)
        await ward.total(key, 1, "low")


async def is_open(page, key):
    return await page.row(key).locator("details").evaluate("e => e.open")


async def test_tab_goes_from_the_skip_link_through_every_row_in_the_order_that_is_seen(ward, read):
    await staff(ward)
    page = await read(ward.url("/ward"))
    await page.live()
    reached = []
    for _ in range(1 + len(await page.order())):
        await page.page.keyboard.press("Tab")
        reached.append(await page.focus())
    assert reached == ["skip", *await page.order()]


async def test_the_skip_link_leads_to_the_patients(ward, read):
    await rows(ward, "p1", "p2")
    page = await read(ward.url("/ward"))
    await page.live()
    await page.page.keyboard.press("Tab")
    await expect(page.page.get_by_role("link", name="Skip to the patients")).to_be_in_viewport()
    await page.page.keyboard.press("Enter")
    assert await page.focus() == "rows"
    await page.page.keyboard.press("Tab")
    assert await page.focus() == "p1"


@pytest.mark.parametrize("key", ["Enter", "Space"])
async def test_a_row_is_opened_and_closed_by_a_key(ward, read, key):
    await rows(ward, "p1")
    page = await read(ward.url("/ward"))
    await page.live()
    await page.row("p1").locator("summary").focus()
    await page.page.keyboard.press(key)
    assert await is_open(page, "p1")
    await expect(page.row("p1").locator(".note")).to_be_visible()
    await page.page.keyboard.press(key)
    assert not await is_open(page, "p1")
    await page.page.keyboard.press(key)
    await page.page.keyboard.press("Escape")
    assert not await is_open(page, "p1")
    assert await page.focus() == "p1"


@pytest.mark.parametrize(("width", "height"), [(1280, 500), (1280, 260), (320, 568)])
async def test_focus_is_seen_and_nothing_lies_over_it(ward, read, width, height):
    await staff(ward)
    page = await read(ward.url("/ward"), viewport={"width": width, "height": height})
    await page.live()
    presses = ["Tab"] * (1 + len(await page.order())) + ["Shift+Tab"] * (len(await page.order()) - 1)
    for press in presses:
        await page.page.keyboard.press(press)
        seen = await page.page.evaluate(OUTLINE)
        assert (seen["style"], seen["px"]) == ("solid", 3)
        if await page.focus() != "skip" and seen["height"] < height / 2:
            assert seen["top"] >= 0, (press, await page.focus(), seen)
            assert seen["bottom"] >= 0, (press, await page.focus(), seen)


async def test_what_comes_in_leaves_focus_and_an_open_row_where_they_are(ward, read):
    await rows(ward, "p1", "p2", "p3")
    page = await read(ward.url("/ward"))
    await page.live()
    await page.row("p2").locator("summary").focus()
    await page.page.keyboard.press("Enter")
    await ward.total("p3", 7, "high", hours=0.5)
    await ward.total("p2", 5, "medium", hours=0.5)
    await ward.admit("p4")
    await page.sees("p2", "medium: urgent response", "up from 1")
    await page.sees("p3", "high: emergency response")
    await page.sees("p4", "No current score")
    await expect(page.row("p2").locator(".detail")).to_contain_text("NEWS2 total 5")
    assert await page.focus() == "p2"
    assert await is_open(page, "p2")
    assert await page.order() == ["p1", "p2", "p3", "p4"]
    await expect(page.page.locator("#held")).to_contain_text("The order is held while you are in the list.")


async def test_the_order_that_is_held_is_let_go_by_escape_and_focus_goes_with_its_row(ward, read):
    await rows(ward, "p1", "p2", "p3")
    page = await read(ward.url("/ward"))
    await page.live()
    await page.row("p3").locator("summary").focus()
    await ward.total("p3", 7, "high", hours=0.5)
    await expect(page.page.locator("#held")).to_be_visible()
    await page.page.keyboard.press("Escape")
    assert await page.order() == ["p3", "p1", "p2"]
    assert await page.focus() == "p3"
    await expect(page.page.locator("#held")).to_be_hidden()


async def test_the_button_that_sorts_is_reached_and_pressed_without_a_mouse(ward, read):
    await rows(ward, "p1", "p2", "p3")
    page = await read(ward.url("/ward"))
    await page.live()
    await page.row("p3").locator("summary").focus()
    await ward.total("p3", 7, "high", hours=0.5)
    await expect(page.page.locator("#held")).to_be_visible()
    await page.page.keyboard.press("Tab")
    assert await page.focus() == "sort"
    assert await page.order() == ["p1", "p2", "p3"]
    await page.page.keyboard.press("Enter")
    assert await page.order() == ["p3", "p1", "p2"]
    assert await page.focus() == "rows"
    await page.page.keyboard.press("Tab")
    assert await page.focus() == "p3"


async def test_who_is_not_in_the_list_sees_it_sorted_at_once(ward, read):
    await rows(ward, "p1", "p2")
    page = await read(ward.url("/ward"))
    await page.live()
    await ward.total("p2", 7, "high", hours=0.5)
    await page.sees("p2", "high: emergency response")
    assert await page.order() == ["p2", "p1"]
    await expect(page.page.locator("#held")).to_be_hidden()


async def test_a_pointer_in_the_list_holds_the_order_until_it_leaves(ward, read):
    await rows(ward, "p1", "p2")
    page = await read(ward.url("/ward"))
    await page.live()
    await page.row("p1").hover()
    await ward.total("p2", 7, "high", hours=0.5)
    await page.sees("p2", "high: emergency response")
    assert await page.order() == ["p1", "p2"]
    await page.page.mouse.move(2, 2)
    await expect(page.page.locator("#held")).to_be_hidden()
    assert await page.order() == ["p2", "p1"]


async def test_a_worse_patient_is_said_once_to_who_listens(ward, read):
    await rows(ward, "p1", "p2")
    page = await read(ward.url("/ward"))
    await page.live()
    said = page.page.locator("#announcer")
    await expect(said).to_have_attribute("aria-live", "polite")
    await expect(said).to_have_text("")
    await ward.total("p2", 7, "high", hours=0.5)
    await expect(said).to_have_text("Escalation. Bed 2, Lee: high: emergency response, total 7.")


async def test_every_part_has_a_role_and_a_name(ward, read):
    await staff(ward)
    page = await read(ward.url("/ward"))
    await page.live()
    assert await page.page.get_by_role("heading", level=1).count() == 1
    for role in ("banner", "main", "contentinfo"):
        assert await page.page.get_by_role(role).count() == 1
    assert await page.page.evaluate("document.documentElement.lang") == "en"
    assert await page.page.locator("#rows > li").count() == len(await page.order())
    for name in await page.page.locator("svg:not([aria-hidden])").evaluate_all(
        "all => all.map((e) => e.getAttribute('aria-label'))"
    ):
        assert name.startswith("Trend, oldest first: ")
    assert await page.page.evaluate(
        "new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size === document.querySelectorAll('[id]').length"
    )
    await page.row("high").locator("summary").click()
    assert await page.row("high").get_by_role("columnheader").count() == 3
