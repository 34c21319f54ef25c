"""Bundles: search results and history, in pages that later writes do not disturb.

The first page remembers which versions were found; `next` is an opaque absolute link into that memory, so a
client that follows it sees each resource exactly once. Old searches are forgotten and answer 410.
https://hl7.org/fhir/R4/http.html#paging and https://hl7.org/fhir/R4/bundle.html
"""

import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlencode

import orjson

from sidecar.sandbox.chart import Chart, Version
from sidecar.sandbox.moments import instant
from sidecar.sandbox.outcome import Resource, refuse
from sidecar.sandbox.search import Dialect, Pairs, Search, included, parse_search, select
from sidecar.sandbox.validation import REQUIRED_ELEMENTS

KEPT_SEARCHES = 256
_ALWAYS = frozenset({"resourceType", "id", "meta", "implicitRules"})
_SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}


@dataclass(frozen=True, slots=True)
class Found:
    """Everything one search (or one history, when `search` is None) found, and how many a page holds."""

    versions: list[Version]
    count: int
    self_url: str
    search: Search | None = None


class Pages:
    """Renders pages and remembers the searches that have more of them."""

    def __init__(self, chart: Chart) -> None:
        """Render what is found in `chart`."""
        self._chart = chart
        self._kept: OrderedDict[str, Found] = OrderedDict()

    def search(self, type_name: str, pairs: Pairs, dialect: Dialect, *, strict: bool = False) -> bytes:
        """Search, and render the first page.

        Raises:
            Refusal: 400, as `parse_search`.
        """
        search = parse_search(type_name, pairs, dialect, strict=strict)
        versions = select(search, self._chart)
        self_url = f"{dialect.base_url}/{type_name}"
        if search.kept:
            self_url += f"?{urlencode(search.kept)}"
        if search.count_only:
            return _count_only(len(versions), self_url)
        return self.first(Found(versions, search.count, self_url, search), dialect.base_url)

    def first(self, found: Found, base_url: str) -> bytes:
        """Render the first page."""
        token = ""
        if len(found.versions) > found.count:
            token = secrets.token_urlsafe(12)
            self._kept[token] = found
            if len(self._kept) > KEPT_SEARCHES:
                self._kept.popitem(last=False)
        return self._page(found, base_url, token, 0)

    def later(self, token: str, offset: str, base_url: str) -> bytes:
        """Render the page a `next` link names.

        Raises:
            Refusal: 410, the search was forgotten; 400, not a link of ours.
        """
        found = self._kept.get(token)
        if found is None:
            raise refuse(410, "expired", "this page is no longer available; repeat the search")
        if not offset.isdecimal():
            raise refuse(400, "invalid", "not a page of this search")
        return self._page(found, base_url, token, int(offset))

    def _page(self, found: Found, base_url: str, token: str, offset: int) -> bytes:
        end = offset + found.count
        links = [{"relation": "self", "url": _link(base_url, token, offset) if offset else found.self_url}]
        if end < len(found.versions):
            links.append({"relation": "next", "url": _link(base_url, token, end)})
        page = found.versions[offset:end]
        if found.search is None:
            entries = [history_entry(version, base_url) for version in page]
        else:
            entries = [_match(version, found.search.elements, base_url) for version in page]
            others = included(found.search, page, self._chart)
            entries += [_entry(version, base_url, "include") for version in others]
        bundle: Resource = {
            "resourceType": "Bundle",
            "type": "searchset" if found.search else "history",
            "timestamp": instant(self._chart.clock()),
            "total": len(found.versions),
            "link": links,
        }
        return orjson.dumps(bundle | {"entry": entries} if entries else bundle)


def _count_only(total: int, self_url: str) -> bytes:
    """Render the answer to `_summary=count`."""
    link = [{"relation": "self", "url": self_url}]
    return orjson.dumps({"resourceType": "Bundle", "type": "searchset", "total": total, "link": link})


def history_entry(version: Version, base_url: str) -> Resource:
    """Render a version as an entry of a history Bundle; a deletion has no resource."""
    url = version.type_name if version.method == "POST" else version.reference
    entry: Resource = {"fullUrl": f"{base_url}/{version.reference}"}
    if version.resource is not None:
        entry["resource"] = orjson.Fragment(version.body)
    entry["request"] = {"method": version.method, "url": url}
    status = {"POST": "201", "DELETE": "204"}.get(version.method, "201" if version.number == 1 else "200")
    entry["response"] = {"status": status, "etag": version.etag, "lastModified": instant(version.at)}
    return entry


def subset(resource: Resource, elements: Iterable[str]) -> Resource:
    """Keep the named elements, and those R4 requires, and tag the result SUBSETTED.

    https://hl7.org/fhir/R4/search.html#elements. `value` names `valueQuantity` and its like.
    """
    wanted = _ALWAYS | set(elements) | REQUIRED_ELEMENTS.get(resource["resourceType"], frozenset())
    kept = {name: value for name, value in resource.items() if _is_wanted(name.removeprefix("_"), wanted)}
    tags = [*kept.get("meta", {}).get("tag", []), _SUBSETTED]
    return kept | {"meta": {**kept.get("meta", {}), "tag": tags}}


def _is_wanted(name: str, wanted: frozenset[str]) -> bool:
    if name in wanted:
        return True
    choices = (element for element in wanted if element in _CHOICES and name.startswith(element))
    return any(name[len(element)].isupper() for element in choices)


_CHOICES = frozenset({"value", "effective", "onset", "abatement", "occurrence", "deceased", "multipleBirth"})


def _link(base_url: str, token: str, offset: int) -> str:
    return f"{base_url}/_page?{urlencode({'search': token, 'offset': offset})}"


def _match(version: Version, elements: tuple[str, ...], base_url: str) -> Resource:
    entry = _entry(version, base_url, "match")
    if elements and version.resource is not None:
        entry["resource"] = subset(version.resource, elements)
    return entry


def _entry(version: Version, base_url: str, mode: str) -> Resource:
    return {
        "fullUrl": f"{base_url}/{version.reference}",
        "resource": orjson.Fragment(version.body),
        "search": {"mode": mode},
    }
