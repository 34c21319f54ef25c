"""One active Subscription's channel: what it still has to send, sent in order, retried, then given up.

A rest-hook with a payload PUTs the resource to `{endpoint}/{Type}/{id}`, without one it POSTs nothing to
`{endpoint}`. https://hl7.org/fhir/R4/subscription.html#2.46.7.1
"""

import asyncio
from collections import deque
from dataclasses import dataclass

import aiohttp

from sidecar.sandbox.chart import Version
from sidecar.sandbox.criteria import channel_headers
from sidecar.sandbox.outcome import Resource
from sidecar.sandbox.search import Search


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How long a receiver may take, and how often it is tried before the Subscription goes to `error`."""

    timeout_s: float = 2.0
    give_up_after: int = 5
    backoff_s: float = 0.1
    longest_backoff_s: float = 5.0
    reorder_hold_s: float = 0.2
    """How long an overtaken notification waits for one to overtake it."""

    def pause_s(self, failures: int) -> float:
        """Return the pause after so many failures in a row: doubling, up to the longest."""
        return float(min(self.backoff_s * 2 ** (failures - 1), self.longest_backoff_s))


class Channel:
    """The queue of one Subscription. The head leaves it only when delivered, so a restart sends it again."""

    def __init__(self, subscription: Resource, search: Search) -> None:
        """Open the channel of an active `subscription` whose criteria are `search`."""
        self.logical_id: str = subscription["id"]
        self.queue: deque[Version] = deque()
        self.held: list[Version] = []
        self.task: asyncio.Task[None] | None = None
        self._filled = asyncio.Event()
        self.configure(subscription, search)

    def configure(self, subscription: Resource, search: Search) -> None:
        """Take over a changed Subscription; what is queued goes to the new address."""
        channel = subscription["channel"]
        self.subscription = subscription
        self.search = search
        self.endpoint: str = channel["endpoint"].rstrip("/")
        self.payload: str | None = channel.get("payload")
        self.headers = channel_headers(subscription)

    @property
    def waiting(self) -> int:
        """How many notifications are not settled."""
        return len(self.queue) + len(self.held)

    def wants(self, version: Version) -> bool:
        """Tell whether a new version meets the criteria."""
        return version.type_name == self.search.type_name and self.search.matches(version)

    def offer(self, version: Version, *, overtaken: bool) -> None:
        """Queue a notification; an overtaken one is held back until `release` or the next one."""
        if overtaken and not self.held:
            self.held.append(version)
            return
        self.queue.append(version)
        self.release()

    def release(self) -> None:
        """Queue what is held back."""
        self.queue.extend(self.held)
        self.held.clear()
        if self.queue:
            self._filled.set()

    async def head(self) -> Version:
        """Wait for something to send, and return it without taking it off the queue."""
        while not self.queue:
            self._filled.clear()
            await self._filled.wait()
        return self.queue[0]

    async def send(self, version: Version, session: aiohttp.ClientSession, policy: DeliveryPolicy) -> str | None:
        """Deliver one notification within `policy`; return the last problem if no attempt worked."""
        problem = None
        for failures in range(policy.give_up_after):
            if failures:
                await asyncio.sleep(policy.pause_s(failures))
            problem = await self._try(version, session, policy.timeout_s)
            if problem is None:
                return None
        return problem

    async def _try(self, version: Version, session: aiohttp.ClientSession, timeout_s: float) -> str | None:
        method, url, headers, body = "POST", self.endpoint, self.headers, b""
        if self.payload:
            method, url, body = "PUT", f"{self.endpoint}/{version.reference}", version.body
            headers = {"Content-Type": self.payload, **self.headers}
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            # A redirect could leave the loopback interface, so it counts as a failure.
            async with session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as reply:
                return None if 200 <= reply.status < 300 else f"{url} answered {reply.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"{url} did not answer: {type(error).__name__}"
