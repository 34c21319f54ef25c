"""What is compared, each in a process of its own: the sidecar as shipped, and the yardstick."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from prometheus_client.parser import text_string_to_metric_families

from sidecar import settings
from sidecar.store import new_keys
from tests.benchmarks import cpu, model
from tests.benchmarks.ehr import CODES
from tests.benchmarks.load import Target
from tests.benchmarks.payloads import TOPIC, Chart
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
READY_S, STOP_S, FINISHED_S = 60.0, 30.0, 10.0
POLL_S, ANSWER_S = 0.1, 30.0


class Refused(RuntimeError):
    """A round that measured something else than the job, and must not count."""


@dataclass(frozen=True, slots=True)
class Process:
    """One of ours, with its own log."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its id."""
        return self.popen.pid

    def wait_for(self, met: Callable[[], bool], what: str, within_s: float = READY_S) -> None:
        """Return when `met` says so.

        Raises:
            Refused: the process ended, or it took too long.
        """
        deadline = time.monotonic() + within_s
        while not met():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                raise Refused(f"{what}: not within {within_s:.0f} s; {self.log.read_text()[-1500:]}")
            time.sleep(POLL_S)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM while something is begun that must be ended; they come right afterwards."""
    held: list[int] = []
    both = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda came, _: held.append(came)) for number in both}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for came in held:
        signal.raise_signal(came)


@contextlib.contextmanager
def process(folder: Path, name: str, *command: str) -> Iterator[Process]:
    """`python …` from the project's root, ended at the end. A Ctrl-C reaches us alone, and we end it."""
    log, popen = folder / f"{name}.log", None
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "BARE_DB_DIR": str(folder)}
    try:
        with log.open("ab") as out, uninterrupted():
            popen = subprocess.Popen(
                [sys.executable, *command], stdout=out, stderr=out, cwd=ROOT, env=environment, start_new_session=True
            )
        yield Process(popen, log)
    finally:
        if popen is not None:
            _end(popen)


def _end(popen: subprocess.Popen[bytes]) -> None:
    popen.terminate()
    try:
        popen.wait(STOP_S)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()


@dataclass(frozen=True, slots=True)
class Stub:
    """The EHR of a round."""

    process: Process
    url: str
    chart: Chart

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def ask(self, path: str) -> Any:
        """What it says of itself."""
        return orjson.loads(_get(f"{self.url}/{path}"))


@contextlib.contextmanager
def ehr(folder: Path, size: int, codes: str, *, restless: bool = False) -> Iterator[Stub]:
    """Start an EHR whose patients have `size` readings of the named `codes`."""
    port = free_port()
    url, now = f"http://127.0.0.1:{port}", datetime.now(UTC)
    command = ("-m", "tests.benchmarks.ehr", str(port), now.isoformat(), str(size), codes, str(int(restless)))
    with process(folder, "ehr", *command) as started:
        stub = Stub(started, url, Chart(now, f"{url}/fhir", size, CODES[codes]))
        started.wait_for(lambda: _answers(f"{stub.url}/stats"), "the EHR's start")
        yield stub


@dataclass(frozen=True, slots=True)
class Running:
    """A side that takes notifications. `finished` refuses a round in which it did not end them all."""

    process: Process
    target: Target
    subscription: str
    debounce_s: float
    finished: Callable[[int], None]

    def cpu_s(self) -> float:
        """What it has used."""
        return cpu.cpu_s(self.process.pid)

    def rss_mib(self) -> float:
        """What it holds."""
        return cpu.rss_mib(self.process.pid)


Side = Callable[[Path, Stub, Path], contextlib.AbstractContextManager[Running]]
"""Started in a folder, at an EHR, with a graph of a model folder."""


@contextlib.contextmanager
def yardstick(folder: Path, stub: Stub, graph: Path) -> Iterator[Running]:
    """The least that does the job."""
    port = free_port()
    with process(
        folder, "yardstick", "-m", "tests.benchmarks.yardstick", str(port), stub.chart.base, str(graph), str(folder)
    ) as p:
        url = f"http://127.0.0.1:{port}/notify"
        p.wait_for(lambda: _listens(port), "the yardstick's start")
        yield Running(p, Target(url), "s1", 0.0, lambda _: None)


