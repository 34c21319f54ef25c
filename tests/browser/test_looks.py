"""The ward page is legible: contrast as WCAG 2.2 AA counts it, in every scheme, at every width and text size."""

from datetime import timedelta
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.chromium import text_size, why_missing
from tests.browser.reader import DESK, PHONE
from tests.browser.staffed import staff
from tests.peers.conftest import skip_without_peer

skip_without_peer(why_missing())
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]
LOOKS = Path(__file__).with_name("looks.js").read_text()


async def opened(page, *keys):
    for key in keys:
        await page.row(key).locator("summary").click()


@pytest.mark.parametrize("forced", ["none", "active"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_and_sign_stands_out_from_its_ground(ward, read, scheme, forced):
    await staff(ward)
    page = await read(ward.url("/ward"), color_scheme=scheme, forced_colors=forced)
    await page.live()
    await opened(page, "high", "urgent", "expired")
    looks = await page.page.evaluate(LOOKS)
    assert looks["faintTexts"]["seen"] > 150
    assert looks["faintSigns"]["seen"] > 15
    assert (looks["faintTexts"]["found"], looks["faintSigns"]["found"]) == ([], [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_page_that_is_not_live_and_a_held_order_are_legible_too(ward, read, scheme):
    await staff(ward)
    page = await read(ward.url("/ward"), color_scheme=scheme)
    await page.live()
    await page.row("low").locator("summary").focus()
    await ward.total("low", 9, "high", hours=0.5)
    await expect(page.page.locator("#held")).to_be_visible()
    await ward.ehr.stop()
    await page.not_live()
    looks = await page.page.evaluate(LOOKS)
    assert (looks["faintTexts"]["found"], looks["faintSigns"]["found"]) == ([], [])


@pytest.mark.parametrize("width", [320, 420, 640, 800, 1024, 1280, 1920])
async def test_nothing_is_cut_off_or_lies_on_something_else(ward, read, width):
    await staff(ward)
    page = await read(ward.url("/ward"), viewport={"width": width, "height": 900})
    await page.live()
    await opened(page, "high", "unscored")
    looks = await page.page.evaluate(LOOKS)
    assert looks["misplaced"]["seen"] > 150
    assert looks["misplaced"]["found"] == []


@pytest.mark.parametrize("width", [320, 1280])
async def test_text_twice_as_large_is_twice_as_large_and_still_fits(ward, read, width):
    await staff(ward)
    usual = await read(ward.url("/ward"), viewport={"width": width, "height": 900})
    large = await read(ward.url("/ward"), settings=text_size(32), viewport={"width": width, "height": 900})
    sizes = []
    for page in (usual, large):
        await page.live()
        sizes.append(await page.row("high").locator(".name").evaluate("e => parseFloat(getComputedStyle(e).fontSize)"))
    await opened(large, "high", "unscored")
    assert sizes[1] == 2 * sizes[0]
    looks = await large.page.evaluate(LOOKS)
    assert looks["misplaced"]["found"] == []


async def test_a_band_is_told_by_words_and_shape_where_there_is_no_colour(ward, read):
    await staff(ward)
    page = await read(ward.url("/ward"))
    await page.live()
    signs = {}
    for key in ("high", "medium", "lowmed", "low", "urgent", "expired"):
        row = page.row(key).locator("summary")
        shape = row.locator(".says .shape")
        drawn = await shape.evaluate("e => e.innerHTML.trim() + getComputedStyle(e).fill.replace(/rgb.*/, 'filled')")
        signs[key] = (await row.locator(".says").inner_text()).strip(), drawn
    assert len(set(signs.values())) == len(signs)
    assert len({shape for _, shape in signs.values()}) == len(signs)
    assert signs["high"][0] == "high: emergency response"


async def test_the_most_urgent_come_first_on_a_small_screen_too(ward, read):
    await staff(ward)
    page = await read(ward.url("/ward"), viewport=PHONE)
    await page.live()
    tops = await page.page.locator("[data-row]").evaluate_all(
        "rows => rows.map((row) => row.getBoundingClientRect().top)"
    )
    assert tops == sorted(tops)
    assert (await page.order())[:2] == ["high", "urgent"]
    assert tops[0] < PHONE["height"] / 2


async def test_what_may_be_pressed_is_large_enough(ward, read):
    await staff(ward)
    page = await read(ward.url("/ward"), viewport=PHONE)
    await page.live()
    await page.row("low").locator("summary").focus()
    await ward.total("low", 9, "high", hours=0.5)
    await expect(page.page.locator("#held")).to_be_visible()
    for box in await page.page.locator("summary, button").evaluate_all(
        "all => all.map((e) => e.getBoundingClientRect().toJSON())"
    ):
        assert min(box["width"], box["height"]) >= 24


async def test_nothing_moves_for_who_wants_no_motion(ward, read):
    await staff(ward)
    page = await read(ward.url("/ward"), reduced_motion="reduce")
    await page.live()
    await page.row("high").locator("summary").focus()
    await opened(page, "high")
    await ward.total("low", 9, "high", hours=0.5)
    await page.sees("low", "high: emergency response")
    ward.now += timedelta(minutes=1)
    moving = "document.getAnimations().filter((each) => each.effect.getComputedTiming().duration > 1).length"
    assert await page.page.evaluate(moving) == 0
    styles = "[...document.querySelectorAll('*')].map((e) => getComputedStyle(e)).filter((s) => parseFloat(s.transitionDuration) > 0).length"
    assert await page.page.evaluate(styles) == 0


async def test_a_print_shows_everyone_and_when_it_was_true(ward, read):
    await staff(ward)
    page = await read(ward.url("/ward"), viewport=DESK)
    await page.live()
    await page.page.emulate_media(media="print")
    looks = await page.page.evaluate(LOOKS)
    assert (looks["faintTexts"]["found"], looks["misplaced"]["found"]) == ([], [])
    await expect(page.page.locator("[data-field=clock]")).to_be_visible()
    await expect(page.page.locator("#held")).to_be_hidden()
    pdf = await page.page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
