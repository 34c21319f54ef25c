"""The composition root: the one place that builds adapters and lists every task that runs."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from aiohttp import web

from sidecar import log, metrics, operations
from sidecar.context import ContextReader, Need
from sidecar.deid import Mode, Rules, load_rules, unreadable
from sidecar.delivery import Delivery
from sidecar.duties import DUTIES, Duties
from sidecar.errors import Misconfigured, NotStored, SidecarError
from sidecar.evidence import Archive
from sidecar.explanation import rationale, rationales, reason_in_words
from sidecar.features import Extractor, SiteChoices, open_choices
from sidecar.fhir import scopes
from sidecar.fhir.auth import Signer, credentials
from sidecar.fhir.client import EhrClient
from sidecar.fhir.gate import Gate
from sidecar.inbox import Bounds, EventBox, Inflow, ModelWait, WorkBox
from sidecar.intake import CatchUp, Follower, HookSecrets, Notice, Site, Source, Subscriptions, noted, sources_for
from sidecar.monitoring import Bins, bins_for
from sidecar.pipeline import RunningModel
from sidecar.pump import Pump
from sidecar.records import Arm, Event
from sidecar.rooms import Rooms, what_runs
from sidecar.routing import Router
from sidecar.scoring import LoadedModel, load_models
from sidecar.settings import ModelSettings, Settings, admin_socket, secret, store_password
from sidecar.store import Cipher, Leases, Says, Statement, check_ring, keep_ring, load_keys, open_store, room_beside
from sidecar.web.admin import admin_app
from sidecar.web.door import Door, Limits, private_socket
from sidecar.web.jwks import publish_keys
from sidecar.web.notifications import Intake, NotificationDoor
from sidecar.web.ops import ops_app
from sidecar.worker import Worker
from sidecar.writeback import Conventions, Deliverer, Outbox, Wording

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


def shipped(name: str) -> Path:
    """A folder that ships with the project (`models`, `ward`), in a checkout or an installed package."""
    package = Path(__file__).parent
    checkout = {"models": package.parent / "models", "ward": package.parent / "fhir_fixtures" / "ward"}[name]
    return checkout if checkout.is_dir() else package / "shipped" / name


def running_model(loaded: LoadedModel, site: ModelSettings) -> RunningModel:
    """A loaded model with the site's decisions. Without a named promotion it runs in shadow.

    Raises:
        Misconfigured: the settings name a switch or an input that the model does not have, or leave a choice open.
    """
    manifest = loaded.manifest
    unknown = [f"models.{manifest.name}.switches.{n}" for n in site.switches if n not in manifest.switches]
    unknown += [f"models.{manifest.name}.max_age.{n}" for n in site.max_age if n not in manifest.features]
    unknown += [f"models.{manifest.name}.choices.{n}" for n in site.choices if n not in manifest.choices]
    problems = [f"{name}: the model has no such name" for name in unknown] + open_choices(manifest, site.choices)
    if problems:
        raise Misconfigured(problems)
    debounce = site.debounce or manifest.events.debounce
    max_wait = site.max_wait or manifest.events.max_wait
    return RunningModel(
        loaded=loaded,
        extractor=Extractor(manifest, SiteChoices(site.switches, site.choices, site.max_age, site.spread)),
        need=Need.of(manifest, site.max_age, site.spread),
        arm=Arm.CHAMPION if site.promoted_by else Arm.SHADOW,
        wait=ModelWait(manifest.name, debounce.total_seconds(), max_wait.total_seconds()),
    )


def running_models(settings: Settings) -> dict[str, RunningModel]:
    """Every model that the settings name.

    Raises:
        Misconfigured: listing what is wrong with them.
    """
    root = settings.models_dir or shipped("models")
    loaded = load_models(root, {name: site.version for name, site in settings.models.items()})
    return {name: running_model(loaded[name], site) for name, site in settings.models.items()}


@dataclass(frozen=True, slots=True)
class Adapters:
    """What the settings turned into before the rooms are built."""

    signer: Signer
    models: Mapping[str, RunningModel]
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
        models = _try(lambda: running_models(settings), problems)
        rules = _try(lambda: load_rules(mode=Mode(settings.deid.mode)), problems)
        if models and rules:
            problems += [p for model in models.values() for p in unreadable(rules, model.extractor.reads)]
        if problems or not (cipher and hook and signer and models and rules):
            raise Misconfigured(problems)
        self.models, self._cipher = models, cipher
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
        champion = any(m.arm is Arm.CHAMPION for m in self.models.values())
        manifests = [m.loaded.manifest for m in self.models.values()]
        return scopes.needed(manifests, writes=champion or self._has_written)

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
        await self.leases.beat()
        self.rooms.store.listen(self._wake_some)
        self._has_written = bool(await self.rooms.store.read(WRITTEN))
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
        admin = admin_app(store, self.wake, said, operations.sealed_verbs(store, self._cipher))
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
    says = Says(what_runs(settings, models), lambda: (cipher.sealing, cipher.sealing_since))
    leases = Leases(store, DUTIES, says=says)
    events, outbox = EventBox(store, cipher), Outbox(store, cipher)
    site = Site(settings.server.public_url, hook, settings.subscriptions)
    subscriptions = Subscriptions(client, store, events.record, site, partial(leases.must_hold, DUTIES[0]))
    bins = {name: bins_for(m.loaded.reference) for name, m in models.items()}
    _announce(models, bins)
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
        sources=sources_for([m.loaded.manifest for m in models.values()]),
        models=models,
        bins=bins,
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


def _announce(models: Mapping[str, RunningModel], bins: Mapping[str, Mapping[str, Bins]]) -> None:
    """Make every child of the model metrics exist, with its reference."""
    for name, model in models.items():
        version = model.loaded.manifest.version
        metrics.MODEL_INFO.labels(name, version, model.loaded.digest[:12], model.arm.value).set(1)
        for feature, spec in bins[name].items():
            metrics.REFERENCE_OBSERVATIONS.labels(name, version, feature).set(spec.observations)
            for bin_name in spec.names:
                metrics.BIN_OBSERVATIONS.labels(name, version, feature, bin_name)
                metrics.BIN_REFERENCE.labels(name, version, feature, bin_name).set(spec.ratios[bin_name])


def _try(build: Callable[[], Built], problems: list[str]) -> Built | None:
    try:
        return build()
    except Misconfigured as error:
        problems += error.problems
        return None
