"""The hook over the wire: who may speak, what is taken, and that 2xx means it is on disk."""

import asyncio
import contextlib
import resource
import sqlite3
import time
import zlib
from collections.abc import AsyncIterator, Iterable

import httpx
import orjson
import pytest

from tests.harness import SECRET, House, house, now, observation_set, patient, reading, until

CANARY = "canary-7f3a"
GOOD = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/fhir+json"}
MAX_BODY = 64 * 1024
HOOK = "/notify/observation/Observation/o1"


def observation(**more: object) -> dict[str, object]:
    return {
        "resourceType": "Observation",
        "id": "o1",
        "meta": {"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z"},
        **more,
    }


@contextlib.asynccontextmanager
async def hook(folder, **sections: str) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    """A house with a small body limit, and a client of its hook that brings the secret."""
    async with house(folder, server=f"max_body_bytes = {MAX_BODY}", **sections) as site:
        base = f"http://{site.sidecar.addresses[0]}"
        async with httpx.AsyncClient(base_url=base, headers=GOOD, trust_env=False) as client:
            yield site, client


async def raw(site: House, head: str, body: bytes = b"") -> bytes:
    """What the server answers to `head` (lines without CRLF) until it closes or answers in full; nothing else is sent."""
    host, port = site.sidecar.addresses[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        await writer.drain()
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"\r\n\r\n")
            if b"100 Continue" in answer:
                answer += await reader.readuntil(b"\r\n\r\n")
            return answer
    finally:
        writer.close()


def events(site: House) -> list[tuple[object, ...]]:
    """Rows of the event table that are about a resource, through a connection that is not the server's."""
    with contextlib.closing(sqlite3.connect(site.sidecar.rooms.store.path)) as other:
        return other.execute("SELECT source, focus_type, state FROM event WHERE focus_type IS NOT NULL").fetchall()


async def refused(client: httpx.AsyncClient, status: int, **request: object) -> dict[str, object]:
    """Send a PUT that must be refused with `status`; the OperationOutcome's issue. It never quotes what was sent."""
    answer = await client.put(HOOK, **request)
    assert answer.status_code == status, (answer.status_code, str(request)[:80])
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome"
    assert CANARY not in answer.text
    return outcome["issue"][0]


WRONG = {
    "missing": None,
    "another": "Bearer something-else-entirely",
    "one letter short": f"Bearer {SECRET[:-1]}",
    "one letter more": f"Bearer {SECRET}x",
    "one letter off": f"Bearer {SECRET[:-1]}!",
    "without its scheme": SECRET,
    "as Basic": f"Basic {SECRET}",
    "empty": "Bearer ",
    "not ASCII": "Bearer \xe9\xe9\xe9\xe9",
}


async def test_a_wrong_secret_is_refused_from_the_headers_before_any_body_byte(tmp_path):
    async with hook(tmp_path) as (site, _):
        for name, value in WRONG.items():
            line = "" if value is None else f"\nAuthorization: {value}"
            head = f"PUT {HOOK} HTTP/1.1\nHost: x\nContent-Type: application/fhir+json\nContent-Length: 50000000{line}"
            started = time.monotonic()
            answer = await raw(site, head)
            assert b" 401 " in answer.split(b"\r\n")[0], name
            assert time.monotonic() - started < 1, name
        assert events(site) == []


