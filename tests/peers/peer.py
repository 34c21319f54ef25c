"""A peer's process: built if it must be, started on a loopback port, stopped by its own id."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_SECONDS = 30


class PeerError(RuntimeError):
    """The server could not be built or started; the message holds the tail of the output."""


class Peer:
    """A running server. As a context manager it is stopped at the end of the block."""

    def __init__(self, process: subprocess.Popen[bytes], base_url: str, log_path: Path) -> None:
        """Hold what ``launch`` started; call that, not this."""
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
        """End the one process that was started, and return when it has ended; twice is harmless."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def launch(
    command: Sequence[str | Path],
    base_url: str,
    log_path: Path,
    within_s: float,
    environment: Mapping[str, str] | None = None,
) -> Peer:
    """Give the server that ``command`` starts, once it answers at ``base_url``. Its output goes to ``log_path``.

    Raises ``PeerError`` if it does not get to answer, and then leaves no process behind.
    """
    port = int(base_url.split(":")[2].partition("/")[0])
    # Otherwise the answer of whoever holds the port would pass for this server's.
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise PeerError(f"port {port} is taken")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=log_path.parent,
            env={**os.environ, **(environment or {})},
        )
    peer = Peer(process, base_url, log_path)
    try:
        _wait_until_it_answers(peer, within_s)
    except BaseException:
        peer.stop()
        raise
    return peer


def build(command: Sequence[str | Path], folder: Path, within_s: float) -> None:
    """Run one step of a build in ``folder``. Raises ``PeerError`` with the end of what it said."""
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=within_s,
        check=False,
    )
    if done.returncode != 0:
        raise PeerError(f"{Path(command[0]).name} ended with {done.returncode}:\n{tail(done.stdout)}")


def programs(project: Path, within_s: float = 600) -> Path:
    """The folder of the programs of a venv that holds exactly what ``project/requirements.lock`` names.

    It lives in ``project/target`` and is made anew when the lock is newer. Raises ``PeerError`` if it cannot be.
    """
    lock, target = project / "requirements.lock", project / "target"
    venv, built = target / "venv", target / "built"  # the latter is written after a whole build: half a build is none
    with building(project):
        if not is_newer(built, [lock]):
            target.mkdir(exist_ok=True)
            build([sys.executable, "-m", "venv", "--clear", venv], target, within_s)
            install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", lock]
            build([venv / "bin" / "python", *install], target, within_s)
            built.touch()
    return venv / "bin"


@contextlib.contextmanager
def building(project: Path) -> Iterator[None]:
    """Only one process at a time builds ``project``; the others wait, and then find it built."""
    folder = os.open(project, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def is_newer(built: Path, sources: Sequence[Path]) -> bool:
    """Whether ``built`` exists and is newer than all that it was built from."""
    return built.exists() and built.stat().st_mtime > max(source.stat().st_mtime for source in sources)


def tail(output: bytes) -> str:
    """Give the end of a log."""
    return output.decode(errors="replace")[-4000:]


def _wait_until_it_answers(peer: Peer, within_s: float) -> None:
    """Return when the server has answered its CapabilityStatement."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if peer.process.poll() is not None:
            raise PeerError(f"the peer ended with {peer.process.returncode}:\n{tail(peer.log_path.read_bytes())}")
        try:
            with opener.open(f"{peer.base_url}/metadata", timeout=30):
                return
        except OSError:  # also urllib's own errors, such as an answer that is not 2xx
            time.sleep(0.2)
    raise PeerError(f"no answer within {within_s:.0f} s:\n{tail(peer.log_path.read_bytes())}")
