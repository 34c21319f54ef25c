"""Peers: servers and clients we did not write. One that is missing here is skipped in one line, or fails where it must be there."""

import os

import pytest

REQUIRED = "SIDECAR_REQUIRE_PEERS"
"""Set to 1 where every peer is installed (the nightly run): a missing one is then a failure, not a skip."""


def require_peer(missing: str | None) -> None:
    """Go on when `missing` is None; else skip with that line, which names what to install, or fail.

    Called from one fixture a peer: pytest folds equal skips of one place into one line.
    """
    if missing is None:
        return
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{missing} ({REQUIRED}=1)", pytrace=False)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def peer_or_skip():
    """The policy, for the fixture that starts a peer: `peer_or_skip(why_missing())`."""
    return require_peer
