"""Whatever a server writes where a URL can stand, we connect to the configured origin and to nothing else.

Every URL of `HOSTILE` is put into every place through the real client, against a server that writes it byte for byte.
Sockets listen where the URLs point; an audit hook sees every connection and every name looked up in this process.
"""

import asyncio
import contextlib
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from sidecar.context import ContextReader, Need
from sidecar.errors import SidecarError
from sidecar.fhir import references
from sidecar.fhir.auth import StaticBearer, credentials
from sidecar.fhir.capability import Capability, TypeAbilities
from sidecar.fhir.client import EhrClient
from sidecar.fhir.signing_keys import new_signing_keys
from sidecar.fhir.smart import DISCOVERY
from sidecar.intake import Site, Subscriptions, sources_for
from sidecar.records import PatientId, Reference
from sidecar.settings import Ehr, Topics
from sidecar.store import Statement, Step
from sidecar.writeback import LadderWriter
from tests.harness import Unguarded, encounter, now, open_store, patient, reading

FORGET = Statement("forget", "DELETE FROM subscription")
TOKEN = "a-token-that-stays-at-home"
FAR = "x" * 9000

# OWN is the configured host and port, PORT its port; ELSEWHERE is another port, on which somebody listens.
HOSTILE = [
    # other hosts and ports
    "http://127.0.0.1:ELSEWHERE/fhir?page=2", "http://127.0.0.2:PORT/fhir?page=2", "http://127.0.0.2:ELSEWHERE/fhir", "http://localhost:PORT/fhir?page=2",
    "http://localhost:ELSEWHERE/fhir/Patient/p1", "http://0.0.0.0:PORT/fhir", "http://127.0.0.1/fhir?page=2", "http://127.0.0.1:80/fhir", "http://127.0.0.1:0/fhir",
    "http://127.0.0.1:99999/fhir", "http://127.0.0.1:x/fhir", "http://127.0.0.1:-1/fhir", "http://127.0.0.1:0PORT9/fhir", "http://127.0.0.1:/fhir",
    # IPv6
    "http://[::1]:PORT/fhir?page=2", "http://[::1]:ELSEWHERE/fhir", "http://[::ffff:127.0.0.1]:PORT/fhir", "http://[::ffff:7f00:1]:ELSEWHERE/fhir",
    "http://[0:0:0:0:0:0:0:1]:PORT/fhir", "http://[fe80::1%25lo]:ELSEWHERE/fhir", "http://[", "http://[127.0.0.1]:PORT/fhir", "http://[::1",
    # the same number in other spellings
    "http://2130706433:PORT/fhir", "http://2130706433:ELSEWHERE/fhir", "http://0x7f000001:PORT/fhir", "http://0x7f.0.0.1:ELSEWHERE/fhir", "http://017700000001:PORT/fhir",
    "http://0177.0.0.1:PORT/fhir", "http://127.1:PORT/fhir", "http://127.0.1:ELSEWHERE/fhir", "http://127.000.000.001:PORT/fhir", "http://\uff11\uff12\uff17.0.0.1:PORT/fhir",
    # users, and what looks like one
    "http://user@OWN/fhir?page=2", "http://user:pw@OWN/fhir", "http://OWN@127.0.0.2:ELSEWHERE/fhir", "http://OWN%40127.0.0.2:ELSEWHERE/fhir", "http://@OWN/fhir",
    "http://OWN#@127.0.0.1:ELSEWHERE/fhir", "http://OWN?@127.0.0.1:ELSEWHERE/fhir", "http://OWN\\@127.0.0.1:ELSEWHERE/fhir", "http://OWN;@127.0.0.1:ELSEWHERE/fhir",
    # no scheme, another scheme
    "//127.0.0.1:ELSEWHERE/fhir", "//127.0.0.2:PORT/fhir?page=2", "///127.0.0.1:ELSEWHERE/fhir", "////127.0.0.1:ELSEWHERE/fhir", "https://OWN/fhir?page=2", "HTTPS://OWN/fhir",
    "ws://OWN/fhir", "ftp://OWN/fhir", "gopher://127.0.0.1:ELSEWHERE/fhir", "file:///etc/passwd", "file://OWN/fhir", "javascript:alert(1)", "data:text/plain,x",
    "jar:http://OWN/fhir!/x", "urn:uuid:1-2-3", "http:", "http:///fhir", "http:/127.0.0.1:ELSEWHERE/fhir", "http:127.0.0.1:ELSEWHERE/fhir", "mailto:a@127.0.0.1",
    # backslashes
    "/\\127.0.0.1:ELSEWHERE/fhir", "\\\\127.0.0.1:ELSEWHERE\\fhir", "http:\\\\127.0.0.1:ELSEWHERE\\fhir", "http:/\\127.0.0.1:ELSEWHERE/fhir", "http://OWN\\.example/fhir",
    # names
    "http://127.0.0.1.:PORT/fhir", "http://127.0.0.1.example:PORT/fhir", "http://OWN.example/fhir", "http://xn--127-0-0-1.example:PORT/fhir", "http://127.0.0.1\uff0f.example/fhir",
    "http://OWN\u3002example/fhir", "http://127\u30020.0.1:PORT/fhir", "http://127%2E0.0.1:PORT/fhir", "http://%31%32%37.0.0.1:PORT/fhir", "http://127.0.0.1%00.example:PORT/fhir",
    "http://127.0.0.1%3aELSEWHERE/fhir", "http://OWN%2f@127.0.0.1:ELSEWHERE/fhir",
    # line ends, tabs, spaces, control letters
    "/fhir?page=2\r\nHost: 127.0.0.1:ELSEWHERE", "/fhir?page=2\nX: y", "/fhir?page=2 HTTP/1.1\r\n\r\nGET /admin", " http://127.0.0.1:ELSEWHERE/", "ht\ttp://127.0.0.1:ELSEWHERE/",
    "h\nttp://127.0.0.1:ELSEWHERE/", "http://127.0.0.1:ELSEWHERE/\x00", "\x00//127.0.0.1:ELSEWHERE/", "/fhir?\x7f", "http://OWN/fhir\t/Patient", "http://127.0.0.1:\tELSEWHERE/fhir",
    # out of the base on our own origin
    "http://OWN/admin", "http://OWN/fhir/../admin", "http://OWN/fhir/Patient/../../admin", "../admin", "../../admin", "/admin", "/", "/fhirx?page=2", "http://OWN/", "http://OWN",
    "/fhir/%2e%2e/admin", "/fhir/%2E%2E/admin", "/fhir/.%2e/admin", "/fhir/..%2fadmin", "/fhir/%2e%2e%2fadmin", "/fhir/%252e%252e/admin", "/fhir/..%5cadmin", "/fhir/..;/admin",
    "/fhir/..;x=y/admin", "/fhir/\u2025/admin", "/fhir/%c0%ae%c0%ae/../admin",
    # long
    f"http://OWN/fhir?{FAR}", f"http://127.0.0.1:ELSEWHERE/{FAR}", f"http://OWN/fhir/{'../' * 3000}admin",
]  # fmt: skip


