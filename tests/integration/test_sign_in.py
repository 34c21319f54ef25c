"""Getting tokens over the wire: one fetch whoever asks, failures named and not repeated, secrets taken as they rotate."""

import asyncio
import contextlib
import gzip
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from joserfc import jws, jwt
from joserfc.jwk import ECKey
from structlog.testing import capture_logs

from sidecar.errors import Unavailable
from sidecar.fhir.auth import Signer, credentials
from sidecar.fhir.client import EhrClient
from sidecar.fhir.rotation import Rotating
from sidecar.fhir.signing_keys import load_signing_keys, new_signing_keys, rotate_signing_keys
from sidecar.fhir.token_endpoint import MAX_ANSWER_BYTES, PROBLEMS, Token
from sidecar.fhir.tokens import Tokens
from sidecar.log import FIELDS
from sidecar.records import Reference
from sidecar.sandbox.ehr import Credentials, PracticeEhr
from sidecar.settings import Ehr
from tests.harness import patient, until

P1 = Reference("Patient", "p1")
NEEDS = {"Patient": frozenset("rs"), "Device": frozenset("crus")}


def signer(base_url: str, folder: Path, **more: Any) -> Signer:
    """Signs in with the key file of `folder`, which is made when it is not there."""
    path = folder / "smart-keys.json"
    if not path.exists():
        new_signing_keys(path, "ES384")
    fields = {"auth": "private_key_jwt", "client_id": "sidecar", "credential_file": path}
    return credentials(Ehr(base_url=base_url, **{**fields, **more}), lambda: NEEDS)


@dataclass
class Site:
    """A practice EHR where the key in `folder` is registered, and a client of it."""

    ehr: PracticeEhr
    access: Credentials
    client: EhrClient
    signer: Signer
    keys: Path

    @property
    def fetches(self) -> int:
        return self.ehr.requests["POST", "token"]


@contextlib.asynccontextmanager
async def site(folder: Path, algorithm: str = "ES384", ehr_settings: Any = (), **fields: Any) -> AsyncIterator[Site]:
    """`fields` are of the EHR's credentials, `ehr_settings` ours."""
    keys = folder / "smart-keys.json"
    jwks = new_signing_keys(keys, algorithm).public()
    access = Credentials(client_id="sidecar", **{"jwks": jwks, **fields})
    ehr = PracticeEhr(credentials=access)
    await ehr.start()
    await ehr.write(patient("p1"))
    signs = signer(ehr.base_url, folder, **dict(ehr_settings))
    client = EhrClient(ehr.base_url, signs, timeout_s=10, connections=100)
    try:
        yield Site(ehr, access, client, signs, keys)
    finally:
        await client.close()
        await ehr.stop()


def given(token: str = "t1", **more: Any) -> web.Response:
    return web.json_response({"access_token": token, "token_type": "bearer", "expires_in": 300, **more})


@dataclass
class Peer:
    """An EHR that answers as the test says, and remembers what it was asked."""

    base: str = ""
    token: Callable[[], web.StreamResponse] = given
    document: dict[str, Any] | None = None
    seen: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)

    @property
    def assertions(self) -> list[str]:
        return [form["client_assertion"][0] for path, form in self.seen if path == "/token"]


@contextlib.asynccontextmanager
async def logged() -> AsyncIterator[list[Any]]:
    """What is logged; no more than may be."""
    with capture_logs() as lines:
        yield lines
    assert all(set(line) <= FIELDS | {"log_level"} for line in lines)


@contextlib.asynccontextmanager
async def peer(**fields: Any) -> AsyncIterator[Peer]:
    found = Peer(**fields)

    async def token(request: web.Request) -> web.StreamResponse:
        found.seen.append(("/token", parse_qs(await request.text())))
        answer = found.token()
        return await answer(request) if callable(answer) else answer

    async def discovery(_: web.Request) -> web.StreamResponse:
        found.seen.append(("/discovery", {}))
        document = {"token_endpoint": found.base.removesuffix("/fhir") + "/token", **(found.document or {})}
        return web.json_response(document)

    async def chart(request: web.Request) -> web.StreamResponse:
        found.seen.append((request.path, {"authorization": [request.headers.get("Authorization", "")]}))
        return web.json_response(patient("p1"), content_type="application/fhir+json")

    app = web.Application()
    app.router.add_post("/token", token)
    app.router.add_get("/fhir/.well-known/smart-configuration", discovery)
    app.router.add_get("/fhir/{path:.*}", chart)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.base = f"http://127.0.0.1:{runner.addresses[0][1]}/fhir"
    try:
        yield found
    finally:
        await runner.cleanup()


