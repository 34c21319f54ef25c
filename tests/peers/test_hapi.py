"""HAPI FHIR JPA, an R4 server we did not write: what holds against our practice EHR holds against it too.

One server for the module; every test has patients, database and Subscriptions of its own.
"""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from sidecar import operations
from sidecar.app import Sidecar, shipped, system_clock
from sidecar.errors import Retryable
from sidecar.fhir import capability
from sidecar.fhir.auth import NoCredentials
from sidecar.fhir.client import EhrClient
from sidecar.review import review
from sidecar.sandbox.ward import Ward, WardClock, load_ward
from sidecar.settings import Settings
from sidecar.store import Statement, Step, new_keys
from sidecar.writeback import LadderWriter
from tests.harness import SECRET, encounter, free_port, now, observation_set, patient, reading, until
from tests.peers import hapi

pytestmark = pytest.mark.timeout(600)

FHIR_JSON = {"Accept": "application/fhir+json", "Content-Type": "application/fhir+json"}
WARD_SPEED = 7200.0
FEW_BEHIND = 40
PATIENCE_S = 120.0
LIVE = {"final", "amended", "corrected"}
"""Statuses a clinician may act on."""


class Chart:
    """HAPI as any other system of the hospital sees it: plain HTTP, no code of ours."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._http = httpx.AsyncClient(timeout=60, trust_env=False, headers=FHIR_JSON)

    async def close(self) -> None:
        await self._http.aclose()

    async def write(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Update or create under the resource's own id; the stored version."""
        url = f"{self.base_url}/{resource['resourceType']}/{resource['id']}"
        answer = await self._http.put(url, content=orjson.dumps(resource))
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    async def remove(self, relative: str) -> None:
        answer = await self._http.delete(f"{self.base_url}/{relative}")
        assert answer.status_code in {200, 204}, answer.text

    async def get(self, reference: str) -> httpx.Response:
        """The answer to reading `Type/id` or `Type/id/_history/version`."""
        return await self._http.get(f"{self.base_url}/{reference}")

    async def read(self, reference: str) -> dict[str, Any]:
        answer = await self.get(reference)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def all(self, query: str) -> list[dict[str, Any]]:
        """Every match of a search, over all its pages."""
        url: str | None = f"{self.base_url}/{query}{'&' if '?' in query else '?'}_count=50"
        found = []
        while url:
            answer = await self._http.get(url, headers={"Cache-Control": "no-cache"})
            assert answer.status_code == 200, answer.text
            bundle = answer.json()
            found += [e["resource"] for e in bundle.get("entry", [])]
            url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
        return found


@dataclass
class Site:
    """A sidecar in this process, working for HAPI."""

    chart: Chart
    sidecar: Sidecar

    async def admit(self, patient_id: str) -> None:
        await self.chart.write(patient(patient_id))
        await self.chart.write(encounter(patient_id))

    async def write(self, resources: Iterable[dict[str, Any]]) -> None:
        for resource in resources:
            await self.chart.write(resource)

    async def status(self) -> dict[str, Any]:
        return await operations.status(self.sidecar.rooms.store)

    async def rows(self, sql: str) -> list[dict[str, Any]]:
        return [dict(r) for r in await self.sidecar.rooms.store.read(Statement("test", sql))]

    async def until_heard(self, events: int) -> None:
        """Wait until that many events of resources came in and everything in the house came to its end."""

        async def settled() -> bool:
            found = await self.status()
            waiting = {"pending", "routed"} & set(found["events"]) or "queued" in found["writes"]
            heard = await self.rows("SELECT count(*) AS n FROM event WHERE focus_type IS NOT NULL")
            return heard[0]["n"] >= events and not waiting

        await until(settled, PATIENCE_S)

    async def risk_assessments(self, patient_id: str) -> list[dict[str, Any]]:
        return await self.chart.all(f"RiskAssessment?patient={patient_id}")

    async def totals(self, patient_id: str) -> list[dict[str, Any]]:
        found = await self.chart.all(f"Observation?patient={patient_id}&category=survey")
        return [o for o in found if o.get("identifier")]


