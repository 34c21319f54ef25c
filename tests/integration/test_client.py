"""The EHR client over the wire: it connects to the configured origin only, and names every failure by what comes next."""

import asyncio
import contextlib
import gzip
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import orjson
import pytest
from aiohttp import web

from sidecar.errors import Conflict, Rejected, Retryable, SidecarError, Unavailable
from sidecar.fhir.auth import NoCredentials, StaticBearer
from sidecar.fhir.client import MAX_ANSWER_BYTES, MAX_RETRY_AFTER_S, EhrClient
from sidecar.fhir.gate import Gate
from sidecar.fhir.rotation import Rotating
from sidecar.fhir.tokens import SharedSecret, Tokens
from sidecar.records import Reference
from sidecar.sandbox.ehr import Credentials, PracticeEhr
from tests.harness import patient, until

Answer = Callable[[web.Request], Awaitable[web.StreamResponse] | web.StreamResponse]
P1 = Reference("Patient", "p1")
SECRET = "a-client-secret-for-tests"


@dataclass
class Peer:
    """A server that answers /fhir as the test says, and a socket beside it that nobody should call."""

    port: int = 0
    elsewhere: int = 0
    calls: list[web.Request] = field(default_factory=list)
    strangers: int = 0
    answer: Answer = lambda _: web.Response(status=500)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/fhir"

    def client(self, token: str = "a-token", timeout_s: float = 5.0) -> EhrClient:
        return EhrClient(self.base, StaticBearer(lambda: token), timeout_s=timeout_s, connections=4)

    def filled(self, text: str) -> str:
        """`text` with PORT and ELSEWHERE replaced."""
        return text.replace("ELSEWHERE", str(self.elsewhere)).replace("PORT", str(self.port))


@contextlib.asynccontextmanager
async def peer() -> AsyncIterator[Peer]:
    """A running `Peer`."""
    found = Peer()

    async def anything(request: web.Request) -> web.StreamResponse:
        found.calls.append(request)
        answer = found.answer(request)
        return await answer if isinstance(answer, Awaitable) else answer

    async def stranger(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.strangers += 1
        writer.close()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", anything)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = await asyncio.start_server(stranger, "127.0.0.1", 0)
    found.port, found.elsewhere = runner.addresses[0][1], server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        await runner.cleanup()


@contextlib.asynccontextmanager
async def asking(answer: Answer, **options: float) -> AsyncIterator[tuple[Peer, EhrClient]]:
    async with peer() as found:
        found.answer = answer
        client = found.client(**options)
        try:
            yield found, client
        finally:
            await client.close()


def tokens(url: str, secret: str = SECRET, scope: str = "") -> Tokens:
    """Tokens for a client secret."""
    return Tokens(SharedSecret(url, "sidecar", Rotating(None, lambda: secret), scope), dict)


def json(body: object, status: int = 200, **headers: str) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/fhir+json", headers=headers)


def bundle(*resources: object, following: object = None) -> dict[str, object]:
    link = [] if following is None else [{"relation": "self", "url": "x"}, {"relation": "next", "url": following}]
    return {"resourceType": "Bundle", "type": "searchset", "link": link, "entry": [{"resource": r} for r in resources]}


async def searched(client: EhrClient, **limits: int) -> list[str]:
    return [r["id"] async for r in client.search("Patient", {"name": "x"}, **limits)]


@pytest.mark.parametrize(
    "link",
    [
        "http://127.0.0.1:PORT/fhir?page=2",
        "http://127.0.0.1:PORT/fhir/Patient?page=2",
        "/fhir/Patient?page=2",
        "?page=2",
        "Patient?page=2",
        "/fhir?page=2",
    ],
)
async def test_a_next_link_under_the_base_is_followed_with_the_token(link):
    async with asking(lambda _: web.Response()) as (server, client):
        server.answer = lambda r: json(
            bundle(patient("b")) if "page" in r.query else bundle(patient("a"), following=server.filled(link))
        )
        assert await searched(client) == ["a", "b"]
        assert [c.headers["Authorization"] for c in server.calls] == ["Bearer a-token"] * 2
        assert server.calls[1].path.rstrip("/") in {"/fhir", "/fhir/Patient"}


async def test_a_location_off_the_base_or_of_another_type_names_no_resource():
    async with peer() as server:
        client = server.client()
        for link in (
            "Patient/p1",
            "/fhir/Patient/..",
            "/fhir/Task/a%20b",
            "/fhir/Task",
            "//x/fhir/Task/t1",
            "/Task/t1",
            "",
        ):
            assert client.located(link, "Task") is None, link
        assert client.located(f"{server.base}/Task/t1/_history/1", "Task") == "t1"
        assert client.located("/fhir/Task/t1", "Task") == "t1"
        assert client.located(None, "Task") is None


async def test_a_reference_outside_the_grammar_is_never_put_into_a_path():
    async with asking(lambda _: json(patient("p1"))) as (server, client):
        for text in ("..", ".", "a/b", "a%2fb", "1?_count=9999", "123/_history/1", "a\n", "", "x" * 65, "\xe9"):
            with pytest.raises(Rejected):
                await client.read(Reference("Patient", text))
        assert server.calls == []


async def test_search_values_arrive_as_they_were_given():
    value = "http://loinc.org|9279-1,a&_count=1#x+y %2e=\xe9"
    async with asking(lambda _: json(bundle())) as (server, client):
        assert [r async for r in client.search("Observation", {"code": value})] == []
        assert dict(server.calls[0].query) == {"code": value}


# --- what an answer means --------------------------------------------------------------------------------------------


MEANINGS = [
    (400, Rejected), (404, Rejected), (405, Rejected), (410, Rejected), (422, Rejected), (304, Unavailable), (409, Conflict), (412, Conflict),
    (500, Retryable), (501, Retryable), (401, Unavailable), (403, Unavailable), (429, Unavailable), (502, Unavailable), (503, Unavailable), (504, Unavailable),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), MEANINGS)