# --- one fetch -------------------------------------------------------------------------------------------------------


async def test_a_hundred_requests_at_once_fetch_exactly_one_token(tmp_path):
    async with site(tmp_path) as it:
        assert all(await asyncio.gather(*(it.client.read(P1) for _ in range(100))))
        assert it.fetches == 1
        assert it.ehr.requests["GET", ".well-known/smart-configuration"] == 1


async def test_a_token_that_expires_under_a_hundred_requests_is_fetched_anew_once(tmp_path):
    async with site(tmp_path) as it:
        await it.client.read(P1)
        it.access.expire_all()
        assert all(await asyncio.gather(*(it.client.read(P1) for _ in range(100))))
        assert it.fetches == 2


async def test_a_hundred_requests_under_a_failing_endpoint_ask_it_once_and_hear_the_same(tmp_path):
    async with site(tmp_path) as it:
        it.ehr.faults.fail_next(1000, only="POST token")
        found = await asyncio.gather(*(it.client.read(P1) for _ in range(100)), return_exceptions=True)
        assert {str(e) for e in found} == {"ehr_token:busy"}
        assert it.fetches == 1


async def test_a_token_that_cannot_be_renewed_is_used_to_its_end(tmp_path):
    async with peer() as ehr:
        answers = [given("t1", expires_in=3)]
        ehr.token = lambda: answers.pop() if answers else web.Response(status=503)
        client = EhrClient(ehr.base, signer(ehr.base, tmp_path), timeout_s=5, connections=4)
        started = time.monotonic()

        async def over() -> bool:
            (found,) = await asyncio.gather(client.read(P1), return_exceptions=True)
            return isinstance(found, Unavailable) and found.reason == "ehr_token:busy"

        await until(over, 10)
        assert time.monotonic() - started >= 3.0
        assert len(ehr.assertions) >= 2
        await client.close()


async def test_a_second_refusal_stands_after_two_requests_and_one_fresh_token(tmp_path):
    async with site(tmp_path) as it:
        await it.client.read(P1)
        it.ehr.requests.clear()
        it.ehr.faults.fail_next(1000, status=401, only="GET Patient")
        with pytest.raises(Unavailable, match="ehr_denied:401"):
            await it.client.read(P1)
        assert it.ehr.requests["GET", "Patient/{id}"] == 2
        assert it.fetches == 1


async def test_an_ehr_that_refuses_every_token_is_given_two_and_asked_no_more_with_the_same_one(tmp_path):
    async with site(tmp_path) as it:
        it.ehr.faults.fail_next(1000, status=401, only="GET Patient")
        for _ in range(50):
            with pytest.raises(Unavailable, match="ehr_denied:401"):
                await it.client.read(P1)
        assert it.fetches == 2
        assert it.ehr.requests["GET", "Patient/{id}"] == 51


async def test_a_refused_token_is_replaced_again_when_its_pause_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.fhir.tokens.REPLACED_S", 1.0)
    async with site(tmp_path) as it:
        for _ in range(2):
            await it.client.read(P1)
            it.access.expire_all()

        async def read() -> bool:
            (found,) = await asyncio.gather(it.client.read(P1), return_exceptions=True)
            return not isinstance(found, Unavailable)

        assert not await read()
        await until(read, 10)
        assert it.fetches == 3


# --- an endpoint that hangs ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def hanging(folder: Path, expires_in: int) -> AsyncIterator[tuple[Peer, EhrClient, asyncio.Event]]:
    """An EHR that gave a token, and answers no other token request until the event is set."""
    released = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return given("t2")

    async with peer(token=lambda: given(expires_in=expires_in)) as ehr:
        client = EhrClient(ehr.base, signer(ehr.base, folder), timeout_s=5, connections=100)
        await client.read(P1)
        ehr.token = lambda: hang
        try:
            yield ehr, client, released
        finally:
            released.set()
            await client.close()


def charted_with(ehr: Peer) -> list[str]:
    return [form["authorization"][0] for path, form in ehr.seen if path.startswith("/fhir/Patient")]


