"""A wire between browser and server that can fall silent without an end, as a network does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class Cut:
    """Passes bytes on while not `silent`; a request for the path `refused` is hung up on."""

    def __init__(self, upstream: str) -> None:
        """Pass on to the server of the URL `upstream`."""
        parts = urlsplit(upstream)
        self._host, self._port = parts.hostname, parts.port
        self.origin = ""
        self.silent = False
        self.refused: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join one connection to one of the server's."""
        theirs_in, theirs_out = await asyncio.open_connection(self._host, self._port)
        pair = [
            asyncio.ensure_future(self._pass(reader, theirs_out)),
            asyncio.ensure_future(self._pass(theirs_in, writer)),
        ]
        self._tasks.update(pair)
        await asyncio.wait(pair, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, theirs_out):
            end.close()
        for task in pair:
            task.cancel()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while block := await reader.read(65536):
                if self.refused and f"GET {self.refused} ".encode() in block:
                    return
                if not self.silent:
                    writer.write(block)
                    await writer.drain()

    def end(self) -> None:
        """Stop passing anything."""
        for task in self._tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def cut_before(upstream: str) -> AsyncIterator[Cut]:
    """A wire on loopback."""
    cut = Cut(upstream)
    server = await asyncio.start_server(cut.serve, "127.0.0.1", 0)
    cut.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield cut
    finally:
        server.close()
        cut.end()
