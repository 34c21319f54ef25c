"""What tests share: a practice EHR with one admitted patient, a sidecar in this process, or a real `sidecar serve`."""

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from sidecar import operations
from sidecar.app import BOUNDS, LIMITS, Sidecar, system_clock
from sidecar.inbox import Bounds
from sidecar.sandbox.ehr import PracticeEhr
from sidecar.settings import Settings, load
from sidecar.store import Cipher, SqliteStore, Statement, Store, load_keys, new_keys
from sidecar.store import open_store as store_at
from sidecar.web.door import Limits
from tests import postgres
from tests.ports import free_port

SECRET = "a-hook-secret-for-tests-only"
LOINC = "http://loinc.org"
NORMAL = {"9279-1": 16, "2708-6": 97, "8480-6": 120, "8867-4": 70, "8310-5": 37.0, "9269-2": 15, "3151-8": 0}
UNITS = {
    "9279-1": "/min", "2708-6": "%", "8480-6": "mm[Hg]", "8867-4": "/min", "8310-5": "Cel", "9269-2": "{score}",
    "3151-8": "L/min",
}  # fmt: skip


def patient(patient_id: str, **more: Any) -> dict[str, Any]:
    """An adult."""
    return {"resourceType": "Patient", "id": patient_id, "gender": "female", "birthDate": "1950-05-04", **more}


def encounter(patient_id: str, **more: Any) -> dict[str, Any]:
    """An open inpatient stay of `patient_id`."""
    return {
        "resourceType": "Encounter",
        "id": f"e-{patient_id}",
        "status": "in-progress",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "subject": {"reference": f"Patient/{patient_id}"},
        "period": {"start": "2026-01-01T08:00:00Z"},
        **more,
    }


def reading(patient_id: str, code: str, value: float, at: datetime, **more: Any) -> dict[str, Any]:
    """One vital sign; the id is stable for patient, code and moment."""
    return {
        "resourceType": "Observation",
        "id": f"o-{patient_id}-{code}-{int(at.timestamp())}",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "subject": {"reference": f"Patient/{patient_id}"},
        "encounter": {"reference": f"Encounter/e-{patient_id}"},
        "effectiveDateTime": at.isoformat(),
        "valueQuantity": {
            "value": value,
            "unit": UNITS[code],
            "system": "http://unitsofmeasure.org",
            "code": UNITS[code],
        },
        **more,
    }


def observation_set(patient_id: str, at: datetime, **changes: float | None) -> list[dict[str, Any]]:
    """A complete normal set; `changes` by code with `_` for `-` ("c9279_1=25"), None leaves one out."""
    values: dict[str, float | None] = dict(NORMAL)
    values.update({name[1:].replace("_", "-"): value for name, value in changes.items()})
    return [reading(patient_id, code, value, at) for code, value in values.items() if value is not None]


def settings_text(ehr_url: str, port: int, ops_port: int, *, promoted: bool = True, **sections: str) -> str:
    """A sidecar.toml for `ehr_url`; `sections` add lines to a table, in place of its own lines with the same keys."""
    tables = {
        "facility": 'time_zone = "Europe/London"',
        "ehr": f'base_url = "{ehr_url}"',
        "server": f'port = {port}\nops_port = {ops_port}\npublic_url = "http://127.0.0.1:{port}"\n'
        'hook_secret_file = "hook-secret"',
        "store": 'url = "sqlite:///sidecar.db"\nkey_file = "keys.toml"',
        "work": 'catch_up_interval = "1s"\nlease = "3s"',
        "models.news2": 'debounce = "0.02s"\nmax_wait = "0.5s"',
    }
    if promoted:
        tables["models.news2"] += '\nversion = "1.0.0"\npromoted_by = "tests"\npromoted_because = "tests"'
    for name, lines in sections.items():
        key = name.replace("__", ".")
        named = {line.partition("=")[0].strip() for line in lines.splitlines()}
        kept = [line for line in tables.get(key, "").splitlines() if line.partition("=")[0].strip() not in named]
        tables[key] = "\n".join([*kept, *lines.splitlines()])
    return "\n".join(f"[{name}]\n{lines}\n" for name, lines in tables.items())


def write_site(folder: Path, ehr_url: str, *, promoted: bool = True, **sections: str) -> Path:
    """Settings, keys and secret in `folder`; the settings file."""
    new_keys(folder / "keys.toml")
    secret = folder / "hook-secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    config = folder / "sidecar.toml"
    config.write_text(settings_text(ehr_url, free_port(), free_port(), promoted=promoted, **sections))
    return config


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sidecar.db"
        SqliteStore(f"sqlite:///{path}").close()
        return path.read_bytes()


ENGINES = ("sqlite", "postgres")