async def test_while_a_token_lives_nobody_waits_for_the_next_one(tmp_path):
    async with hanging(tmp_path, expires_in=20) as (ehr, client, released):
        longest = 0.0

        async def asked_again() -> bool:
            nonlocal longest
            started = time.monotonic()
            await asyncio.gather(*(client.read(P1) for _ in range(10)))
            longest = max(longest, time.monotonic() - started)
            return len(ehr.assertions) == 2

        await until(asked_again, 30)
        await asyncio.gather(*(client.read(P1) for _ in range(10)))
        assert longest < 2
        assert set(charted_with(ehr)) == {"Bearer t1"}
        released.set()

        async def renewed() -> bool:
            await client.read(P1)
            return charted_with(ehr)[-1] == "Bearer t2"

        await until(renewed, 10)
        assert len(ehr.assertions) == 2


async def test_a_token_that_ended_while_the_endpoint_hangs_is_not_sent(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.fhir.token_endpoint.TIMEOUT_S", 3.0)
    async with hanging(tmp_path, expires_in=2) as (ehr, client, _):
        started = time.monotonic()
        sent_at = [started]

        async def over() -> bool:
            count = len(charted_with(ehr))
            (found,) = await asyncio.gather(client.read(P1), return_exceptions=True)
            sent_at.extend([time.monotonic()] * (len(charted_with(ehr)) - count))
            return isinstance(found, Unavailable) and found.reason == "ehr_token:unreachable"

        await until(over, 15)
        assert sent_at[-1] - started < 2.5
        assert time.monotonic() - started > 2.5


async def test_a_token_that_comes_after_its_end_is_not_sent(tmp_path):
    async def late(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(1.2)
        return given(expires_in=1)

    async with peer(token=lambda: late) as ehr:
        signs = signer(ehr.base, tmp_path)
        for _ in range(5):
            with pytest.raises(Unavailable, match="ehr_token:late") as refused:
                await signs.header()
            assert refused.value.delay_s > 0
        assert len(ehr.assertions) == 1


async def test_however_many_keys_are_tried_a_request_waits_for_a_token_no_longer_than_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.fhir.tokens.LONGEST_S", 1.5)

    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(1)
        return refused_client()

    new_signing_keys(tmp_path / "smart-keys.json", "ES384")
    for _ in range(2):
        rotate_signing_keys(tmp_path / "smart-keys.json", "ES384")
    async with peer(token=lambda: slow) as ehr:
        started = time.monotonic()
        with pytest.raises(Unavailable, match="ehr_token:unreachable"):
            await signer(ehr.base, tmp_path).header()
        assert time.monotonic() - started < 2.5
        assert len(ehr.assertions) == 2


async def test_a_failure_that_nobody_foresaw_is_logged_by_class_and_paused_like_any_other():
    class Broken:
        changes = asked = 0

        async def grant(self) -> Token:
            self.asked += 1
            raise ZeroDivisionError("canary")

        def public_keys(self) -> None:
            return None

    source = Broken()
    signs = Tokens(source, dict)
    async with logged() as lines:
        for _ in range(5):
            with pytest.raises(Unavailable, match="ehr_token:unexpected"):
                await signs.header()
    assert source.asked == 1
    assert lines[0]["error"] == "ZeroDivisionError"
    assert "canary" not in f"{lines}"


async def test_a_request_that_is_given_up_does_not_end_the_fetch_that_others_wait_for(tmp_path):
    async with peer() as ehr:
        release, asked = asyncio.Event(), asyncio.Event()

        async def slow(_: web.Request) -> web.StreamResponse:
            asked.set()
            await release.wait()
            return given()

        ehr.token = lambda: slow
        signs = signer(ehr.base, tmp_path)
        first, second = asyncio.create_task(signs.header()), asyncio.create_task(signs.header())
        await asked.wait()
        first.cancel()
        release.set()
        assert await second == "Bearer t1"
        assert len(ehr.assertions) == 1


# --- the assertion ---------------------------------------------------------------------------------------------------


async def test_an_assertion_says_what_smart_wants_and_no_two_are_the_same(tmp_path):
    async with peer() as ehr:
        for _ in range(3):
            await signer(ehr.base, tmp_path).header()
        assert len(ehr.assertions) == 3
        (key,) = load_signing_keys(tmp_path / "smart-keys.json").keys
        identifiers = set()
        for text, (_, form) in zip(ehr.assertions, [s for s in ehr.seen if s[0] == "/token"], strict=True):
            assert jws.extract_compact(text.encode()).headers() == {"alg": "ES384", "kid": key.kid, "typ": "JWT"}
            public = ECKey.import_key(key.key.as_dict(private=False))
            claims = jwt.decode(text, public, algorithms=["ES384"]).claims
            assert claims["iss"] == claims["sub"] == "sidecar"
            assert claims["aud"] == ehr.base.removesuffix("/fhir") + "/token"
            assert time.time() < claims["exp"] <= time.time() + 300
            assert claims["iat"] <= time.time()
            assert claims["exp"] - claims["iat"] <= 300
            identifiers.add(claims["jti"])
            assert form["grant_type"] == ["client_credentials"]
            assert form["client_assertion_type"] == ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"]
            assert form["scope"] == ["system/Patient.rs system/Device.crus"]
            assert "client_secret" not in form
        assert len(identifiers) == 3


@pytest.mark.parametrize("skew_s", [-55, -30, 0, 60, 170])
async def test_the_ehrs_clock_may_be_a_minute_behind_ours_or_three_ahead(tmp_path, skew_s):
    async with site(tmp_path, wall=lambda: time.time() + skew_s) as it:
        assert await it.client.read(P1) is not None


@pytest.mark.parametrize(
    ("announced", "used"),
    [
        (["RS384"], "RS384"), (["ES384"], "ES384"), (["RS384", "ES384"], "ES384"), (["none", "HS256", "RS384"], "RS384"),
        (None, "ES384"), ([], "ES384"), ("RS384", "ES384"), ([5, None], None), (["RS256", "none"], None),
    ],
)  # fmt: skip
async def test_the_algorithm_is_one_that_both_know(tmp_path, announced, used):
    new_signing_keys(tmp_path / "smart-keys.json", "RS384")
    rotate_signing_keys(tmp_path / "smart-keys.json", "ES384")
    document = {} if announced is None else {"token_endpoint_auth_signing_alg_values_supported": announced}
    async with peer(document=document) as ehr:
        signs = signer(ehr.base, tmp_path)
        if used is None:
            with pytest.raises(Unavailable, match="ehr_token:no_common_algorithm"):
                await signs.header()
            assert ehr.assertions == []
        else:
            await signs.header()
            assert jws.extract_compact(ehr.assertions[0].encode()).headers()["alg"] == used


# --- keys and secrets that rotate ------------------------------------------------------------------------------------


def refused_client() -> web.Response:
    return web.json_response({"error": "invalid_client"}, status=401)


async def test_older_keys_are_tried_in_order_until_the_ehr_knows_one(tmp_path):
    new_signing_keys(tmp_path / "smart-keys.json", "ES384")
    kids = [k.kid for k in rotate_signing_keys(tmp_path / "smart-keys.json", "RS384").keys]
    async with peer() as ehr:
        answers = [given(), refused_client()]
        ehr.token = answers.pop
        assert await signer(ehr.base, tmp_path).header() == "Bearer t1"
        assert [jws.extract_compact(a.encode()).headers()["kid"] for a in ehr.assertions] == kids


async def test_a_key_file_rotated_after_a_refusal_is_tried_at_once(tmp_path):
    async with peer() as ehr:
        answers = [given(), refused_client()]
        ehr.token = answers.pop
        signs = signer(ehr.base, tmp_path)
        for _ in range(5):
            with pytest.raises(Unavailable, match="ehr_token:invalid_client"):
                await signs.header()
        assert len(ehr.assertions) == 1
        rotate_signing_keys(tmp_path / "smart-keys.json", "ES384")
        assert await signs.header() == "Bearer t1"


@pytest.mark.parametrize(
    "text",
    ["", "{}", "not JSON", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "AA"}]}', '{"keys": [{"kty": ["EC"]}]}'],
)
async def test_a_key_file_that_became_unusable_does_not_end_a_sign_in_that_works(tmp_path, text):
    async with site(tmp_path) as it:
        await it.client.read(P1)
        it.keys.write_text(text)
        it.access.expire_all()
        assert await it.client.read(P1) is not None
        assert it.signer.public_keys()["keys"]