async def test_a_status_is_an_error_named_by_what_comes_next(status, kind):
    outcome = {"resourceType": "OperationOutcome", "issue": [{"diagnostics": "canary"}]}
    async with asking(lambda _: json(outcome, status)) as (_, client):
        with pytest.raises(SidecarError) as error:
            await client.send("create", "POST", "Task", ok={201}, body={})
        assert type(error.value) is kind
        assert "canary" not in error.value.reason


@pytest.mark.parametrize("status", [404, 410])
async def test_a_resource_that_is_gone_reads_as_none(status):
    async with asking(lambda _: json({"resourceType": "OperationOutcome"}, status)) as (_, client):
        assert await client.read(P1) is None


BAD_READS = {
    "not JSON": web.Response, "HTML": lambda: web.Response(text="<html>login</html>"), "truncated": lambda: web.Response(text='{"resourceType":'),
    "an array": lambda: json([patient("p1")]), "another type": lambda: json({"resourceType": "Group", "id": "p1"}), "another id": lambda: json(patient("p2")),
    "an OperationOutcome": lambda: json({"resourceType": "OperationOutcome"}), "deep": lambda: web.Response(text="[" * 5000), "not UTF-8": lambda: web.Response(body=b'"\xff"'),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_READS)
async def test_an_answer_that_is_not_the_resource_is_retryable(name):
    async with asking(lambda _: BAD_READS[name]()) as (_, client):
        with pytest.raises(Retryable, match="ehr_shape"):
            await client.read(P1)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        patient("p1"),
        {"resourceType": "Bundle", "entry": 5},
        {"resourceType": "Bundle", "link": "x"},
        {"resourceType": "Bundle", "entry": {"resource": {}}},
    ],
)
async def test_an_answer_that_is_not_a_bundle_is_retryable(body):
    async with asking(lambda _: json(body)) as (_, client):
        with pytest.raises(Retryable, match="ehr_shape"):
            await searched(client)


async def test_entries_that_are_no_resources_are_passed_over():
    entries = [
        None,
        5,
        {},
        {"resource": None},
        {"resource": {"resourceType": "OperationOutcome"}},
        {"resource": patient("a")},
    ]
    async with asking(
        lambda _: json({"resourceType": "Bundle", "link": [None, 5, {"relation": "next"}], "entry": entries})
    ) as (_, client):
        assert await searched(client) == ["a"]


