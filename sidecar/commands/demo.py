"""`sidecar demo`: a practice EHR, a ward and the sidecar on this machine; `--check N` verifies what it did."""

import asyncio
import contextlib
import os
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from sidecar import log, operations
from sidecar.app import Sidecar, shipped
from sidecar.errors import Misconfigured
from sidecar.explanation import reason_in_words
from sidecar.records import Outcome, PatientId
from sidecar.sandbox.ehr import PracticeEhr
from sidecar.sandbox.ward import Ward, WardClock, load_ward
from sidecar.sandbox.ward_page import Unscored, WardPage
from sidecar.settings import Settings
from sidecar.store import Statement, new_keys

CHECK_DEADLINE_S = 240.0
SETTLE_S = 60.0
CHECK_PORT = 0
CHECK_SPEED = 4000.0
WARD_SPEED = 600.0

LATENCIES = Statement("latencies", "SELECT settled_at - heard_at AS seconds FROM delivery WHERE state = 'written'")
EFFECTS = Statement("effects", "SELECT count(*) AS n FROM effect WHERE risk_assessment IS NOT NULL")
EVENTS = Statement("events_heard", "SELECT count(*) AS n FROM event WHERE focus_type IS NOT NULL")


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs in a demo."""

    ehr: PracticeEhr
    ward: Ward
    sidecar: Sidecar


def demo(check: int | None, options: Mapping[str, Any]) -> int:
    """Run the demo; with `check`, end after that many RiskAssessments and say whether all is right.

    Raises:
        Misconfigured: the ward cannot be read, or a port is taken.
    """
    log.configure("error")
    with tempfile.TemporaryDirectory(prefix="sidecar-demo-") as folder:
        return asyncio.run(_run(check, options, Path(folder)))


async def _run(check: int | None, options: Mapping[str, Any], folder: Path) -> int:
    started = datetime.now(UTC)
    clock = WardClock(started, options["speed"] or (CHECK_SPEED if check else WARD_SPEED))
    ehr = PracticeEhr()
    try:
        stays = load_ward(options["ward"] or shipped("ward"))
    except (OSError, ValueError) as error:
        raise Misconfigured([f"the ward cannot be read: {error}"]) from None
    held: list[Stage] = []
    WardPage(ehr, clock.now, lambda: _unscored(held), lambda: held[0].ward.progress if held else (0, 0)).mount()
    try:
        await ehr.start(port=CHECK_PORT if check else options["port"])
    except OSError as error:
        raise Misconfigured([f"port {options['port']} cannot be used ({error.strerror}); try --port 0"]) from None
    try:
        sidecar = Sidecar(_settings(ehr.base_url, folder), clock.now)
        await sidecar.start()
        try:
            await _active(ehr, len(sidecar.rooms.sources))
            stage = Stage(ehr, Ward(stays, ehr, clock), sidecar)
            held.append(stage)
            return await (_check(stage, check) if check else _keep_serving(stage))
        finally:
            await sidecar.close()
    finally:
        await ehr.stop()


def _settings(base_url: str, folder: Path) -> Settings:
    """Settings of a sidecar that trusts this machine only. The promotion is the demo's own."""
    new_keys(folder / "keys.toml")
    hook = folder / "hook-secret"
    descriptor = os.open(hook, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secrets.token_urlsafe(32))
    port = _free_port()
    return Settings.model_validate(
        {
            "facility": {"time_zone": "UTC"},
            "ehr": {"base_url": base_url},
            "server": {
                "port": port,
                "public_url": f"http://127.0.0.1:{port}",
                "ops_port": _free_port(),
                "hook_secret_file": hook,
            },
            "store": {"url": f"sqlite:///{folder}/demo.db", "key_file": folder / "keys.toml"},
            "work": {"catch_up_interval": "5s"},
            "models": {
                "news2": {
                    "version": "1.0.0",
                    "promoted_by": "sidecar demo",
                    "promoted_because": "synthetic patients only",
                    "debounce": "0.05s",
                    "max_wait": "1s",
                    # The synthetic ward charts oxygen only when it is given, and not with every set: what was
                    # charted counts for half a day, and no charting at all is room air.
                    "switches": {"room_air_when_undocumented": True},
                    "max_age": {"on_oxygen": "12h"},
                    "spread": "12h",
                }
            },
        }
    )


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _unscored(held: list[Stage]) -> dict[str, Unscored]:
    """Why a patient has no current score, in words, for the ward page."""
    found: dict[str, Unscored] = {}
    if not held:
        return found
    sidecar, ehr = held[0].sidecar, held[0].ehr
    model = sidecar.models["news2"]
    for patient in ehr.all("Patient"):
        current = await sidecar.rooms.archive.current(PatientId(patient["id"]), model.name)
        if current is None or current.conclusion.assessment.outcome is Outcome.SCORED:
            continue
        a, manifest = current.conclusion.assessment, model.loaded.manifest
        words = tuple(reason_in_words(r, manifest, a.vector.features, a.withheld) for r in a.reasons)
        found[patient["id"]] = Unscored(words, current.conclusion.evidence.at)
    return found


