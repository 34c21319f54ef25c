"""One Chromium for all tests of the ward page; every page is watched for what no page may do."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, Playwright, async_playwright

from tests.browser.chromium import launched, why_missing, with_settings
from tests.browser.reader import DESK, Reader, reading
from tests.ward import Ward, open_ward

Read = Callable[..., Awaitable[Reader]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def driver() -> AsyncIterator[Playwright]:
    assert why_missing() is None, why_missing()
    async with async_playwright() as playwright:
        yield playwright


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium(driver: Playwright) -> AsyncIterator[Browser]:
    async with launched(driver) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def ward() -> AsyncIterator[Ward]:
    async with open_ward() as ward:
        yield ward


@pytest_asyncio.fixture(loop_scope="session")
async def read(chromium: Browser, driver: Playwright, tmp_path_factory) -> AsyncIterator[Read]:
    """Open an address as a reader with these `settings` of the browser, or in a context made of the other arguments.

    What the page did wrong fails the test at its end.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def open_(url: str, settings: Any = None, **more: Any) -> Reader:
            more = {"viewport": DESK, **more}
            if settings is None:
                context = await chromium.new_context(**more)
                stack.push_async_callback(context.close)
            else:
                profile = tmp_path_factory.mktemp("profile")
                context = await stack.enter_async_context(with_settings(driver, profile, settings, more["viewport"]))
            return await stack.enter_async_context(reading(context, url))

        yield open_