async def test_an_answer_over_the_limit_is_refused():
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(MAX_ANSWER_BYTES // 65536 + 2):
                await response.write(b" " * 65536)
        return response

    async with asking(endless) as (_, client):
        with pytest.raises(Rejected, match="too_large"):
            await client.read(P1)


async def test_an_answer_that_inflates_over_the_limit_is_refused():
    bomb = gzip.compress(b" " * (MAX_ANSWER_BYTES + 1), 9)
    async with asking(lambda _: web.Response(body=bomb, headers={"Content-Encoding": "gzip"})) as (_, client):
        with pytest.raises(Rejected, match="too_large"):
            await client.read(P1)


async def test_pages_without_end_are_refused():
    async with asking(lambda _: json(bundle(patient("a"), following="?page=2"))) as (server, client):
        with pytest.raises(Rejected, match="too_many:pages"):
            await searched(client, pages=7)
        assert len(server.calls) == 7


async def test_more_resources_than_the_limit_are_refused():
    async with asking(lambda _: json(bundle(*(patient(str(n)) for n in range(6))))) as (_, client):
        with pytest.raises(Rejected, match="too_many:search"):
            await searched(client, most=5)


async def test_no_connection_is_unavailable():
    async with peer() as server:
        client = server.client()
    with pytest.raises(Unavailable, match="ehr_unreachable"):
        await client.read(P1)
    await client.close()


async def test_an_answer_that_takes_too_long_is_unavailable():
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    async with asking(never, timeout_s=0.2) as (_, client):
        with pytest.raises(Unavailable, match="ehr_unreachable"):
            await client.read(P1)


async def test_an_answer_cut_in_the_middle_is_unavailable():
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"resourceType"')
        request.transport.abort()
        return response

    async with asking(cut) as (_, client):
        with pytest.raises(Unavailable, match="ehr_unreachable"):
            await client.read(P1)


async def test_an_answer_that_comes_drop_by_drop_is_unavailable_in_time():
    async def drops(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)
        return response

    async with asking(drops, timeout_s=0.5) as (_, client):
        started = time.monotonic()
        with pytest.raises(Unavailable, match="ehr_unreachable"):
            await client.read(P1)
        assert time.monotonic() - started < 5


async def test_a_header_without_end_is_unavailable():
    async with asking(lambda _: json(patient("p1"), X="x" * 100_000)) as (_, client):
        with pytest.raises(Unavailable, match="ehr_unreachable"):
            await client.read(P1)


async def test_a_gigabyte_packed_into_a_megabyte_is_refused_without_being_unpacked():
    pack = zlib.compressobj(9, wbits=31)
    bomb = b"".join(pack.compress(b" " * 2**20) for _ in range(1024)) + pack.flush()
    async with asking(lambda _: web.Response(body=bomb, headers={"Content-Encoding": "gzip"})) as (_, client):
        tracemalloc.start()
        with pytest.raises(Rejected, match="too_large"):
            await client.read(P1)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 8 * MAX_ANSWER_BYTES


# --- what is never sent ----------------------------------------------------------------------------------------------


async def test_a_cookie_is_never_sent_back():
    async with asking(lambda _: json(patient("p1"), **{"Set-Cookie": "session=canary; Path=/"})) as (server, client):
        await client.read(P1)
        await client.read(P1)
        assert all("Cookie" not in call.headers for call in server.calls)
        assert len(server.calls) == 2


async def test_proxies_and_passwords_of_the_environment_are_not_used(tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login canary password canary\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with asking(lambda _: json(patient("p1"))) as (server, _):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.elsewhere}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        client = EhrClient(server.base, NoCredentials(), timeout_s=5, connections=4)
        await client.read(P1)
        await client.close()
        with pytest.raises(Unavailable, match="ehr_token:shape"):
            await tokens(f"{server.base}/token").header()
        assert server.strangers == 0
        assert "Authorization" not in server.calls[0].headers
        assert len(server.calls) == 2


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7), (" 7 ", 7, 7), ("0", 0, 0), ("99999999", MAX_RETRY_AFTER_S, MAX_RETRY_AFTER_S), ("9" * 400, MAX_RETRY_AFTER_S, MAX_RETRY_AFTER_S),
        (60.0, 30, 60), (-60.0, 0, 0), (9e6, MAX_RETRY_AFTER_S, MAX_RETRY_AFTER_S),
        (None, 1, 1), ("soon", 1, 1), ("-5", 1, 1), ("1.5", 1, 1), ("", 1, 1), ("Mon, 99 Jan 2026 00:00:00 GMT", 1, 1), ("Mon, 01 Jan 99999 00:00:00 GMT", 1, 1),
        ("Thu, 01 Jan 2026 00:00:00 +99999999999", 0, MAX_RETRY_AFTER_S), ("nan", 1, 1), ("inf", 1, 1),
    ],
)  # fmt: skip
async def test_retry_after_is_seconds_or_a_date_and_bounded(header, least, most):
    # A number stands for the date that many seconds from now: dates are made when the test runs, not when it is read.
    said = in_seconds(header) if isinstance(header, float) else header
    headers = {} if said is None else {"Retry-After": said}
    for status in (429, 503):
        async with asking(lambda _, status=status: web.Response(status=status, headers=headers)) as (_, client):
            with pytest.raises(Unavailable) as down:
                await client.read(P1)
            assert least <= down.value.delay_s <= most


