"""A chart as the hospital's other systems see it, and a sidecar at work for it; the server may be any of the four."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import orjson

from sidecar import operations
from sidecar.app import Sidecar, system_clock
from sidecar.records import Reference
from sidecar.settings import Settings
from sidecar.store import Statement, new_keys
from sidecar.writeback.render import SCORE_SYSTEM
from tests.harness import SECRET, encounter, free_port, patient, until
from tests.peers.servers import Server

Clock = Callable[[], datetime]
FHIR_JSON = {"Accept": "application/fhir+json", "Content-Type": "application/fhir+json"}
PATIENCE_S = 120.0


class Chart:
    """A server over plain HTTP, with no code of ours.

    Where ids are the server's to give, `write` creates what it has not seen, remembers the id it was given, and says
    that one wherever the test says its own.
    """

    def __init__(self, server: Server) -> None:
        self.server, self.base_url = server, server.base_url
        self._given: dict[str, str] = {}
        self._http = httpx.AsyncClient(timeout=60, trust_env=False, headers=FHIR_JSON)

    async def close(self) -> None:
        await self._http.aclose()

    def reference(self, relative: str) -> str:
        """`Type/id` as the server knows it."""
        return self._given.get(relative, relative)

    async def write(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Update or create under the resource's own id, or the one the server gave it; the stored version."""
        kind, own = resource["resourceType"], f"{resource['resourceType']}/{resource['id']}"
        body = self._translated(resource)
        if self.server.takes_our_ids or own in self._given:
            body["id"] = self.reference(own).partition("/")[2]
            answer = await self._http.put(f"{self.base_url}/{kind}/{body['id']}", content=orjson.dumps(body))
        else:
            del body["id"]
            answer = await self._http.post(f"{self.base_url}/{kind}", content=orjson.dumps(body))
        assert answer.status_code in {200, 201}, answer.text
        stored = answer.json()
        self._given[own] = f"{kind}/{stored['id']}"
        return stored

    def _translated(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self._translated(each) for each in node]
        if not isinstance(node, dict):
            return node
        return {k: self.reference(v) if k == "reference" else self._translated(v) for k, v in node.items()}

    async def remove(self, relative: str) -> None:
        answer = await self._http.delete(f"{self.base_url}/{self.reference(relative)}")
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
    """A sidecar in this process, working for a chart. `due` counts the events it must hear, by resource."""

    chart: Chart
    sidecar: Sidecar
    due: Counter[Reference] = field(default_factory=Counter)

    async def write(self, *resources: dict[str, Any]) -> None:
        for resource in resources:
            stored = await self.chart.write(resource)
            self.due[Reference(stored["resourceType"], stored["id"])] += 1

    async def admit(self, patient_id: str) -> None:
        await self.write(patient(patient_id), encounter(patient_id))

    async def rows(self, sql: str) -> list[dict[str, Any]]:
        return [dict(r) for r in await self.sidecar.rooms.store.read(Statement("test", sql))]

    async def heard(self) -> Counter[Reference]:
        """How many events there were of each resource that is due; others are other tests'."""
        rows = await self.rows("SELECT focus_key, count(*) AS n FROM event WHERE focus_key IS NOT NULL GROUP BY 1")
        counts = {row["focus_key"]: row["n"] for row in rows}
        key = self.sidecar.rooms.archive.resource_key
        return Counter({focus: counts.get(key(focus), 0) for focus in self.due})

    async def settled(self) -> None:
        """Wait until all that is due was heard, and everything in the house came to its end."""

        async def done() -> bool:
            # In this order: what is heard after the look at the queues would otherwise pass for done.
            return await self.heard() >= self.due and await self.idle()

        await until(done, PATIENCE_S)

    async def idle(self) -> bool:
        """Whether every event that was heard, and every write, has ended."""
        # In this order: an event that ends in between leaves its write in the queue.
        foci = await self.rows("SELECT 1 FROM event WHERE state IN ('pending', 'routed') AND focus_type IS NOT NULL")
        found = await operations.status(self.sidecar.rooms.store)
        return not foci and "queued" not in found["writes"]

    async def risk_assessments(self, patient_id: str) -> list[dict[str, Any]]:
        own = self.chart.reference(f"Patient/{patient_id}").partition("/")[2]
        return await self.chart.all(f"RiskAssessment?patient={own}")

    async def totals(self, patient_id: str) -> list[dict[str, Any]]:
        own = self.chart.reference(f"Patient/{patient_id}").partition("/")[2]
        return [o for o in await self.chart.all(f"Observation?patient={own}") if is_total(o)]

    async def rested_on(self, result: dict[str, Any]) -> list[Reference]:
        """What the sidecar's own record says an assessment rests on. HAPI stores references without their versions
        unless it is configured to keep them, so the chart cannot say which version was read."""
        stored = await self.sidecar.rooms.archive.latest(bytes.fromhex(key_of(result)))
        return list(stored.conclusion.evidence.basis)


