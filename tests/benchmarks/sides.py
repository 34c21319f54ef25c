"""What is compared, each in a process of its own: the sidecar as shipped, and the yardstick."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
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
READY_S, STOP_S = 60.0, 30.0


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
            time.sleep(0.05)


@contextlib.contextmanager
def process(folder: Path, name: str, *command: str) -> Iterator[Process]:
    """`python -m …` from the project's root, ended at the end. A Ctrl-C reaches us alone, and we end it."""
    log = folder / f"{name}.log"
    with log.open("ab") as out:
        popen = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=out, stderr=out, cwd=ROOT, start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        yield Process(popen, log)
    finally:
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
    def base(self) -> str:
        """Its FHIR base."""
        return f"{self.url}/fhir"

    def ask(self, path: str) -> Any:
        """What it says of itself."""
        return orjson.loads(httpx.get(f"{self.url}/{path}", timeout=30).content)


@contextlib.contextmanager
def ehr(folder: Path, chart: Chart) -> Iterator[Stub]:
    """Start an EHR whose patients have `chart`."""
    port = free_port()
    codes = next(name for name, codes in CODES.items() if codes == chart.codes)
    command = ("tests.benchmarks.ehr", str(port), chart.now.isoformat(), str(chart.size), codes)
    with process(folder, "ehr", *command) as started:
        stub = Stub(started, f"http://127.0.0.1:{port}", chart)
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
    with process(folder, "yardstick", "tests.benchmarks.yardstick", str(port), stub.base, str(graph), str(folder)) as p:
        url = f"http://127.0.0.1:{port}/notify"
        p.wait_for(lambda: _listens(port), "the yardstick's start")
        yield Running(p, Target(url), "s1", 0.0, lambda _: None)


@contextlib.contextmanager
def sidecar(folder: Path, stub: Stub, graph: Path, store: str = "sqlite:///sidecar.db") -> Iterator[Running]:
    """`sidecar serve` with defaults, one promoted model, and a Backport topic."""
    config = _site(folder, stub.base, graph.parents[2], store)
    found = settings.load(config)
    ops = f"http://127.0.0.1:{found.server.ops_port}"
    with process(folder, "sidecar", "sidecar", "serve", "--config", str(config)) as p:
        p.wait_for(lambda: _answers(f"{ops}/readyz"), "the sidecar's start")
        p.wait_for(lambda: _active(ops), "active Subscriptions")
        subscription = next(s for s in stub.ask("subscriptions") if s["criteria"] == TOPIC)
        channel = subscription["channel"]
        yield Running(
            process=p,
            target=Target(channel["endpoint"], tuple(channel["header"])),
            subscription=subscription["id"],
            debounce_s=model.debounce_s(graph.parent),
            finished=lambda events: _finished(ops, events),
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


def _finished(ops: str, events: int) -> None:
    """Every event assessed, every write written, nothing waiting."""
    seen = _metrics(ops)
    ended = {labels["result"]: value for labels, value in seen.get("sidecar_events_total", []) if value}
    waiting = sum(value for _, value in seen.get("sidecar_queue_depth", []))
    if ended.pop("caught_up", 0) and not ended:
        ended = {}
    if ended != {"assessed": events} or waiting:
        raise Refused(f"of {events} events ended {ended}, and {waiting:g} rows wait")


def _active(ops: str) -> bool:
    active = _metrics(ops).get("sidecar_subscription_active", [])
    return bool(active) and all(value == 1 for _, value in active)


def _metrics(ops: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(httpx.get(f"{ops}/metrics", timeout=30).text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _listens(port: int) -> bool:
    import socket  # noqa: PLC0415

    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
