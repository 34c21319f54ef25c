"""Tell a sidecar of planted charts, as an EHR does and as nobody should; every answer is kept to be searched."""

import asyncio
import contextlib
import gzip
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import orjson

from sidecar.settings import Settings, admin_socket
from tests.campaigns.planted import Planter
from tests.campaigns.planted_chart import Chart, Resource
from tests.harness import SECRET

JSON = "application/fhir+json"
Sent = tuple[str, str, bytes, dict[str, str]]
"""Method, path, body and headers."""


def bundle(focus: str, resources: list[Resource], planter: Planter, **more: Any) -> Resource:
    """A Backport notification with everything that may come along, and Bundles in the Bundle."""
    event = [
        {"name": "event-number", "valueString": "1"},
        {"name": "timestamp", "valueInstant": planter.instant("notification timestamp")},
        {"name": "focus", "valueReference": {"reference": focus, "display": planter.name("focus.display")}},
        {"name": "additional-context", "valueReference": {"reference": f"Patient/{planter.id('additional-context')}"}},
    ]
    parameters = [
        {"name": "subscription", "valueReference": {"reference": "Subscription/s1"}},
        {"name": "topic", "valueCanonical": planter.address("topic")},
        {"name": "status", "valueCode": planter.code("notification status")},
        {"name": "type", "valueCode": "event-notification"},
        {"name": planter.code("parameter name"), "valueString": planter.words("parameter value")},
        {"name": "error", "valueCodeableConcept": {"text": planter.words("notification error")}},
        {"name": "notification-event", "part": event},
    ]
    inner = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}
    entries = [
        {"fullUrl": planter.token("Bundle.entry.fullUrl"), "resource": {"resourceType": "Parameters", "parameter": parameters, **more}},
        *({"fullUrl": planter.address("Bundle.entry.fullUrl (2)"), "resource": r} for r in resources),
        {"resource": {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": inner}]}},
        {"resource": {"resourceType": "Binary", "data": planter.blob("Binary.data")}},
    ]  # fmt: skip
    return {
        "resourceType": "Bundle",
        "type": "history",
        "identifier": {"value": planter.digits("Bundle.identifier.value")},
        "entry": entries,
    }


class Teller:
    """Speaks to one server. `answers` is what it said; `planter` makes what no chart holds."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.planter = Planter(Random(f"{seed}/telling"))
        self.answers: list[bytes] = []
        self.statuses: Counter[int] = Counter()
        self._settings = settings
        self._hook = f"http://127.0.0.1:{settings.server.port}"
        self._ops = f"http://127.0.0.1:{settings.server.ops_port}"
        self._client = httpx.AsyncClient(timeout=30, trust_env=False, limits=httpx.Limits(max_connections=8))

    async def close(self) -> None:
        """Say no more."""
        await self._client.aclose()

    async def tell(self, chart: Chart) -> None:
        """Everything of a patient: as whole resources, and readings in a Bundle."""
        for kind in ("Patient", "Encounter", "Condition"):
            for resource in chart.of(kind):
                await self.send("PUT", f"/notify/{kind.lower()}/{kind}/{resource['id']}", orjson.dumps(resource))
        readings = chart.of("Observation")
        await self.send("PUT", f"/notify/observation/Observation/{readings[0]['id']}", orjson.dumps(readings[0]))
        last = readings[-2]
        told = bundle(
            f"http://inner.example/fhir/Observation/{last['id']}", [last, chart.of("Patient")[0]], self.planter
        )
        await self.send("POST", "/notify/observation", orjson.dumps(told))

    async def send(
        self, method: str, path: str, body: bytes, headers: dict[str, str] | None = None, *, base: str | None = None
    ) -> None:
        """One request; its whole answer is kept."""
        signed = {"Authorization": f"Bearer {SECRET}", "Content-Type": JSON, **(headers or {})}
        with contextlib.suppress(httpx.TransportError):
            self._keep(await self._client.request(method, (base or self._hook) + path, content=body, headers=signed))

    def _keep(self, answer: httpx.Response) -> None:
        self.statuses[answer.status_code] += 1
        self.answers.append(repr(answer.headers.raw).encode() + b"\n" + answer.content)

    async def scrape(self) -> str:
        """/metrics."""
        return (await self._client.get(self._ops + "/metrics")).text

    async def misuse(self) -> None:
        """Everything that is refused, each with values of its own."""
        for method, path, body, headers in self._refused():
            await self.send(method, path, body, headers)
        for method, path in (("GET", "/metrics"), ("GET", "/livez"), ("POST", "/readyz"), ("GET", "/")):
            await self.send(
                method, f"{path}{self.planter.code('ops path')}?who={self.planter.id('ops query')}", b"", base=self._ops
            )
        ports = self._settings.server.port, self._settings.server.ops_port
        await asyncio.gather(*(self._send_raw(raw, port) for raw in self._malformed() for port in ports))
        await self.misuse_admin()

    async def misuse_admin(self) -> None:
        """The same at the admin door, and what is in order there."""
        socket = admin_socket(self._settings)
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://sidecar", timeout=30) as client:
            p = self.planter
            self._keep(await client.post("/replay", params={"id": p.id("admin: replay")}))
            self._keep(await client.post("/replay", params={"id": p.words("admin: replay (2)") + "\0"}))
            self._keep(await client.get(f"/{p.code('admin path')}"))
            self._keep(await client.get("/status"))
            self._keep(await client.get("/dead-letters"))

    def _refused(self) -> Iterator[Sent]:
        p = self.planter
        yield from self._refused_heads()
        who = p.id("bad body: path")
        for body in self._bad_resources(who):
            yield "PUT", f"/notify/patient/Patient/{who}", body, {}
        for body in self._bad_bundles():
            yield "POST", "/notify/observation", body, {}

    def _refused_heads(self) -> Iterator[Sent]:
        """What is wrong before the body."""
        p, text = self.planter, b'{"resourceType": "Patient"}'
        yield (
            "PUT",
            f"/notify/patient/Patient/{p.id('no secret: path')}",
            p.words("no secret: body").encode(),
            {"Authorization": ""},
        )
        yield (
            "PUT",
            f"/notify/patient/Patient/{p.id('wrong secret: path')}",
            b"{}",
            {"Authorization": f"Bearer {p.token('wrong secret')}"},
        )
        yield "PUT", f"/notify/{p.code('unknown source')}/Patient/x", text, {}
        yield "POST", f"/notify/{p.code('unknown source (2)')}", text, {}
        yield "GET", f"/{p.code('unknown path')}?q={p.code('unknown query')}", b"", {}
        yield "PATCH", f"/notify/patient/Patient/{p.id('wrong method')}", text, {}
        yield "PUT", f"/notify/patient/{p.code('wrong type')}/{p.id('wrong type: id')}", text, {}
        yield "PUT", f"/notify/patient/Patient/{p.mail('no id')}", text, {}
        yield "PUT", f"/notify/patient/Patient/{p.id('id with a line')}%0d%0aX:y", text, {}
        yield (
            "PUT",
            f"/notify/patient/Patient/{p.id('media type: path')}",
            text,
            {"Content-Type": f"text/{p.code('media type')}"},
        )
        yield (
            "PUT",
            f"/notify/patient/Patient/{p.id('gzip: path')}",
            gzip.compress(p.words("gzip").encode()),
            {"Content-Encoding": "gzip"},
        )
        yield "PUT", f"/notify/patient/Patient/{p.id('coding: path')}", text, {"Content-Encoding": p.code("coding")}
        yield "PUT", f"/notify/patient/Patient/{p.id('too long: path')}", p.words("too long").encode() * 20_000, {}
        yield (
            "PUT",
            f"/notify/patient/Patient/{p.id('header: path')}",
            text,
            {"X-Patient": p.words("header"), "Cookie": f"who={p.code('cookie')}"},
        )
        yield "DELETE", f"/notify/patient/Patient/{p.id('deleted')}", b"", {}

    def _bad_resources(self, who: str) -> Iterator[bytes]:
        p, own = self.planter, {"resourceType": "Patient", "id": who}
        made: list[Any] = [
            own | {"id": p.id("another id")}, own | {"resourceType": p.code("another type")}, own | {"meta": p.words("meta")},
            own | {"meta": {"versionId": p.words("versionId")}}, own | {"meta": {"lastUpdated": p.words("lastUpdated") * 9}},
            own | {"meta": {"versionId": p.id("odd version"), "lastUpdated": p.words("odd moment")}},
            [p.words("list")], p.words("string"), p.decimal("number"),
        ]  # fmt: skip
        yield from (orjson.dumps(body) for body in made)
        yield f'{{"resourceType": "Patient", "name": [{{"text": "{p.name("truncated")}'.encode()
        yield p.words("bare word").encode()
        yield f'{{"id": "{p.id("NaN")}", "x": NaN}}'.encode()
        yield b'{"name": "\xff' + p.words("not UTF-8").encode() + b'"}'
        yield b"[" * 1500 + p.words("deep").encode() + b"]" * 1500
        yield f'{{"id": "{p.id("twice")}", "id": "{p.id("twice (2)")}"}}'.encode()

    def _bad_bundles(self) -> Iterator[bytes]:
        p = self.planter
        good = f"Observation/{p.id('bad Bundle: focus')}"
        for focus in (
            f"Patient/{p.id('focus of another type')}",
            p.words("focus in words"),
            p.address("focus elsewhere"),
            good,
        ):
            yield orjson.dumps(bundle(focus, [], p, parameter=p.words("bad Bundle: parameter")))
        yield orjson.dumps({"resourceType": "Bundle", "type": p.code("Bundle.type"), "entry": []})
        yield orjson.dumps({"resourceType": "Bundle", "type": "history", "entry": p.words("Bundle.entry")})
        yield orjson.dumps(
            {
                "resourceType": "Bundle",
                "type": "history",
                "entry": [{"resource": {"resourceType": p.code("status type")}}],
            }
        )
        for name in ("type", "event-number", "events-since-subscription-start", "subscription", "focus"):
            told = [
                {"name": name, "valueString": p.words(f"parameter {name}")},
                {"name": name, "valueString": p.words(f"parameter {name} again")},
            ]
            body = {"resourceType": "Parameters", "parameter": told}
            yield orjson.dumps({"resourceType": "Bundle", "type": "history", "entry": [{"resource": body}]})
        event = bundle(good, [], p)
        event["entry"][0]["resource"]["parameter"][-1]["part"][0]["valueString"] = p.words("event number")
        yield orjson.dumps(event)

    def _malformed(self) -> Iterator[bytes]:
        """What is no HTTP."""
        p = self.planter
        yield f"PUT /notify/patient/Patient/{p.id('HTTP version')} HTTP/9.9\r\n\r\n".encode()
        yield f"{p.code('HTTP method')} / HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        yield f"{p.words('HTTP request line')}\r\n\r\n".encode()
        yield f"GET / HTTP/1.1\r\nHost: x\r\n{p.words('HTTP header name')}\r\n\r\n".encode()
        yield f"GET / HTTP/1.1\r\nHost: x\r\nX: {p.words('HTTP header value')}\0\r\n\r\n".encode()
        yield f"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {p.code('HTTP length')}\r\n\r\n".encode()
        yield f"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{p.code('HTTP chunk')}\r\n".encode()
        yield f"GET /{p.words('HTTP path')} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        yield f"GET /{p.code('HTTP long line')}{'a' * 20_000} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        yield f"GET http://{p.code('HTTP host')}:x/ HTTP/1.1\r\nHost: {p.code('HTTP Host')}\r\n\r\n".encode()
        signed = f"Authorization: Bearer {SECRET}\r\nContent-Type: {JSON}\r\nHost: x\r\n"
        where = f"PUT /notify/patient/Patient/{p.id('HTTP body: path')} HTTP/1.1\r\n{signed}"
        yield f"{where}Transfer-Encoding: chunked\r\n\r\n5\r\nhello{p.words('HTTP chunk end')}\r\n".encode()
        yield f"{where}Content-Length: 900\r\n\r\n{p.words('HTTP body cut')}".encode()

    async def _send_raw(self, raw: bytes, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw)
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(1):
                self.answers.append(await reader.read(65_536))
        writer.transport.abort()