async def _active(ehr: PracticeEhr, wanted: int) -> None:
    """Wait until every Subscription is active, so that nothing of the ward goes unheard."""
    deadline = time.monotonic() + SETTLE_S
    while sum(s["status"] == "active" for s in ehr.all("Subscription")) < wanted:
        if time.monotonic() > deadline:
            raise Misconfigured(["the practice EHR did not activate the Subscriptions"])
        await asyncio.sleep(0.05)


async def _check(stage: Stage, wanted: int) -> int:
    sys.stderr.write(f"Replaying the practice ward until {wanted} RiskAssessments are in its chart ...\n")
    replay = asyncio.create_task(_laps(stage))
    deadline = time.monotonic() + CHECK_DEADLINE_S
    while len(stage.ehr.all("RiskAssessment")) < wanted and time.monotonic() < deadline and not replay.done():
        await asyncio.sleep(0.2)
        _progress(len(stage.ehr.all("RiskAssessment")), wanted)
    replay.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await replay
    report, right = await _verify(stage, wanted)
    sys.stderr.write("\n" if sys.stderr.isatty() else "")
    sys.stdout.write(orjson.dumps(report).decode() + "\n")
    verdict = "every event is accounted for, nothing is doubled" if right else "NOT right: compare the figures"
    sys.stderr.write(f"Checked in the EHR: {verdict}.\n")
    return 0 if right else 1


async def _laps(stage: Stage) -> None:
    while True:
        await stage.ward.run()


def _progress(done: int, wanted: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {wanted} RiskAssessments in the chart")
        sys.stderr.flush()


async def _verify(stage: Stage, wanted: int) -> tuple[dict[str, Any], bool]:
    """Let everything settle, then compare what was heard with what is in the chart."""
    store = stage.sidecar.rooms.store
    await stage.ehr.quiet(SETTLE_S)
    deadline = time.monotonic() + SETTLE_S
    status = await operations.status(store)
    while _open(status) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        status = await operations.status(store)
    charted = stage.ehr.all("RiskAssessment")
    identifiers = [i["value"] for r in charted for i in r["identifier"]]
    outcomes = {row["outcome"]: row["n"] for row in status["assessments"]}
    times = sorted(1000 * row["seconds"] for row in await store.read(LATENCIES))
    report = {
        "events": (await store.read(EVENTS))[0]["n"],
        "assessments": sum(outcomes.values()),
        "incomplete": outcomes.get("incomplete", 0),
        "not_scored": outcomes.get("not_scored", 0),
        "risk_assessments_in_ehr": len(charted),
        "duplicates": len(identifiers) - len(set(identifiers)),
        "event_to_write_p50_ms": round(statistics.median(times), 1) if times else None,
        "p99_ms": round(times[min(len(times) - 1, int(len(times) * 0.99))], 1) if times else None,
    }
    right = (
        len(charted) >= wanted
        and report["duplicates"] == 0
        and len(charted) == (await store.read(EFFECTS))[0]["n"]
        and not _open(status)
        and "buried" not in status["events"]
        and "buried" not in status["writes"]
    )
    return report, right


def _open(status: Mapping[str, Any]) -> bool:
    """Whether anything still waits."""
    return bool({"pending", "routed"} & set(status["events"]) or "queued" in status["writes"])


async def _keep_serving(stage: Stage) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    page = stage.ehr.base_url.removesuffix("/fhir") + "/ward"
    notify, ops = stage.sidecar.addresses
    sys.stdout.write(
        f"Open the ward:     {page}\n"
        f"The practice EHR:  {stage.ehr.base_url}/RiskAssessment\n"
        f"Metrics:           http://{ops}/metrics\n"
        f"Notifications to:  http://{notify}\n"
        "Synthetic patients. Ctrl-C stops.\n"
    )
    sys.stdout.flush()
    replay = asyncio.create_task(_laps(stage))
    await stop.wait()
    replay.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await replay
    sys.stdout.write("stopped\n")
    return 0
