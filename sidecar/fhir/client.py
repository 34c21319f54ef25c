"""One client for one EHR: origin pinned, redirects off, answers bounded, errors named by what happens next.

Nothing from a payload chooses where we connect: paths are built from checked types and ids, and a `next` link is
followed only when it stays under the configured base. https://hl7.org/fhir/R4/http.html
"""

import asyncio
import functools
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import aiohttp
import orjson
from yarl import URL

from sidecar.errors import Conflict, Rejected, Retryable, Unavailable
from sidecar.fhir.origin import Base
from sidecar.metrics import EHR_REQUEST_SECONDS
from sidecar.records import Redacted, Reference, is_fhir_id, is_type_name

MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_PAGES = 50
MAX_RETRY_AFTER_S = 300.0
FHIR_JSON = "application/fhir+json"
# HAPI answers a repeated search from memory for a minute, unless told not to: what was written since is not in it.
FRESH = {"Cache-Control": "no-cache"}
# What may stand in a request line: anything else could end it and begin another (RFC 9112 §3).
_REQUEST_LINE = re.compile(r"[!-~]*")


Query = Mapping[str, str | tuple[str, ...]]
"""Search parameters; a tuple repeats its parameter, which FHIR reads as AND."""


MayBegin = Callable[[], Awaitable[None]]
"""Raises when a request must not begin now."""


async def always() -> None:
    """Nothing forbids it."""


class Credentials(Protocol):
    """What signs requests. `renew` is called once after a 401, with the header that was refused."""

    async def header(self) -> str | None:
        """The Authorization header, or None."""

    def renew(self, refused: str | None) -> None:
        """As of `Signer`; a request is sent again only when the next `header` is another."""


@dataclass(frozen=True, slots=True, repr=False)
class Answer(Redacted):
    """Identified: an EHR's answer: status, the parsed body (None when empty), where a new resource is."""

    status: int
    body: Any
    location: str | None


class EhrClient:
    """FHIR interactions with the configured server."""

    def __init__(self, base_url: str, credentials: Credentials, *, timeout_s: float, connections: int) -> None:
        self._base = Base(base_url)
        self.base_url = self._base.text
        self.timeout_s = timeout_s
        self._credentials = credentials
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._free = asyncio.Semaphore(connections)

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def read(self, reference: Reference) -> Mapping[str, Any] | None:
        """The current version, or None when it is gone (404, 410)."""
        answer = await self.send("read", "GET", _path(reference), ok={200, 404, 410})
        if answer.status == 404 and not _is_fhir(answer.body):
            raise Unavailable("ehr_not_fhir:404")  # a proxy's 404 says nothing about the chart
        return _resource(answer.body, reference) if answer.status == 200 else None

    async def search(
        self, type_name: str, parameters: Query, most: int = 5000, pages: int = MAX_PAGES
    ) -> AsyncIterator[Mapping[str, Any]]:
        """Every matching or included resource, page by page, at most `most`.

        Raises:
            Rejected: a page links off the configured base, or there are more than the limits allow.
        """
        path = f"{type_name}?{_query(parameters)}"
        seen = 0
        for _ in range(pages):
            answer = await self.send("search", "GET", path, ok={200}, headers=FRESH)
            bundle = answer.body
            if not isinstance(bundle, Mapping) or bundle.get("resourceType") != "Bundle":
                raise Retryable("ehr_shape:search")
            for entry in _list(bundle, "entry"):
                resource = entry.get("resource") if isinstance(entry, Mapping) else None
                if isinstance(resource, Mapping) and resource.get("resourceType") != "OperationOutcome":
                    seen += 1
                    if seen > most:
                        raise Rejected("too_many:search")
                    yield resource
            following = _next(bundle)
            if following is None:
                return
            path = self._inside(following)
        raise Rejected("too_many:pages")

    async def send(  # noqa: PLR0913 -- HTTP has this many parts
        self,
        operation: str,
        method: str,
        path: str,
        *,
        ok: set[int],
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        may_begin: MayBegin = always,
    ) -> Answer:
        """One request under the base. Statuses in `ok` return; the rest raise by what happens next.

        `may_begin` is awaited when nothing more is waited for, neither a token nor a connection; what it raises is
        raised, and nothing was sent.

        Raises:
            Unavailable: no connection, time-out, 401/403, 429 or 502 to 504; an answer that is not the EHR's own.
            Retryable: another 5xx.
            Conflict: 409 or 412.
            Rejected: any other 4xx with an OperationOutcome.
        """
        signed = await self._credentials.header()
        answer = await self._once(operation, method, path, body, _headers(signed, headers), may_begin)
        if answer.status == 401 and 401 not in ok:
            self._credentials.renew(signed)
            if (fresh := await self._credentials.header()) != signed:
                answer = await self._once(operation, method, path, body, _headers(fresh, headers), may_begin)
        if answer.status in ok:
            return answer
        if answer.status in {401, 403}:
            raise Unavailable(f"ehr_denied:{answer.status}", 5.0)
        if answer.status in {409, 412}:
            raise Conflict(f"ehr_conflict:{answer.status}")
        if answer.status >= 500:
            raise Retryable(f"ehr_error:{answer.status}")
        if answer.status < 400 or not _is_fhir(answer.body):
            raise Unavailable(f"ehr_not_fhir:{answer.status}")  # a redirect or refusal of something in between
        raise Rejected(f"ehr_refused:{answer.status}")

    async def _once(  # noqa: PLR0913, PLR0917 -- as above
        self, operation: str, method: str, path: str, body: Any, headers: dict[str, str], may_begin: MayBegin
    ) -> Answer:
        if not _REQUEST_LINE.fullmatch(path):
            raise Rejected("grammar:path")
        payload = None
        if body is not None:
            headers["Content-Type"] = FHIR_JSON
            payload = orjson.dumps(body)
        started = time.perf_counter()
        status_class = "none"
        url = URL(f"{self.base_url}{'' if path.startswith('?') else '/'}{path}", encoded=True)
        session, free = self._open(), self._free
        try:
            await self._acquired(free)
            try:
                await may_begin()
                async with session.request(
                    method, url, data=payload, headers=headers, allow_redirects=False
                ) as response:
                    status_class = f"{response.status // 100}xx"
                    return await _answer(response)
            finally:
                free.release()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"ehr_unreachable:{type(error).__name__}") from None
        finally:
            EHR_REQUEST_SECONDS.labels(operation, status_class).observe(time.perf_counter() - started)

    async def _acquired(self, free: asyncio.Semaphore) -> None:
        """Make one of the connections ours, within the time that an answer may take."""
        if not free.locked():
            await free.acquire()
            return
        async with asyncio.timeout(self.timeout_s):
            await free.acquire()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._free = asyncio.Semaphore(self._connections)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    def _inside(self, link: str) -> str:
        """A server's link as a path under our base; anything else is refused before a connection is made."""
        path = self._base.inside(link)
        if path is None:
            raise Rejected("off_origin:next")
        return path

    def located(self, location: str | None, type_name: str) -> str | None:
        """The id in a Location header that stays under our base, else None."""
        parts = (self._base.inside(location or "") or "").split("/")
        return parts[1] if len(parts) > 1 and parts[0] == type_name and is_fhir_id(parts[1]) else None


