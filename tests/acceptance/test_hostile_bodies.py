"""Bodies made to cost: from strangers they are not read, not inflated, not parsed; what they cost is measured."""

import asyncio
import contextlib
import gzip
import statistics
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from sidecar.sandbox.ehr import PracticeEhr
from tests.harness import SECRET, Served, spawn, until, write_site
from tests.process import cpu_s, rss_bytes

MIB = 1024 * 1024
ROUNDS, A_ROUND = 10, 20
SOURCES = 3
MAX_CPU_S, MAX_GROWTH = 0.005, 2 * MIB
DEEP = b'{"resourceType":"Observation","id":"o1","extension":' + b"[" * 1500 + b"]" * 1500 + b"}"
BOMB = gzip.compress(b" " * (100 * MIB), 9)
PATH = "/notify/observation/Observation/o1"
BODIES = {
    "10 MiB": (b"x" * (10 * MIB), ""),
    "1500 deep": (DEEP, ""),
    "gzip bomb": (BOMB, "Content-Encoding: gzip\r\n"),
    "10 MiB in chunks": (b"a00000\r\n" + b"x" * (10 * MIB) + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n"),
}


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    """A real server whose EHR tells of nothing."""
    ehr = PracticeEhr()
    await ehr.start()
    server = spawn(write_site(folder, ehr.base_url))
    try:
        await until(lambda: sum(s["status"] == "active" for s in ehr.all("Subscription")) >= SOURCES, 120)
        yield server
    finally:
        server.kill()
        await ehr.stop()


async def send(server: Served, body: bytes, headers: str = "", secret: str = "") -> bytes:
    """The first line that comes back to a PUT whose sender does not wait to be refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.settings.server.port)
    length = "" if "chunked" in headers else f"Content-Length: {len(body)}\r\n"
    signed = f"Authorization: Bearer {secret}\r\nContent-Type: application/fhir+json\r\n" if secret else ""
    writer.write(f"PUT {PATH} HTTP/1.1\r\nHost: x\r\n{signed}{length}{headers}\r\n".encode())
    writer.write(body)
    try:
        async with asyncio.timeout(10):
            return await reader.readline()
    finally:
        writer.transport.abort()


async def cost(server: Served, body: bytes, headers: str, secret: str, status: bytes) -> float:
    """CPU seconds of one such request, over a round of them sent ten at a time."""
    before = cpu_s(server.process.pid)
    for _ in range(A_ROUND // 10):
        lines = await asyncio.gather(*(send(server, body, headers, secret) for _ in range(10)))
        assert all(status in line for line in lines), lines
    return (cpu_s(server.process.pid) - before) / A_ROUND


async def test_a_strangers_hostile_body_costs_no_more_than_5_ms_and_no_memory(tmp_path):
    async with served(tmp_path) as server:
        for kind, (body, headers) in BODIES.items():
            for _ in range(3):  # buffers that any first request makes
                await cost(server, body, headers, "", b" 401 ")
            before = rss_bytes(server.process.pid)
            costs, plain = [], []
            for _ in range(ROUNDS):
                plain.append(await cost(server, b"", "", "", b" 401 "))
                costs.append(await cost(server, body, headers, "", b" 401 "))
            growth = rss_bytes(server.process.pid) - before
            each, least = statistics.median(costs), statistics.median(plain)
            sys.stdout.write(f"{kind}: {each * 1e3:.2f} ms, without a body {least * 1e3:.2f} ms, growth {growth}\n")
            assert each < MAX_CPU_S, kind
            assert growth < MAX_GROWTH, kind


async def test_the_same_with_the_right_secret_is_refused_with_a_reason_and_costs_no_more(tmp_path):
    async with served(tmp_path) as server:
        for kind, status in (("1500 deep", b" 400 "), ("gzip bomb", b" 415 "), ("10 MiB", b" 413 ")):
            body, headers = BODIES[kind]
            await cost(server, body, headers, SECRET, status)
            before = rss_bytes(server.process.pid)
            each = statistics.median([await cost(server, body, headers, SECRET, status) for _ in range(ROUNDS)])
            growth = rss_bytes(server.process.pid) - before
            sys.stdout.write(f"{kind}: {each * 1e3:.2f} ms, growth {growth}\n")
            assert each < MAX_CPU_S, kind
            assert growth < MAX_GROWTH, kind
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"http://127.0.0.1:{server.settings.server.port}{PATH}"
            headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/fhir+json"}
            answer = await client.put(url, content=DEEP, headers=headers)
            assert "deep" in answer.json()["issue"][0]["diagnostics"]
