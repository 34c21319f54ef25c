"""An EHR that costs as little as it can: `python -m tests.benchmarks.ehr PORT NOW SIZE CODES RESTLESS`, on loopback.

Charts are made from ids (`payloads`), answers from prebuilt bytes with the patient's id put in. Searches honour what a
real server does: patient, code, date, _id, _sort, _count with next links, _include and _elements. A search that names no patient
finds nothing: the charts do not say what was written when. What is written is counted, timed and forgotten.

`GET /stats` counts what was asked and written since `GET /reset`; `GET /written` says when each patient's first result
was, by the machine's monotonic clock; `GET /result/{patient}` is the newest.
"""

import asyncio
import re
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
import uvloop
from aiohttp import web

from tests.benchmarks import payloads
from tests.benchmarks.payloads import OTHERS, USED, Chart

WHO = "~~"
"""Stands for the patient's id in prebuilt bytes."""
CODES = {"used": tuple(USED), "all": (*USED, *OTHERS)}
FHIR_JSON = {"Content-Type": "application/fhir+json"}
ALWAYS = {"resourceType", "id", "meta", "status", "code"}
"""What `_elements` never leaves out: identity, and what an Observation must have."""
SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
INCLUDE = "Observation:patient"
READING = re.compile(r"o-(.+)-(\d+)")
Query = Mapping[str, list[str]]


class Ehr:
    """One server: what it answers, and what it has seen."""

    def __init__(self, chart: Chart, *, restless: bool) -> None:
        self._chart, self._base, self._restless = chart, chart.base, restless
        self._looks: Counter[str] = Counter()
        self._person = orjson.dumps(payloads.patient(WHO))
        self._metadata = orjson.dumps(_capability())
        self._subscriptions: dict[str, dict[str, Any]] = {}
        self._found = lru_cache(4096)(self._build)
        self.reset()

    def reset(self) -> None:
        """Forget what was seen, not who subscribed."""
        self.requests: Counter[str] = Counter()
        self.written: dict[str, float] = {}
        self.held: dict[str, tuple[str, int]] = {}
        self.results: dict[str, bytes] = {}
        self.duplicates = 0

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Any request."""
        url = urlsplit(request.path_qs)
        kind, _, rest = url.path.removeprefix("/fhir").strip("/").partition("/")
        if request.method == "GET" and (own := self._own(kind, rest)) is not None:
            return web.Response(body=own)
        self.requests[_kind(request.method, kind, rest)] += 1
        if request.method != "GET":
            return self._write(request.method, kind, rest, await request.read())
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(url.query):
            query.setdefault(name, []).append(value)
        status, body = self._read(kind, rest, query)
        return web.Response(status=status, body=body, headers=FHIR_JSON)

    def _own(self, kind: str, rest: str) -> bytes | None:
        """What the benchmark asks for itself."""
        if kind == "stats":
            seen = {"requests": self.requests, "patients": len(self.written), "held": len(self.held)}
            return orjson.dumps(seen | {"duplicates": self.duplicates})
        if kind == "written":
            return orjson.dumps(self.written)
        if kind == "result":
            return self.results.get(rest, b"null")
        if kind == "subscriptions":
            return orjson.dumps(list(self._subscriptions.values()))
        if kind == "reset":
            self.reset()
            return b"{}"
        return None

    def _read(self, kind: str, rest: str, query: Query) -> tuple[int, bytes]:
        if kind == "metadata":
            return 200, self._metadata
        if not rest:
            return 200, self._search(kind, query)
        if kind == "Patient":
            return 200, self._person.replace(WHO.encode(), rest.encode())
        if kind == "Observation" and (known := READING.fullmatch(rest)):
            return 200, self._reading(known)
        if kind == "Subscription":
            logical_id, _, operation = rest.partition("/")
            found = self._subscriptions.get(logical_id)
            if found is not None:
                return 200, orjson.dumps(_status(logical_id) if operation == "$status" else found)
        return 404, orjson.dumps({"resourceType": "OperationOutcome", "issue": [{"severity": "error"}]})

    @lru_cache(4096)  # noqa: B019 -- one server a process
    def _template(self, k: int, version: int) -> bytes:
        return orjson.dumps(self._chart.reading(WHO, k, version))

    def _reading(self, known: re.Match[str]) -> bytes:
        who, k = known.groups()
        version = self._version(who) if k == "0" else 1
        return self._template(int(k), version).replace(WHO.encode(), who.encode())

    def _version(self, who: str) -> int:
        """Of the newest reading of `who`."""
        return 1 + self._looks[who] if self._restless else 1

    def _search(self, kind: str, query: Query) -> bytes:
        if kind == "Observation" and "_id" in query:
            wanted, elements = query["_id"][0].split(","), query.get("_elements", [""])[0]
            known = [reading for i in wanted if (reading := READING.fullmatch(i))]
            found = [_less(orjson.loads(self._reading(reading)), elements) for reading in known]
            return orjson.dumps(payloads.searchset(self._base, kind, found, None))
        if kind == "Observation" and "patient" in query:
            who = query["patient"][0].removeprefix("Patient/")
            self._looks[who] += 1
            since, until = _span(query.get("date", []))
            key = tuple((n, v[0]) for n, v in sorted(query.items()) if n not in {"patient", "date"})
            at, k = self._chart.at, range(self._chart.size)  # newest first: charts of any length are searched alike
            newest = bisect_left(k, True, key=lambda i: until is None or at(i) <= until)
            oldest = bisect_left(k, True, key=lambda i: since is not None and at(i) < since)
            return self._found(key, newest, oldest, self._version(who)).replace(WHO.encode(), who.encode())
        return orjson.dumps(payloads.searchset(self._base, kind, [], None))

    def _build(self, key: tuple[tuple[str, str], ...], newest: int, oldest: int, version: int) -> bytes:
        """A page of a patient's readings from `newest` to before `oldest`; `key` is the rest of the query."""
        query = dict(key)
        wanted = {code.rpartition("|")[2] for code in query["code"].split(",")} if "code" in query else None
        numbers = [k for k in range(newest, oldest) if wanted is None or self._chart.code(k) in wanted]
        if query.get("_sort") == "date":
            numbers.reverse()
        count, at = int(query.get("_count", "100")), int(query.get("_offset", "0"))
        more = None
        if at + count < len(numbers):
            rest = {**query, "patient": WHO, "_offset": str(at + count)}
            more = f"{self._base}/Observation?{urlencode(rest, safe='~')}"
        page = [self._chart.reading(WHO, k, 1 if k else version) for k in numbers[at : at + count]]
        found = [_less(reading, query.get("_elements", "")) for reading in page]
        bundle = payloads.searchset(self._base, "Observation", found, more)
        if query.get("_include") == INCLUDE and found:
            person = {"fullUrl": f"{self._base}/Patient/{WHO}", "resource": orjson.loads(self._person)}
            bundle["entry"].append({**person, "search": {"mode": "include"}})
        return orjson.dumps(bundle)

    def _write(self, method: str, kind: str, rest: str, body: bytes) -> web.Response:
        resource = orjson.loads(body)
        if kind == "Subscription":
            return self._subscribe(resource, rest)
        logical_id = rest or f"{kind.lower()}-{len(self.held)}"
        if kind in {"RiskAssessment", "Observation"}:
            self._remember(resource, logical_id, body)
        location = {"Location": f"{self._base}/{kind}/{logical_id}/_history/1"}
        created = 201 if method == "POST" or kind != "Device" else 200
        return web.Response(status=created, headers=location)

    def _remember(self, resource: Mapping[str, Any], logical_id: str, body: bytes) -> None:
        """A second resource of one identifier is a duplicate, and so is a write that changes nothing."""
        key = resource["identifier"][0]["value"]
        now = (logical_id, hash(body))
        before = self.held.get(key)
        if before is not None and (before[0] != logical_id or before == now):
            self.duplicates += 1
        self.held[key] = now
        who = resource["subject"]["reference"].removeprefix("Patient/")
        self.written.setdefault(who, time.monotonic())
        self.results[who] = body

    def _subscribe(self, resource: dict[str, Any], logical_id: str) -> web.Response:
        known = logical_id or f"s{len(self._subscriptions) + 1}"
        self._subscriptions[known] = resource | {"id": known, "status": "active"}
        return web.Response(status=201, headers={"Location": f"{self._base}/Subscription/{known}"})