async def test_a_rotated_file_that_breaks_its_reader_changes_nothing_and_is_logged_once(tmp_path):
    file = tmp_path / "secret"
    file.write_text("20")
    rotating = Rotating(file, lambda: 100 // int(file.read_text()))
    async with logged() as lines:
        for text in ("canary", "0"):
            file.write_text(text)
            assert [rotating.now() for _ in range(3)] == [5, 5, 5]
        file.unlink()
        assert [rotating.now() for _ in range(3)] == [5, 5, 5]
    assert [line["error"] for line in lines] == ["ValueError", "ZeroDivisionError", "FileNotFoundError"]
    assert "canary" not in f"{lines}"
    file.write_text("50")
    assert (rotating.now(), rotating.changes) == (2, 1)


def held(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


async def test_a_rotated_bearer_token_is_sent_from_the_next_request_on(tmp_path):
    async with peer() as ehr:
        file = held(tmp_path / "token", "the-first-bearer-token\n")
        signs = credentials(Ehr(base_url=ehr.base, auth="bearer", credential_file=file), dict)
        client = EhrClient(ehr.base, signs, timeout_s=5, connections=4)
        for token, mode in (("the-second-bearer-token", 0o600), ("a-third", 0o600), ("the-fourth-bearer-token", 0o604)):
            await client.read(P1)
            held(tmp_path / "next", token, mode).replace(file)
        await client.read(P1)
        sent = [form["authorization"][0] for _, form in ehr.seen]
        assert sent == ["Bearer the-first-bearer-token"] + ["Bearer the-second-bearer-token"] * 3
        await client.close()


async def test_a_rotated_client_secret_is_sent_with_the_next_token_request(tmp_path):
    access = Credentials(client_id="side car", client_secret="a+first/secret%20of=tests")
    ehr = PracticeEhr(credentials=access)
    await ehr.start()
    await ehr.write(patient("p1"))
    file, url = held(tmp_path / "secret", str(access.client_secret)), ehr.base_url.removesuffix("/fhir") + "/token"
    fields = {"auth": "client_credentials", "token_url": url, "client_id": "side car", "credential_file": file}
    client = EhrClient(
        ehr.base_url, credentials(Ehr(base_url=ehr.base_url, **fields), dict), timeout_s=5, connections=4
    )
    assert await client.read(P1) is not None
    access.client_secret = "a-second:secret of tests"
    access.expire_all()
    held(file, access.client_secret)
    assert await client.read(P1) is not None
    await client.close()
    await ehr.stop()


# --- when there is no token ------------------------------------------------------------------------------------------


def error(name: str, status: int = 400) -> Callable[[], web.Response]:
    return lambda: web.json_response({"error": name, "error_description": "canary"}, status=status)


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for _ in range(MAX_ANSWER_BYTES // 1024 + 2):
            await response.write(b" " * 1024)
    return response


ENDINGS = {
    "an unknown client": (error("invalid_client", 401), "invalid_client", 15),
    "scopes it does not give": (error("invalid_scope"), "invalid_scope", 15),
    "a request it does not know": (error("invalid_request"), "invalid_request", 15),
    "a grant it does not give": (error("invalid_grant"), "invalid_grant", 15),
    "a client that may not": (error("unauthorized_client"), "unauthorized_client", 15),
    "no such grant": (error("unsupported_grant_type"), "unsupported_grant_type", 15),
    "an error of its own": (error("canary"), "refused", 15),
    "a word of ours": (error("off_origin"), "refused", 15),
    "an error that is no word": (lambda: web.json_response({"error": ["canary"]}, status=400), "refused", 15),
    "a refusal without words": (lambda: web.Response(status=403, text="canary"), "refused", 15),
    "a redirect": (lambda: web.Response(status=307, headers={"Location": "/token2?canary"}), "redirect", 15),
    "429 with a pause": (lambda: web.Response(status=429, headers={"Retry-After": "7"}), "busy", 7),
    "503 with a pause": (lambda: web.Response(status=503, headers={"Retry-After": "9"}), "busy", 9),
    "500": (lambda: web.Response(status=500), "busy", 2),
    "nothing": (web.Response, "shape", 2),
    "HTML": (lambda: web.Response(text="<html>canary</html>"), "shape", 2),
    "an array": (lambda: web.json_response(["canary"]), "shape", 2),
    "no token": (lambda: web.json_response({"expires_in": 5}), "shape", 2),
    "an empty token": (lambda: given(""), "shape", 2),
    "a token that is no text": (lambda: given(5), "shape", 2),
    "a token with a line end": (lambda: given("canary\r\nX-Evil: 1"), "shape", 2),
    "a token with a space": (lambda: given("can ary"), "shape", 2),
    "a token beyond ASCII": (lambda: given("can\xe4ry"), "shape", 2),
    "a token without end": (lambda: given("x" * 20000), "shape", 2),
    "a token of another type": (lambda: given(token_type="mac"), "shape", 2),
    "a life that is no number": (lambda: given(expires_in="soon"), "shape", 2),
    "a life of truth": (lambda: given(expires_in=True), "shape", 2),
    "an answer without end": (lambda: endless, "shape", 2),
    "an answer compressed unasked": (
        lambda: web.Response(body=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}), "shape", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDINGS)
async def test_what_the_endpoint_says_instead_of_a_token_becomes_a_reason_a_pause_and_a_sentence(tmp_path, name):
    answer, reason, delay_s = ENDINGS[name]
    async with peer() as ehr, logged() as lines:
        ehr.token = answer
        signs = signer(ehr.base, tmp_path)
        with pytest.raises(Unavailable) as refused:
            await signs.header()
        assert refused.value.reason == f"ehr_token:{reason}"
        assert delay_s - 1 < refused.value.delay_s <= delay_s
        assert signs.report()["problem"] == PROBLEMS[reason]
        (line,) = lines
        assert (line["event"], line["reason"], line["problem"]) == ("no token", f"ehr_token:{reason}", PROBLEMS[reason])
        said = f"{line} {refused.value!r} {signs.report()} {signs!r}"
        assert "canary" not in said
        assert ehr.assertions[0] not in said
        assert "/token" not in said
        assert len(ehr.assertions) == 1


@pytest.mark.parametrize("life", [300, 0, -5, 1e300, "300", 299.5])
async def test_a_life_is_a_number_within_reason_also_as_text(tmp_path, life):
    async with peer() as ehr:
        ehr.token = lambda: given(expires_in=life)
        assert await signer(ehr.base, tmp_path).header() == "Bearer t1"


async def test_an_endpoint_that_answers_drop_by_drop_is_given_up_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.fhir.token_endpoint.TIMEOUT_S", 0.5)

    async def drops(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)
        return response

    async with peer() as ehr:
        ehr.token, started = (lambda: drops), time.monotonic()
        with pytest.raises(Unavailable, match="ehr_token:unreachable"):
            await signer(ehr.base, tmp_path).header()
        assert time.monotonic() - started < 5


async def test_an_endpoint_that_is_not_there_is_unreachable(tmp_path):
    async with peer() as ehr:
        signs = signer(ehr.base, tmp_path)
    with pytest.raises(Unavailable, match="ehr_token:unreachable"):
        await signs.header()


@pytest.mark.parametrize("status", [404, 302, 200, 503])
async def test_an_ehr_without_a_discovery_document_needs_the_settings_to_say_where_tokens_are(tmp_path, status):
    async def anything(request: web.Request) -> web.Response:
        return given() if request.method == "POST" else web.Response(status=status, text="no JSON")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", anything)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    root = f"http://127.0.0.1:{runner.addresses[0][1]}"
    with pytest.raises(Unavailable, match="ehr_token:busy" if status == 503 else "ehr_token:discovery"):
        await signer(f"{root}/fhir", tmp_path).header()
    assert await signer(f"{root}/fhir", tmp_path, token_url=f"{root}/oauth/token").header() == "Bearer t1"
    await runner.cleanup()


async def test_a_grant_that_says_no_scope_is_taken_for_what_was_asked(tmp_path):
    async with peer() as ehr:
        signs = signer(ehr.base, tmp_path)
        await signs.header()
        assert signs.report()["missing_scopes"] == []


async def test_a_narrower_grant_is_logged_and_reported_once_for_each_permission_until_it_is_whole(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("sidecar.fhir.tokens.REPLACED_S", 0.0)
    scopes = ["system/*.cruds", "system/Patient.rs?name=x system/Device.cu", "system/Patient.rs system/Device.cu"]
    async with peer() as ehr, logged() as lines:
        ehr.token = lambda: given(scope=scopes.pop())
        signs = signer(ehr.base, tmp_path)
        missing = []
        for _ in range(3):
            signs.renew(await signs.header())
            missing.append([m["scope"] for m in signs.report()["missing_scopes"]])
        assert missing == [
            ["system/Device.r", "system/Device.s"],
            ["system/Patient.r", "system/Patient.s", "system/Device.r", "system/Device.s"],
            [],
        ]
        counts = Counter(line["reason"] for line in lines)
        assert counts == {"scope:Device.r": 2, "scope:Device.s": 2, "scope:Patient.r": 1, "scope:Patient.s": 1}
        assert all(line["problem"] for line in lines)