# --- signing in ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def guarded(
    expires_in: int = 300, secret: str = SECRET
) -> AsyncIterator[tuple[PracticeEhr, Credentials, EhrClient]]:
    """A practice EHR that wants client credentials, and a client that has them."""
    access = Credentials(client_id="sidecar", client_secret=SECRET, expires_in=expires_in)
    ehr = PracticeEhr(credentials=access)
    await ehr.start()
    await ehr.write(patient("p1"))
    signer = tokens(ehr.base_url.removesuffix("/fhir") + "/token", secret, "system/*.cruds")
    client = EhrClient(ehr.base_url, signer, timeout_s=5, connections=32)
    try:
        yield ehr, access, client
    finally:
        await client.close()
        await ehr.stop()


async def test_many_requests_at_once_fetch_one_token():
    async with guarded() as (ehr, _, client):
        assert all(await asyncio.gather(*(client.read(P1) for _ in range(32))))
        assert ehr.requests["POST", "token"] == 1


async def test_a_refused_token_is_renewed_once_and_the_request_repeated():
    async with guarded() as (ehr, access, client):
        await client.read(P1)
        access.expire_all()
        assert await client.read(P1) is not None
        assert ehr.requests["POST", "token"] == 2


async def test_a_token_revoked_under_many_requests_is_fetched_anew_once():
    async with guarded() as (ehr, access, client):
        await client.read(P1)
        access.expire_all()
        assert all(await asyncio.gather(*(client.read(P1) for _ in range(32))))
        assert ehr.requests["POST", "token"] == 2


async def test_a_late_refusal_of_an_old_token_does_not_drop_the_new_one():
    fetched, refused = [], []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/token"):
            fetched.append(request)
            return json({"access_token": f"t{len(fetched)}"})
        if request.headers["Authorization"] != "Bearer t1":
            return json(patient("p1"))
        refused.append(request)
        if len(refused) == 2:
            await until(
                lambda: len(server.calls) >= 5
            )  # a token, two refusals, another token, a request that it opened
        return web.Response(status=401)

    async with peer() as server:
        server.answer = answer
        signer = tokens(f"{server.base}/token")
        client = EhrClient(server.base, signer, timeout_s=5, connections=4)
        assert all(await asyncio.gather(client.read(P1), client.read(P1)))
        assert len(fetched) == 2
        await client.close()


async def test_what_was_refused_is_not_sent_again_with_the_same_token():
    async with asking(lambda _: web.Response(status=401)) as (server, client):
        with pytest.raises(Unavailable, match="ehr_denied:401"):
            await client.read(P1)
        assert len(server.calls) == 1


async def test_a_token_is_renewed_at_80_percent_of_its_life_before_the_ehr_refuses_it():
    async with guarded(expires_in=2) as (ehr, _, client):
        started = time.monotonic()
        await client.read(P1)

        async def renewed() -> bool:
            await client.read(P1)
            return ehr.requests["POST", "token"] == 2

        await until(renewed, 5)
        assert 1.6 <= time.monotonic() - started < 2.0


