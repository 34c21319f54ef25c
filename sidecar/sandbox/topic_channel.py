"""The channel of a topic-based Subscription: numbered events, in bundles, with heartbeats between them.

Every event is numbered and remembered when it happens, sent or not: a client that missed some asks `$events`. While
the Subscription is in error its events are counted and kept, and not sent; once off, it has none.
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/notifications.html
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import orjson

from sidecar.sandbox.backport import Event, Kind, Shapes, State
from sidecar.sandbox.chart import Chart, Version
from sidecar.sandbox.criteria import TopicRequest
from sidecar.sandbox.delivery import Channel, DeliveryPolicy, Message, Notice
from sidecar.sandbox.outcome import Resource
from sidecar.sandbox.quirks import Backport, Content
from sidecar.sandbox.search import Dialect


class EventLog:
    """The events of one Subscription: how many there ever were, and the last of them."""

    def __init__(self, retention: int) -> None:
        """Keep the last `retention` events."""
        self.count = 0
        self._kept: deque[Event] = deque(maxlen=retention)

    def record(self, version: Version) -> Event:
        """Number a new event and keep it."""
        self.count += 1
        event = Event(version, self.count)
        self._kept.append(event)
        return event

    def between(self, since: int, until: int | None) -> list[Event]:
        """Return the events kept whose number lies between two numbers, both included."""
        return [each for each in self._kept if since <= each.number and (until is None or each.number <= until)]

    def forget(self) -> None:
        """Start again at 0, as a server that keeps its counters in memory does."""
        self.count = 0
        self._kept.clear()


class TopicChannel(Channel):
    """A channel that lives from the first request until the Subscription is deleted."""

    def __init__(
        self,
        subscription: Resource,
        policy: DeliveryPolicy,
        request: TopicRequest,
        chart: Chart,
        dialect: Dialect,
    ) -> None:
        """Open the channel of a `subscription` that asks for `request`."""
        self._request = request
        self._chart = chart
        self._dialect = dialect
        self.log = EventLog(self._quirks.retention)
        self._spoke_at = asyncio.get_running_loop().time()
        super().__init__(subscription, policy)

    @property
    def _quirks(self) -> Backport:
        return self._dialect.capabilities.topics or Backport()

    @property
    def content(self) -> Content:
        """What this Subscription's notifications carry."""
        return self._quirks.sends or self._request.content

    @property
    def timeout_s(self) -> float:
        """What the client asked for, else the server's own."""
        return self._request.timeout_s * self.policy.second_s or self.policy.timeout_s

    @property
    def _heartbeat_s(self) -> float | None:
        wanted = self._request.heartbeat_s * self.policy.second_s if self._quirks.heartbeat else 0
        return wanted or None

    def ask(self, subscription: Resource, request: TopicRequest) -> None:
        """Serve a changed Subscription from now on; its numbers go on."""
        self.follow(subscription)
        self._request = request
        self._filled.set()

    def hear(self, version: Version, before: Version | None) -> Event | None:
        """Number the event that `version` is to this Subscription, unless it is off."""
        if self.subscription["status"] == "off" or not self._request.wants(version, before):
            return None
        return self.log.record(version)

    async def due(self) -> Sequence[Notice]:
        """Wait for events, as many as one bundle takes; return none when it is time for a heartbeat."""
        loop = asyncio.get_running_loop()
        while not self.queue:
            self._filled.clear()
            period_s = self._heartbeat_s
            left_s = None if period_s is None else self._spoke_at + period_s - loop.time()
            try:
                async with asyncio.timeout(left_s):
                    await self._filled.wait()
            except TimeoutError:
                return []
        return list(islice(self.queue, self._request.max_count or 1))

    def message(self, notices: Sequence[Notice]) -> Message:
        """POST the events in one bundle; without events it is a heartbeat."""
        if not notices:
            return self._post("heartbeat")
        message = self._post("event-notification", [each.event for each in notices])
        return replace(message, twin=any(each.fate.twin for each in notices))

    def skip_heartbeat(self) -> None:
        """Say nothing, and wait for the next one to be due."""
        self._spoke_at = asyncio.get_running_loop().time()

    def handshake(self) -> Message:
        """POST the first notification of an activation."""
        return self._post("handshake")

    def state(self, kind: Kind, events: Sequence[Event] = (), content: Content | None = None) -> State:
        """Say how the Subscription is; `content` in place of what it asked for."""
        return State(self.subscription, kind, self.log.count, content or self.content, events)

    def _post(self, kind: Kind, events: Sequence[Event] = ()) -> Message:
        self._spoke_at = asyncio.get_running_loop().time()
        shapes = Shapes(self._quirks, self._dialect.base_url)
        bundle = shapes.notification(self.state(kind, events), self._chart.clock())
        return Message("POST", body=orjson.dumps(bundle), content_type=self.payload)
