"""The HTTP routes of the practice EHR: each handler is one FHIR interaction (or the token endpoint).

https://hl7.org/fhir/R4/http.html
"""

from urllib.parse import parse_qsl

from aiohttp import web

from sidecar.sandbox.backport import advertise
from sidecar.sandbox.bundles import Found, Pages
from sidecar.sandbox.capability import capability_statement, smart_configuration
from sidecar.sandbox.chart import Version
from sidecar.sandbox.credentials import Credentials
from sidecar.sandbox.gate import PAGE_PATH, PREFIX, TOKEN_PATH
from sidecar.sandbox.interactions import Interactions
from sidecar.sandbox.matching import value_span
from sidecar.sandbox.moments import instant
from sidecar.sandbox.operations import Operations
from sidecar.sandbox.outcome import refuse
from sidecar.sandbox.replies import (
    preferences,
    read_body,
    read_object,
    read_reply,
    reply,
    version_headers,
    written_reply,
)
from sidecar.sandbox.search import DEFAULT_COUNT, MAX_COUNT
from sidecar.sandbox.subscriptions import Subscriptions
from sidecar.sandbox.transaction import Transactions


class Routes:
    """Handlers over the parts of one EHR."""

    def __init__(
        self,
        interactions: Interactions,
        subscriptions: Subscriptions,
        credentials: Credentials | None,
    ) -> None:
        """Serve `interactions`; `credentials` is None when the EHR is open."""
        self._do = interactions
        self._dialect = interactions.dialect
        self._pages = Pages(interactions.chart)
        self._transactions = Transactions(interactions, self._pages)
        self._subscriptions = subscriptions
        self._operations = Operations(interactions, subscriptions)
        self._credentials = credentials

    def table(self) -> list[web.RouteDef]:
        """Return every route; the more specific come first."""
        type_path, instance = PREFIX + "/{type}", PREFIX + "/{type}/{id}"
        routes = [
            web.get(f"{PREFIX}/metadata", self._metadata),
            web.get(PREFIX + PAGE_PATH, self._page),
            web.post(PREFIX, self._bundle),
            web.post(f"{PREFIX}/", self._bundle),
            *self._operations.table(),
            web.get(type_path, self._search),
            web.post(type_path, self._create),
            web.post(f"{type_path}/_search", self._search),
            web.get(f"{type_path}/_history", self._type_history),
            web.get(instance, self._read),
            web.put(instance, self._update),
            web.delete(instance, self._delete),
            web.get(f"{instance}/_history", self._instance_history),
            web.get(instance + "/_history/{vid}", self._vread),
        ]
        if self._credentials is not None and self._credentials.issues_tokens:
            smart = web.get(f"{PREFIX}/.well-known/smart-configuration", self._smart_configuration)
            routes = [smart, web.post(TOKEN_PATH, self._token), *routes]
        return routes

    @property
    def _token_url(self) -> str | None:
        if self._credentials is None or not self._credentials.issues_tokens:
            return None
        return self._dialect.base_url.removesuffix(PREFIX) + TOKEN_PATH

    def _type(self, request: web.Request) -> str:
        """Return the type in the URL; Subscriptions are brought up to date before anyone sees them."""
        type_name = self._do.supported(request.match_info["type"])
        if type_name == "Subscription":
            self._subscriptions.expire()
        return type_name

    async def _metadata(self, _: web.Request) -> web.Response:
        statement = capability_statement(
            self._dialect.capabilities,
            self._dialect.base_url,
            instant(self._do.chart.clock()),
            self._token_url,
            secured=self._credentials is not None,
        )
        quirks = self._dialect.capabilities.topics
        if quirks is not None:
            advertise(statement, quirks, [topic.url for topic in self._do.topics.active()])
        return reply(statement)

    async def _read(self, request: web.Request) -> web.Response:
        return read_reply(self._do.read(self._type(request), request.match_info["id"]))

    async def _vread(self, request: web.Request) -> web.Response:
        match = request.match_info
        return read_reply(self._do.vread(self._type(request), match["id"], match["vid"]))

    async def _create(self, request: web.Request) -> web.Response:
        type_name = self._type(request)
        resource = await read_object(request)
        written = self._do.create(type_name, resource, request.headers.get("If-None-Exist"))
        return written_reply(request, written.version, written.status, self._dialect.base_url)

    async def _update(self, request: web.Request) -> web.Response:
        type_name = self._type(request)
        resource = await read_object(request)
        if_match = request.headers.get("If-Match")
        written = self._do.update(type_name, request.match_info["id"], resource, if_match)
        return written_reply(request, written.version, written.status, self._dialect.base_url)

    async def _delete(self, request: web.Request) -> web.Response:
        if_match = request.headers.get("If-Match")
        version = self._do.delete(self._type(request), request.match_info["id"], if_match)
        return web.Response(status=204, headers=version_headers(version))

    async def _search(self, request: web.Request) -> web.Response:
        type_name = self._type(request)
        pairs = list(request.query.items())
        if request.method == "POST":
            if request.content_type != "application/x-www-form-urlencoded":
                raise refuse(415, "not-supported", "_search takes application/x-www-form-urlencoded")
            form = (await read_body(request)).decode(errors="replace")
            pairs += parse_qsl(form, keep_blank_values=True)
        strict = preferences(request).get("handling") == "strict"
        return reply(self._pages.search(type_name, pairs, self._dialect, strict=strict))

    async def _page(self, request: web.Request) -> web.Response:
        token, offset = request.query.get("search", ""), request.query.get("offset", "")
        return reply(self._pages.later(token, offset, self._dialect.base_url))

    async def _instance_history(self, request: web.Request) -> web.Response:
        type_name, logical_id = self._type(request), request.match_info["id"]
        versions = list(self._do.chart.versions(type_name, logical_id))
        if not versions:
            raise refuse(404, "not-found", f"{type_name}/{logical_id} is not known")
        return self._history(request, versions)

    async def _type_history(self, request: web.Request) -> web.Response:
        return self._history(request, self._do.chart.journal(self._type(request)))

    def _history(self, request: web.Request, versions: list[Version]) -> web.Response:
        """Reply with the newest first, since `_since` if given."""
        self._do.require_history()
        since, count = request.query.get("_since"), request.query.get("_count", str(DEFAULT_COUNT))
        if not count.isdecimal() or int(count) == 0:
            raise refuse(400, "invalid", f"_count must be a positive whole number, not {count!r}")
        if since is not None:
            try:
                low = value_span(since).low
            except ValueError as error:
                raise refuse(400, "invalid", f"_since: {error}") from error
            versions = [version for version in versions if version.at >= low]
        base_url = self._dialect.base_url
        self_url = base_url + request.path_qs.removeprefix(PREFIX)
        found = Found(versions[::-1], min(int(count), MAX_COUNT), self_url)
        return reply(self._pages.first(found, base_url))

    async def _bundle(self, request: web.Request) -> web.Response:
        bundle = await read_object(request)
        representation = preferences(request).get("return") == "representation"
        return reply(self._transactions.answer(bundle, representation=representation))

    async def _smart_configuration(self, _: web.Request) -> web.Response:
        return web.json_response(smart_configuration(self._signed_in(), str(self._token_url)))

    async def _token(self, request: web.Request) -> web.Response:
        form = dict(parse_qsl((await read_body(request)).decode(errors="replace")))
        authorization = request.headers.get("Authorization")
        status, body = await self._signed_in().token_reply(authorization, form, str(self._token_url))
        return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})

    def _signed_in(self) -> Credentials:
        if self._credentials is None:
            raise web.HTTPNotFound
        return self._credentials