def bare(script: Path) -> Side:
    """A yardstick somebody else wrote, whose `pipe` role takes PORT EHR_PORT and a header with the moment of sending."""

    @contextlib.contextmanager
    def start(folder: Path, stub: Stub, _: Path) -> Iterator[Running]:
        port = free_port()
        with process(folder, "bare", str(script), "pipe", str(port), str(stub.port), "FULL") as p:
            p.wait_for(lambda: _listens(port), "the bare pipeline's start")
            yield Running(p, Target(f"http://127.0.0.1:{port}/n", ("x-t0: 0",)), "s1", 0.0, lambda _: None)

    return start


@contextlib.contextmanager
def sidecar(folder: Path, stub: Stub, graph: Path, store: str = "sqlite:///sidecar.db") -> Iterator[Running]:
    """`sidecar serve` with defaults, one promoted model, and a Backport topic."""
    config = _site(folder, stub.chart.base, graph.parents[2], store)
    found = settings.load(config)
    ops = f"http://127.0.0.1:{found.server.ops_port}"
    with process(folder, "sidecar", "-m", "sidecar", "serve", "--config", str(config)) as p:
        p.wait_for(lambda: _answers(f"{ops}/readyz"), "the sidecar's start")
        p.wait_for(lambda: _active(ops), "active Subscriptions")
        subscription = next(s for s in stub.ask("subscriptions") if s["criteria"] == TOPIC)
        channel = subscription["channel"]
        yield Running(
            process=p,
            target=Target(channel["endpoint"], tuple(channel["header"])),
            subscription=subscription["id"],
            debounce_s=model.debounce_s(graph.parent),
            finished=lambda events: _finished(p, ops, events),
        )


def _site(folder: Path, base: str, models: Path, store: str) -> Path:
    """Settings as a site has them: what has no default, a promotion, and a topic. Nothing is tuned."""
    new_keys(folder / "keys.toml")
    secret = folder / "hook-secret"
    secret.write_text("a-hook-secret-for-benchmarks-only")
    secret.chmod(0o600)
    port = free_port()
    config = folder / "sidecar.toml"
    config.write_text(
        f"""models_dir = "{models}"
[facility]
time_zone = "Europe/London"
[ehr]
base_url = "{base}"
[server]
port = {port}
ops_port = {free_port()}
public_url = "http://127.0.0.1:{port}"
hook_secret_file = "hook-secret"
[subscriptions]
content = "full-resource"
[subscriptions.topics]
observation = "{TOPIC}"
[store]
url = "{store}"
key_file = "keys.toml"
[models.{model.NAME}]
version = "{model.VERSION}"
promoted_by = "benchmarks"
promoted_because = "to be measured"
"""
    )
    return config


def _finished(running: Process, ops: str, events: int) -> None:
    """Every event assessed, every write written, nothing waiting; what the sidecar searched for itself does not count."""
    seen: dict[str, float] = {}

    def all_ended() -> bool:
        found = _metrics(ops)
        seen.clear()
        seen.update({labels["result"]: value for labels, value in found.get("sidecar_events_total", []) if value})
        seen.pop("caught_up", None)
        return seen == {"assessed": events} and not any(value for _, value in found.get("sidecar_queue_depth", []))

    running.wait_for(all_ended, f"{events} assessed events and empty queues", FINISHED_S)


def _active(ops: str) -> bool:
    """Whether every Subscription is active; a source whose turn has not come yet has no sample."""
    active = {labels["source"]: value for labels, value in _metrics(ops).get("sidecar_subscription_active", [])}
    return "observation" in active and all(value == 1 for value in active.values())


def _metrics(ops: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(_get(f"{ops}/metrics").decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
        content: bytes = answer.read()
    return content


def _answers(url: str) -> bool:
    try:
        _get(url)
    except OSError:
        return False
    return True


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