class _Watcher:
    """Sees every connection and every look-up of this process while it is on; an audit hook cannot be taken off."""

    def __init__(self) -> None:
        self.on = False
        self.connected: list[Any] = []
        self.looked_up: list[Any] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event == "socket.connect":
            self.connected.append(arguments[1])
        elif self.on and event == "socket.getaddrinfo":
            self.looked_up.append(arguments[0])

    @contextlib.contextmanager
    def only(self, found: "Peer") -> Iterator[None]:
        """While it runs, nobody connects but to `found`."""
        self.connected, self.looked_up, self.on = [], [], True
        try:
            yield
        finally:
            self.on = False
        assert set(self.connected) <= {("127.0.0.1", found.port)}
        assert set(self.looked_up) <= {"127.0.0.1", b"127.0.0.1"}
        assert found.strangers == []
        assert len(self.connected) >= len(HOSTILE)


WATCHER = _Watcher()


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Reply:
    """What is written to the wire: `headers` are not looked at."""

    body: Any = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()

    def raw(self) -> bytes:
        content = b"" if self.body is None else orjson.dumps(self.body)
        lines = [
            f"HTTP/1.1 {self.status} OK",
            "Connection: close",
            "Content-Type: application/fhir+json",
            f"Content-Length: {len(content)}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@dataclass
class Peer:
    """A server that writes what `answer` says, and the ports beside it on which nobody should call."""

    port: int = 0
    elsewhere: int = 0
    requests: list[Request] = field(default_factory=list)
    strangers: list[bytes] = field(default_factory=list)
    answer: Callable[[Request], Reply] = lambda _: Reply(status=404)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/fhir"

    def filled(self, text: str) -> str:
        filled = text.replace("OWN", f"127.0.0.1:{self.port}").replace("ELSEWHERE", str(self.elsewhere))
        return filled.replace("PORT", str(self.port))


@contextlib.asynccontextmanager
async def peer() -> AsyncIterator[Peer]:
    """While it runs, no connection is made but to it, and nothing is looked up."""
    found = Peer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:] if line)}
            await reader.readexactly(int(headers.get("content-length", 0)))
            request = Request(*head[0].split(" ")[:2], headers)
            found.requests.append(request)
            writer.write(found.answer(request).raw())
            await writer.drain()
        writer.close()

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.strangers.append(await reader.read(1000))
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20))
        found.port = server.sockets[0].getsockname()[1]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            found.elsewhere = probe.getsockname()[1]
        listening = [("127.0.0.1", found.elsewhere), ("127.0.0.2", found.elsewhere), ("127.0.0.2", found.port)]
        listening += [("::1", found.elsewhere), ("::1", found.port)] if socket.has_ipv6 else []
        for host, port in listening:
            with contextlib.suppress(OSError):  # a machine without IPv6 has nobody to listen there
                await stack.enter_async_context(await asyncio.start_server(stranger, host, port))
        with WATCHER.only(found):
            yield found


