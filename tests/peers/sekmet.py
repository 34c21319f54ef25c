"""A real sekmet-fhir R4 server on loopback, for tests to talk to: Backport Subscriptions, SMART Backend Services.

Its packages are pinned in ``sekmet/requirements.lock`` and live in a venv of their own beside that file, so that
nothing of them can leak into ours. By hand: ``python -m tests.peers.sekmet --port 8091``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from tests.peers import peer
from tests.peers.peer import Peer

PROJECT = Path(__file__).resolve().parent / "sekmet"
TARGET = PROJECT / "target"

START_SECONDS = 120


def start(port: int, log_path: Path, smart_clients: Iterable[Mapping[str, Any]] = ()) -> Peer:
    """Give an empty server that answers on this loopback port; it has been installed first if it had to be.

    With ``smart_clients`` (each ``client_id``, ``jwks`` or ``jwks_url``, ``scopes``) it asks every request but
    ``/metadata`` for a token of its own ``/auth/token``. Raises ``PeerError`` if it does not get to answer.
    """
    programs = peer.programs(PROJECT)
    data = log_path.with_suffix("")
    data.mkdir(exist_ok=True)
    base_url = f"http://127.0.0.1:{port}/fhir"
    clients = [dict(client) for client in smart_clients]
    settings = {
        "base_url": base_url,  # its references and links are made from this, whatever the port is
        "host": "127.0.0.1",
        "port": port,
        "data_dir": str(data),
        "own_private_key_path": str(data / "sekmet.pem"),
        "log_inbound": False,
        "simulator": {"enabled": False},  # nobody but the test writes
        "server_auth": {"types": ["smart"], "smart_clients": clients} if clients else {"types": ["none"]},
    }
    config = data / "settings.yaml"
    config.write_bytes(orjson.dumps(settings))  # JSON is YAML
    command = [programs / "sekmet", "serve", "--config", config]
    return peer.launch(command, base_url, log_path, START_SECONDS, {"SEKMET_CONFIG": str(config)})


def main() -> int:
    """Run the server in the foreground until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Run an empty sekmet-fhir R4 server on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=8091)
    arguments = parser.parse_args()
    TARGET.mkdir(exist_ok=True)
    with start(arguments.port, TARGET / "peer.log") as server:
        sys.stderr.write(f"{server.base_url} is up, its log is {server.log_path}; Ctrl-C stops it\n")
        try:
            return server.process.wait()
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
