"""A proxy before a server that loses answers: the server has done what was asked, and the client never learns it.

Or the server does it late, when the client has long stopped waiting.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import hdrs, web

_HOP = {hdrs.CONNECTION, hdrs.TRANSFER_ENCODING, hdrs.CONTENT_LENGTH, hdrs.CONTENT_ENCODING, hdrs.HOST, "Keep-Alive"}


class Cutting:
    """Forwards everything under the server's base, with the server's address replaced by its own, until told to cut."""

    def __init__(self, upstream: str) -> None:
        self.upstream, self.base_url = upstream, ""
        self._origin = upstream.removesuffix("/fhir")
        self._lose: Counter[tuple[str, str]] = Counter()
        self._hold: tuple[str, str] | None = None
        self.held = asyncio.Event()
        self.lost: Counter[str] = Counter()
        self._late: dict[str, float] = {}
        self._under_way: set[asyncio.Task[web.StreamResponse]] = set()
        self.posts: Counter[str] = Counter()

    def lose(self, type_name: str, about: str, times: int) -> None:
        """Drop the answers to the next writes of a type whose body names `about`."""
        self._lose[type_name, about] += times

    def hold(self, type_name: str, about: str) -> None:
        """Keep the answer to the next such write, set `held`, and let the connection be cut by its client."""
        self._hold = type_name, about
        self.held.clear()

    def late(self, type_name: str, seconds: float) -> None:
        """Have the next POST of a type reach the server that much later, whether its client still waits or not."""
        self._late[type_name] = seconds

    async def landed(self) -> None:
        """Wait until what was late has reached the server."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Forward one request, now or late."""
        kind = request.path.removeprefix("/fhir").strip("/").split("/")[0]
        if request.method != "POST":
            return await self._forward(request)
        await request.read()
        self.posts[kind] += 1
        seconds = self._late.pop(kind, None)
        if seconds is None:
            return await self._forward(request)
        task = asyncio.create_task(self._after(seconds, request))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _after(self, seconds: float, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await self._forward(request)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        kind = request.path.removeprefix("/fhir").strip("/").split("/")[0]
        headers = {name: value for name, value in request.headers.items() if name not in _HOP}
        headers[hdrs.ACCEPT_ENCODING] = "identity"  # addresses in the answer are replaced
        sent = await request.read()
        async with aiohttp.ClientSession() as session:  # none is kept: each request is on its own
            url = f"{self._origin}{request.raw_path}"
            async with session.request(
                request.method, url, data=sent, headers=headers, allow_redirects=False
            ) as answer:
                body = await answer.read()
        if request.method in {"PUT", "POST"} and answer.status < 300:
            lose = next((key for key in self._lose if self._lose[key] > 0 and _is(key, kind, sent)), None)
            if lose is not None:
                self._lose[lose] -= 1
                self.lost[kind] += 1
                return self._hang_up(request)
            if self._hold is not None and _is(self._hold, kind, sent):
                self._hold = None
                self.held.set()
                await asyncio.sleep(3600)  # until the client has gone
        kept = {name: value for name, value in answer.headers.items() if name not in _HOP}
        if "Location" in kept:
            kept["Location"] = kept["Location"].replace(self.upstream, self.base_url)
        moved = body.replace(self.upstream.encode(), self.base_url.encode())
        return web.Response(status=answer.status, headers=kept, body=moved)

    def _hang_up(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()


def _is(wanted: tuple[str, str], kind: str, body: bytes) -> bool:
    return wanted[0] == kind and f'"{wanted[1]}"'.encode() in body


@contextlib.asynccontextmanager
async def cutting(upstream: str) -> AsyncIterator[Cutting]:
    """A proxy on loopback before `upstream`."""
    proxy = Cutting(upstream)
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_route("*", "/fhir{rest:.*}", proxy.forward)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    proxy.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/fhir"
    try:
        yield proxy
    finally:
        await runner.cleanup()