async def test_a_sender_with_a_wrong_secret_is_cut_off_soon_after_its_answer(tmp_path):
    async with hook(tmp_path) as (site, _):
        host, port = site.sidecar.addresses[0].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        size = 512 * 1024 * 1024
        writer.write(f"PUT {HOOK} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        sent = 0
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                while sent < size:
                    writer.write(b"x" * 65536)
                    await writer.drain()
                    sent += 65536
        # 64 KiB and what the two kernels hold of a connection that nobody reads.
        assert sent < 16 * 1024 * 1024
        writer.close()
        with contextlib.suppress(ConnectionError):
            assert b" 401 " in (await reader.read(65536)).split(b"\r\n")[0]


async def test_a_silent_sender_with_a_wrong_secret_does_not_keep_its_connection(tmp_path):
    async with hook(tmp_path) as (site, _):
        host, port = site.sidecar.addresses[0].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"PUT {HOOK} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode())
        async with asyncio.timeout(4):
            answer = await reader.read()
        assert b" 401 " in answer.split(b"\r\n")[0]
        writer.close()


async def test_a_wrong_secret_is_not_told_to_continue(tmp_path):
    async with hook(tmp_path) as (site, _):
        for path in (HOOK, "/notify/observation", "/notify/observation/Patient/p", "/notify/nothing/Observation/o1"):
            method = "POST" if path == "/notify/observation" else "PUT"
            answer = await raw(site, f"{method} {path} HTTP/1.1\nHost: x\nContent-Length: 10\nExpect: 100-continue")
            assert b" 401 " in answer.split(b"\r\n")[0], path
            assert b"100 Continue" not in answer, path


async def test_the_right_secret_is_told_to_continue_and_then_heard(tmp_path):
    async with hook(tmp_path) as (site, _):
        body = orjson.dumps(observation())
        head = (
            f"PUT {HOOK} HTTP/1.1\nHost: x\nAuthorization: Bearer {SECRET}\nContent-Type: application/fhir+json"
            f"\nExpect: 100-continue\nContent-Length: {len(body)}"
        )
        answer = await raw(site, head, body)
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


async def test_a_body_over_the_limit_is_refused_by_its_length_before_it_is_sent(tmp_path):
    async with hook(tmp_path) as (site, _):
        head = f"PUT {HOOK} HTTP/1.1\nHost: x\nAuthorization: Bearer {SECRET}\nContent-Type: application/fhir+json"
        answer = await raw(site, f"{head}\nContent-Length: {MAX_BODY + 1}")
        assert b" 413 " in answer.split(b"\r\n")[0]


async def test_a_chunked_body_is_refused_once_it_passes_the_limit(tmp_path):
    async with hook(tmp_path) as (site, _):
        for method, path in (("PUT", HOOK), ("POST", "/notify/observation")):
            head = f"{method} {path} HTTP/1.1\nHost: x\nAuthorization: Bearer {SECRET}\nContent-Type: application/fhir+json"
            chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
            answer = await raw(site, f"{head}\nTransfer-Encoding: chunked", chunk * 3)
            assert b" 413 " in answer.split(b"\r\n")[0], method


async def test_a_body_of_exactly_the_limit_is_taken(tmp_path):
    async with hook(tmp_path) as (_, client):
        body = orjson.dumps(observation())
        assert (await client.put(HOOK, content=body + b" " * (MAX_BODY - len(body)))).status_code == 200


def zipped(parts: Iterable[bytes]) -> bytes:
    """`parts` as gzip, made without holding them all."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(part) for part in parts), packer.flush()])


async def test_a_compressed_body_is_refused_and_never_inflated(tmp_path):
    async with hook(tmp_path) as (_, client):
        bomb = zipped(bytes(1024 * 1024) for _ in range(128))
        assert len(bomb) < 2 * MAX_BODY
        before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        for encoding in ("gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity"):
            answer = await client.put(HOOK, content=bomb[:MAX_BODY], headers={"Content-Encoding": encoding})
            assert answer.status_code == 415, encoding
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024
        assert time.process_time() - cpu < 0.5


async def test_another_content_type_is_refused(tmp_path):
    async with hook(tmp_path) as (_, client):
        body = orjson.dumps(observation())
        for content_type in ("application/xml", "text/plain", "application/fhir+xml", "multipart/form-data", ""):
            await refused(client, 415, content=body, headers={"Content-Type": content_type})


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "Observation"),
    "blank": (b" \n", "Observation"),
    "truncated": (orjson.dumps(observation(note=CANARY))[:-5], "Observation"),
    "not JSON": (f"<Observation id='{CANARY}'/>".encode(), "Observation"),
    "not UTF-8": (b'{"resourceType":"Observation","id":"\xff\xfe"}', "Observation"),
    "NaN": (b'{"resourceType":"Observation","id":"o1","valueInteger":NaN}', "Observation"),
    "Infinity": (b'{"resourceType":"Observation","id":"o1","valueInteger":Infinity}', "Observation"),
    "-Infinity": (b'{"resourceType":"Observation","id":"o1","valueInteger":-Infinity}', "Observation"),
    "two documents": (orjson.dumps(observation()) * 2, "Observation"),
    "an array": (f'["{CANARY}"]'.encode(), "Observation"),
    "a string": (f'"{CANARY}"'.encode(), "Observation"),
    "null": (b"null", "Observation"),
    "no type": (orjson.dumps({"id": "o1"}), "Observation.resourceType"),
    "another type": (orjson.dumps(patient("o1")), "Observation.resourceType"),
    "a type that is a list": (orjson.dumps(observation(resourceType=[CANARY])), "Observation.resourceType"),
    "another id": (orjson.dumps(observation(id=CANARY)), "Observation.id"),
    "no id": (orjson.dumps({"resourceType": "Observation"}), "Observation.id"),
    "meta is a string": (orjson.dumps(observation(meta=CANARY)), "Observation.meta"),
    "meta is an array": (orjson.dumps(observation(meta=[{"versionId": CANARY}])), "Observation.meta"),
    "meta is null": (orjson.dumps(observation(meta=None)), "Observation.meta"),
    "a version outside the grammar": (
        orjson.dumps(observation(meta={"versionId": f"{CANARY}/1"})),
        "Observation.meta.versionId",
    ),
    "a version that is a number": (orjson.dumps(observation(meta={"versionId": 7})), "Observation.meta.versionId"),
    "lastUpdated is an object": (
        orjson.dumps(observation(meta={"lastUpdated": {CANARY: 1}})),
        "Observation.meta.lastUpdated",
    ),
    "lastUpdated is long": (
        orjson.dumps(observation(meta={"lastUpdated": CANARY * 9})),
        "Observation.meta.lastUpdated",
    ),
}


async def test_a_broken_body_is_refused_with_the_path_and_without_any_value_that_was_sent(tmp_path):
    async with hook(tmp_path) as (site, client):
        for name, (body, path) in BROKEN.items():
            issue = await refused(client, 400, content=body)
            assert issue["expression"] == [path], name
        assert events(site) == []


def nested(depth: int) -> bytes:
    """An Observation whose innermost object, `depth` levels down (itself the first), holds a number."""
    return b'{"resourceType":"Observation","id":"o1","x":' + b'{"x":' * (depth - 1) + b"1" + b"}" * depth


async def test_a_body_may_nest_as_deep_as_the_parser_goes_and_no_deeper(tmp_path):
    async with hook(tmp_path) as (_, client):
        assert (await client.put(HOOK, content=nested(1000))).status_code == 200
        for depth in (1025, 1500, 8000):
            await refused(client, 400, content=nested(depth))
        await refused(
            client, 400, content=b'{"resourceType":"Observation","id":"o1","x":' + b"[" * 1024 + b"]" * 1024 + b"}"
        )


async def test_an_id_outside_the_fhir_grammar_is_refused(tmp_path):
    async with hook(tmp_path) as (site, _):
        for text in (
            "a%2Fb",
            "%2e%2e",
            "%2e",
            "a" * 65,
            "a%0A",
            "a%0D%0Ab",
            "a%20b",
            "a_b",
            "%C3%A9",
            "a%00",
            "a%3Fx=1",
        ):
            body = orjson.dumps(observation(id=text))
            for method in ("PUT", "DELETE"):
                head = (
                    f"{method} /notify/observation/Observation/{text} HTTP/1.1\nHost: x\nAuthorization: Bearer {SECRET}"
                    f"\nContent-Type: application/fhir+json\nContent-Length: {len(body)}"
                )
                answer = await raw(site, head, body)
                assert b" 400 " in answer.split(b"\r\n")[0], (method, text)
        assert events(site) == []


async def test_dot_segments_in_the_path_reach_nothing(tmp_path):
    async with hook(tmp_path) as (site, _):
        for path in (
            "/notify/observation/Observation/..",
            "/notify/observation/Observation/../../o1",
            "/notify/../notify/x",
        ):
            answer = await raw(
                site, f"DELETE {path} HTTP/1.1\nHost: x\nAuthorization: Bearer {SECRET}\nContent-Length: 0"
            )
            assert answer.split(b" ")[1] in {b"400", b"401", b"404", b"405"}, path
        assert events(site) == []


async def test_another_type_than_the_hooks_is_refused(tmp_path):
    async with hook(tmp_path) as (site, client):
        for path in (
            "/notify/observation/Patient/p1",
            "/notify/patient/Observation/o1",
            "/notify/observation/observation/o1",
        ):
            answer = await client.put(path, content=orjson.dumps(observation()))
            assert answer.status_code == 400, path
        assert events(site) == []


async def test_an_unknown_source_is_refused_and_not_counted_by_its_name(tmp_path):
    async with hook(tmp_path) as (site, client):
        for method, path in (
            ("PUT", f"/notify/{CANARY}/Observation/o1"),
            ("DELETE", f"/notify/{CANARY}/Observation/o1"),
            ("POST", f"/notify/{CANARY}"),
        ):
            answer = await client.request(method, path, content=orjson.dumps(observation()))
            assert answer.status_code == 404, method
        metrics = (await httpx.AsyncClient(trust_env=False).get(f"http://{site.sidecar.addresses[1]}/metrics")).text
        assert CANARY not in metrics
        assert 'sidecar_notifications_total{result="404",source="unknown"}' in metrics


async def test_a_bundle_without_a_subscription_status_is_refused(tmp_path):
    async with hook(tmp_path) as (_, client):
        bundle = {"resourceType": "Bundle", "type": "history", "entry": [{"resource": observation(note=CANARY)}]}
        answer = await client.post("/notify/observation", content=orjson.dumps(bundle))
        assert answer.status_code == 400
        assert answer.json()["issue"][0]["expression"] == ["Bundle.entry[0].resource"]
        assert CANARY not in answer.text


async def test_an_empty_ping_finds_what_its_subscription_lost(tmp_path):
    async with house(tmp_path, work='catch_up_interval = "1h"') as site:
        await site.settled()
        site.ehr.faults.lose = 1.0
        await site.admit("p1")
        await site.chart(observation_set("p1", now(1)))
        async with httpx.AsyncClient(
            base_url=f"http://{site.sidecar.addresses[0]}", headers=GOOD, trust_env=False
        ) as client:
            assert (await client.post("/notify/observation")).status_code == 200
        await site.settled()
        assert len(site.risk_assessments()) == 1


async def test_a_deletion_is_heard(tmp_path):
    async with hook(tmp_path) as (site, client):
        assert (await client.delete(HOOK)).status_code == 200
        assert [row[:2] for row in events(site)] == [("observation", "Observation")]


async def test_a_2xx_means_the_event_is_on_disk(tmp_path):
    async with hook(tmp_path) as (site, client):
        for n in range(20):
            assert (
                await client.put(
                    HOOK,
                    content=orjson.dumps(
                        observation(meta={"versionId": str(n), "lastUpdated": "2026-01-01T00:00:00Z"})
                    ),
                )
            ).status_code == 200
            assert len(events(site)) == n + 1


async def test_while_the_database_cannot_commit_nothing_is_claimed_as_stored(tmp_path):
    async with hook(tmp_path) as (site, client):
        await site.settled()
        with contextlib.closing(sqlite3.connect(site.sidecar.rooms.store.path)) as other:
            other.execute("ALTER TABLE event RENAME TO away")
            answers = [
                await client.put(HOOK, content=orjson.dumps(observation())),
                await client.delete(HOOK),
                await client.post("/notify/observation"),
            ]
            other.execute("ALTER TABLE away RENAME TO event")
        assert [a.status_code for a in answers] == [503, 503, 503]
        assert all(float(a.headers["Retry-After"]) > 0 for a in answers)
        assert events(site) == []
        assert (await client.put(HOOK, content=orjson.dumps(observation()))).status_code == 200
        assert len(events(site)) == 1


async def test_a_stopping_server_answers_503_and_records_nothing(tmp_path):
    async with hook(tmp_path) as (site, client):
        site.sidecar.door.close()
        answer = await client.put(HOOK, content=orjson.dumps(observation()))
        assert answer.status_code == 503
        assert float(answer.headers["Retry-After"]) > 0
        assert events(site) == []


async def test_a_stopping_server_still_tells_a_stranger_nothing(tmp_path):
    async with hook(tmp_path) as (site, client):
        site.sidecar.door.close()
        assert (await client.put(HOOK, headers={"Authorization": "Bearer wrong"}, content=b"{}")).status_code == 401


async def test_the_body_cannot_choose_the_patient(tmp_path):
    async with hook(tmp_path, work='catch_up_interval = "1h"') as (site, client):
        await site.settled()
        await site.admit("A")
        await site.admit("B")
        site.ehr.faults.lose = 1.0
        at = now(1)
        await site.chart(observation_set("A", at))
        await site.chart(observation_set("B", at))
        lying = reading("A", "8867-4", 180, at, subject={"reference": "Patient/B"}, meta={"versionId": "9"})
        answer = await client.put(f"/notify/observation/Observation/{lying['id']}", content=orjson.dumps(lying))
        assert answer.status_code == 200
        await until(lambda: any(r["subject"] == {"reference": "Patient/A"} for r in site.risk_assessments()))
        await site.settled()
        assert {r["subject"]["reference"] for r in site.risk_assessments()} == {"Patient/A"}
        assert len(await site.rows("SELECT DISTINCT patient_key FROM assessment")) == 1


@pytest.mark.parametrize("kind", ["accepted", "refused"])
async def test_nothing_of_a_body_and_no_focus_id_is_in_the_database_files(tmp_path, kind):
    async with hook(tmp_path) as (site, client):
        focus = f"focus-{CANARY}"
        body = observation(id=focus, note=[{"text": CANARY}], subject={"reference": f"Patient/{CANARY}"})
        if kind == "refused":
            body["resourceType"] = CANARY
        answer = await client.put(f"/notify/observation/Observation/{focus}", content=orjson.dumps(body))
        assert answer.status_code == (200 if kind == "accepted" else 400)
        await site.settled()
        for file in tmp_path.glob("sidecar.db*"):
            content = file.read_bytes() if file.is_file() else b""
            assert CANARY.encode() not in content, file.name


async def test_a_notification_of_one_source_stores_one_event_however_often_it_is_sent(tmp_path):
    async with hook(tmp_path) as (site, client):
        body = orjson.dumps(observation())
        answers = await asyncio.gather(*(client.put(HOOK, content=body) for _ in range(50)))
        assert {a.status_code for a in answers} == {200}
        assert len(events(site)) == 1
