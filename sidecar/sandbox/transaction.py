"""`POST [base]`: a transaction happens as a whole or not at all, a batch entry by entry.

Deletes, creates, updates, reads, in that order (https://hl7.org/fhir/R4/http.html#trules). References to an
entry's `fullUrl` become references to the resource it created. Conditional references and conditional
updates are refused.
"""

from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import orjson

from sidecar.sandbox.bundles import Pages
from sidecar.sandbox.chart import Version
from sidecar.sandbox.interactions import Interactions
from sidecar.sandbox.moments import instant
from sidecar.sandbox.outcome import Refusal, Resource, refuse

Numbered: TypeAlias = tuple[int, Resource]

_ORDER = ("DELETE", "POST", "PUT", "GET")


class Transactions:
    """Answers transaction and batch Bundles."""

    def __init__(self, interactions: Interactions, pages: Pages) -> None:
        """Do what the entries ask through `interactions`."""
        self._do = interactions
        self._pages = pages

    def answer(self, bundle: Resource, *, representation: bool = False) -> Resource:
        """Return the response Bundle; with `representation`, written resources are in it.

        Raises:
            Refusal: this server takes no such Bundle, or refuses an entry of a transaction; nothing was done.
        """
        kind = bundle.get("type")
        if bundle.get("resourceType") != "Bundle" or kind not in {"transaction", "batch"}:
            raise refuse(400, "invalid", "POST to the base takes a Bundle of type transaction or batch")
        if kind not in self._do.dialect.capabilities.system_interactions():
            raise refuse(405, "not-supported", f"this server does not support {kind}")
        entries = list(enumerate(bundle.get("entry", [])))
        for numbered in entries:
            _require_request(numbered)
        answers = self._all(entries) if kind == "transaction" else self._each(entries)
        if not representation:
            answers = [_trimmed(request["request"]["method"], answers[n]) for n, request in entries]
        return {"resourceType": "Bundle", "type": f"{kind}-response", "entry": answers}

    def _each(self, entries: list[Numbered]) -> list[Resource]:
        answers = []
        for _, entry in entries:
            try:
                answers.append(self._perform(entry, None))
            except Refusal as refusal:
                answers.append({"response": {"status": str(refusal.status), "outcome": refusal.outcome()}})
        return answers

    def _all(self, entries: list[Numbered]) -> list[Resource]:
        _require_distinct(entries)
        answers: dict[int, Resource] = {}
        ordered = sorted(entries, key=lambda numbered: _ORDER.index(numbered[1]["request"]["method"]))
        with self._do.chart.atomic():
            # Ids are settled before anything is written, so that entries may refer to each other in a ring.
            targets = {number: _located(number, self._target, entry) for number, entry in entries}
            moved = {entry["fullUrl"]: targets[n] for n, entry in entries if targets[n] and "fullUrl" in entry}
            for number, entry in ordered:
                resolved = _located(number, _resolve, entry, moved)
                answers[number] = _located(number, self._perform, resolved, targets[number])
        return [answers[number] for number, _ in entries]

    def _target(self, entry: Resource) -> str | None:
        """Return the reference an entry's resource will have, for creates and updates."""
        method, url = entry["request"]["method"], entry["request"]["url"]
        if method == "PUT":
            return str(url)
        if method != "POST":
            return None
        type_name = self._do.supported(url)
        existing = self._do.existing(type_name, entry["request"].get("ifNoneExist"))
        return existing.reference if existing else f"{type_name}/{self._do.chart.new_id(type_name)}"

    def _perform(self, entry: Resource, target: str | None) -> Resource:
        """Do one entry; `target` is the reference settled for it in a transaction."""
        request = entry["request"]
        method, url = request["method"], str(request["url"])
        if method == "GET":
            return self._get(url)
        type_name, _, logical_id = url.partition("/")
        if method == "DELETE":
            version = self._do.delete(type_name, logical_id, request.get("ifMatch"))
            return _answer("204 No Content", version)
        resource = entry.get("resource")
        if not isinstance(resource, dict):
            raise refuse(400, "required", f"{method} {url} needs a resource")
        if method == "PUT":
            if "?" in url or not logical_id:
                raise refuse(400, "not-supported", "conditional update is not supported; PUT to Type/id")
            written = self._do.update(type_name, logical_id, resource, request.get("ifMatch"))
            return _answer("201 Created" if written.status == 201 else "200 OK", written.version)
        return self._post(type_name, resource, request.get("ifNoneExist"), target)

    def _post(
        self,
        type_name: str,
        resource: Resource,
        if_none_exist: str | None,
        target: str | None,
    ) -> Resource:
        if target is None:
            written = self._do.create(type_name, resource, if_none_exist)
            return _answer("201 Created" if written.status == 201 else "200 OK", written.version)
        self._do.check(type_name, resource)
        logical_id = target.partition("/")[2]
        existing = self._do.chart.alive(type_name, logical_id)
        if existing:
            return _answer("200 OK", existing)
        return _answer("201 Created", self._do.chart.put(type_name, logical_id, resource, "POST"))

    def _get(self, url: str) -> Resource:
        """Read, vread or search, as the URL says."""
        path, _, query = url.partition("?")
        steps = path.split("/")
        if len(steps) == 1:
            type_name = self._do.supported(path)
            pairs = parse_qsl(query, keep_blank_values=True)
            page = self._pages.search(type_name, pairs, self._do.dialect)
            return {"resource": orjson.Fragment(page), "response": {"status": "200 OK"}}
        if len(steps) == 2:
            return _answer("200 OK", self._do.read(*steps))
        if len(steps) == 4 and steps[2] == "_history":
            return _answer("200 OK", self._do.vread(steps[0], steps[1], steps[3]))
        raise refuse(400, "not-supported", f"GET {url} is not supported in a Bundle")


