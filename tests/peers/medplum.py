"""Medplum's FHIR router on loopback, for tests to talk to: conditional create, no update-as-create, no Subscriptions.

The server is the small node project in ``medplum/`` beside this file. It keeps everything in memory, so each start is
an empty server. By hand: ``npm ci`` in that folder, then ``node server.mjs 8092``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.peers import peer
from tests.peers.peer import Peer, PeerError

PROJECT = Path(__file__).resolve().parent / "medplum"
LOCK = PROJECT / "package-lock.json"
MODULES = PROJECT / "node_modules"
BUILT = MODULES / ".built"  # Written after a whole installation, so that half of one is none.

NODE_AT_LEAST = 18
BUILD_SECONDS = 600
START_SECONDS = 120


def why_missing() -> str | None:
    """Say in one line what to install so that the server can be installed and run, or None. Installs nothing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return f"Medplum needs node {NODE_AT_LEAST} or newer and npm on PATH"
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    version = re.match(r"v(\d+)", said.stdout)
    if version is None or int(version[1]) < NODE_AT_LEAST:
        return f"Medplum needs node {NODE_AT_LEAST} or newer on PATH; `node --version` says another version"
    return None


def start(port: int, log_path: Path) -> Peer:
    """Give an empty server that answers on this loopback port; its packages have been installed if they had to be.

    Raises ``PeerError`` if it does not get to answer, and then leaves no process behind.
    """
    missing = why_missing()
    if missing is not None:
        raise PeerError(missing)
    _build()
    command = ["node", PROJECT / "server.mjs", str(port)]
    return peer.launch(command, f"http://127.0.0.1:{port}/fhir", log_path, START_SECONDS)


def _build() -> None:
    """Install the pinned packages, unless what is installed is newer than the lock."""
    with peer.building(PROJECT):
        if peer.is_newer(BUILT, [LOCK]):
            return
        # The packages name newer versions of node than they need; `server.mjs` says what it adds for older ones.
        peer.build(["npm", "ci", "--no-audit", "--no-fund", "--engine-strict=false"], PROJECT, BUILD_SECONDS)
        BUILT.touch()