def settings_for(folder: Path, base_url: str, *, port: int | None = None, ladder: str = "auto", **work: str) -> Settings:
    """Settings of a site that works for `base_url`, with its database and keys in `folder`."""
    keys, secret = folder / "keys.toml", folder / "hook-secret"
    if not keys.exists():
        new_keys(keys)
        secret.write_text(SECRET)
        secret.chmod(0o600)
    port = port or free_port()
    news2 = {
        "promoted_by": "tests", "promoted_because": "tests", "debounce": "0.05s", "max_wait": "0.5s",
        "switches": {"room_air_when_undocumented": True},
    }  # fmt: skip
    return Settings.model_validate(
        {
            "facility": {"time_zone": "UTC"},
            "ehr": {"base_url": base_url, "timeout_s": 30, "write_ladder": ladder},
            "server": {
                "port": port,
                "public_url": f"http://127.0.0.1:{port}",
                "ops_port": free_port(),
                "hook_secret_file": secret,
            },
            "store": {"url": f"sqlite:///{folder}/sidecar.db", "key_file": keys},
            # Short overlaps: the patients of the test before this one are not ours to score.
            "work": {"catch_up_interval": "2s", "catch_up_overlap": "0.5s"} | work,
            "models": {"news2": news2},
        }
    )


async def subscriptions_of(chart: Chart, settings: Settings) -> list[dict[str, Any]]:
    found = await chart.all("Subscription")
    return [s for s in found if s["channel"]["endpoint"].startswith(settings.server.public_url + "/")]


@contextlib.asynccontextmanager
async def running(chart: Chart, settings: Settings, clock: Any = system_clock) -> AsyncIterator[Site]:
    """Start a sidecar; HAPI has activated every Subscription when this gives it. Its Subscriptions stay behind."""
    sidecar = Sidecar(settings, clock)
    try:
        await sidecar.start()

        async def listening() -> bool:
            # Our own view too: the sidecar must have seen that they are active.
            seen = await operations.status(sidecar.rooms.store)
            return [s["status"] for s in seen["subscriptions"]] == ["active"] * len(sidecar.rooms.sources)

        await until(listening, PATIENCE_S)
        yield Site(chart, sidecar)
    finally:
        await sidecar.close()


@contextlib.asynccontextmanager
async def site_at(chart: Chart, folder: Path, **more: Any) -> AsyncIterator[Site]:
    """A sidecar with a database of its own, whose Subscriptions end with it."""
    settings = settings_for(folder, chart.base_url, **more)
    try:
        async with running(chart, settings) as site:
            yield site
    finally:
        for subscription in await subscriptions_of(chart, settings):
            await chart.remove(f"Subscription/{subscription['id']}")


@pytest.fixture(scope="module")
def hapi_url(peer_or_skip, tmp_path_factory):
    """The base URL of an empty HAPI server."""
    peer_or_skip(hapi.why_missing())
    with hapi.start(free_port(), tmp_path_factory.mktemp("hapi") / "hapi.log") as server:
        yield server.base_url


@pytest.fixture
async def chart(hapi_url):
    chart = Chart(hapi_url)
    yield chart
    await chart.close()


# The ward


class Pace:
    """Seconds of replay. They pass while the sidecar keeps up and stand still while it is behind: on a slow machine
    the ward takes longer and says the same, instead of growing stale before anyone reads it."""

    def __init__(self) -> None:
        self._passed, self._since = 0.0, time.monotonic()
        self._stopped = False

    def __call__(self) -> float:
        return self._passed if self._stopped else self._passed + time.monotonic() - self._since

    def stop(self) -> None:
        self._passed, self._stopped = self(), True

    def go(self) -> None:
        self._since, self._stopped = time.monotonic(), False


