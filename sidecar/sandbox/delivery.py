"""One Subscription's channel: what it still has to send, sent in order, retried, then given up.

`ClassicChannel` is R4's rest-hook: with a payload it PUTs the resource to `{endpoint}/{Type}/{id}`, without one it
POSTs nothing to `{endpoint}`. `topic_channel.TopicChannel` is the topic-based one.
https://hl7.org/fhir/R4/subscription.html#2.46.7.1
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import aiohttp

from sidecar.sandbox.backport import Event
from sidecar.sandbox.chart import Version
from sidecar.sandbox.criteria import channel_headers
from sidecar.sandbox.faults import Fate
from sidecar.sandbox.outcome import Resource
from sidecar.sandbox.search import Search


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How long a receiver may take, and how often it is tried before the Subscription goes to `error`."""

    timeout_s: float = 2.0
    """Unless a topic-based Subscription asks for another one."""
    give_up_after: int = 5
    backoff_s: float = 0.1
    longest_backoff_s: float = 5.0
    reorder_hold_s: float = 0.2
    """How long an overtaken notification waits for one to overtake it."""
    second_s: float = 1.0
    """How long a second lasts in what a topic-based Subscription asks for; tests shorten it."""
    gives_up: Literal["error", "drop"] = "error"
    """What follows the last attempt: status `error`, or (as HAPI does) silence, and on with the next notification."""
    enforces_end: bool = True
    """Whether `end` turns a Subscription off; HAPI ignores it."""
    longest_life_s: float | None = None
    """How far ahead `end` may be; the server cuts what is longer, or sets it where the client left it out."""

    def pause_s(self, failures: int) -> float:
        """Return the pause after so many failures in a row: doubling, up to the longest."""
        return float(min(self.backoff_s * 2 ** (failures - 1), self.longest_backoff_s))


@dataclass(frozen=True, slots=True, eq=False)
class Notice:
    """One sending of an event, and what befalls it; a repeated event has two."""

    event: Event
    fate: Fate


@dataclass(frozen=True, slots=True)
class Message:
    """What goes over the wire, at `path` below the endpoint; a twin goes over two connections at once."""

    method: str
    path: str = ""
    body: bytes = b""
    content_type: str | None = None
    twin: bool = False


class Channel(ABC):
    """The queue of one Subscription. A notice leaves it only when delivered, so a restart sends it again."""

    def __init__(self, subscription: Resource, policy: DeliveryPolicy) -> None:
        """Open the channel of an active `subscription`."""
        self.logical_id: str = subscription["id"]
        self.queue: deque[Notice] = deque()
        self.held: list[Notice] = []
        self.late: set[Notice] = set()
        self.task: asyncio.Task[None] | None = None
        self.policy = policy
        self._filled = asyncio.Event()
        self.follow(subscription)

    def follow(self, subscription: Resource) -> None:
        """Take over a changed Subscription; what is queued goes to the new address, with the new headers."""
        channel = subscription["channel"]
        self.subscription = subscription
        self.endpoint: str = channel["endpoint"].rstrip("/")
        self.payload: str | None = channel.get("payload")
        self.headers = channel_headers(subscription)

    @property
    def waiting(self) -> int:
        """How many notices are not settled."""
        return len(self.queue) + len(self.held) + len(self.late)

    @property
    def timeout_s(self) -> float:
        """How long the receiver may take for one attempt."""
        return self.policy.timeout_s

    @abstractmethod
    def hear(self, version: Version, before: Version | None) -> Event | None:
        """Return the event that `version`, which replaces the living `before`, is to this Subscription, if any."""

    @abstractmethod
    async def due(self) -> Sequence[Notice]:
        """Wait for something to send, and return it without taking it off the queue."""

    @abstractmethod
    def message(self, notices: Sequence[Notice]) -> Message:
        """Write what was due as a message."""

    def offer(self, notice: Notice) -> None:
        """Queue a notice, as its fate has it: at once, after the next one, or late."""
        loop = asyncio.get_running_loop()
        if notice.fate.late_s:
            self.late.add(notice)
            loop.call_later(notice.fate.late_s, self._arrive, notice)
        elif notice.fate.overtaken and not self.held:
            self.held.append(notice)
            loop.call_later(self.policy.reorder_hold_s, self.release)
        else:
            self.queue.append(notice)
            self.release()

    def _arrive(self, notice: Notice) -> None:
        if notice in self.late:
            self.late.remove(notice)
            self.queue.append(notice)
            self._filled.set()

    def release(self) -> None:
        """Queue what is held back."""
        self.queue.extend(self.held)
        self.held.clear()
        if self.queue:
            self._filled.set()

    def drop(self) -> int:
        """Forget what was not sent, and return how much that was."""
        dropped = self.waiting
        self.queue.clear()
        self.held.clear()
        self.late.clear()
        return dropped

    def suspend(self) -> None:
        """Stop sending, and forget what was not sent."""
        self.drop()
        task, self.task = self.task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def settle(self, notices: Sequence[Notice]) -> None:
        """Take what was delivered off the queue."""
        for _ in notices:
            self.queue.popleft()

    async def send(self, message: Message, session: aiohttp.ClientSession) -> str | None:
        """Deliver one message within the policy; return the last problem if no attempt worked."""
        problem = None
        for failures in range(self.policy.give_up_after):
            if failures:
                await asyncio.sleep(self.policy.pause_s(failures))
            problem = await self._try(message, session)
            if problem is None:
                return None
        return problem

    async def _try(self, message: Message, session: aiohttp.ClientSession) -> str | None:
        problems = await asyncio.gather(*(self._once(message, session) for _ in range(1 + message.twin)))
        return None if None in problems else problems[0]

    async def _once(self, message: Message, session: aiohttp.ClientSession) -> str | None:
        url = self.endpoint + message.path
        content_type = {"Content-Type": message.content_type} if message.content_type else {}
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        try:
            # A redirect could leave the loopback interface, so it counts as a failure.
            async with session.request(
                message.method,
                url,
                data=message.body,
                headers={**content_type, **self.headers},
                timeout=timeout,
                allow_redirects=False,
            ) as reply:
                return None if 200 <= reply.status < 300 else f"{url} answered {reply.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"{url} did not answer: {type(error).__name__}"


class ClassicChannel(Channel):
    """R4's own rest-hook: one notification for each new version that matches, unnumbered."""

    def __init__(self, subscription: Resource, policy: DeliveryPolicy, search: Search) -> None:
        """Open the channel of an active `subscription` whose criteria are `search`."""
        super().__init__(subscription, policy)
        self._search = search

    def ask(self, subscription: Resource, search: Search) -> None:
        """Serve a changed Subscription from now on."""
        self.follow(subscription)
        self._search = search

    def hear(self, version: Version, _: Version | None) -> Event | None:
        """Return an event when a new version meets the criteria; a deletion never does."""
        wanted = version.type_name == self._search.type_name and self._search.matches(version)
        return Event(version) if wanted else None

    async def due(self) -> Sequence[Notice]:
        """Wait for the next notice."""
        while not self.queue:
            self._filled.clear()
            await self._filled.wait()
        return [self.queue[0]]

    def message(self, notices: Sequence[Notice]) -> Message:
        """PUT the resource, or POST nothing."""
        (notice,) = notices
        version, twin = notice.event.version, notice.fate.twin
        if self.payload is None:
            return Message("POST", twin=twin)
        return Message("PUT", f"/{version.reference}", version.body, self.payload, twin)
