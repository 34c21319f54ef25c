"""The hook: check the secret from the headers, bound the body, record, and only then say 2xx.

`PUT /notify/{source}/{Type}/{id}` is an event, `POST /notify/{source}` an empty ping or a Backport notification Bundle,
`DELETE /notify/{source}/{Type}/{id}` a deletion that some servers send. `record` makes what was heard durable.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from aiohttp import hdrs, web

from sidecar import log, metrics
from sidecar.errors import SidecarError
from sidecar.inbox import Full, Inflow
from sidecar.intake import HookSecrets, Notice, Refused, Source, read_bundle, read_put
from sidecar.records import Event, Reference, is_fhir_id
from sidecar.web.door import KNOWN, Limits
from sidecar.web.outcome import FHIR_JSON, refusal, turn_away

HELD_BYTES = 64 * 1024 * 1024
"""Of bodies, in memory at once; one body is always taken, whatever `server.max_body_bytes` says."""
SMALL_BYTES = 64 * 1024
"""A body that is read and dropped sooner than a connection is made anew."""

_JSON = {"application/fhir+json", "application/json"}
# Some servers send notification Bundles with their transaction client, which reads the answer.
_TAKEN = b'{"resourceType":"Bundle","type":"transaction-response"}'

_OK = 200
_HELD = web.RequestKey("held", int)

Record = Callable[[Source, Sequence[Event], Notice | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Intake:
    """What a notification needs to be taken: who may speak, whether there is room, and how it becomes durable."""

    secrets: HookSecrets
    inflow: Inflow
    record: Record


class Unfinished(Exception):
    """A body that was not taken, and the answer to it."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


