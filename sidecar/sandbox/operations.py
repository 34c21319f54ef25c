"""`$status` and `$events` of topic-based Subscriptions, by GET or POST; every other operation is refused.

Left out: `$get-ws-binding-token`, for there is no websocket channel.
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/OperationDefinition-backport-subscription-status.html and
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/OperationDefinition-backport-subscription-events.html
"""

from typing import TypeAlias

from aiohttp import web

from sidecar.sandbox.backport import Shapes
from sidecar.sandbox.gate import PREFIX
from sidecar.sandbox.interactions import Interactions
from sidecar.sandbox.outcome import Refusal, refuse
from sidecar.sandbox.quirks import CONTENTS, Content
from sidecar.sandbox.replies import read_object, reply
from sidecar.sandbox.subscriptions import Subscriptions
from sidecar.sandbox.topic_channel import TopicChannel

Arguments: TypeAlias = dict[str, list[str]]


class Operations:
    """Handlers over the parts of one EHR."""

    def __init__(self, interactions: Interactions, subscriptions: Subscriptions) -> None:
        """Answer for `subscriptions`."""
        self._do = interactions
        self._dialect = interactions.dialect
        self._quirks = interactions.dialect.capabilities.topics
        self._subscriptions = subscriptions

    def table(self) -> list[web.RouteDef]:
        """Return the routes; they come before those of ordinary interactions."""
        routes = []
        if self._quirks is not None and self._quirks.status_operation:
            routes += [("/Subscription/$status", self._statuses), ("/Subscription/{id}/$status", self._status)]
        if self._quirks is not None and self._quirks.events_operation:
            routes += [("/Subscription/{id}/$events", self._events)]
        routes += [(path + r"/{operation:\$[^/]+}", self._missing) for path in ("", "/{type}", "/{type}/{id}")]
        return [web.route(method, PREFIX + path, do) for path, do in routes for method in ("GET", "POST")]

    async def _statuses(self, request: web.Request) -> web.Response:
        """Tell of every topic-based Subscription that meets `id` and `status`; each may be given several times."""
        arguments = await _arguments(request)
        self._subscriptions.expire()
        ids, statuses = arguments.get("id"), arguments.get("status")
        channels = [
            channel
            for channel in self._subscriptions.topic_channels()
            if (ids is None or channel.logical_id in ids)
            and (statuses is None or channel.subscription["status"] in statuses)
        ]
        return self._told(request, channels)

    async def _status(self, request: web.Request) -> web.Response:
        """Tell how one Subscription is."""
        return self._told(request, [self._channel(request)])

    async def _events(self, request: web.Request) -> web.Response:
        """Tell the events asked for, as far as they are kept: numbers that are missing are gone."""
        channel = self._channel(request)
        arguments = await _arguments(request)
        since, until = (_number(arguments, name) for name in ("eventsSinceNumber", "eventsUntilNumber"))
        content = _content(arguments) or channel.content
        state = channel.state("query-event", channel.log.between(since or 0, until), content)
        return reply(self._shapes().notification(state, self._do.chart.clock()))

    async def _missing(self, request: web.Request) -> web.Response:
        status = self._quirks.missing_operation if self._quirks else 404
        raise refuse(status, "not-supported", f"the operation {request.match_info['operation']} is not supported")

    def _told(self, request: web.Request, channels: list[TopicChannel]) -> web.Response:
        self_url = self._dialect.base_url + request.path_qs.removeprefix(PREFIX)
        states = [channel.state("query-status") for channel in channels]
        return reply(self._shapes().statuses(states, self_url))

    def _channel(self, request: web.Request) -> TopicChannel:
        """Return the channel of the Subscription in the URL.

        Raises:
            Refusal: 404, never there; 410, deleted; 422, it is not topic-based, or was never requested.
        """
        logical_id = request.match_info["id"]
        self._do.read("Subscription", logical_id)
        self._subscriptions.expire()
        for channel in self._subscriptions.topic_channels():
            if channel.logical_id == logical_id:
                return channel
        raise refuse(422, "business-rule", "this Subscription has no topic, or was never requested")

    def _shapes(self) -> Shapes:
        assert self._quirks is not None
        return Shapes(self._quirks, self._dialect.base_url)


async def _arguments(request: web.Request) -> Arguments:
    """Read the parameters of an operation from the URL and, of a POST, from a Parameters body.

    Raises:
        Refusal: 400, the body is not a Parameters resource.
    """
    pairs = list(request.query.items())
    if request.method == "POST" and request.can_read_body:
        body = await read_object(request)
        parameters = body.get("parameter", [])
        if body.get("resourceType") != "Parameters" or not isinstance(parameters, list):
            raise refuse(400, "invalid", "an operation takes a Parameters resource")
        for each in parameters:
            pairs += [(each.get("name"), str(value)) for name, value in each.items() if name.startswith("value")]
    arguments: Arguments = {}
    for name, value in pairs:
        arguments.setdefault(name, []).append(value)
    return arguments


def _number(arguments: Arguments, name: str) -> int | None:
    value = arguments.get(name, [None])[0]
    if value is None:
        return None
    if not value.isdecimal():
        raise _bad(name, "must be a whole number")
    return int(value)


def _content(arguments: Arguments) -> Content | None:
    """Return the content asked for; the client may read all of it anyway."""
    value = arguments.get("content", [None])[0]
    content = next((each for each in CONTENTS if each == value), None)
    if value is not None and content is None:
        raise _bad("content", f"must be one of {', '.join(CONTENTS)}")
    return content


def _bad(name: str, problem: str) -> Refusal:
    return refuse(400, "invalid", f"{name} {problem}")
