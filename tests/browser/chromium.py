"""The Chromium of this machine, driven by Playwright: a browser that Playwright downloads is not used."""

import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from playwright.async_api import Browser, BrowserContext, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
NO_SCRIPTS = {"profile": {"default_content_setting_values": {"javascript": 2}}}


def text_size(px: int) -> dict[str, Any]:
    """Settings of a reader whose text is `px` and not 16."""
    return {"webkit": {"webprefs": {"default_font_size": px}}}


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
async def with_settings(
    playwright: Playwright, profile: Path, settings: Mapping[str, Any], viewport: Any
) -> AsyncIterator[BrowserContext]:
    """Start it as set up by a person: what they chose in the browser's own settings."""
    file = profile / "Default" / "Preferences"
    file.parent.mkdir(parents=True)
    file.write_bytes(orjson.dumps(settings))
    context = await playwright.chromium.launch_persistent_context(profile, executable_path=found(), viewport=viewport)
    try:
        yield context
    finally:
        await context.close()
