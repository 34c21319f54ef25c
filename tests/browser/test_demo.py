"""The ward page in a browser, before real servers: what the sidecar writes is what is seen."""

import re

import pytest
from playwright.async_api import expect

from sidecar.sandbox.ehr import PracticeEhr
from sidecar.sandbox.ward_page import WardPage
from tests.browser.chromium import why_missing
from tests.browser.demo import demo
from tests.browser.reader import PATIENCE_MS
from tests.harness import encounter, now, observation_set, patient, serve, until, write_site
from tests.peers.conftest import skip_without_peer
from tests.ports import free_port

skip_without_peer(why_missing())
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def test_the_demo_fills_the_page_by_itself_and_again_after_a_restart(read, tmp_path):
    port = free_port()
    with demo(tmp_path, port, speed=3600) as url:
        page = await read(url)
        await page.live()
        await expect(page.page.locator(".row.total").first).to_be_visible(timeout=4 * PATIENCE_MS)
        await expect(page.page.locator("[data-field=p50]")).to_contain_text(re.compile(r"\d (ms|s|min)"))
        await expect(page.page.locator(".given").first).to_be_visible(timeout=PATIENCE_MS)
        events = page.page.locator("[data-field=events]")
        before = await events.inner_text()
        await expect(events).not_to_have_text(before, timeout=PATIENCE_MS)
    await page.not_live()
    with demo(tmp_path, port, speed=3600):
        await page.live()
        await expect(page.page.locator(".row.total").first).to_be_visible(timeout=4 * PATIENCE_MS)
        await page.behaved()


async def test_what_a_served_sidecar_writes_is_seen_with_what_it_rests_on(read, tmp_path):
    ehr = PracticeEhr()

    async def nothing() -> dict:
        return {}

    WardPage(ehr, now, nothing, lambda: (0, 0)).mount()
    await ehr.start()
    served = None
    try:
        served = serve(write_site(tmp_path, ehr.base_url))
        await until(lambda: any(s["status"] == "active" for s in ehr.all("Subscription")))
        page = await read(ehr.base_url.removesuffix("/fhir") + "/ward")
        await ehr.write(patient("p1", name=[{"family": "Lee"}]))
        await ehr.write(encounter("p1", period={"start": now(600).isoformat()}))
        await page.sees("p1", "because nothing was scored yet.")
        for resource in observation_set("p1", now(5), c9279_1=26, c2708_6=91, c3151_8=2):
            await ehr.write(resource)
        await page.sees("p1", "high: emergency response")
        await expect(page.row("p1").locator(".points")).to_have_text("8")
        given = await page.row("p1").locator(".vital").evaluate_all(
            "all => all.map((e) => [e.querySelector('.label').textContent, e.querySelector('.given')?.innerText.trim()])"
        )  # fmt: skip
        assert {label: text.split()[-1] for label, text in given if text} == {"RR": "+3", "SpO₂": "+3", "Oxygen": "+2"}
        await page.row("p1").locator("summary").click()
        await expect(page.row("p1").locator(".note")).to_contain_text("NEWS2 total 8")
        await page.page.mouse.move(2, 2)
    finally:
        if served is not None:
            served.terminate()
        await ehr.stop()
