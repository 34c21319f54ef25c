"""Subscriptions: the server's half. Activates them, matches new versions, hands over to channels.

A classic one hears of new versions that match: a deletion is silent, and so is a resource that stops matching
(https://hl7.org/fhir/R4/subscription.html). There is no handshake and no event number: clients must poll too.
A topic-based one is active once its endpoint answered the handshake, and hears what its topic says, deletions
included. In error it stays until the client requests it again: the server never resets it by itself.
"""

import asyncio
from contextlib import suppress
from datetime import datetime

import aiohttp

from sidecar.sandbox.backport import Event
from sidecar.sandbox.chart import Chart, Version
from sidecar.sandbox.criteria import criteria_search, granted_end, has_ended, is_topic_based, topic_request
from sidecar.sandbox.delivery import Channel, ClassicChannel, DeliveryPolicy, Notice
from sidecar.sandbox.faults import Faults
from sidecar.sandbox.outcome import Refusal, Resource
from sidecar.sandbox.search import Dialect
from sidecar.sandbox.topic_channel import TopicChannel
from sidecar.sandbox.topics import Topics


class Subscriptions:
    """All channels. Listens to the chart always; sends only between `start` and `stop`."""

    def __init__(self, chart: Chart, dialect: Dialect, faults: Faults, policy: DeliveryPolicy) -> None:
        """Serve the Subscriptions of `chart`."""
        self._chart = chart
        self._dialect = dialect
        self._topics = Topics(chart, dialect)
        self._faults = faults
        self._policy = policy
        self._channels: dict[str, Channel] = {}
        self._activations: dict[str, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self, session: aiohttp.ClientSession) -> None:
        """Send what is waiting, and activate what was requested while stopped."""
        self._session = session
        for channel in self._channels.values():
            self._run(channel)
        for version in self._chart.living("Subscription"):
            self._request(version)

    async def stop(self) -> None:
        """Stop sending; what was not delivered is kept for the next start."""
        self._session = None
        tasks = [channel.task for channel in self._channels.values() if channel.task]
        tasks += self._activations.values()
        self._activations.clear()
        for channel in self._channels.values():
            channel.task = None
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    def forget(self) -> None:
        """Forget what was not delivered, every event and every number, as a server does that keeps them in memory."""
        for channel in self._channels.values():
            self._faults.counts["forgotten"] += channel.drop()
        for topic_based in self.topic_channels():
            topic_based.log.forget()
        self._note()

    async def quiet(self) -> None:
        """Return once nothing is waiting to be sent or activated; heartbeats go on and do not count."""
        self._note()
        await self._idle.wait()

    def topic_channels(self) -> list[TopicChannel]:
        """Return the channels of the topic-based Subscriptions, oldest first."""
        return [channel for channel in self._channels.values() if isinstance(channel, TopicChannel)]

    def hear(self, version: Version) -> None:
        """Learn of a stored version: the chart's listener."""
        if version.type_name == "Subscription":
            self._follow(version)
        self.expire()
        before = self._before(version)
        for channel in list(self._channels.values()):
            event = channel.hear(version, before)
            if event is not None and channel.subscription["status"] != "error":
                self._offer(channel, event)
        self._note()

    def expire(self) -> None:
        """Turn Subscriptions whose `end` is past off; called before anyone looks at them."""
        now = self._chart.clock()
        for channel in list(self._channels.values()):
            if channel.subscription["status"] != "off" and self._has_ended(channel.subscription, now):
                self._set_status(channel.logical_id, "off")

    def _has_ended(self, subscription: Resource, now: datetime) -> bool:
        return self._policy.enforces_end and has_ended(subscription, now)

    def _before(self, version: Version) -> Version | None:
        """Return the living version that `version` replaced."""
        versions = self._chart.versions(version.type_name, version.logical_id)
        before = versions[version.number - 2] if version.number > 1 else None
        return before if before is not None and before.resource is not None else None

    def _offer(self, channel: Channel, event: Event) -> None:
        for fate in self._faults.fates(event.version.type_name):
            channel.offer(Notice(event, fate))

    def _follow(self, version: Version) -> None:
        """Open, change or close the channel of a Subscription that was written or deleted."""
        if version.resource is None:
            self._forget(version.logical_id)
        elif version.resource["status"] == "active":
            if self._granted(version.resource) != version.resource:
                self._set_status(version.logical_id, "active")
                return
            self._run(self._channel(version.resource))
        elif version.resource["status"] == "requested":
            if version.logical_id in self._channels or is_topic_based(version.resource, self._dialect):
                self._channel(version.resource)
            self._request(version)
        else:
            self._close(version.resource)

    def _request(self, version: Version) -> None:
        requested = version.resource is not None and version.resource["status"] == "requested"
        if requested and self._session is not None and version.logical_id not in self._activations:
            task = asyncio.create_task(self._activate(version.logical_id, self._session))
            self._activations[version.logical_id] = task

    async def _activate(self, logical_id: str, session: aiohttp.ClientSession) -> None:
        """Answer a requested Subscription, after the reply to its write has had its turn."""
        await asyncio.sleep(0)
        while (requested := self._requested(logical_id)) is not None:
            if self._has_ended(requested, self._chart.clock()):
                status, problem = "off", None
            else:
                problem = await self._try_activation(requested, session)
                status = "error" if problem else "active"
            # Written again meanwhile, it is answered again: the handshake was with what it no longer says.
            if self._requested(logical_id) is requested:
                self._set_status(logical_id, status, problem)
        self._activations.pop(logical_id, None)
        self._note()

    def _requested(self, logical_id: str) -> Resource | None:
        version = self._chart.alive("Subscription", logical_id)
        resource = version.resource if version else None
        return resource if resource is not None and resource["status"] == "requested" else None

    async def _try_activation(self, subscription: Resource, session: aiohttp.ClientSession) -> str | None:
        """Return why a Subscription cannot be active; a topic-based one must answer the handshake."""
        if self._faults.refuses_activation():
            return "the server could not activate this subscription"
        try:
            channel = self._channel(subscription)
        except Refusal as refusal:
            return str(refusal)
        quirks = self._dialect.capabilities.topics
        if not isinstance(channel, TopicChannel) or quirks is None or not quirks.handshake:
            return None
        return await channel.send(channel.handshake(), session)

    def _channel(self, subscription: Resource) -> Channel:
        """Return the channel of a Subscription as it is now; a change of kind starts a new one.

        Raises:
            Refusal: 422, its topic is gone or the server no longer does what it asks for.
        """
        channel = self._channels.get(subscription["id"])
        if not is_topic_based(subscription, self._dialect):
            search = criteria_search(subscription, self._dialect)
            if isinstance(channel, ClassicChannel):
                channel.ask(subscription, search)
                return channel
            fresh: Channel = ClassicChannel(subscription, self._policy, search)
        else:
            request = topic_request(subscription, self._topics, self._dialect)
            if isinstance(channel, TopicChannel):
                channel.ask(subscription, request)
                return channel
            fresh = TopicChannel(subscription, self._policy, request, self._chart, self._dialect)
        self._forget(subscription["id"])
        self._channels[subscription["id"]] = fresh
        return fresh

    def _close(self, subscription: Resource) -> None:
        """Send nothing more; a topic-based Subscription keeps its numbers and its events."""
        channel = self._channels.get(subscription["id"])
        if isinstance(channel, TopicChannel):
            channel.follow(subscription)
            channel.suspend()
        else:
            self._forget(subscription["id"])

    def _forget(self, logical_id: str) -> None:
        channel = self._channels.pop(logical_id, None)
        if channel is not None:
            channel.suspend()

    def _run(self, channel: Channel) -> None:
        """Send what is waiting from now on, if the Subscription is active."""
        active = channel.subscription["status"] == "active"
        if active and channel.task is None and self._session is not None:
            channel.task = asyncio.create_task(self._deliver(channel, self._session))

    async def _deliver(self, channel: Channel, session: aiohttp.ClientSession) -> None:
        """Send a channel's notifications in order until it is closed or its receiver is given up."""
        while True:
            notices = await channel.due()
            self.expire()
            if channel.task is not asyncio.current_task():
                return
            if not notices and self._faults.mute and isinstance(channel, TopicChannel):
                channel.skip_heartbeat()
                self._faults.counts["mute heartbeats"] += 1
                continue
            problem = await channel.send(channel.message(notices), session)
            if problem is not None and self._policy.gives_up == "error":
                self._set_status(channel.logical_id, "error", problem)
                self._note()
                return
            if problem is not None:
                self._faults.counts["given up"] += len(notices)
            channel.settle(notices)
            self._note()

    def _set_status(self, logical_id: str, status: str, error: str | None = None) -> None:
        """Store the status the server gives a Subscription; `hear` then acts on it."""
        version = self._chart.alive("Subscription", logical_id)
        if version is None or version.resource is None:
            return
        changed = {name: value for name, value in version.resource.items() if name != "error"}
        changed["status"] = status
        if error:
            changed["error"] = error
        self._chart.put("Subscription", logical_id, self._granted(changed) if status == "active" else changed)

    def _granted(self, subscription: Resource) -> Resource:
        """Return a Subscription with the `end` this server grants it."""
        end = granted_end(subscription, self._chart.clock(), self._policy.longest_life_s)
        return subscription if end is None else {**subscription, "end": end}

    def _note(self) -> None:
        """Keep `quiet` informed."""
        if self._activations or any(channel.waiting for channel in self._channels.values()):
            self._idle.clear()
        else:
            self._idle.set()