def key_of(resource: dict[str, Any]) -> str:
    """The one identifier of a result of ours."""
    (identifier,) = resource["identifier"]
    return identifier["value"]


def is_total(resource: dict[str, Any] | None) -> bool:
    """Whether it is the Observation of a score of ours."""
    return resource is not None and any(i["system"] == SCORE_SYSTEM for i in resource.get("identifier", []))


def settings_for(
    folder: Path, base_url: str, ladder: str = "auto", debounce: str = "0.5s", catch_up_interval: str = "5s"
) -> Settings:
    """Settings of a site that works for `base_url`, with its database and keys in `folder`."""
    keys, secret = folder / "keys.toml", folder / "hook-secret"
    if not keys.exists():
        new_keys(keys)
        secret.write_text(SECRET)
        secret.chmod(0o600)
    port = free_port()
    news2 = {
        "version": "1.0.0",
        "promoted_by": "tests",
        "promoted_because": "tests",
        "debounce": debounce,
        "max_wait": "2s",
        "switches": {"room_air_when_undocumented": True},
    }
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
            # A short overlap: the server's clock is ours, and the patients of the test before are not ours to score.
            "work": {"catch_up_interval": catch_up_interval, "catch_up_overlap": "2s"},
            "models": {"news2": news2},
        }
    )


async def subscriptions_of(chart: Chart, settings: Settings) -> list[dict[str, Any]]:
    """Ours, as the server has them."""
    found = await chart.all("Subscription") if chart.server.tells else []
    return [s for s in found if s["channel"]["endpoint"].startswith(settings.server.public_url + "/")]


async def unsubscribe(chart: Chart, settings: Settings) -> None:
    """Leave no Subscription of ours behind."""
    for subscription in await subscriptions_of(chart, settings):
        await chart.remove(f"Subscription/{subscription['id']}")


@contextlib.asynccontextmanager
async def running(chart: Chart, settings: Settings, clock: Clock = system_clock) -> AsyncIterator[Site]:
    """Start a sidecar; it hears of all that is written once this gives it. Its Subscriptions stay behind."""
    sidecar = Sidecar(settings, clock)
    wanted = "active" if chart.server.tells else "refused"
    try:
        await sidecar.start()

        async def listening() -> bool:
            # Our own view too: the sidecar must have seen that they are active, and where its searches begin.
            seen = (await operations.status(sidecar.rooms.store))["subscriptions"]
            states = [s["status"] for s in seen if s["watermark"]]
            return states == [wanted] * len(sidecar.rooms.sources)

        await until(listening, PATIENCE_S)
        yield Site(chart, sidecar)
    finally:
        await sidecar.close()


@contextlib.asynccontextmanager
async def site_at(chart: Chart, folder: Path, clock: Clock = system_clock, **choices: str) -> AsyncIterator[Site]:
    """The same, and its Subscriptions end with it."""
    settings = settings_for(folder, chart.base_url, **choices)
    try:
        async with running(chart, settings, clock) as site:
            yield site
    finally:
        await unsubscribe(chart, settings)
