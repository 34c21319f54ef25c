"""An EHR whose charts, and whose errors, are full of planted values: on loopback, in this process.

It knows what the sidecar asks for and answers from `planted_chart`. Now and then it fails as real servers do, with an
OperationOutcome, a page, a header or a link that quotes the patient. What is written is kept, to be answered again.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson
from aiohttp import web

from tests.campaigns.planted import Planter
from tests.campaigns.planted_chart import Chart, Resource

FHIR = {"Content-Type": "application/fhir+json"}
INCLUDE = "Observation:patient"
SEARCHES = {
    "Observation": ["patient", "code", "date", "identifier"], "Patient": ["_id"], "Encounter": ["patient"],
    "Condition": ["patient", "code"], "Subscription": ["url"], "RiskAssessment": ["identifier", "patient"],
    "Device": ["identifier"],
}  # fmt: skip


class PlantedEhr:
    """One server. `charts` are added by whoever tells of them; `faults` is how often a request fails."""

    def __init__(self, seed: int, faults: float) -> None:
        self._rng, self._faults = random.Random(seed), faults
        self._planter = Planter(random.Random(f"{seed}/errors"))
        self.errors = self._planter.canaries
        self.counts: Counter[str] = Counter()
        self.written: dict[str, Resource] = {}
        self._held: dict[str, Resource] = {}
        self._charts: dict[str, Chart] = {}
        self._where: dict[str, Chart] = {}
        self._subscriptions: dict[str, Resource] = {}
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None))
        self.base_url = ""
        self._kinds: dict[str, Callable[[web.BaseRequest], web.StreamResponse]] = {
            "500": lambda _: self._outcome(500), "404": lambda _: self._outcome(404), "422": lambda _: self._outcome(422),
            "409": lambda _: self._outcome(409), "503": self._busy, "401": self._denied, "page": self._page,
            "redirect": self._redirect, "json": self._broken_json, "cut": self._cut, "next": self._next, "shape": self._shape,
        }  # fmt: skip

    async def start(self, port: int) -> None:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, backlog=512).start()
        self.base_url = f"http://127.0.0.1:{port}/fhir"

    async def stop(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    def add(self, chart: Chart) -> None:
        """A patient came."""
        self._charts[chart.who] = chart
        for where in chart.resources:
            self._where[where] = chart

    @property
    def subscribed(self) -> list[str]:
        """What the Subscriptions want to hear."""
        return [s["channel"]["endpoint"] for s in self._subscriptions.values()]

    def heal(self) -> None:
        """Fail no more."""
        self._faults = 0.0

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        kind, _, rest = request.path.removeprefix("/fhir").strip("/").partition("/")
        about_patients = kind not in {"metadata", "Subscription"}
        if about_patients and self._rng.random() < self._faults:
            fault = self._rng.choice(list(self._kinds))
            self.counts[fault] += 1
            await asyncio.sleep(0)
            return self._kinds[fault](request)
        if request.method != "GET":
            return self._write(request.method, kind, rest, orjson.loads(await request.read()))
        if kind == "metadata":
            return _said(200, self._capability())
        return self._read(kind, rest) if rest else self._search(kind, parse_qs(request.query_string))

    def _read(self, kind: str, rest: str) -> web.Response:
        where = f"{kind}/{rest}"
        if kind == "Subscription" and rest in self._subscriptions:
            return _said(200, self._subscriptions[rest])
        if kind == "Subscription" and rest.endswith("/$status"):
            return self._status(rest.partition("/")[0])
        if where in self._held:
            return _said(200, self._held[where])
        chart = self._where.get(where)
        if chart is None or (kind == "Patient" and chart.odd == "gone"):
            return self._outcome(404)
        return _said(200, chart.resources[where])

    def _search(self, kind: str, query: Mapping[str, list[str]]) -> web.Response:
        if kind == "Subscription":
            wanted = query.get("url", [""])[0]
            return self._bundle([s for s in self._subscriptions.values() if s["channel"]["endpoint"] == wanted])
        if "identifier" in query:
            value = query["identifier"][0].rpartition("|")[2]
            return self._bundle([r for r in self._held.values() if _identified(r, kind, value)])
        if "_id" in query:
            names = [f"{kind}/{logical_id}" for logical_id in query["_id"][0].split(",")]
            return self._bundle([c.resources[n] for n in names if (c := self._where.get(n)) is not None])
        chart = self._charts.get(query.get("patient", [""])[0].removeprefix("Patient/"))
        if chart is None:
            return self._bundle([])
        codes = {c.rpartition("|")[2] for c in query.get("code", [""])[0].split(",")} - {""}
        # A reading that was not asked for comes along, as some servers do.
        found = [r for r in chart.of(kind) if not codes or codes & _codes(r) or "component" in r]
        found.sort(key=lambda r: r.get("effectiveDateTime", ""), reverse=query.get("_sort", [""])[0].startswith("-"))
        include = chart.of("Patient") if INCLUDE in query.get("_include", []) and chart.odd != "gone" else []
        return self._bundle(found, include)

    def _bundle(self, found: Iterable[Resource], include: Iterable[Resource] = ()) -> web.Response:
        entries = [
            {"fullUrl": f"{self.base_url}/{r['resourceType']}/{r['id']}", "resource": r, "search": {"mode": "match"}}
            for r in found
        ]
        entries += [{"resource": r, "search": {"mode": "include"}} for r in include]
        entries.append({"resource": self._told("warning"), "search": {"mode": "outcome"}})
        return _said(200, {"resourceType": "Bundle", "type": "searchset", "entry": entries})

    def _write(self, method: str, kind: str, rest: str, resource: Resource) -> web.Response:
        if kind == "Subscription":
            known = rest or f"s{len(self._subscriptions) + 1}"
            # A status that is no status: what an EHR says of a Subscription may be any text.
            odd = {
                "status": self._planter.code("Subscription.status"),
                "error": self._planter.words("Subscription.error"),
            }
            status = odd if "condition" in resource["channel"]["endpoint"] else {"status": "active"}
            self._subscriptions[known] = {**resource, "id": known, **status}
            return _said(201, None, {"Location": f"{self.base_url}/Subscription/{known}"})
        logical_id = rest or f"{kind.lower()}-{len(self._held) + 1}"
        where = f"{kind}/{logical_id}"
        self._held[where] = {**resource, "id": logical_id, "meta": {"versionId": "1"}}
        if kind == "RiskAssessment":
            self.written[where] = resource
        headers = {"Location": f"{self.base_url}/{where}/_history/1", "X-Patient": self._planter.id("answer header")}
        return _said(201 if method == "POST" else 200, self._told("information"), headers)

    def _status(self, logical_id: str) -> web.Response:
        parameters = [
            {"name": "subscription", "valueReference": {"reference": f"Subscription/{logical_id}"}},
            {"name": "status", "valueCode": "active"}, {"name": "type", "valueCode": "query-status"},
            {"name": "error", "valueCodeableConcept": {"text": self._planter.words("$status.error.text")}},
        ]  # fmt: skip
        entry = {"resource": {"resourceType": "Parameters", "parameter": parameters}}
        return _said(200, {"resourceType": "Bundle", "type": "searchset", "entry": [entry]})

    def _capability(self) -> Resource:
        p, every = self._planter, [{"code": code} for code in ("read", "create", "update", "search-type")]
        types = [
            {"type": name, "interaction": every, "updateCreate": True, "documentation": p.words("CapabilityStatement.documentation"),
             "searchParam": [{"name": n, "type": "token"} for n in names], "searchInclude": [INCLUDE] if name == "Observation" else []}
            for name, names in SEARCHES.items()
        ]  # fmt: skip
        return {
            "resourceType": "CapabilityStatement", "status": "active", "kind": "instance", "fhirVersion": "4.0.1", "format": ["json"],
            "publisher": p.words("CapabilityStatement.publisher"), "contact": [{"name": p.name("CapabilityStatement.contact.name")}],
            "rest": [{"mode": "server", "resource": types}],
        }  # fmt: skip

    def _told(self, severity: str) -> Resource:
        p = self._planter
        issue = {
            "severity": severity, "code": "processing", "diagnostics": f"Patient {p.id('OperationOutcome.diagnostics')} is not right",
            "details": {"text": p.name("OperationOutcome.details.text")}, "expression": [f"Patient.where(id='{p.id('OperationOutcome.expression')}')"],
        }  # fmt: skip
        return {"resourceType": "OperationOutcome", "issue": [issue]}

    def _outcome(self, status: int) -> web.Response:
        return _said(status, self._told("error"))

    def _busy(self, _: web.BaseRequest) -> web.Response:
        return _said(503, self._told("error"), {"Retry-After": self._planter.words("Retry-After")})

    def _denied(self, _: web.BaseRequest) -> web.Response:
        return _said(
            401, self._told("error"), {"WWW-Authenticate": f'Bearer realm="{self._planter.words("WWW-Authenticate")}"'}
        )

    def _page(self, _: web.BaseRequest) -> web.Response:
        return web.Response(
            status=403, text=f"<html>{self._planter.name('page of a proxy')}</html>", content_type="text/html"
        )

    def _redirect(self, _: web.BaseRequest) -> web.Response:
        return web.Response(status=302, headers={"Location": self._planter.address("Location of a redirect")})

    def _broken_json(self, _: web.BaseRequest) -> web.Response:
        text = f'{{"resourceType": "Patient", "id": "{self._planter.id("broken JSON")}", "name": '
        return web.Response(status=200, text=text, headers=FHIR)

    def _next(self, _: web.BaseRequest) -> web.Response:
        link = {"relation": "next", "url": self._planter.address("Bundle.link.url")}
        return _said(200, {"resourceType": "Bundle", "type": "searchset", "link": [link], "entry": []})

    def _shape(self, _: web.BaseRequest) -> web.Response:
        name = self._planter.code("resourceType")
        return _said(
            200, {"resourceType": name, "id": self._planter.id("another id"), "entry": self._planter.words("entry")}
        )

    def _cut(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.close()
        return web.Response(status=500)


def _said(status: int, body: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=b"" if body is None else orjson.dumps(body), headers={**FHIR, **(headers or {})}
    )


def _codes(resource: Resource) -> set[str]:
    return {coding["code"] for coding in resource.get("code", {}).get("coding", ())}


def _identified(resource: Resource, kind: str, value: str) -> bool:
    return resource["resourceType"] == kind and any(i.get("value") == value for i in resource.get("identifier", ()))
