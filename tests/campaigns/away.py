"""Stands before an EHR and, when told, is away in one of the ways in which EHRs are."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import hdrs, web

_HOP = {hdrs.CONNECTION, hdrs.TRANSFER_ENCODING, hdrs.CONTENT_LENGTH, hdrs.CONTENT_ENCODING, hdrs.HOST, "Keep-Alive"}
LATE_S = (0.5, 3.0)
LONGEST_RETRY_AFTER_S = 5
HANG_S = 3600.0


class Away:
    """Passes everything on, with the EHR's address replaced by its own, except while it is away.

    `refused`: nobody listens. `hanging`: no answer ever comes, and nothing is done. `late`: what is asked is done, but
    long after. `busy`: 503 with Retry-After. `error`: 500. `cut`: the connection ends before, `no_reply`: after it
    was done; `half`: in the middle of the answer.
    """

    def __init__(self, upstream: str, rng: random.Random) -> None:
        self._upstream, self._origin, self._rng = upstream, upstream.removesuffix("/fhir"), rng
        self._port, self.base_url = 0, ""
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._how: Callable[[web.Request], Awaitable[web.StreamResponse]] = self._pass
        self._late: set[asyncio.Task[web.StreamResponse]] = set()
        self.retry_after_s = 0
        self.ways: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            "refused": self._pass,
            "hanging": self._hang,
            "late": self._do_late,
            "busy": self._busy,
            "error": self._error,
            "cut": self._cut,
            "no_reply": self._no_reply,
            "half": self._half,
        }

    async def start(self) -> None:
        """Listen, and be there."""
        self._session = self._session or aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/fhir{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]
        self.base_url = f"http://127.0.0.1:{self._port}/fhir"

    async def stop(self) -> None:
        """End everything."""
        await self._close()
        for task in self._late:
            task.cancel()
        if self._session is not None:
            await self._session.close()

    async def leave(self, way: str) -> None:
        """Be away."""
        self.retry_after_s = self._rng.randint(1, LONGEST_RETRY_AFTER_S) if way == "busy" else 0
        self._how = self.ways[way]
        if way == "refused":
            await self._close()

    async def come_back(self) -> None:
        """Be there again; what was to be done late, is."""
        self._how = self._pass
        if self._runner is None:
            await self.start()

    async def landed(self) -> None:
        """Wait until everything that was late has been done."""
        await asyncio.gather(*self._late, return_exceptions=True)

    async def _close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        return await self._how(request)

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        status, headers, body = await self._ask(request)
        return web.Response(status=status, headers=headers, body=body)

    async def _ask(self, request: web.Request) -> tuple[int, dict[str, str], bytes]:
        assert self._session is not None
        headers = {name: value for name, value in request.headers.items() if name not in _HOP}
        headers[hdrs.ACCEPT_ENCODING] = "identity"  # addresses in the answer are replaced
        url, sent = f"{self._origin}{request.raw_path}", await request.read()
        async with self._session.request(request.method, url, data=sent, headers=headers) as answer:
            body = await answer.read()
        own = self.base_url.encode()
        kept = {n: v.replace(self._upstream, self.base_url) for n, v in answer.headers.items() if n not in _HOP}
        return answer.status, kept, body.replace(self._upstream.encode(), own)

    async def _hang(self, _: web.Request) -> web.StreamResponse:
        await asyncio.sleep(HANG_S)  # until the client has gone
        return web.Response(status=504)

    async def _do_late(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        task = asyncio.create_task(self._after(self._rng.uniform(*LATE_S), request))
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return await asyncio.shield(task)

    async def _after(self, seconds: float, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await self._pass(request)

    async def _busy(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=503, headers={hdrs.RETRY_AFTER: str(self.retry_after_s)})

    async def _error(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=500)

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _no_reply(self, request: web.Request) -> web.StreamResponse:
        await self._ask(request)
        return await self._cut(request)

    async def _half(self, request: web.Request) -> web.StreamResponse:
        status, headers, body = await self._ask(request)
        half = web.StreamResponse(status=status, headers={**headers, hdrs.CONTENT_LENGTH: str(len(body) + 1)})
        with contextlib.suppress(ConnectionError):
            await half.prepare(request)
            await half.write(body[: len(body) // 2])
        return await self._cut(request)