def bundle(*resources: Any, **more: Any) -> dict[str, Any]:
    entries = [{"resource": r} for r in resources]
    return {"resourceType": "Bundle", "type": "searchset", "entry": entries, **more}


@contextlib.asynccontextmanager
async def client_of(server: Peer) -> AsyncIterator[EhrClient]:
    client = EhrClient(server.base, StaticBearer(lambda: TOKEN), timeout_s=10, connections=4)
    try:
        yield client
    finally:
        await client.close()


async def outcome(call: Awaitable[Any]) -> str:
    """The reason of a refusal, or "used"."""
    reason = "used"
    try:
        await call
    except SidecarError as refusal:
        reason = refusal.reason
    assert "127" not in reason
    return reason


def always(reply: Reply) -> Callable[[Request], Reply]:
    return lambda _: reply


def report(place: str, outcomes: Counter[str]) -> None:
    total = sum(outcomes.values())
    sys.stdout.write(
        f"{place}: {total} hostile URLs, 0 connections elsewhere, 0 tokens sent elsewhere; {dict(outcomes)}\n"
    )
    assert total >= len(HOSTILE)


def test_there_are_at_least_sixty_hostile_urls_and_none_twice():
    assert len(HOSTILE) == len(set(HOSTILE))
    assert len(HOSTILE) >= 60


async def test_next_links():
    async with peer() as server, client_of(server) as client:
        outcomes: Counter[str] = Counter()
        for text in HOSTILE:
            server.requests.clear()
            link = [{"relation": "next", "url": server.filled(text)}]
            server.answer = always(Reply(bundle(patient("a"), link=link)))
            found = await outcome(collected(client))
            assert found == "off_origin:next", text
            assert len(server.requests) == 1, text
            outcomes[found] += 1
        report("next", outcomes)


async def collected(client: EhrClient) -> list[Any]:
    return [resource async for resource in client.search("Patient", {"name": "x"}, pages=3)]


async def test_full_urls():
    async with peer() as server, client_of(server) as client:
        outcomes: Counter[str] = Counter()
        for text in HOSTILE:
            entry = {"fullUrl": server.filled(text), "resource": patient("a"), "search": {"mode": "match"}}
            server.answer = always(Reply({"resourceType": "Bundle", "entry": [entry]}))
            assert [r["id"] for r in await collected(client)] == ["a"]
            outcomes["not looked at"] += 1
        report("fullUrl", outcomes)