class NotificationDoor:
    """An aiohttp application for the sources in use."""

    def __init__(self, sources: Iterable[Source], intake: Intake, max_body: int, limits: Limits) -> None:
        self._sources = {s.name: s for s in sources}
        self._intake, self._max_body, self._body_s = intake, max_body, limits.body_s
        self._held = 0
        self._closed = False
        self.app = web.Application(client_max_size=max_body, middlewares=[self._outermost])
        expect = {"expect_handler": _no_continue}
        self.app.router.add_put("/notify/{source}/{type}/{id}", self._put, **expect)
        self.app.router.add_delete("/notify/{source}/{type}/{id}", self._delete, **expect)
        self.app.router.add_post("/notify/{source}", self._post, **expect)

    def close(self) -> None:
        """Take no more: answer 503 while the process stops."""
        self._closed = True

    @web.middleware
    async def _outermost(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        source = request.match_info.get("source", "")
        label = source if source in self._sources else "unknown"
        try:
            response = await self._guarded(request, handler)
        except web.HTTPException as known:
            response = refusal(known.status, "not-found", "no such hook")
        except SidecarError as error:
            response = refusal(503, "transient", "not stored; send it again")
            response.headers[hdrs.RETRY_AFTER] = "1"
            log.get().error("not recorded", reason=error.reason, source=label)
        except Unfinished as body:
            response = await turn_away(request, body.response)
        except web.RequestPayloadError:
            broken = refusal(400, "invalid", "the body does not follow its own framing")
            response = await turn_away(request, broken)
        except ConnectionError:  # the sender left before its answer; it will send again
            response = web.Response(status=499)
        except Exception as error:  # noqa: BLE001 -- the outermost frame of the web
            metrics.LOGGED_ERRORS.labels("notifications").inc()
            log.unexpected("notifications", error)
            response = refusal(500, "exception", "not stored; send it again")
        finally:
            self._held -= request.get(_HELD, 0)
        metrics.NOTIFICATIONS.labels(label, str(response.status)).inc()
        return response

    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        source = request.match_info.get("source", "")
        given = request.headers.get(hdrs.AUTHORIZATION, "").encode("utf-8", "surrogateescape")
        if not await self._intake.secrets.allows(source, given):
            return await turn_away(request, refusal(401, "login", "the notification secret is missing or wrong"))
        request[KNOWN] = True
        if self._closed:
            return await turn_away(request, _later("stopping", 5))
        if (full := self._intake.inflow.full(source)) and not _costs_nothing(request, full):
            response = _no_room(full)
            # A sender of ours keeps its connection, unless dropping what it sends costs more than a new one.
            return response if _is_small(request) else await turn_away(request, response)
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            return await turn_away(request, refusal(415, "not-supported", "compressed bodies are not taken"))
        if (request.content_length or 0) > self._max_body:
            return await turn_away(request, self._too_long())
        if request.can_read_body or request.method != hdrs.METH_POST:
            await self._intake.inflow.turn()
        if _expects(request) and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await handler(request)

    def _too_long(self) -> web.Response:
        return refusal(413, "too-long", f"the limit is {self._max_body} bytes")

    def _focus(self, request: web.Request) -> tuple[Source, Reference] | web.Response:
        source = self._sources.get(request.match_info["source"])
        if source is None:
            return refusal(404, "not-found", "no such hook")
        if request.match_info["type"] != source.type:
            return refusal(400, "invalid", f"this hook takes {source.type}", "type in the path")
        if not is_fhir_id(request.match_info["id"]):
            return refusal(400, "invalid", "is not a FHIR id", f"{source.type}.id")
        return source, Reference(source.type, request.match_info["id"])

    async def _put(self, request: web.Request) -> web.Response:
        found = self._focus(request)
        if isinstance(found, web.Response):
            return found
        source, focus = found
        if request.content_type not in _JSON:
            return refusal(415, "not-supported", "send application/fhir+json")
        body = await self._body(request)
        try:
            event = read_put(body, source.name, focus, time.time())
        except Refused as problem:
            return refusal(400, "invalid", problem.problem, problem.path)
        return await self._accept(source, [event])

    async def _delete(self, request: web.Request) -> web.Response:
        found = self._focus(request)
        if isinstance(found, web.Response):
            return found
        source, focus = found
        return await self._accept(source, [Event(source.name, time.time(), focus)])

    async def _post(self, request: web.Request) -> web.Response:
        """An empty ping, or a notification Bundle."""
        source = self._sources.get(request.match_info["source"])
        if source is None:
            return refusal(404, "not-found", "no such hook")
        body = await self._body(request)
        heard_at = time.time()
        if not body.strip():
            return await self._accept(source, [Event(source.name, heard_at)])
        if request.content_type not in _JSON:
            return refusal(415, "not-supported", "send application/fhir+json")
        try:
            told = read_bundle(body, source, heard_at)
        except Refused as problem:
            return refusal(400, "invalid", problem.problem, problem.path)
        ping = [Event(source.name, heard_at)] if told.notice.unnamed else []
        answer = await self._accept(source, [*told.events, *ping], told.notice)
        return web.Response(body=_TAKEN, content_type=FHIR_JSON) if answer.status == _OK else answer

    async def _accept(self, source: Source, events: list[Event], notice: Notice | None = None) -> web.Response:
        """2xx only after the commit."""
        if len(events) > 1 and (full := self._intake.inflow.full(source.name, len(events))):
            return _no_room(full)
        started = time.perf_counter()
        with self._intake.inflow.taking(source.name, len(events)):
            await asyncio.shield(self._intake.record(source, events, notice))
        metrics.STAGE_SECONDS.labels("record").observe(time.perf_counter() - started)
        metrics.SUBSCRIPTION_LAST_EVENT.labels(source.name).set(time.time())
        return web.Response(status=_OK)

    async def _body(self, request: web.Request) -> bytes:
        """The whole body.

        Raises:
            Unfinished: it passes the limit, comes too slowly, or there are too many of them at once.
        """
        if request.content.is_eof():  # it came with the head
            return await self._gathered(request)
        try:
            async with asyncio.timeout(self._body_s):
                return await self._gathered(request)
        except TimeoutError:
            raise Unfinished(refusal(408, "timeout", f"the body took more than {self._body_s:g} s")) from None

    async def _gathered(self, request: web.Request) -> bytes:
        """Count what is in memory, until the answer; a chunked body has no length to check before."""
        gathered, others = bytearray(), self._held
        async for chunk in request.content.iter_any():
            gathered += chunk
            request[_HELD] = len(gathered)
            self._held += len(chunk)
            if len(gathered) > self._max_body:
                raise Unfinished(self._too_long())
            if others and self._held > HELD_BYTES:
                raise Unfinished(_later("too much is being sent at once", 1))
        return bytes(gathered)


def _later(why: str, seconds: int) -> web.Response:
    response = refusal(503, "transient", f"{why}; send it again")
    response.headers[hdrs.RETRY_AFTER] = str(seconds)
    return response


def _no_room(full: Full) -> web.Response:
    """503 where nobody is heard, 429 where this sender is too fast."""
    if full.reason == "source":
        response = refusal(429, "throttled", "too many events of this type wait; send it again later")
        response.headers[hdrs.RETRY_AFTER] = str(full.retry_after_s)
        return response
    return _later(f"no room ({full.reason})", full.retry_after_s)


def _costs_nothing(request: web.Request, full: Full) -> bool:
    """Whether it is an empty ping: however many come, one row remembers that a search is owed."""
    return request.method == hdrs.METH_POST and not request.can_read_body and full.reason in {"inbox", "source"}


def _is_small(request: web.Request) -> bool:
    return not _expects(request) and (
        not request.can_read_body or 0 <= (request.content_length or SMALL_BYTES + 1) <= SMALL_BYTES
    )


def _expects(request: web.Request) -> bool:
    return request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"


async def _no_continue(_: web.Request) -> None:
    """`100 Continue` is sent by the guard, after the secret was checked."""
