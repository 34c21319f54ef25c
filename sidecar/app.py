"""The composition root: the one place that builds adapters and lists every task that runs."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from aiohttp import web

from sidecar import log, metrics, operations
from sidecar.context import ContextReader
from sidecar.decisions import Decisions
from sidecar.deid import Mode, Rules, load_rules, unreadable
from sidecar.delivery import Delivery
from sidecar.duties import DUTIES, Duties
from sidecar.errors import Misconfigured, NotStored, SidecarError
from sidecar.evidence import Archive
from sidecar.explanation import rationale, rationales, reason_in_words
from sidecar.fhir import scopes
from sidecar.fhir.auth import Signer, credentials
from sidecar.fhir.client import EhrClient
from sidecar.fhir.gate import Gate
from sidecar.fleet import Fleet, running_model, running_models, shipped
from sidecar.inbox import Bounds, EventBox, Inflow, WorkBox
from sidecar.intake import CatchUp, Follower, HookSecrets, Notice, Site, Source, Subscriptions, noted, sources_for
from sidecar.pump import Pump
from sidecar.records import Event
from sidecar.registry import Registry
from sidecar.rollout import Book
from sidecar.rooms import Rooms, what_runs
from sidecar.routing import Router
from sidecar.settings import Settings, admin_socket, secret, store_password
from sidecar.store import Cipher, Leases, Says, Statement, check_ring, keep_ring, load_keys, open_store, room_beside
from sidecar.web.admin import admin_app
from sidecar.web.door import Door, Limits, private_socket
from sidecar.web.jwks import publish_keys
from sidecar.web.notifications import Intake, NotificationDoor
from sidecar.web.ops import ops_app
from sidecar.worker import Worker
from sidecar.writeback import Conventions, Deliverer, Outbox, Wording

__all__ = ["BOUNDS", "LIMITS", "Sidecar", "running_model", "running_models", "shipped", "system_clock"]

STOP_S, CUT_S = 8.0, 2.0
"""What a stop gives to running work, and to each of the steps after that: together less than 20 s."""

RESTART_S = 1.0
LIMITS, BOUNDS = Limits(), Bounds()
OPS_CONNECTIONS, ADMIN_CONNECTIONS = 64, 16
ALIVE = Statement("alive", "SELECT 1 AS yes FROM event LIMIT 1")
WRITTEN = Statement("written_before", "SELECT 1 AS yes FROM effect LIMIT 1")
Clock = Callable[[], datetime]
Built = TypeVar("Built")


def system_clock() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Adapters:
    """What the settings turned into before the rooms are built."""

    signer: Signer
    models: Fleet
    rules: Rules
    clock: Clock
    bounds: Bounds


class Sidecar:
    """A running sidecar: `start`, then `run_until(stop)`; `clock` is the time of the ward."""

    def __init__(
        self, settings: Settings, clock: Clock = system_clock, limits: Limits = LIMITS, bounds: Bounds = BOUNDS
    ) -> None:
        """Build everything; nothing runs yet. `limits` are the hook's, `bounds` the inbox's.

        Raises:
            Misconfigured: listing every problem found.
        """
        self.settings, self.clock, self._limits = settings, clock, limits
        problems: list[str] = []
        cipher = _try(lambda: load_keys(settings.store.key_file), problems)
        hook = _try(
            lambda: secret("server.hook_secret", "SIDECAR_HOOK_SECRET", settings.server.hook_secret_file),
            problems,
        )
        signer = _try(lambda: credentials(settings.ehr, self._needs), problems)
        models = _try(lambda: Fleet(settings), problems)
        rules = _try(lambda: load_rules(mode=Mode(settings.deid.mode)), problems)
        if models and rules:
            problems += [p for model in models.configured.values() for p in unreadable(rules, model.extractor.reads)]
        if problems or not (cipher and hook and signer and models and rules):
            raise Misconfigured(problems)
        self.models, self._cipher = models, cipher
        models.sort_by(cipher)
        self.rooms = _rooms(settings, cipher, hook.get_secret_value(), Adapters(signer, models, rules, clock, bounds))
        forced = None if settings.ehr.write_ladder == "auto" else settings.ehr.write_ladder
        self.delivery = Delivery(self.rooms, forced)
        self.worker = Worker(self.rooms, self.delivery.pump.wake)
        self.router = Router(self.rooms, self.worker.pump.wake)
        intake = Intake(self.rooms.hook_secrets, self.rooms.inflow, self._heard)
        self.door = NotificationDoor(self.rooms.sources, intake, settings.server.max_body_bytes, limits)
        self._duties = Duties(self.rooms, settings, self.wake).each
        self.leases = self.rooms.leases
        self.signer = signer
        if signer.public_keys() is not None:
            publish_keys(self.door.app, signer.public_keys)
        self._has_written = False
        self._doors: list[Door] = []
        self._tasks: list[asyncio.Task[None]] = []

    def _needs(self) -> scopes.Permissions:
        """What to ask the EHR for; a site in shadow asks for no write, unless earlier results may need correction."""
        running = [m for _, m in self.models.running]
        writes = self._has_written or any(m.arm.writes for m in running)
        return scopes.needed([m.loaded.manifest for m in running], writes=writes)

    def _changed(self) -> None:
        """Other versions run or write from now on: there may be work, and other scopes to ask for."""
        self.wake()
        if (needs := self._needs()) != self._asked_for:
            self._asked_for = needs
            self._renewing = asyncio.create_task(self._renew(), name="new-scopes")

    async def _renew(self) -> None:
        with contextlib.suppress(SidecarError):  # whoever needs a token next says what is wrong
            self.signer.renew(await self.signer.header())

    async def _heard(self, source: Source, events: Sequence[Event], notice: Notice | None = None) -> None:
        """Make what a notification told durable, in one transaction."""
        steps = self.rooms.events.recorded(*events)
        if notice is not None and self.settings.subscriptions.of(source.name) is not None:
            steps.append(noted(source.name, notice, time.time()))
        await self.rooms.store.commit(*steps)
        for event in events:
            (self.router.pump if event.focus else self.router.pings).wake()

    def wake(self) -> None:
        """Look for work now."""
        for pump in self._pumps:
            pump.wake()

    def _wake_some(self, names: frozenset[str]) -> None:
        """Another process made these claimable."""
        of: dict[str, tuple[Pump[Any], ...]] = {
            "events": (self.router.pump, self.router.pings),
            "work": (self.worker.pump,),
            "writes": (self.delivery.pump,),
        }
        if "rollout" in names:
            self.rooms.registry.wake()
        for name in names:
            for pump in of.get(name, ()):
                pump.wake()

    @property
    def _pumps(self) -> tuple[Pump[Any], ...]:
        return self.router.pump, self.router.pings, self.worker.pump, self.delivery.pump

    async def start(self) -> None:
        """Open the doors and start every task.

        Raises:
            Misconfigured: the key ring is not this database's, or a door cannot be opened.
        """
        await check_ring(self.rooms.store, self._cipher)
        await self.rooms.registry.begin()
        await self.leases.beat()
        self.rooms.store.listen(self._wake_some)
        self._has_written = bool(await self.rooms.store.read(WRITTEN))
        self._asked_for, self.rooms.registry.changed = self._needs(), self._changed
        await self.rooms.inflow.look()
        await self._open_doors()
        tasks: dict[str, Callable[[], Awaitable[None]]] = {
            "route": self.router.pump.run,
            "pings": self.router.pings.run,
            "assess": self.worker.pump.run,
            "write": self.delivery.pump.run,
            "leases": self.leases.keep,
            "ring": partial(keep_ring, self.rooms.store, self._cipher),
            "inflow": self.rooms.inflow.watch,
            "registry": self.rooms.registry.keep,
        }
        tasks |= {f"door-{door.name}": door.sweep for door in self._doors}
        tasks |= {duty: partial(self.leases.alone, duty, run) for duty, run in self._duties.items()}
        self._tasks = [asyncio.create_task(_forever(name, run), name=name) for name, run in tasks.items()]
        log.get().info("serving", address=self.addresses[0], count=len(self.models))

    @property
    def addresses(self) -> list[str]:
        """Where the notification and ops doors listen."""
        return [address for door in self._doors for address in door.addresses]

    async def run_until(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; a task that ends by itself stops everything, since a half-alive server helps nobody.

        Raises:
            RuntimeError: a task ended.
        """
        waiting = asyncio.ensure_future(stop.wait())
        done, _ = await asyncio.wait([waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if waiting not in done:
            raise RuntimeError("a background task ended")

    async def close(self) -> None:
        """Stop taking, settle or release what is claimed, close. Within 20 s."""
        self.door.close()
        await asyncio.gather(*(pump.stop(STOP_S) for pump in self._pumps))
        for task in self._tasks:
            task.cancel()
        await _at_most(CUT_S / 2, *self._tasks)
        await _at_most(CUT_S, *(door.close() for door in self._doors))
        await _at_most(CUT_S / 2, self.rooms.gate.close(), self.rooms.client.close())
        await _at_most(CUT_S, self.leases.give_back())
        await asyncio.to_thread(self.rooms.store.close)
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    async def _open_doors(self) -> None:
        """The hook, then the operators' doors."""
        server, store = self.settings.server, self.rooms.store
        await self._serve("hook", self.door.app, (server.host, server.port), self._limits)
        ops = ops_app(self._ready, lambda: operations.refresh_gauges(store))
        limits = replace(self._limits, connections=OPS_CONNECTIONS)
        await self._serve("ops", ops, (server.ops_host, server.ops_port), limits)
        path = admin_socket(self.settings)
        if path is None:
            return
        if path.exists() and not path.is_socket():
            raise Misconfigured([f"server.admin_socket: {path} exists and is not a socket"])
        path.unlink(missing_ok=True)
        self._socket = path
        said = {"sign_in": self.signer.report, "intake": self.rooms.inflow.report}
        people = Decisions(self.rooms.registry, self.rooms.archive, ZoneInfo(self.settings.facility.time_zone)).verbs
        admin = admin_app(store, self.wake, said, {**operations.sealed_verbs(store, self._cipher), **people})
        limits = replace(self._limits, connections=ADMIN_CONNECTIONS)
        try:
            await self._serve("admin", admin, private_socket(path), limits)
        except OSError as error:
            raise Misconfigured([f"server.admin_socket: cannot listen on {self._socket} ({error})"]) from None

    async def _serve(
        self, name: str, app: web.Application, where: tuple[str, int] | socket.socket, limits: Limits
    ) -> None:
        door = Door(name, app, limits)
        self._doors.append(door)
        try:
            await door.listen(where)
        except OSError as error:
            if isinstance(where, socket.socket):
                raise
            raise Misconfigured([f"cannot listen on {where[0]}:{where[1]} ({error.strerror})"]) from None

    _socket: Path | None = None
    _asked_for: scopes.Permissions | None = None
    _renewing: asyncio.Task[None] | None = None

    async def _ready(self) -> bool:
        try:
            await self.rooms.store.read(ALIVE)
        except SidecarError:
            return False
        return bool(self.models)


def _rooms(settings: Settings, cipher: Cipher, hook: str, built: Adapters) -> Rooms:
    """Open the database and build every adapter on it.

    Raises:
        Misconfigured: the database cannot be opened, or another server has it.
    """
    ehr, models = settings.ehr, built.models
    client = EhrClient(ehr.base_url, built.signer, timeout_s=ehr.timeout_s, connections=ehr.max_connections)
    gate = Gate(client)
    store = open_store(settings.store.url, store_password(settings.store))
    says = Says(what_runs(settings, models.configured), lambda: (cipher.sealing, cipher.sealing_since))
    leases = Leases(store, DUTIES, says=says)
    events, outbox = EventBox(store, cipher), Outbox(store, cipher)
    site = Site(settings.server.public_url, hook, settings.subscriptions)
    subscriptions = Subscriptions(client, store, events.record, site, partial(leases.must_hold, DUTIES[0]))
    return Rooms(
        store=store,
        leases=leases,
        client=client,
        gate=gate,
        events=events,
        inflow=Inflow(store, _free_beside(settings.store.url), built.bounds),
        work_box=WorkBox(store, cipher),
        archive=Archive(store, cipher),
        outbox=outbox,
        reader=ContextReader(client, ZoneInfo(settings.facility.time_zone), gate.capability),
        deliverer=Deliverer(
            client,
            outbox,
            Wording(rationale, rationales, reason_in_words),
            Conventions(ehr.score_value, ehr.probability),
        ),
        catch_up=CatchUp(client, store, events.record, settings.work.catch_up_overlap),
        subscriptions=subscriptions,
        follower=Follower(client, store, events.record, subscriptions, settings.subscriptions),
        hook_secrets=HookSecrets(store, hook),
        sources=sources_for(models.manifests),
        models=models,
        registry=Registry(Book(store, cipher), models),
        rules=built.rules,
        work=settings.work,
        clock=built.clock,
    )


def _free_beside(url: str) -> Callable[[], int] | None:
    """What tells how much room the database has left; None where it has a server that watches its own disk."""
    path = Path(url.removeprefix("sqlite:///"))
    return partial(room_beside, path) if url.startswith("sqlite:///") else None


async def _at_most(seconds: float, *endings: Awaitable[object]) -> None:
    """Wait for all `endings`, and for no longer: what hangs is left behind, and what fails has ended."""
    tasks = [asyncio.ensure_future(ending) for ending in endings]
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    if late:
        log.get().warning("left behind", place="close", count=len(late))


async def _forever(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a task that has no end; when it fails all the same, say which and why, and start it again."""
    while True:
        try:
            await run()
        except NotStored as error:
            log.get().error("not stored", place=name, reason=error.reason)
        except Exception as error:  # noqa: BLE001 -- the outermost frame of a background task
            metrics.LOGGED_ERRORS.labels(name).inc()
            log.unexpected(name, error)
        else:
            return
        await asyncio.sleep(RESTART_S)


def _try(build: Callable[[], Built], problems: list[str]) -> Built | None:
    try:
        return build()
    except Misconfigured as error:
        problems += error.problems
        return None