async def test_a_wrong_client_secret_is_unavailable_and_asks_the_chart_nothing():
    async with guarded(secret="another-secret-altogether") as (ehr, _, client):
        with pytest.raises(Unavailable, match="ehr_token"):
            await client.read(P1)
        assert ehr.requests["GET", "Patient/{id}"] == 0


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"access_token":"t","expires_in":"soon"}', b'"t"', b"null"]
)
async def test_a_token_endpoint_that_answers_nonsense_is_unavailable(body):
    async with asking(lambda _: web.Response(body=body)) as (server, _):
        with pytest.raises(Unavailable, match="ehr_token"):
            await tokens(f"{server.base}/token").header()


async def test_a_token_endpoint_that_redirects_does_not_get_the_secret_sent_elsewhere():
    async with asking(lambda _: web.Response()) as (server, _):
        server.answer = lambda _: web.Response(
            status=307, headers={"Location": f"http://127.0.0.1:{server.elsewhere}/token"}
        )
        with pytest.raises(Unavailable, match="ehr_token"):
            await tokens(f"{server.base}/token").header()
        assert server.strangers == 0


# --- the gate --------------------------------------------------------------------------------------------------------


async def test_the_gate_closes_on_an_outage_and_opens_when_the_ehr_answers_again():
    ehr = PracticeEhr()
    await ehr.start()
    client = EhrClient(ehr.base_url, NoCredentials(), timeout_s=5, connections=4)
    gate = Gate(client)
    ehr.faults.down = True
    gate.shut(Unavailable("ehr_unreachable:test", 0.0))
    await until(lambda: ehr.requests["GET", "metadata"] == 0 and not gate.is_open)
    ready = asyncio.ensure_future(gate.ready())
    ehr.faults.clear()
    ehr.faults.fail_next(2, only="GET metadata")
    await asyncio.wait_for(ready, 10)
    assert gate.is_open
    assert ehr.requests["GET", "metadata"] == 3
    assert (await gate.capability()).ladder("RiskAssessment") == "put"
    assert ehr.requests["GET", "metadata"] == 3
    await gate.close()
    await client.close()
    await ehr.stop()


async def test_the_gate_does_not_ask_before_the_ehrs_retry_after():
    async with asking(lambda _: json({"resourceType": "CapabilityStatement"})) as (server, client):
        gate, started = Gate(client), time.monotonic()
        gate.shut(Unavailable("ehr_busy:503", 0.7))
        await asyncio.wait_for(gate.ready(), 5)
        assert time.monotonic() - started >= 0.7
        assert [call.path for call in server.calls] == ["/fhir/metadata", "/fhir/Patient"]
        await gate.close()


@pytest.mark.parametrize(
    "first",
    [
        None,
        [],
        {"resourceType": "Patient"},
        {"resourceType": "CapabilityStatement", "rest": [None]},
        {"resourceType": "CapabilityStatement", "rest": 5},
        {
            "resourceType": "CapabilityStatement",
            "rest": [{"mode": "server", "resource": [{"type": "Task", "interaction": [None]}]}],
        },
    ],
)
async def test_a_capability_statement_out_of_shape_does_not_shut_the_gate_for_ever(first):
    async with asking(lambda _: web.Response()) as (server, client):
        server.answer = lambda _: json(first if len(server.calls) == 1 else {"resourceType": "CapabilityStatement"})
        gate = Gate(client)
        gate.shut(Unavailable("ehr_unreachable:test", 0.0))
        await asyncio.wait_for(gate.ready(), 8)
        assert [call.path for call in server.calls] == ["/fhir/metadata", "/fhir/metadata", "/fhir/Patient"]
        await gate.close()


async def test_a_proxys_404_is_not_taken_for_a_deleted_resource():
    async with asking(lambda _: web.Response(status=404, text="<html>no backend</html>")) as (_, client):
        with pytest.raises(Unavailable, match="ehr_not_fhir:404"):
            await client.read(P1)


async def test_an_ehr_whose_chart_fails_is_away_although_its_metadata_answers():
    def backend_down(request):
        if request.path.endswith("/metadata"):
            return json({"resourceType": "CapabilityStatement"})
        return web.Response(status=500)

    async with asking(backend_down) as (_, client):
        gate = Gate(client)
        with pytest.raises(Retryable) as failure:
            await client.read(P1)
        assert await gate.is_away(failure.value)
        await gate.close()
