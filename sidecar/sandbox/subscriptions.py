"""Classic R4 Subscriptions: the server's half. Activates them, matches new versions, hands over to channels.

Only a new version that matches is an event: a deletion is silent, and so is a resource that stops matching
(https://hl7.org/fhir/R4/subscription.html). There is no handshake and no event number: clients must poll too.
"""

import asyncio
from contextlib import suppress

import aiohttp

from sidecar.sandbox.chart import Chart, Version
from sidecar.sandbox.criteria import criteria_search, has_ended
from sidecar.sandbox.delivery import Channel, DeliveryPolicy
from sidecar.sandbox.faults import Faults
from sidecar.sandbox.outcome import Resource
from sidecar.sandbox.search import Dialect


class Subscriptions:
    """All channels. Listens to the chart always; sends only between `start` and `stop`."""

    def __init__(self, chart: Chart, dialect: Dialect, faults: Faults, policy: DeliveryPolicy) -> None:
        """Serve the Subscriptions of `chart`."""
        self._chart = chart
        self._dialect = dialect
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
            self._run(channel, session)
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

    async def quiet(self) -> None:
        """Return once nothing is waiting to be sent or activated."""
        self._note()
        await self._idle.wait()

    def hear(self, version: Version) -> None:
        """Learn of a stored version: the chart's listener."""
        if version.type_name == "Subscription":
            self._follow(version)
        self.expire()
        for channel in list(self._channels.values()):
            if channel.wants(version):
                self._offer(channel, version)
        self._note()

    def expire(self) -> None:
        """Turn Subscriptions whose `end` is past off; called before anyone looks at them."""
        now = self._chart.clock()
        for channel in list(self._channels.values()):
            if has_ended(channel.subscription, now):
                self._set_status(channel.logical_id, "off")

    def _offer(self, channel: Channel, version: Version) -> None:
        for _ in range(self._faults.copies()):
            overtaken = self._faults.overtaken()
            channel.offer(version, overtaken=overtaken)
            if overtaken:
                asyncio.get_running_loop().call_later(self._policy.reorder_hold_s, channel.release)

    def _follow(self, version: Version) -> None:
        """Open, change or close the channel of a Subscription that was written or deleted."""
        status = version.resource["status"] if version.resource else "deleted"
        if status == "requested":
            self._request(version)
        elif version.resource is not None and status == "active":
            self._open(version.resource)
        else:
            self._close(version.logical_id)

    def _request(self, version: Version) -> None:
        requested = version.resource is not None and version.resource["status"] == "requested"
        if requested and self._session is not None and version.logical_id not in self._activations:
            task = asyncio.create_task(self._activate(version.logical_id))
            self._activations[version.logical_id] = task

    async def _activate(self, logical_id: str) -> None:
        """Answer a requested Subscription, after the reply to its write has had its turn."""
        await asyncio.sleep(0)
        del self._activations[logical_id]
        version = self._chart.alive("Subscription", logical_id)
        if version is not None and version.resource is not None and version.resource["status"] == "requested":
            if self._faults.refuses_activation():
                self._set_status(logical_id, "error", "the server could not activate this subscription")
            else:
                ended = has_ended(version.resource, self._chart.clock())
                self._set_status(logical_id, "off" if ended else "active")
        self._note()

    def _open(self, subscription: Resource) -> None:
        search = criteria_search(subscription, self._dialect)
        channel = self._channels.get(subscription["id"])
        if channel is not None:
            channel.configure(subscription, search)
            return
        channel = self._channels[subscription["id"]] = Channel(subscription, search)
        if self._session is not None:
            self._run(channel, self._session)

    def _close(self, logical_id: str) -> None:
        """Forget a channel and what it had not sent."""
        channel = self._channels.pop(logical_id, None)
        task = channel.task if channel else None
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def _run(self, channel: Channel, session: aiohttp.ClientSession) -> None:
        channel.task = asyncio.create_task(self._deliver(channel, session))

    async def _deliver(self, channel: Channel, session: aiohttp.ClientSession) -> None:
        """Send a channel's notifications in order until it is closed or its receiver is given up."""
        while True:
            version = await channel.head()
            problem = await channel.send(version, session, self._policy)
            if problem is not None:
                self._set_status(channel.logical_id, "error", problem)
                self._note()
                return
            channel.queue.popleft()
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
        self._chart.put("Subscription", logical_id, changed)

    def _note(self) -> None:
        """Keep `quiet` informed."""
        if self._activations or any(channel.waiting for channel in self._channels.values()):
            self._idle.clear()
        else:
            self._idle.set()
