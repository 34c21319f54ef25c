"""A practice EHR on the wire, a client that knows no FHIR, and a receiver of notifications."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from sidecar.sandbox.ehr import DeliveryPolicy, PracticeEhr


@dataclass
class Clock:
    """Stands still until told otherwise."""

    at: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class Reply:
    status: int
    headers: Any
    raw: bytes

    @property
    def body(self) -> Any:
        return orjson.loads(self.raw)

    @property
    def ids(self) -> list[str]:
        assert (self.status, self.body["resourceType"]) == (200, "Bundle"), self.raw
        return [entry["resource"]["id"] for entry in self.body.get("entry", [])]

    @property
    def said(self) -> str:
        return " ".join(issue["diagnostics"] for issue in self.body["issue"])

    def link(self, relation: str) -> str | None:
        links = {link["relation"]: link["url"] for link in self.body.get("link", [])}
        return links.get(relation)


@dataclass
class Client:
    ehr: PracticeEhr
    session: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=dict)

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Send a request; header names are written with underscores."""
        url = path if path.startswith("http") else f"{self.ehr.base_url}/{path}" if path else self.ehr.base_url
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body is not None and not isinstance(body, (bytes, io.BytesIO)):
            body = orjson.dumps(body)
            sent.setdefault("Content-Type", "application/fhir+json")
        async with self.session.request(method, url, data=body, headers=sent) as response:
            return Reply(response.status, response.headers, await response.read())


@dataclass
class Receiver:
    """Records notifications; answers with the next of `statuses`, else 200, while its gate is open."""

    url: str = ""
    seen: list[tuple[str, str, bytes, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, request: web.Request) -> web.Response:
        await self.gate.wait()
        self.seen.append((request.method, request.path, await request.read(), request.headers))
        # The Location makes a 302 a real redirect, to somewhere that would answer 200.
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _, _ in self.seen]

    @property
    def ids(self) -> list[str]:
        return [path.rpartition("/")[2] for path in self.paths]


Connect = Callable[..., Awaitable[Client]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def connect(clock: Clock) -> AsyncIterator[Connect]:
    """Start practice EHRs, each with a client; keyword arguments go to PracticeEhr."""
    async with AsyncExitStack() as stack:

        async def start(**arguments: Any) -> Client:
            quick = DeliveryPolicy(backoff_s=0.001, give_up_after=3, reorder_hold_s=0.02)
            ehr = PracticeEhr(**{"clock": clock, "delivery": quick, **arguments})
            await ehr.start()
            stack.push_async_callback(ehr.stop)
            return Client(ehr, await stack.enter_async_context(aiohttp.ClientSession()))

        yield start


@pytest.fixture
async def client(connect: Connect) -> Client:
    return await connect()


@pytest.fixture
def ehr(client: Client) -> PracticeEhr:
    return client.ehr


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    receiver.gate.set()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver.receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()


class Samples:
    """Small valid resources."""

    @staticmethod
    def patient(logical_id: str = "p1", **elements: Any) -> dict[str, Any]:
        return {"resourceType": "Patient", "id": logical_id, **elements}

    @staticmethod
    def observation(logical_id: str | None = "o1", **elements: Any) -> dict[str, Any]:
        made = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
            "subject": {"reference": "Patient/p1"},
            "effectiveDateTime": "2026-03-01T10:00:00Z",
            "valueQuantity": {
                "value": 80,
                "unit": "/min",
                "system": "http://unitsofmeasure.org",
                "code": "/min",
            },
            **elements,
        }
        return made if logical_id is None else {**made, "id": logical_id}

    @staticmethod
    def encounter(logical_id: str = "e1", **elements: Any) -> dict[str, Any]:
        act = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"}
        return {
            "resourceType": "Encounter",
            "id": logical_id,
            "status": "in-progress",
            "class": act,
            "subject": {"reference": "Patient/p1"},
            **elements,
        }

    @staticmethod
    def risk(key: str = "k1", **elements: Any) -> dict[str, Any]:
        return {
            "resourceType": "RiskAssessment",
            "identifier": [{"system": "urn:score", "value": key}],
            "status": "final",
            "subject": {"reference": "Patient/p1"},
            **elements,
        }

    @staticmethod
    def subscription(url: str, criteria: str = "Observation?status=final", **channel: Any) -> dict[str, Any]:
        return {
            "resourceType": "Subscription",
            "id": "sub1",
            "status": "requested",
            "reason": "practice",
            "criteria": criteria,
            "channel": {"type": "rest-hook", "endpoint": url, "payload": "application/fhir+json", **channel},
        }


@pytest.fixture
def make() -> type[Samples]:
    return Samples


@pytest.fixture
def subscribe(client: Client, receiver: Receiver, make: type[Samples]) -> Callable[..., Awaitable[Reply]]:
    """Create the Subscription sub1 for the receiver and wait until the server has activated it."""

    async def create(criteria: str = "Observation?status=final", **channel: Any) -> Reply:
        subscription = make.subscription(receiver.url, criteria, **channel)
        if subscription["channel"]["payload"] is None:
            del subscription["channel"]["payload"]
        reply = await client("PUT", "Subscription/sub1", subscription)
        await client.ehr.quiet(5)
        return reply

    return create


@pytest.fixture
def together() -> Callable[..., Awaitable[list[Any]]]:
    """Run awaitables at the same time."""

    async def run(*awaitables: Awaitable[Any]) -> list[Any]:
        return list(await asyncio.gather(*awaitables))

    return run
