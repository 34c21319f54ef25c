"""Listening: an aiohttp application behind bounds that no client can stretch.

aiohttp itself bounds lines, headers, pipelined requests and how long a connection may idle. What it has no option for
is here: how many may be connected, and how long the head of a request and the reading of an answer may take.
There is no bound per address: an EHR comes from one or two, often those of a proxy that others use as well. Where it is
crowded, those who never brought a secret go first, and of them whoever has kept us waiting the longest.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError

from sidecar.metrics import CONNECTIONS, CONNECTIONS_CUT

KNOWN = web.RequestKey("known", bool)
"""Set on a request that brought a secret: its connection is kept when others must go."""

BACKLOG = 1024
LOOK_S = 1.0
MAX_HEADERS = 64
READ_BYTES = 32 * 1024
LINGER_S, STOP_S = 1.0, 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one door. Seconds: for the head of a request, between two, for a body, and for an answer to be read.

    `idle_s` is longer than the 60 s for which proxies keep a connection: closing first would lose a request at times.
    All doors together stay below 1024 files, the usual limit of a process.
    """

    connections: int = 512
    head_s: float = 10.0
    idle_s: float = 120.0
    body_s: float = 20.0
    unread_s: float = 10.0


class _Malformed(logging.Filter):
    """What is no HTTP is counted and not logged: strangers may send it at will."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
            CONNECTIONS_CUT.labels("malformed").inc()
            return False
        return True


_LOGGER = logging.getLogger("sidecar.web")
_LOGGER.addFilter(_Malformed())


class Guest(asyncio.Protocol):
    """One connection: hands everything on to aiohttp's protocol, and remembers what we wait for."""

    __slots__ = ("_door", "_inner", "_loop", "closing_since", "is_known", "since", "transport", "unread_since", "waits")

    def __init__(self, door: "Door", inner: asyncio.Protocol) -> None:
        self._door, self._inner = door, inner
        self._loop = asyncio.get_running_loop()
        self.waits: Literal["head", "answer", "next"] = "head"
        self.since = self._loop.time()
        self.unread_since: float | None = None
        self.closing_since: float | None = None
        self.is_known = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self.transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(transport)
        self._door.came(self)

    def data_received(self, data: bytes) -> None:
        """Some of a request."""
        if self.waits == "next":
            self.turn("head")
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """The other side sends no more."""
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._door.left(self)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """The answer is not read."""
        self.unread_since = self._loop.time()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It is read again."""
        self.unread_since = None
        self._inner.resume_writing()

    def turn(self, waits: Literal["head", "answer", "next"]) -> None:
        """What we wait for from now on."""
        self.waits, self.since = waits, self._loop.time()

    def overdue(self, now: float, limits: Limits) -> str | None:
        """Why it must go, if it must."""
        if self.transport is not None and self.transport.is_closing():
            self.closing_since = self.closing_since or now
        unread = self.unread_since or self.closing_since
        if unread is not None and now - unread > limits.unread_s:
            return "unread"
        return "head" if self.waits == "head" and now - self.since > limits.head_s else None

    def cut(self, reason: str) -> None:
        """End it at once, without waiting for what was not read."""
        CONNECTIONS_CUT.labels(reason).inc()
        if self.transport is not None:
            self.transport.abort()


class _Answering(web.RequestHandler):
    """aiohttp's protocol; its own words for what is no HTTP quote what was sent."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- aiohttp calls by this name
    ) -> web.StreamResponse:
        """The same answer, which names the status only."""
        return super().handle_error(request, status, exc, f"{HTTPStatus(status).phrase}\n")


class Door:
    """One application, listening."""

    def __init__(self, name: str, app: web.Application, limits: Limits) -> None:
        self.name, self._limits = name, limits
        app.middlewares.insert(0, self._watched)
        self._options: dict[str, Any] = {
            "access_log": None, "auto_decompress": False, "logger": _LOGGER, "keepalive_timeout": limits.idle_s,
            "lingering_time": LINGER_S, "max_headers": MAX_HEADERS, "read_bufsize": READ_BYTES,
        }  # fmt: skip
        self._runner = web.AppRunner(app, shutdown_timeout=STOP_S, **self._options)
        self._guests: dict[asyncio.Transport, Guest] = {}
        self._server: asyncio.Server | None = None
        CONNECTIONS.labels(name).set(0)

    async def listen(self, where: tuple[str, int] | socket.socket) -> None:
        """Take connections at a host and port, or on a bound socket.

        Raises:
            OSError: it cannot be opened.
        """
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        if isinstance(where, socket.socket):
            self._server = await loop.create_server(self._guest, sock=where, backlog=BACKLOG)
        else:
            self._server = await loop.create_server(self._guest, *where, backlog=BACKLOG)

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as host:port."""
        names = [s.getsockname() for s in self._server.sockets] if self._server else []
        return [f"{name[0]}:{name[1]}" for name in names if isinstance(name, tuple)]

    async def sweep(self) -> None:
        """Cut whoever keeps us waiting, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(LOOK_S, self._limits.head_s / 2, self._limits.unread_s / 2))
            now = loop.time()
            for guest in list(self._guests.values()):
                if reason := guest.overdue(now, self._limits):
                    guest.cut(reason)

    async def close(self) -> None:
        """Take no more connections; answer what is under way, then end."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
        for guest in list(self._guests.values()):
            if guest.transport is not None:
                guest.transport.abort()

    def came(self, guest: Guest) -> None:
        """A connection was made; where it is one too many, another one goes."""
        if guest.transport is None:
            return
        self._guests[guest.transport] = guest
        CONNECTIONS.labels(self.name).set(len(self._guests))
        if len(self._guests) > self._limits.connections:
            # Nobody who is being answered and is known goes for a newcomer.
            waiting = [g for g in self._guests.values() if not (g.is_known and g.waits == "answer")]
            min(waiting, key=lambda g: (g.is_known, g.waits == "answer", g.since)).cut("crowded")

    def left(self, guest: Guest) -> None:
        """A connection has ended."""
        if guest.transport is not None:
            self._guests.pop(guest.transport, None)
        CONNECTIONS.labels(self.name).set(len(self._guests))

    def _guest(self) -> Guest:
        server = self._runner.server
        if server is None:
            raise RuntimeError("a door takes connections only between listen and close")
        return Guest(self, _Answering(server, loop=asyncio.get_running_loop(), **self._options))

    @web.middleware
    async def _watched(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        guest = self._guests.get(request.transport) if request.transport is not None else None
        if guest is None:
            return await handler(request)
        guest.turn("answer")
        try:
            return await handler(request)
        finally:
            guest.is_known = guest.is_known or KNOWN in request
            guest.turn("next")


def private_socket(path: Path) -> socket.socket:
    """A Unix socket that is the owner's only from its first moment.

    The mask is the process's: nothing else may run while it is narrow.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        made.bind(str(path))
    except OSError:
        made.close()
        raise
    finally:
        os.umask(before)
    return made
