"""Peers: servers and clients we did not write. One that is not installed is one skipped line, or a failure where it must be."""

import os

import pytest

REQUIRED = "SIDECAR_REQUIRE_PEERS"
"""Set to 1 where every peer is installed: a missing one then fails every test that wants it."""


def skip_without_peer(missing: str | None) -> None:
    """Skip the calling module, in one line, when `missing` says what to install.

    Called at the top of a module: a skip inside a fixture would be one line for every test. Where peers are required
    it lets the module go on, and the fixture that starts the peer fails with the same words.
    """
    if missing is not None and os.environ.get(REQUIRED) != "1":
        pytest.skip(missing, allow_module_level=True)
