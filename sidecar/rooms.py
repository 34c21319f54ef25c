"""The adapters every loop works with, built once by `sidecar.app`."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sidecar.context import ContextReader
from sidecar.deid import Rules
from sidecar.evidence import Archive
from sidecar.fhir.client import EhrClient
from sidecar.fhir.gate import Gate
from sidecar.fleet import Fleet
from sidecar.inbox import EventBox, Inflow, WorkBox
from sidecar.intake import CatchUp, Follower, HookSecrets, Source, Subscriptions
from sidecar.pipeline import RunningModel
from sidecar.registry import Registry
from sidecar.settings import Settings, Work
from sidecar.store import HEAD, Leases, Store
from sidecar.writeback import Deliverer, Outbox

CHARTED = {"base_url", "write_ladder", "score_value", "probability"}


def what_runs(settings: Settings, models: Mapping[str, RunningModel]) -> str:
    """A digest of all that decides what an event becomes: equal for servers that may work side by side.

    Who may write is in the log, which all of them follow.
    """
    said = {
        "schema": HEAD,  # a process that does not know the tables as they are leaves the work to those that do
        "sites": [
            (name, site.model_dump(mode="json", exclude={"promoted_by", "promoted_because"}))
            for name, site in sorted(settings.models.items())
        ],
        "models": [(name, m.loaded.digest) for name, m in sorted(models.items())],
        "deid": settings.deid.model_dump(mode="json"),
        "facility": settings.facility.model_dump(mode="json"),
        "subscriptions": settings.subscriptions.model_dump(mode="json"),
        "ehr": settings.ehr.model_dump(mode="json", include=CHARTED),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Rooms:
    """`clock` is the clinical time; leases, pauses and watermarks follow the wall clock."""

    store: Store
    leases: Leases
    client: EhrClient
    gate: Gate
    events: EventBox
    inflow: Inflow
    work_box: WorkBox
    archive: Archive
    outbox: Outbox
    reader: ContextReader
    deliverer: Deliverer
    catch_up: CatchUp
    subscriptions: Subscriptions
    follower: Follower
    hook_secrets: HookSecrets
    sources: tuple[Source, ...]
    models: Fleet
    registry: Registry
    rules: Rules
    work: Work
    clock: Callable[[], datetime]

    async def ready(self) -> None:
        """Wait until work may be claimed: the EHR is thought to be there, and it is this process's to do."""
        while True:
            await self.gate.ready()
            await self.leases.leading()
            if self.gate.is_open:
                return

    async def ready_to_write(self) -> None:
        """The same, and writing is allowed."""
        while True:
            await self.ready()
            if not self.registry.stopped:
                return
            await self.registry.allowed()

    async def ready_to_search(self) -> None:
        """The same, and there is room for what a search for missed events finds."""
        while True:
            await self.ready()
            if self.inflow.has_room:
                return
            await self.inflow.room()
