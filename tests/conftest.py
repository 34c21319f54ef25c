"""Servers are started once for all tests that talk to them, and only when one does."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.peers.servers import Server, started


@pytest.fixture(scope="session")
def server_named(tmp_path_factory) -> Iterator[Callable[[str], Server]]:
    """The running server of a name; every test shares it, so a test has patients and identifiers of its own."""
    running: dict[str, Server] = {}
    with contextlib.ExitStack() as stack:

        def server(name: str) -> Server:
            if name not in running:
                running[name] = stack.enter_context(started(name, tmp_path_factory.mktemp(name)))
            return running[name]

        yield server