@pytest.mark.parametrize("header", ["Location", "Content-Location"])
async def test_where_a_created_resource_is_said_to_be(header):
    """The id is found by searching instead; an answer that cannot be parsed is an answer that did not come."""
    task = {"resourceType": "Task", "id": "ours", "identifier": [{"system": "urn:s", "value": "v"}]}
    able = TypeAbilities(create=True, conditional_create=True, search=frozenset({"identifier"}))
    async with peer() as server, client_of(server) as client:
        writer, outcomes = LadderWriter(client, Capability({"Task": able})), Counter[str]()

        def answer(request: Request, created: Reply) -> Reply:
            if request.method == "POST":
                return created
            return Reply(bundle({**task, "id": "theirs"}) if "?" in request.target else {**task, "id": "theirs"})

        for text in HOSTILE:
            server.requests.clear()
            created = Reply(None, 201, ((header, server.filled(text)),))
            server.answer = lambda r, created=created: answer(r, created)
            found = await outcome(writer.write(task, None, Unguarded(), look_first=False))
            assert found == "used" or found.startswith("ehr_unreachable:"), text
            assert found != "used" or [r.method for r in server.requests] == ["POST", "GET", "GET"], text
            outcomes[found] += 1
            assert all(r.path.startswith("/fhir/Task") for r in server.requests), text
        report(header, outcomes)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_of_the_chart(method, status):
    async with peer() as server, client_of(server) as client:
        outcomes: Counter[str] = Counter()
        for text in HOSTILE:
            server.requests.clear()
            server.answer = always(Reply(None, status, (("Location", server.filled(text)),)))
            body = None if method == "GET" else patient("p1")
            found = await outcome(client.send("x", method, "Patient/p1", ok={200, 201}, body=body))
            assert found == f"ehr_not_fhir:{status}" or found.startswith("ehr_unreachable:"), text
            assert [(r.method, r.target) for r in server.requests] == [(method, "/fhir/Patient/p1")], text
            outcomes[found] += 1
        report(f"{status} on {method}", outcomes)


def signer(server: Peer, folder: Any) -> Any:
    path = folder / "keys.json"
    if not path.exists():
        new_signing_keys(path, "ES384")
    ehr = Ehr(base_url=server.base, auth="private_key_jwt", client_id="c", credential_file=path)
    return credentials(ehr, lambda: {"Patient": frozenset("rs")})


async def test_token_endpoints_that_the_discovery_document_names(tmp_path):
    """A path on our own origin may be used; an assertion goes nowhere else."""
    async with peer() as server:
        outcomes: Counter[str] = Counter()
        for text in HOSTILE:
            server.requests.clear()
            document = {"token_endpoint": server.filled(text)}
            server.answer = lambda r, d=document: Reply(d) if r.path.endswith(DISCOVERY) else Reply({}, 400)
            found = await outcome(signer(server, tmp_path).header())
            assert found in {"ehr_token:off_origin", "ehr_token:refused"}, text
            assert len(server.requests) == (1 if found == "ehr_token:off_origin" else 2), text
            assert {r.headers["host"] for r in server.requests} == {f"127.0.0.1:{server.port}"}, text
            outcomes[found] += 1
        assert outcomes["ehr_token:off_origin"] >= 60
        report("token_endpoint", outcomes)


@pytest.mark.parametrize("place", ["smart-configuration", "/token"])
async def test_redirects_of_signing_in(tmp_path, place):
    async with peer() as server:
        outcomes: Counter[str] = Counter()
        for status in (301, 302, 303, 307, 308):
            for text in HOSTILE:
                server.requests.clear()
                good = Reply({"token_endpoint": f"http://127.0.0.1:{server.port}/token"})
                bad = Reply(None, status, (("Location", server.filled(text)),))
                server.answer = lambda r, good=good, bad=bad: bad if r.path.endswith(place) else good
                found = await outcome(signer(server, tmp_path).header())
                assert found in {"ehr_token:redirect", "ehr_token:discovery", "ehr_token:unreachable"}, text
                assert len(server.requests) == (1 if place == "smart-configuration" else 2), text
                outcomes[found] += 1
        report(f"redirect of {place}", outcomes)


async def brings_no_patient() -> Capability:
    return Capability({})


