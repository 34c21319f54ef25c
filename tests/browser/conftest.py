"""One Chromium for all tests of the ward page; every page is watched for what no page may do."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.browser.chromium import launched, why_missing
from tests.browser.reader import Reader, reading
from tests.ward import Ward, open_ward

Open = Callable[..., Any]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    assert why_missing() is None, why_missing()
    async with async_playwright() as playwright, launched(playwright) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def ward() -> AsyncIterator[Ward]:
    async with open_ward() as ward:
        yield ward


@pytest_asyncio.fixture(loop_scope="session")
async def read(chromium: Browser) -> AsyncIterator[Open]:
    """Open an address in a context of its own, made with the keyword arguments; what it did wrong fails the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_(url: str, **context: Any) -> Reader:
            return await stack.enter_async_context(reading(chromium, url, **context))

        yield open_