def _status(logical_id: str) -> dict[str, Any]:
    """What `$status` says of a Subscription: that it is active. This server does not count its events."""
    said = [
        {"name": "subscription", "valueReference": {"reference": f"Subscription/{logical_id}"}},
        {"name": "status", "valueCode": "active"},
        {"name": "type", "valueCode": "query-status"},
    ]
    entry = {"resource": {"resourceType": "Parameters", "parameter": said}}
    return {"resourceType": "Bundle", "type": "searchset", "entry": [entry]}


def _less(resource: dict[str, Any], elements: str) -> dict[str, Any]:
    """Those elements only, and what a summary must have, tagged as one; all of it where none are named."""
    if not elements:
        return resource
    kept = ALWAYS | set(elements.split(","))
    return {n: v for n, v in resource.items() if n in kept} | {"meta": resource["meta"] | {"tag": [SUBSETTED]}}


def _kind(method: str, kind: str, rest: str) -> str:
    what = {"PUT": "update", "POST": "create"}.get(method, "read" if rest or kind == "metadata" else "search")
    return f"{what} {kind}"


def _span(dates: list[str]) -> tuple[datetime | None, datetime | None]:
    since = [datetime.fromisoformat(d[2:]) for d in dates if d.startswith("ge")]
    until = [datetime.fromisoformat(d[2:]) for d in dates if d.startswith("le")]
    return max(since, default=None), min(until, default=None)


def _capability() -> dict[str, Any]:
    """What the server says it can do: updates that create, so that a client may choose its ids."""
    search = {"Observation": ["patient", "code", "date"], "Patient": ["_id"], "Encounter": ["patient"],
              "Condition": ["patient", "code"], "Subscription": ["url"], "RiskAssessment": ["identifier", "patient"],
              "Device": ["identifier"]}  # fmt: skip
    every = [{"code": code} for code in ("read", "create", "update", "search-type")]
    types = [
        {
            "type": name,
            "interaction": every,
            "updateCreate": True,
            "searchParam": [{"name": n, "type": "token"} for n in names],
            "searchInclude": [INCLUDE] if name == "Observation" else [],
        }
        for name, names in search.items()
    ]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "kind": "instance",
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "rest": [{"mode": "server", "resource": types}],
    }


async def serve(port: int, ehr: Ehr) -> None:
    """Answer until the process ends."""
    runner = web.ServerRunner(web.Server(ehr.answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    number, moment, size, codes, restless = sys.argv[1:]
    base = f"http://127.0.0.1:{number}/fhir"
    made = Chart(datetime.fromisoformat(moment), base, int(size), CODES[codes])
    uvloop.run(serve(int(number), Ehr(made, restless=restless == "1")))
