"""A person at the ward page, as far as a browser can tell: what is seen, reached and said, and what went wrong."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, Page, expect

DESK = {"width": 1280, "height": 900}
PHONE = {"width": 320, "height": 640}
VIOLATIONS = """window.violations = [];
document.addEventListener('securitypolicyviolation', (e) => window.violations.push(e.violatedDirective + ' ' + e.blockedURI));"""
BROKEN = "net::ERR_"
"""How the console reports a connection that the test itself has cut."""
PATIENCE_MS = 30_000


class Reader:
    """One open page."""

    def __init__(self, page: Page, origin: str) -> None:
        """Watch `page`; everything it asks for must be of `origin`."""
        self.page, self.origin = page, origin
        self.console: list[str] = []
        self.foreign: list[str] = []
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.console.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._asked(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and BROKEN not in text:
            self.console.append(f"{kind}: {text}")

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}" != self.origin and parts.scheme != "data":
            self.foreign.append(url)

    def row(self, key: str) -> Any:
        return self.page.locator(f'[data-row="{key}"]')

    async def live(self) -> None:
        await expect(self.page.locator("#link")).to_have_attribute("data-link", "live", timeout=PATIENCE_MS)
        await expect(self.page.locator("#stale")).to_be_hidden()

    async def not_live(self) -> None:
        await expect(self.page.locator("#stale")).to_be_visible(timeout=PATIENCE_MS)
        await expect(self.page.locator("#link")).to_have_text("not live")

    async def sees(self, key: str, *texts: str) -> None:
        """Wait until the row of `key`, still closed or not, shows all `texts`."""
        for text in texts:
            await expect(self.row(key).locator("summary")).to_contain_text(text, timeout=PATIENCE_MS)

    async def order(self) -> list[str]:
        return await self.page.locator("[data-row]").evaluate_all("rows => rows.map((row) => row.dataset.row)")

    async def focus(self) -> str:
        """Name what has focus: a row, or the id or tag of anything else."""
        return await self.page.evaluate(
            "(() => { const e = document.activeElement; const row = e.closest('[data-row]');"
            " return row ? row.dataset.row : e.id || e.className || e.tagName.toLowerCase(); })()"
        )

    async def behaved(self) -> None:
        """Nothing went wrong that a reader would not have seen."""
        violations = await self.page.evaluate("window.violations")
        assert (self.console, self.foreign, violations or []) == ([], [], [])


@contextlib.asynccontextmanager
async def reading(context: BrowserContext, url: str) -> AsyncIterator[Reader]:
    """Open `url`; at the end it must have behaved."""
    parts = urlsplit(url)
    await context.add_init_script(VIOLATIONS)
    reader = Reader(await context.new_page(), f"{parts.scheme}://{parts.netloc}")
    await reader.page.goto(url)
    yield reader
    await reader.behaved()
