"""The Chromium of this machine, driven by Playwright: a browser that Playwright downloads is not used."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
from playwright.async_api import Browser, BrowserContext, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def found() -> str | None:
    """Where the browser is."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def why_missing() -> str | None:
    """What to install, or None."""
    return None if found() else "Chromium is not here: apt-get install chromium"


@contextlib.asynccontextmanager
async def launched(playwright: Playwright) -> AsyncIterator[Browser]:
    """Start it without a window."""
    browser = await playwright.chromium.launch(executable_path=found())
    try:
        yield browser
    finally:
        await browser.close()


@contextlib.asynccontextmanager
async def with_text_size(playwright: Playwright, profile: Path, px: int, width: int) -> AsyncIterator[BrowserContext]:
    """Start it for a reader whose text size, as set in the browser, is `px` and not 16."""
    settings = profile / "Default" / "Preferences"
    settings.parent.mkdir(parents=True)
    settings.write_bytes(orjson.dumps({"webkit": {"webprefs": {"default_font_size": px}}}))
    context = await playwright.chromium.launch_persistent_context(
        profile, executable_path=found(), viewport={"width": width, "height": 800}
    )
    try:
        yield context
    finally:
        await context.close()