def _headers(signed: str | None, extra: Mapping[str, str] | None) -> dict[str, str]:
    return {"Accept": FHIR_JSON, **(extra or {}), **({"Authorization": signed} if signed else {})}


def _is_fhir(body: Any) -> bool:
    return isinstance(body, Mapping) and isinstance(body.get("resourceType"), str)


async def _answer(response: aiohttp.ClientResponse) -> Answer:
    if response.status in {429, 502, 503, 504}:
        raise Unavailable(f"ehr_busy:{response.status}", retry_after(response.headers.get("Retry-After")))
    raw = await _bounded(response)
    try:
        body = orjson.loads(raw) if raw.strip() else None
    except orjson.JSONDecodeError:
        if response.status < 400:
            raise Retryable("ehr_shape:json") from None
        body = None
    return Answer(response.status, body, response.headers.get("Location"))


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise Rejected("too_large:answer")
        chunks.append(chunk)
    return b"".join(chunks)


def retry_after(value: str | None) -> float:
    """Seconds to wait: a number or an HTTP date (RFC 9110 §10.2.3), bounded; one second when unreadable."""
    if value is None:
        return 1.0
    if value.strip().isdecimal():
        return min(float(value), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 1.0
    wait = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)
    return min(max(wait.total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def _list(bundle: Mapping[str, Any], name: str) -> list[Any]:
    found = bundle.get(name) or []
    if not isinstance(found, list):
        raise Retryable("ehr_shape:search")
    return found


def _next(bundle: Mapping[str, Any]) -> str | None:
    for link in _list(bundle, "link"):
        if isinstance(link, Mapping) and link.get("relation") == "next":
            url = link.get("url")
            return url if isinstance(url, str) else None
    return None


def _path(reference: Reference) -> str:
    if not is_type_name(reference.type) or not is_fhir_id(reference.id):
        raise Rejected("grammar:id")
    return f"{reference.type}/{reference.id}"


def _resource(body: Any, wanted: Reference) -> Mapping[str, Any]:
    if not isinstance(body, Mapping) or body.get("resourceType") != wanted.type or body.get("id") != wanted.id:
        raise Retryable("ehr_shape:read")
    return body


def _query(parameters: Query) -> str:
    pairs = [(n, v) for n, value in parameters.items() for v in ((value,) if isinstance(value, str) else value)]
    return "&".join(f"{name}={_quote(value)}" for name, value in pairs)


@functools.lru_cache(maxsize=512)  # lists of codes come again and again
def _quote(value: str) -> str:
    return str(URL.build(path="/", query={"v": value}).raw_query_string)[2:]
