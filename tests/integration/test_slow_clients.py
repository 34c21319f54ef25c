"""Slow, silent and crowding clients lose their connection; nobody else notices."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest

from sidecar import metrics
from sidecar.web.door import Limits
from tests.harness import SECRET, House, house, until

QUICK = Limits(connections=8, head_s=0.5, idle_s=1.0, body_s=0.5, unread_s=0.5)
GOOD = f"Authorization: Bearer {SECRET}\r\nContent-Type: application/fhir+json\r\n"
HEAD = "PUT /notify/observation/Observation/o1 HTTP/1.1\r\nHost: x\r\n"
BODY = orjson.dumps({"resourceType": "Observation", "id": "o1", "meta": {"versionId": "1"}})
SOON_S = 15.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def strict(folder: Path) -> AsyncIterator[House]:
    """A house with little patience, whose EHR has gone silent and holds no connection."""
    async with house(folder, limits=QUICK) as site:
        site.ehr.faults.mute = True
        await until(lambda: connections("hook") == 0)
        yield site


def connections(door: str) -> float:
    return metrics.REGISTRY.get_sample_value("sidecar_connections", {"door": door}) or 0


def cut(reason: str) -> float:
    return metrics.REGISTRY.get_sample_value("sidecar_connections_cut_total", {"reason": reason}) or 0


async def connect(site: House, door: int = 0) -> Connection:
    host, port = site.sidecar.addresses[door].split(":")
    return await asyncio.open_connection(host, int(port))


async def everything(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends."""
    heard = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(SOON_S):
            while data := await reader.read(65536):
                heard += data
    return heard


async def trickle(writer: asyncio.StreamWriter, data: bytes, more: bytes) -> None:
    """`data`, then `more` again and again, a byte at a time, until nobody listens."""
    with contextlib.suppress(ConnectionError):
        for byte in data + more * 500:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("door", [0, 1])
async def test_a_head_that_comes_byte_by_byte_is_cut_off(tmp_path, door):
    async with strict(tmp_path) as site:
        before = cut("head")
        reader, writer = await connect(site, door)
        sending = asyncio.create_task(trickle(writer, b"GET /", b"x"))
        assert await everything(reader) == b""
        await sending
        assert cut("head") == before + 1
        writer.close()


async def test_a_connection_that_says_nothing_is_cut_off(tmp_path):
    async with strict(tmp_path) as site:
        reader, writer = await connect(site)
        assert await everything(reader) == b""
        writer.close()


async def test_a_second_head_that_comes_byte_by_byte_is_cut_off(tmp_path):
    async with strict(tmp_path) as site:
        reader, writer = await connect(site)
        writer.write(f"{HEAD}{GOOD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        sending = asyncio.create_task(trickle(writer, b"PUT /", b"x"))
        assert await everything(reader) == b""
        await sending
        writer.close()


async def test_an_idle_connection_is_kept_for_the_next_request_and_then_closed(tmp_path):
    async with strict(tmp_path) as site:
        reader, writer = await connect(site)
        for _ in range(2):
            writer.write(f"{HEAD}{GOOD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        assert await everything(reader) == b""
        writer.close()


@pytest.mark.parametrize("kind", ["length", "chunked"])
async def test_a_body_that_comes_byte_by_byte_is_refused_with_a_reason(tmp_path, kind):
    async with strict(tmp_path) as site:
        reader, writer = await connect(site)
        length = "Content-Length: 5000" if kind == "length" else "Transfer-Encoding: chunked"
        writer.write(f"{HEAD}{GOOD}{length}\r\n\r\n".encode())
        sending = asyncio.create_task(trickle(writer, b"", b" " if kind == "length" else b"1\r\n \r\n"))
        answer = await everything(reader)
        await sending
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert b'"timeout"' in answer
        assert not await site.rows("SELECT id FROM event WHERE focus_type IS NOT NULL AND source = 'observation'")
        writer.close()


async def test_a_client_that_reads_no_answer_is_cut_off(tmp_path):
    async with strict(tmp_path) as site:
        before = cut("unread")
        host, port = site.sidecar.addresses[1].split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1)
        writer.transport.pause_reading()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(SOON_S):
                while cut("unread") == before:
                    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
                    await asyncio.sleep(0.05)
        assert cut("unread") == before + 1
        writer.transport.abort()


async def test_where_it_is_crowded_strangers_go_and_a_known_sender_stays(tmp_path):
    async with strict(tmp_path) as site:
        before = cut("crowded")
        reader, writer = await connect(site)
        request = f"{HEAD}{GOOD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        writer.write(request)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        strangers = [await connect(site) for _ in range(2 * QUICK.connections)]
        await until(lambda: cut("crowded") >= before + QUICK.connections + 1)
        assert connections("hook") <= QUICK.connections
        writer.write(request)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        for _, other in [*strangers, (reader, writer)]:
            other.close()


async def test_a_newcomer_is_heard_when_it_is_crowded(tmp_path):
    async with strict(tmp_path) as site:
        crowd = [await connect(site) for _ in range(QUICK.connections)]
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with httpx.AsyncClient(base_url=f"http://{site.sidecar.addresses[0]}", trust_env=False) as client:
            path = "/notify/observation/Observation/o1"
            answer = await client.put(path, content=BODY, headers={**headers, "Content-Type": "application/fhir+json"})
        assert answer.status_code == 200
        for _, writer in crowd:
            writer.close()


async def test_what_is_no_http_is_counted_and_not_logged(tmp_path, caplog):
    async with strict(tmp_path) as site:
        before = cut("malformed")
        reader, writer = await connect(site)
        writer.write(b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: canary-1\r\n\r\n")
        assert b" 400 " in (await everything(reader)).split(b"\r\n")[0]
        assert cut("malformed") == before + 1
        assert "canary-1" not in caplog.text
        writer.close()


@pytest.mark.parametrize(
    "head",
    [
        f"{HEAD}X-Long: {'x' * 20_000}\r\n\r\n",
        HEAD + "".join(f"X-{n}: x\r\n" for n in range(200)) + "\r\n",
        f"GET /{'x' * 20_000} HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["one long header", "many headers", "a long path"],
)
async def test_a_head_that_is_too_large_is_refused(tmp_path, head):
    async with strict(tmp_path) as site:
        reader, writer = await connect(site)
        writer.write(head.encode())
        assert b" 400 " in (await everything(reader)).split(b"\r\n")[0]
        writer.close()


async def test_requests_that_come_together_are_answered_one_by_one(tmp_path):
    async with strict(tmp_path) as site:
        reader, writer = await connect(site)
        request = f"{HEAD}{GOOD}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        writer.write(request * 100)
        for _ in range(100):
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.close()


async def test_a_body_that_breaks_its_own_framing_is_refused_and_is_no_unexpected_error(tmp_path):
    async with strict(tmp_path) as site:
        where = ("sidecar_unexpected_errors_total", {"place": "notifications"})
        before = metrics.REGISTRY.get_sample_value(*where)
        reader, writer = await connect(site)
        writer.write(f"{HEAD}{GOOD}Transfer-Encoding: chunked\r\n\r\n".encode())
        await asyncio.sleep(0.05)
        writer.write(b"no length\r\n")
        # The compiled parser lets the body end by its time, the other one refuses it at once.
        assert (await everything(reader)).split(b" ")[1] in {b"400", b"408"}
        assert metrics.REGISTRY.get_sample_value(*where) == before
        writer.close()
