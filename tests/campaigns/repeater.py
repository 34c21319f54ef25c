"""Stands between an EHR and the hook: sends every notification several times, some at once, some later."""

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from aiohttp import hdrs, web

from tests.campaigns.charting import Notified

AT_ONCE, LATER_S = 4, 1.0
TOGETHER = 16
MAX_BODY = 16 * 1024 * 1024


@dataclass(frozen=True)
class Notification:
    """One request of the EHR, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def told(self) -> Notified | None:
        """The version of a reading that it tells of; None for anything else."""
        if self.method != "PUT" or "/notify/observation/" not in self.path:
            return None
        resource: dict[str, Any] = orjson.loads(self.body)
        meta = resource["meta"]
        return f"Observation/{resource['id']}", meta["versionId"], meta["lastUpdated"]


class Repeater:
    """Every notification goes on at once, up to `AT_ONCE` times over as many connections, and again within `LATER_S`."""

    def __init__(self, hook_port: int, rng: random.Random) -> None:
        self._url, self._rng = f"http://127.0.0.1:{hook_port}", rng
        self.heard: list[Notification] = []
        self.acknowledged: set[Notified] = set()
        self.sent = 0
        self._later: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self, port: int) -> None:
        """Listen on a port of this machine."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{rest:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        timeout = aiohttp.ClientTimeout(total=30)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))

    async def stop(self) -> None:
        """End everything."""
        for task in self._later:
            task.cancel()
        if self._session is not None:
            await self._session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def quiet(self) -> None:
        """Wait until what was to come later has been sent."""
        await asyncio.gather(*self._later)

    async def again(self) -> None:
        """Everything that was ever heard, in any order, `TOGETHER` at a time."""
        left = self._rng.sample(self.heard, len(self.heard))

        async def send() -> None:
            while left:
                await self._send(left.pop())

        await asyncio.gather(*(send() for _ in range(TOGETHER)))

    async def _take(self, request: web.Request) -> web.StreamResponse:
        kept = {
            name: request.headers[name] for name in (hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE) if name in request.headers
        }
        notification = Notification(request.method, request.raw_path, kept, await request.read())
        answers = await asyncio.gather(*(self._send(notification) for _ in range(self._rng.randint(1, AT_ONCE))))
        status = min((status for status in answers if status), default=503)
        if status == 200:
            self.heard.append(notification)
            told = notification.told()
            self.acknowledged |= {told} if told else set()
        for _ in range(self._rng.randint(1, 2)):
            task = asyncio.create_task(self._send_later(notification))
            self._later.add(task)
            task.add_done_callback(self._later.discard)
        return web.Response(status=status)

    async def _send_later(self, notification: Notification) -> None:
        await asyncio.sleep(self._rng.uniform(0, LATER_S))
        await self._send(notification)

    async def _send(self, notification: Notification) -> int:
        """The status of the answer, 0 when there was none."""
        assert self._session is not None
        self.sent += 1
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.request(
                notification.method, f"{self._url}{notification.path}",
                headers=notification.headers, data=notification.body,
            ) as answer:  # fmt: skip
                return answer.status
        return 0
