"""A practice EHR on the wire, a client that knows no FHIR, and a receiver of notifications."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from sidecar.sandbox.ehr import DeliveryPolicy, PracticeEhr
from sidecar.sandbox.topics import changed_topic


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

    async def told(self, path: str, body: Any = None) -> "list[Told]":
        """Ask for `$status` or `$events`, and read what its Parameters say."""
        reply = await self("POST" if body else "GET", path, body)
        assert reply.status == 200, reply.raw
        resources = [entry["resource"] for entry in reply.body.get("entry", []) if "resource" in entry]
        return [Told.of(resource) for resource in resources if resource["resourceType"] == "Parameters"]


@dataclass
class Told:
    """What a topic-based notification, or the answer to `$status` or `$events`, says in its Parameters."""

    kind: str
    status: str
    since_start: int
    numbers: list[int]
    foci: list[str]
    parameters: list[dict[str, Any]]

    @classmethod
    def of(cls, resource: dict[str, Any]) -> "Told":
        assert resource["resourceType"] == "Parameters", resource
        parameters = resource["parameter"]
        one = {each["name"]: value for each in parameters for key, value in each.items() if key.startswith("value")}
        events = [each["part"] for each in parameters if each["name"] == "notification-event"]
        parts = [{part["name"]: part for part in event} for event in events]
        return cls(
            one["type"],
            one["status"],
            int(one["events-since-subscription-start"]),
            [int(each["event-number"]["valueString"]) for each in parts],
            [
                "/".join(each["focus"]["valueReference"]["reference"].split("/")[-2:])
                for each in parts
                if "focus" in each
            ],
            parameters,
        )


@dataclass
class Receiver:
    """Records notifications; answers with the next of `statuses`, else 200, while its gate is open."""

    url: str = ""
    seen: list[tuple[str, str, bytes, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    inside: int = 0
    """Requests that wait at the gate."""

    async def receive(self, request: web.Request) -> web.Response:
        self.inside += 1
        try:
            await self.gate.wait()
        finally:
            self.inside -= 1
        self.seen.append((request.method, request.path, await request.read(), request.headers))
        # The Location makes a 302 a real redirect, to somewhere that would answer 200.
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    @property
    def bundles(self) -> list[dict[str, Any]]:
        return [orjson.loads(body) for _, _, body, _ in self.seen]

    @property
    def told(self) -> list[Told]:
        """Every notification, in the order received."""
        return [Told.of(bundle["entry"][0]["resource"]) for bundle in self.bundles]

    @property
    def events(self) -> list[tuple[int, str]]:
        """Number and focus of every event told, in the order received."""
        return [pair for told in self.told for pair in zip(told.numbers, told.foci, strict=True)]

    async def until(self, condition: Callable[[], bool], within_s: float = 20.0) -> None:
        """Wait for a state of the world, looking often."""
        async with asyncio.timeout(within_s):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.005)

    def count(self, kind: str) -> int:
        return sum(told.kind == kind for told in self.told)

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _, _ in self.seen]

    @property
    def ids(self) -> list[str]:
        return [path.rpartition("/")[2] for path in self.paths]


BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
Connect = Callable[..., Awaitable[Client]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def connect(clock: Clock) -> AsyncIterator[Connect]:
    """Start practice EHRs, each with a client; keyword arguments go to PracticeEhr."""
    async with AsyncExitStack() as stack:

        async def start(**arguments: Any) -> Client:
            quick = DeliveryPolicy(backoff_s=0.001, give_up_after=3, reorder_hold_s=0.02, second_s=0.05)
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

    @staticmethod
    def topic_subscription(
        url: str,
        type_name: str = "Observation",
        content: str = "id-only",
        filters: Sequence[str] = (),
        **counts: int,
    ) -> dict[str, Any]:
        """A Subscription to "a resource of this type changed"; `counts` as heartbeat_period=60."""
        kinds = {"max_count": "valuePositiveInt"}
        channel: dict[str, Any] = {
            "type": "rest-hook",
            "endpoint": url,
            "payload": "application/fhir+json",
            "_payload": {"extension": [{"url": f"{BACKPORT}backport-payload-content", "valueCode": content}]},
        }
        if counts:
            channel["extension"] = [
                {"url": f"{BACKPORT}backport-{name.replace('_', '-')}", kinds.get(name, "valueUnsignedInt"): count}
                for name, count in counts.items()
            ]
        made: dict[str, Any] = {
            "resourceType": "Subscription",
            "id": "sub1",
            "meta": {"profile": [f"{BACKPORT}backport-subscription"]},
            "status": "requested",
            "reason": "practice",
            "criteria": changed_topic(type_name),
            "channel": channel,
        }
        if filters:
            criteria = [{"url": f"{BACKPORT}backport-filter-criteria", "valueString": each} for each in filters]
            made["_criteria"] = {"extension": criteria}
        return made


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
def listen(receiver: Receiver, make: type[Samples]) -> Callable[..., Awaitable[Reply]]:
    """Create the topic-based Subscription sub1 for the receiver and wait until the server has answered it."""

    async def create(client: Client, **arguments: Any) -> Reply:
        reply = await client("PUT", "Subscription/sub1", make.topic_subscription(receiver.url, **arguments))
        await client.ehr.quiet(5)
        return reply

    return create


@pytest.fixture
def together() -> Callable[..., Awaitable[list[Any]]]:
    """Run awaitables at the same time."""

    async def run(*awaitables: Awaitable[Any]) -> list[Any]:
        return list(await asyncio.gather(*awaitables))

    return run
