"""A real HAPI FHIR R4 server on loopback, for tests to talk to.

The server is the small Maven project in ``hapi/`` beside this file. It keeps everything in memory, so
each start is an empty server. By hand: ``python tests/peers/hapi.py --port 8090``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

PROJECT = Path(__file__).resolve().parent / "hapi"
TARGET = PROJECT / "target"
BUILT = TARGET / "built"  # Written after a whole build, so that half a build is no build.

JAVA_AT_LEAST = 17
BUILD_SECONDS = 900  # The first build downloads some 300 MB of jars.
START_SECONDS = 240
STOP_SECONDS = 30

# The client compiler and the serial collector halve both the start-up time and the memory on two cores.
JAVA_OPTIONS = ("-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


class PeerError(RuntimeError):
    """The server could not be built or started; the message holds the tail of the output."""


class Hapi:
    """A running server. As a context manager it is stopped at the end of the block."""

    def __init__(self, process: subprocess.Popen[bytes], base_url: str, log_path: Path) -> None:
        """Hold what ``start`` started; call that, not this."""
        self.process = process
        self.base_url = base_url
        self.log_path = log_path

    def __enter__(self) -> Self:
        """Give the running server itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server, whatever happened in the block."""
        self.stop()

    def stop(self) -> None:
        """End the one process that ``start`` started, and return when it has ended; twice is harmless."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


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


def start(port: int, log_path: Path) -> Hapi:
    """Give an empty server that answers on this loopback port; it has been built first if it had to be.

    Its output goes to ``log_path``. Raises ``PeerError`` if it does not get to answer, and then leaves
    no process behind.
    """
    missing = why_missing()
    if missing is not None:
        raise PeerError(missing)
    # Otherwise the answer of whoever holds the port would pass for this server's.
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise PeerError(f"port {port} is taken")
    _build()
    command = [
        "java",
        *JAVA_OPTIONS,
        "-cp",
        f"{TARGET / 'classes'}:{TARGET / 'lib'}/*",
        "peer.Peer",
        str(port),
    ]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    hapi = Hapi(process, f"http://127.0.0.1:{port}/fhir", log_path)
    try:
        _wait_until_it_answers(hapi)
    except BaseException:
        hapi.stop()
        raise
    return hapi


def _build() -> None:
    """Have Maven build the server, unless what it built is newer than all that it is built from."""
    sources = [PROJECT / "pom.xml", *PROJECT.glob("src/**/*.java")]
    if BUILT.exists() and BUILT.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return
    # All of it: jars that a changed pom no longer names must not stay on the class path.
    shutil.rmtree(TARGET, ignore_errors=True)
    done = subprocess.run(
        ["mvn", "-q", "-B", "package"],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise PeerError(f"mvn package ended with {done.returncode}:\n{_tail(done.stdout)}")
    BUILT.touch()


def _wait_until_it_answers(hapi: Hapi) -> None:
    """Return when the server has answered its CapabilityStatement."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if hapi.process.poll() is not None:
            raise PeerError(f"HAPI ended with {hapi.process.returncode}:\n{_tail(hapi.log_path.read_bytes())}")
        try:
            with opener.open(f"{hapi.base_url}/metadata", timeout=30):
                return
        except OSError:  # also urllib's own errors, such as an answer that is not 2xx
            time.sleep(0.2)
    raise PeerError(f"HAPI did not answer within {START_SECONDS} s:\n{_tail(hapi.log_path.read_bytes())}")


def _tail(output: bytes) -> str:
    """Give the end of a log."""
    return output.decode(errors="replace")[-4000:]


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
