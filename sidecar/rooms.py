"""The adapters every loop works with, built once by `sidecar.app`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sidecar.context import ContextReader
from sidecar.deid import Rules
from sidecar.evidence import Archive
from sidecar.fhir.client import EhrClient
from sidecar.fhir.gate import Gate
from sidecar.inbox import EventBox, WorkBox
from sidecar.intake import CatchUp, Follower, HookSecrets, Source, Subscriptions
from sidecar.monitoring import Bins
from sidecar.pipeline import RunningModel
from sidecar.settings import Work
from sidecar.store import Store
from sidecar.writeback import Deliverer, Outbox


@dataclass(frozen=True, slots=True)
class Rooms:
    """`clock` is the clinical time; leases, pauses and watermarks follow the wall clock."""

    store: Store
    client: EhrClient
    gate: Gate
    events: EventBox
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
    models: Mapping[str, RunningModel]
    bins: Mapping[str, Mapping[str, Bins]]
    rules: Rules
    work: Work
    clock: Callable[[], datetime]