async def test_references_of_the_chart():
    """A reading that refers to somewhere else has no stay; one about somebody elsewhere is refused."""
    need = Need(("http://loinc.org|9279-1",), now() - now(60 * 24), (), now() - now(1), ())
    async with peer() as server, client_of(server) as client:
        outcomes, reader = Counter[str](), ContextReader(client, ZoneInfo("UTC"), brings_no_patient)

        def answer(request: Request, changed: dict[str, Any]) -> Reply:
            if request.path.endswith("/Observation"):
                return Reply(bundle(reading("p1", "9279-1", 16, now(5), **changed)))
            if request.path.endswith("/Encounter"):
                return Reply(bundle())
            return Reply(patient("p1") if request.path.endswith("/Patient/p1") else encounter("p1"))

        for element in ("encounter", "subject"):
            for text in HOSTILE:
                server.requests.clear()
                changed = {element: {"reference": server.filled(text)}}
                assert references.parse(server.filled(text), server.base) is None, text
                server.answer = lambda r, changed=changed: answer(r, changed)
                found = await outcome(reader.read(PatientId("p1"), need, datetime.now(UTC)))
                assert found == ("used" if element == "encounter" else "another_patient"), text
                assert {r.path for r in server.requests} <= {
                    "/fhir/Patient/p1", "/fhir/Observation", "/fhir/Encounter",
                }, text  # fmt: skip
                outcomes[f"{element}: {found}"] += 1
        report("references", outcomes)


async def test_channels_of_subscriptions(tmp_path):
    """One whose endpoint is elsewhere is not ours: it is neither adopted nor called."""
    (source, *_), site = sources_for([]), Site("http://127.0.0.1:1", "a-hook-secret-of-tests", Topics())

    async def record(*_: object) -> None:
        """Events have nowhere to go here."""

    def answer(request: Request, theirs: dict[str, Any]) -> Reply:
        if request.method == "POST":
            return Reply(None, 201, (("Location", "/fhir/Subscription/s2"),))
        return Reply(bundle(theirs) if "?" in request.target else {**theirs, "id": "s2"})

    with open_store(tmp_path) as store:
        async with peer() as server, client_of(server) as client:
            outcomes: Counter[str] = Counter()
            for text in HOSTILE:
                server.requests.clear()
                channel = {"type": "rest-hook", "endpoint": server.filled(text)}
                theirs = {"resourceType": "Subscription", "id": "s1", "status": "active", "channel": channel}
                server.answer = lambda r, theirs=theirs: answer(r, theirs)
                subscriptions = Subscriptions(client, store, record, site)
                await store.commit(Step(FORGET))
                found = await outcome(subscriptions.ensure(source, 0.0))
                assert all(r.path.startswith("/fhir/Subscription") for r in server.requests), text
                assert [r.method for r in server.requests] == ["GET", "POST", "GET"], text
                outcomes[found] += 1
            report("Subscription.channel", outcomes)


async def test_identifiers_that_would_begin_another_request():
    async with peer() as server, client_of(server) as client:
        for text in HOSTILE:
            for reference in (Reference("Patient", server.filled(text)), Reference(server.filled(text), "p1")):
                assert await outcome(client.read(reference)) == "grammar:id", text
            for path in (f"Patient/p1 HTTP/1.1\r\nHost: {text}", f"Patient/\u00e9{text}", f"Patient\x00{text}"):
                assert await outcome(client.send("x", "GET", path, ok={200})) == "grammar:path", text
        assert server.requests == []
        server.answer = lambda _: Reply(patient("p1"))
        for _ in HOSTILE:
            await client.read(Reference("Patient", "p1"))


# --- and what is ours ------------------------------------------------------------------------------------------------


OURS = [
    "http://OWN/fhir?page=2", "HTTP://OWN/fhir?page=2", "http://OWN/fhir/Patient?page=2", "/fhir/Patient?page=2", "?page=2", "Patient?page=2", "/fhir?page=2",
    "http://OWN/fhir/Patient?page=2#@127.0.0.1:ELSEWHERE", "/fhir/Patient@127.0.0.1:ELSEWHERE?page=2", "/fhir//127.0.0.1:ELSEWHERE?page=2",
    "?page=http://127.0.0.1:ELSEWHERE/", "/fhir/a%20b?page=2",
]  # fmt: skip


@pytest.mark.parametrize("text", OURS)
async def test_a_link_under_the_base_is_followed_there_with_the_token(text):
    async with peer() as server, client_of(server) as client:
        link = [{"relation": "next", "url": server.filled(text)}]
        server.answer = lambda r: Reply(
            bundle(patient("b")) if "page=" in r.target else bundle(patient("a"), link=link)
        )
        for _ in range(len(HOSTILE) // 2 + 1):
            assert [r["id"] for r in await collected(client)] == ["a", "b"]
        assert {r.headers["authorization"] for r in server.requests} == {f"Bearer {TOKEN}"}
        assert {r.headers["host"] for r in server.requests} == {f"127.0.0.1:{server.port}"}
        assert all(r.path.startswith("/fhir") for r in server.requests)
