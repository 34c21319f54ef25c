"""Durable events: record, claim, route, retry, bury, complete. Goes on to `sidecar.routing`, then `sidecar.worker`.

This room names statements and makes transactions as values; `sidecar.store` runs them.
"""

from sidecar.inbox.events import ClaimedEvent, EventBox, ModelWait
from sidecar.inbox.inflow import Bounds, Full, Inflow
from sidecar.inbox.work import Claim, WorkBox, WorkItem

__all__ = ["Bounds", "Claim", "ClaimedEvent", "EventBox", "Full", "Inflow", "ModelWait", "WorkBox", "WorkItem"]
