"""The practice EHR: build one, start it, point a client at `base_url`.

```python
ehr = PracticeEhr()
await ehr.start()
await ehr.write({"resourceType": "Patient", "id": "p1"})
```

What it holds outlives `stop`: start it again and it is the same EHR on the same port, back from an outage; `restart`
comes back without its counters and queues. Clients may subscribe to the topics that `topics.changed_topic` names, or
to classic criteria. `quirks` has the ways of real servers, `faults` what can go wrong.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import aiohttp
import orjson
from aiohttp import web

from sidecar.sandbox.capability import Capabilities
from sidecar.sandbox.chart import Chart
from sidecar.sandbox.credentials import Credentials
from sidecar.sandbox.delivery import DeliveryPolicy
from sidecar.sandbox.faults import Faults
from sidecar.sandbox.gate import PREFIX, Gate, Handler
from sidecar.sandbox.interactions import Interactions
from sidecar.sandbox.outcome import Refusal, Resource
from sidecar.sandbox.quirks import Backport
from sidecar.sandbox.replies import MAX_BODY_BYTES
from sidecar.sandbox.routes import Routes
from sidecar.sandbox.search import Dialect
from sidecar.sandbox.subscriptions import Subscriptions
from sidecar.sandbox.validation import Validator

__all__ = ["Backport", "Capabilities", "Credentials", "DeliveryPolicy", "Faults", "PracticeEhr", "Refusal"]


def _now() -> datetime:
    return datetime.now(UTC)


class PracticeEhr:
    """One in-memory EHR. Used in-process by tests and the demo, over HTTP by whatever they exercise."""

    def __init__(
        self,
        clock: Callable[[], datetime] = _now,
        capabilities: Capabilities | None = None,
        credentials: Credentials | None = None,
        faults: Faults | None = None,
        delivery: DeliveryPolicy | None = None,
    ) -> None:
        """Build an empty EHR; `clock` (aware) gives `meta.lastUpdated`.

        It listens, and has its Subscription topics, only once started.
        """
        self.faults = faults or Faults()
        self._dialect = Dialect(capabilities or Capabilities())
        self._chart = Chart(clock)
        self._interactions = Interactions(self._chart, self._dialect, Validator())
        self._subscriptions = Subscriptions(
            self._chart,
            self._dialect,
            self.faults,
            delivery or DeliveryPolicy(),
        )
        self._chart.listener = self._subscriptions.hear
        self._gate = Gate(self.faults, credentials)
        self._routes = Routes(self._interactions, self._subscriptions, credentials)
        self._pages: list[web.RouteDef] = []
        self._host = "127.0.0.1"
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def base_url(self) -> str:
        """The FHIR base, without a slash at the end; empty before the first start."""
        return self._dialect.base_url

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """Requests received, by method and shape: ("GET", "Patient/{id}"); `clear()` starts again."""
        return self._gate.requests

    def add_page(self, path: str, handler: Handler, method: str = "GET") -> None:
        """Mount a route of the caller's at `path`, outside /fhir; before `start`."""
        self._pages.append(web.route(method, path, handler))

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen on a loopback `host`; port 0 is the port it had before, else any free one.

        Raises:
            ValueError: `host` is not loopback.
            RuntimeError: it is started already.
        """
        if host not in {"127.0.0.1", "::1", "localhost"}:
            msg = f"the practice EHR listens on loopback only, not on {host}"
            raise ValueError(msg)
        if self._runner is not None:
            msg = "the practice EHR is started already"
            raise RuntimeError(msg)
        runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port or self._port, reuse_address=True).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner, self._host = runner, host
        if not self._port:
            self._interactions.topics.write_built_in()
        self._port = runner.addresses[0][1]
        self._dialect.base_url = f"http://{f'[{host}]' if ':' in host else host}:{self._port}{PREFIX}"
        self._session = aiohttp.ClientSession()
        self._subscriptions.start(self._session)

    async def stop(self) -> None:
        """Stop listening and notifying; contents and undelivered notifications are kept."""
        await self._subscriptions.stop()
        if self._session is not None:
            await self._session.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._session = self._runner = None

    async def restart(self) -> None:
        """Stop and start again, as a server that keeps counters and queues in memory: the chart and the port stay.

        Numbers of events start again at 0, `$events` has none, and what was not delivered never will be;
        `faults.counts["forgotten"]` says how much that was.
        """
        await self.stop()
        self._subscriptions.forget()
        await self.start(self._host)

    async def quiet(self, timeout_s: float) -> None:
        """Return when every notification was delivered or given up; heartbeats go on and do not count.

        Raises:
            TimeoutError: some still wait after `timeout_s`.
        """
        async with asyncio.timeout(timeout_s):
            await self._subscriptions.quiet()

    async def write(self, resource: Resource, *, validate: bool = True) -> Resource:
        """Store `resource` from inside the EHR, as a client's PUT (or POST, without an id) would.

        The EHR gives its own ids, so `update_create` does not limit it. Returns what is now stored.

        Raises:
            Refusal: it is invalid (not looked for unless `validate`), or of a type not supported.
        """
        own: Resource = orjson.loads(orjson.dumps(resource))
        type_name = self._interactions.supported(own.get("resourceType", ""))
        if validate:
            self._interactions.check(type_name, own)
        logical_id = own.get("id")
        if logical_id:
            version = self._chart.put(type_name, logical_id, own)
        else:
            version = self._chart.put(type_name, self._chart.new_id(type_name), own, "POST")
        return _copy(version.body)

    async def remove(self, type_name: str, logical_id: str) -> None:
        """Delete from inside the EHR; classic subscribers hear nothing, as R4 has it, topic-based ones do.

        Raises:
            Refusal: it was never there.
        """
        self._interactions.delete(type_name, logical_id)

    def read(self, type_name: str, logical_id: str) -> Resource | None:
        """Return the current version; None when there is none or it is deleted."""
        version = self._chart.alive(type_name, logical_id)
        return _copy(version.body) if version else None

    def all(self, type_name: str) -> list[Resource]:
        """Return the current version of every living resource of a type, oldest resource first."""
        return [_copy(version.body) for version in self._chart.living(type_name)]

    def history(self, type_name: str, logical_id: str) -> list[Resource]:
        """Return every version, oldest first; deletions have no resource and are left out."""
        versions = self._chart.versions(type_name, logical_id)
        return [_copy(version.body) for version in versions if version.body]

    def _app(self) -> web.Application:
        """Build the application; aiohttp wants a new one for every start."""

        @web.middleware
        async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
            """Wrap everything, aiohttp's own 404 and 405 included."""
            return await self._gate.pass_through(request, handler)

        app = web.Application(middlewares=[gate], client_max_size=MAX_BODY_BYTES + 1)
        app.add_routes(self._routes.table())
        app.add_routes(self._pages)
        return app


def _copy(body: bytes) -> Resource:
    """Return a resource the caller may change."""
    resource: Resource = orjson.loads(body)
    return resource