@contextlib.contextmanager
def new_database(folder: Path, engine: str) -> Iterator[str]:
    """The URL of a real database (SQLite: in `folder`), migrated once a test run and copied."""
    if engine == "postgres":
        postgres.skip_when_missing()
        with postgres.new_database() as url:
            yield url
        return
    path = folder / "sidecar.db"
    path.write_bytes(_migrated())
    yield f"sqlite:///{path}"


@contextlib.contextmanager
def open_store(folder: Path, engine: str = "sqlite") -> Iterator[Store]:
    """Such a database, open."""
    with new_database(folder, engine) as url:
        store = store_at(url)
        try:
            yield store
        finally:
            store.close()


def cipher_in(folder: Path) -> Cipher:
    """The key ring of `folder`, made when it is not there."""
    path = folder / "keys.toml"
    if not path.exists():
        new_keys(path)
    return load_keys(path)


class Unguarded:
    """A create whose test sends nothing else meanwhile."""

    async def begin(self) -> None:
        """Go on."""

    async def end(self) -> None:
        """Nobody waits."""


async def until(condition: Callable[[], Awaitable[bool] | bool], within_s: float = 20.0) -> None:
    """Wait for a state of the world, looking often."""
    deadline = time.monotonic() + within_s
    while True:
        met = condition()
        if isinstance(met, Awaitable):
            met = await met
        if met:
            return
        assert time.monotonic() < deadline, "what the test waits for did not happen in time"
        await asyncio.sleep(0.02)


@dataclass
class House:
    """A practice EHR and a sidecar in this process."""

    ehr: PracticeEhr
    sidecar: Sidecar
    settings: Settings

    async def admit(self, patient_id: str, **more: Any) -> None:
        await self.ehr.write(patient(patient_id, **more))
        await self.ehr.write(encounter(patient_id))

    async def chart(self, resources: Iterable[dict[str, Any]]) -> None:
        for resource in resources:
            await self.ehr.write(resource)

    async def status(self) -> dict[str, Any]:
        return await operations.status(self.sidecar.rooms.store)

    async def rows(self, sql: str) -> list[dict[str, Any]]:
        return [dict(r) for r in await self.sidecar.rooms.store.read(Statement("test", sql))]

    async def settled(self, within_s: float = 20.0) -> None:
        """Every notification delivered, every event ended, every write ended."""
        await self.ehr.quiet(within_s)

        async def idle() -> bool:
            found = await self.status()
            return not ({"pending", "routed"} & set(found["events"])) and "queued" not in found["writes"]

        await until(idle, within_s)

    def risk_assessments(self) -> list[dict[str, Any]]:
        return self.ehr.all("RiskAssessment")


@contextlib.asynccontextmanager
async def house(
    folder: Path,
    ehr: PracticeEhr | None = None,
    /,
    clock: Callable[[], datetime] = system_clock,
    *,
    promoted: bool = True,
    limits: Limits = LIMITS,
    bounds: Bounds = BOUNDS,
    models_dir: Path | None = None,
    **sections: str,
) -> AsyncIterator[House]:
    """Start both; every Subscription is active when this returns."""
    ehr = ehr or PracticeEhr()
    if not ehr.base_url:
        await ehr.start()
    config = write_site(folder, ehr.base_url, promoted=promoted, **sections)
    if models_dir is not None:
        config.write_text(f'models_dir = "{models_dir}"\n{config.read_text()}')
    settings = load(config)
    sidecar = Sidecar(settings, clock, limits, bounds)
    try:
        await sidecar.start()
        wanted = len(sidecar.rooms.sources)
        await until(lambda: sum(s["status"] == "active" for s in ehr.all("Subscription")) >= wanted)
        yield House(ehr, sidecar, settings)
    finally:
        await sidecar.close()
        await ehr.stop()


@dataclass
class Served:
    """A real `sidecar serve` process."""

    config: Path
    process: subprocess.Popen[bytes]
    settings: Settings
    log: Path
    starts: list[float] = field(default_factory=list)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self, within_s: float = 20.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)


def spawn(config: Path, module: str = "sidecar") -> Served:
    """Start `sidecar serve`, or `module` in its place, and do not wait for it."""
    settings, log = load(config), config.with_name("serve.log")
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "serve", "--config", str(config)],
            stdout=out, stderr=out, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    return Served(config, process, settings, log)


def serve(config: Path) -> Served:
    """Start `sidecar serve` and return when /readyz says so; `starts` has the seconds that took."""
    started = time.monotonic()
    served = spawn(config)
    process, log = served.process, served.log
    url = f"http://127.0.0.1:{served.settings.server.ops_port}/readyz"
    deadline = started + 30
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=1).status_code == 200:
                served.starts.append(time.monotonic() - started)
                return served
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, "serve was not ready in 30 s"
        time.sleep(0.02)


def now(minutes_ago: float = 0.0) -> datetime:
    """A moment for a reading, in whole seconds."""
    return (datetime.now(UTC) - timedelta(minutes=minutes_ago)).replace(microsecond=0)
