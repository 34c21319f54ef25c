"""Into the chart: renderers (pure), the outbox, and delivery with exactly one effect. The last room an event meets."""

from sidecar.writeback.deliver import Conventions, Delivered, Deliverer, Wording, is_chartable
from sidecar.writeback.ladder import LadderWriter
from sidecar.writeback.outbox import Outbox, QueuedWrite
from sidecar.writeback.render import Links, device, observation, risk_assessment

__all__ = [
    "Conventions",
    "Delivered",
    "Deliverer",
    "LadderWriter",
    "Links",
    "Outbox",
    "QueuedWrite",
    "Wording",
    "device",
    "is_chartable",
    "observation",
    "risk_assessment",
]