@dataclass
class PacedWriter:
    """Writes the ward into HAPI, and remembers every version that a Subscription of ours covers."""

    site: Site
    pace: Pace
    versions: set[tuple[str, str, str]] = field(default_factory=set)
    written: int = 0

    async def write(self, resource: dict[str, Any]) -> dict[str, Any]:
        stored = await self.site.chart.write(resource)
        self.written += 1
        if self._is_ours(stored):
            self.versions.add((stored["resourceType"], stored["id"], stored["meta"]["versionId"]))
        if await self._behind() > FEW_BEHIND:
            self.pace.stop()

            async def caught_up() -> bool:
                return await self._behind() <= FEW_BEHIND // 2

            await until(caught_up, PATIENCE_S)
            self.pace.go()
        return stored

    async def _behind(self) -> int:
        sql = "SELECT (SELECT count(*) FROM event WHERE focus_type IS NOT NULL AND state = 'done') AS done, "
        sql += "(SELECT count(*) FROM delivery WHERE state = 'queued') AS queued"
        (row,) = await self.site.rows(sql)
        return len(self.versions) - row["done"] + row["queued"]

    def _is_ours(self, stored: dict[str, Any]) -> bool:
        codes = {f"{c['system']}|{c['code']}" for c in stored.get("code", {}).get("coding", []) if "system" in c}
        for source in self.site.sidecar.rooms.sources:
            if source.type == stored["resourceType"]:
                return not source.query or bool(codes & set(dict(source.query)["code"].split(",")))
        return False


@dataclass(frozen=True)
class Replayed:
    """What the ward left behind, in HAPI and in the sidecar."""

    figures: dict[str, Any]
    versions: set[tuple[str, str, str]]
    risk_assessments: list[dict[str, Any]]
    cited: dict[str, dict[str, Any] | None]
    devices: list[dict[str, Any]]
    events: dict[str, int]
    heard: int
    writes: dict[str, int]
    effects: int


async def _replay(base_url: str, folder: Path) -> Replayed:
    chart = Chart(base_url)
    settings = settings_for(folder, base_url, catch_up_interval="10s", catch_up_overlap="5s")
    pace = Pace()
    clock = WardClock(datetime.now(UTC), WARD_SPEED, pace)
    try:
        async with running(chart, settings, clock.now) as site:
            writer = PacedWriter(site, pace)
            started = time.monotonic()
            await Ward(load_ward(shipped("ward")), writer, clock).run()
            streamed_s = time.monotonic() - started
            await site.until_heard(len(writer.versions))
            seconds = time.monotonic() - started
            replayed = await _left_behind(site, writer, seconds, streamed_s)
        for subscription in await subscriptions_of(chart, settings):
            await chart.remove(f"Subscription/{subscription['id']}")
        return replayed
    finally:
        await chart.close()


async def _left_behind(site: Site, writer: PacedWriter, seconds: float, streamed_s: float) -> Replayed:
    chart, status = site.chart, await site.status()
    risks = await chart.all("RiskAssessment")
    references = sorted({b["reference"] for r in risks for b in r["basis"]})
    room = asyncio.Semaphore(8)

    async def cited(reference: str) -> dict[str, Any] | None:
        async with room:
            answer = await chart.get(reference)
            return answer.json() if answer.status_code == 200 else None

    resolved = dict(zip(references, await asyncio.gather(*map(cited, references)), strict=True))
    heard = (await site.rows("SELECT count(*) AS n FROM event WHERE focus_type IS NOT NULL"))[0]["n"]
    effects = (await site.rows("SELECT count(*) AS n FROM effect WHERE risk_assessment IS NOT NULL"))[0]["n"]
    waits = sorted(r["s"] for r in await site.rows("SELECT settled_at - heard_at AS s FROM delivery WHERE state = 'written'"))
    outcomes = {row["outcome"]: row["n"] for row in status["assessments"]}
    keys = [i["value"] for r in risks for i in r["identifier"]]
    figures = {
        "peer": "HAPI FHIR JPA R4",
        "resources": writer.written,
        "events": heard,
        "assessments": sum(outcomes.values()),
        "incomplete": outcomes.get("incomplete", 0),
        "not_scored": outcomes.get("not_scored", 0),
        "in_ehr": len(risks),
        "duplicates": len(keys) - len(set(keys)),
        "writes": status["writes"],
        "event_to_write_p50_ms": round(1000 * waits[len(waits) // 2]),
        "event_to_write_p99_ms": round(1000 * waits[int(len(waits) * 0.99)]),
        "streamed_seconds": round(streamed_s, 1),
        "seconds": round(seconds, 1),
    }
    return Replayed(
        figures, writer.versions, risks, resolved, await chart.all("Device"), status["events"], heard,
        status["writes"], effects,
    )  # fmt: skip
