"""A balancer in front of several servers: each connection goes to the next one that takes it."""

import asyncio
import contextlib
from collections.abc import Sequence


class Balancer:
    """Passes bytes on, and knows nothing of what they say."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports, self._next = tuple(ports), 0
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()

    async def start(self, port: int) -> None:
        """Listen on a port of this machine."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)

    async def stop(self) -> None:
        """Stop listening, and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._pipes:
            task.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        with contextlib.suppress(asyncio.CancelledError):  # stopped, and nobody waits for this task
            server = await self._connect()
            if server is not None:
                one = asyncio.ensure_future(_pipe(reader, server[1]))
                other = asyncio.ensure_future(_pipe(server[0], writer))
                try:
                    await asyncio.wait([one, other], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    one.cancel()
                    other.cancel()
                    server[1].close()
        writer.close()
        self._pipes.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._ports:
            self._next = (self._next + 1) % len(self._ports)
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", self._ports[self._next])
        return None


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(65536):
            target.write(chunk)
            await target.drain()