def _located(number: int, step: Callable[..., Any], *arguments: Any) -> Any:
    """Run one step of an entry; a refusal says which entry it was."""
    try:
        return step(*arguments)
    except Refusal as refusal:
        raise refusal.within(f"Bundle.entry[{number}]") from refusal


def _require_request(numbered: Numbered) -> None:
    number, entry = numbered
    request = entry.get("request") if isinstance(entry, dict) else None
    if not isinstance(request, dict) or request.get("method") not in _ORDER or not request.get("url"):
        place = f"Bundle.entry[{number}].request"
        raise refuse(400, "required", f"{place} needs a url and a method of {', '.join(_ORDER)}", place)


def _require_distinct(entries: list[Numbered]) -> None:
    """Refuse two entries that would write the same resource: R4 says such a transaction fails."""
    seen: set[tuple[str, str]] = set()
    for number, entry in entries:
        request = entry["request"]
        criteria = request.get("ifNoneExist")
        if request["method"] == "GET" or (request["method"] == "POST" and criteria is None):
            continue
        identity = (str(request["url"]), str(criteria))
        if identity in seen:
            place = f"Bundle.entry[{number}]"
            raise refuse(400, "duplicate", f"{place}: a second entry for {request['url']}", place)
        seen.add(identity)


def _resolve(entry: Resource, moved: dict[str, str]) -> Resource:
    """Return the entry with references to other entries' fullUrls replaced."""
    return {**entry, "resource": _rewritten(entry["resource"], moved)} if "resource" in entry else entry


def _rewritten(node: Any, moved: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_rewritten(each, moved) for each in node]
    if not isinstance(node, dict):
        return node
    result = {name: _rewritten(value, moved) for name, value in node.items()}
    reference = result.get("reference")
    if isinstance(reference, str):
        result["reference"] = moved.get(reference, reference)
        if result["reference"].startswith("urn:uuid:"):
            raise refuse(400, "invalid", f"reference {reference} is to no entry of this transaction")
        if "?" in reference:
            raise refuse(400, "not-supported", f"conditional reference {reference} is not supported")
    return result


def _answer(status: str, version: Version) -> Resource:
    location = f"{version.reference}/_history/{version.number}"
    response: Resource = {"status": status, "etag": version.etag, "lastModified": instant(version.at)}
    if version.resource is None:
        return {"response": response}
    return {"resource": version.resource, "response": {**response, "location": location}}


def _trimmed(method: str, answer: Resource) -> Resource:
    return answer if method == "GET" else {"response": answer["response"]}
