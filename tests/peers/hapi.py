"""A real HAPI FHIR R4 server on loopback, for tests to talk to.

The server is the small Maven project in ``hapi/`` beside this file. It keeps everything in memory, so
each start is an empty server. By hand: ``python -m tests.peers.hapi --port 8090``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.peers import peer
from tests.peers.peer import Peer, PeerError

PROJECT = Path(__file__).resolve().parent / "hapi"
TARGET = PROJECT / "target"
BUILT = TARGET / "built"  # Written after a whole build, so that half a build is no build.

JAVA_AT_LEAST = 17
BUILD_SECONDS = 900  # The first build downloads some 300 MB of jars.
START_SECONDS = 240

# The client compiler and the serial collector halve both the start-up time and the memory on two cores.
JAVA_OPTIONS = ("-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def why_missing() -> str | None:
    """Say in one line what to install so that the server can be built and run, or None. Builds nothing."""
    java, mvn = shutil.which("java"), shutil.which("mvn")
    if java is None:
        return f"HAPI needs java {JAVA_AT_LEAST} or newer (a JDK) on PATH"
    if mvn is None:
        return "HAPI needs mvn (Apache Maven) on PATH"
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', said.stderr)
    if version is None or int(version[1]) < JAVA_AT_LEAST:
        return f"HAPI needs java {JAVA_AT_LEAST} or newer (a JDK) on PATH; `java -version` says another version"
    return None


def start(port: int, log_path: Path) -> Peer:
    """Give an empty server that answers on this loopback port; it has been built first if it had to be.

    Its output goes to ``log_path``. Raises ``PeerError`` if it does not get to answer, and then leaves
    no process behind.
    """
    missing = why_missing()
    if missing is not None:
        raise PeerError(missing)
    _build()
    command = ["java", *JAVA_OPTIONS, "-cp", f"{TARGET / 'classes'}:{TARGET / 'lib'}/*", "peer.Peer", str(port)]
    return peer.launch(command, f"http://127.0.0.1:{port}/fhir", log_path, START_SECONDS)


def _build() -> None:
    """Have Maven build the server, unless what it built is newer than all that it is built from."""
    with peer.building(PROJECT):
        if peer.is_newer(BUILT, [PROJECT / "pom.xml", *PROJECT.glob("src/**/*.java")]):
            return
        # All of it: jars that a changed pom no longer names must not stay on the class path.
        shutil.rmtree(TARGET, ignore_errors=True)
        peer.build(["mvn", "-q", "-B", "package"], PROJECT, BUILD_SECONDS)
        BUILT.touch()


def main() -> int:
    """Run the server in the foreground until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Run an empty HAPI FHIR R4 server on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--log", type=Path, help="default: peer.log in the build output")
    arguments = parser.parse_args()
    TARGET.mkdir(exist_ok=True)
    log_path: Path = arguments.log or TARGET / "peer.log"
    # So that SIGTERM too ends the server, not this process alone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with start(arguments.port, log_path) as hapi:
            sys.stderr.write(f"{hapi.base_url} is up, its log is {log_path}; Ctrl-C stops it\n")
            hapi.process.wait()
    except KeyboardInterrupt:
        return 0
    except PeerError as error:
        sys.stderr.write(f"{error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
