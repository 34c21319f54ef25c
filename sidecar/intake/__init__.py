"""How events reach us: R4 rest-hook Subscriptions, and the search that finds what they lost. Then: `sidecar.inbox`."""

from sidecar.intake.catch_up import CatchUp
from sidecar.intake.notification import Refused, read_put
from sidecar.intake.sources import Source, sources_for
from sidecar.intake.subscriptions import Subscriptions

__all__ = ["CatchUp", "Refused", "Source", "Subscriptions", "read_put", "sources_for"]
