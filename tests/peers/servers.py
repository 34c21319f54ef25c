"""The four servers that one contract holds for: our practice EHR, and three that we did not write."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sidecar.sandbox.ehr import Capabilities, PracticeEhr
from tests.harness import free_port
from tests.peers import hapi, medplum, sekmet
from tests.peers.conftest import REQUIRED


@dataclass(frozen=True)
class Server:
    """One server: where it answers, and the two things that decide how a test speaks to it."""

    name: str
    base_url: str
    takes_our_ids: bool = True
    """Whether PUT creates what is not there yet."""
    tells: bool = True
    """Whether it has Subscriptions; without, only searching finds news."""


NAMES = ("practice", "hapi", "sekmet", "medplum")


def why_missing(name: str) -> str | None:
    """Say in one line what to install so that a server can be started, or None."""
    return {"hapi": hapi.why_missing, "medplum": medplum.why_missing}.get(name, lambda: None)()


def usable() -> list[str]:
    """The servers to test against: every one where peers are required, else those that can be started."""
    return [name for name in NAMES if os.environ.get(REQUIRED) == "1" or why_missing(name) is None]


@contextlib.contextmanager
def started(name: str, folder: Path) -> Iterator[Server]:
    """An empty server, with its log in ``folder``; stopped at the end of the block."""
    port, log = free_port(), folder / f"{name}.log"
    if name == "practice":
        with practice() as base_url:
            yield Server(name, base_url)
    elif name == "hapi":
        with hapi.start(port, log) as server:
            yield Server(name, server.base_url)
    elif name == "sekmet":
        with sekmet.start(port, log) as server:
            yield Server(name, server.base_url)
    else:
        with medplum.start(port, log) as server:
            yield Server(name, server.base_url, takes_our_ids=False, tells=False)


@contextlib.contextmanager
def practice(capabilities: Capabilities | None = None) -> Iterator[str]:
    """The base URL of a practice EHR that runs in a thread of its own, so that it is served like the others."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="practice-ehr")
    thread.start()
    ehr = PracticeEhr(capabilities=capabilities)
    try:
        asyncio.run_coroutine_threadsafe(ehr.start(), loop).result(30)
        yield ehr.base_url
    finally:
        asyncio.run_coroutine_threadsafe(ehr.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
