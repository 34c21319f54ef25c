"""Send notifications over raw connections: as fast as they are acknowledged, or each at its intended moment."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

CONNECTIONS = 32
ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where notifications go, and the headers that each carries."""

    url: str
    headers: tuple[str, ...] = ()

    def head(self, length: int) -> bytes:
        """The request's head, for a body of `length` bytes."""
        parts = urlsplit(self.url)
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", *self.headers,
                 "Content-Type: application/fhir+json", f"Content-Length: {length}"]  # fmt: skip
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass(frozen=True, slots=True)
class Sent:
    """When each notification was (to be) sent, by the monotonic clock, and how long its acknowledgement took."""

    at: list[float]
    ack_s: list[float]


async def send(target: Target, bodies: Sequence[bytes], due_s: Sequence[float] | None = None) -> Sent:
    """Send all, over 32 connections.

    With `due_s`, seconds from the start, each is measured from its intended moment: a server that stalls is not spared
    what it made others wait for. Without, each connection sends its next as soon as the last is acknowledged.

    Raises:
        RuntimeError: an answer that is not 200.
    """
    parts = urlsplit(target.url)
    sent = Sent([0.0] * len(bodies), [0.0] * len(bodies))
    waiting = iter(range(len(bodies)))
    began = time.monotonic()

    async def one_connection() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for i in waiting:
            if due_s is not None:
                await asyncio.sleep(max(0.0, began + due_s[i] - time.monotonic()))
            sent.at[i] = time.monotonic() if due_s is None else began + due_s[i]
            writer.write(target.head(len(bodies[i])) + bodies[i])
            async with asyncio.timeout(ANSWER_S):
                await _acknowledged(reader)
            sent.ack_s[i] = time.monotonic() - sent.at[i]
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(one_connection())
    return sent


async def _acknowledged(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    await reader.readexactly(int(fields.get(b"content-length", b"0")))
    if head[9:12] != b"200":
        raise RuntimeError(f"a notification was answered {head[9:12].decode()}")
