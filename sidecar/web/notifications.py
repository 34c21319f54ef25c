"""The hook: check the secret from the headers, bound the body, record, and only then say 2xx.

`PUT /notify/{source}/{Type}/{id}` is an event, `POST /notify/{source}` an empty ping or a Backport notification Bundle,
`DELETE /notify/{source}/{Type}/{id}` a deletion that some servers send. `record` makes what was heard durable.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from aiohttp import hdrs, web

from sidecar import log, metrics
from sidecar.errors import SidecarError
from sidecar.intake import HookSecrets, Notice, Refused, Source, read_bundle, read_put
from sidecar.records import Event, Reference, is_fhir_id
from sidecar.web.outcome import FHIR_JSON, refusal

DRAIN_BYTES = 64 * 1024
DRAIN_S = 1.0
_JSON = {"application/fhir+json", "application/json"}
# Some servers send notification Bundles with their transaction client, which reads the answer.
_TAKEN = b'{"resourceType":"Bundle","type":"transaction-response"}'

Record = Callable[[Source, Sequence[Event], Notice | None], Awaitable[None]]


class NotificationDoor:
    """An aiohttp application for the sources in use."""

    def __init__(
        self,
        sources: Iterable[Source],
        secrets: HookSecrets,
        max_body: int,
        record: Record,
    ) -> None:
        self._sources = {s.name: s for s in sources}
        self._secrets, self._max_body, self._record = secrets, max_body, record
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
        except ConnectionError:  # the sender left before its answer; it will send again
            response = web.Response(status=499)
        except Exception as error:  # noqa: BLE001 -- the outermost frame of the web
            metrics.LOGGED_ERRORS.labels("notifications").inc()
            log.get().error("unexpected", place="notifications", error=type(error).__name__)
            response = refusal(500, "exception", "not stored; send it again")
        metrics.NOTIFICATIONS.labels(label, str(response.status)).inc()
        return response

    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.headers.get(hdrs.AUTHORIZATION, "").encode("utf-8", "surrogateescape")
        if not await self._secrets.allows(request.match_info.get("source", ""), given):
            return await self._turn_away(request, refusal(401, "login", "the notification secret is missing or wrong"))
        if self._closed:
            response = refusal(503, "transient", "stopping; send it again")
            response.headers[hdrs.RETRY_AFTER] = "5"
            return await self._turn_away(request, response)
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            return await self._turn_away(request, refusal(415, "not-supported", "compressed bodies are not taken"))
        if (request.content_length or 0) > self._max_body:
            return await self._turn_away(request, self._too_long())
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await handler(request)

    def _too_long(self) -> web.Response:
        return refusal(413, "too-long", f"the limit is {self._max_body} bytes")

    async def _turn_away(self, request: web.Request, response: web.Response) -> web.Response:
        """Answer at once; read at most 64 KiB more so that the answer arrives, then drop the connection."""
        response.force_close()
        await response.prepare(request)
        await response.write_eof()
        drained = 0
        with contextlib.suppress(TimeoutError, ConnectionError, web.RequestPayloadError):
            async with asyncio.timeout(DRAIN_S):
                async for chunk in request.content.iter_any():
                    drained += len(chunk)
                    if drained >= DRAIN_BYTES:
                        break
        if request.transport is not None:
            request.transport.close()
        return response

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
        if body is None:
            return await self._turn_away(request, self._too_long())
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
        if body is None:
            return await self._turn_away(request, self._too_long())
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
        await self._accept(source, [*told.events, *ping], told.notice)
        return web.Response(body=_TAKEN, content_type=FHIR_JSON)

    async def _accept(self, source: Source, events: list[Event], notice: Notice | None = None) -> web.Response:
        """2xx only after the commit."""
        started = time.perf_counter()
        await asyncio.shield(self._record(source, events, notice))
        metrics.STAGE_SECONDS.labels("record").observe(time.perf_counter() - started)
        metrics.SUBSCRIPTION_LAST_EVENT.labels(source.name).set(time.time())
        return web.Response(status=200)

    async def _body(self, request: web.Request) -> bytes | None:
        """The body, or None when it passes the limit (a chunked body has no length to check before)."""
        chunks, size = [], 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > self._max_body:
                return None
            chunks.append(chunk)
        return b"".join(chunks)


async def _no_continue(_: web.Request) -> None:
    """`100 Continue` is sent by the guard, after the secret was checked."""
