"""How events reach us: R4 rest-hook Subscriptions, classic or by topic, and the search for what they lost.

Then: `sidecar.inbox`.
"""

from sidecar.intake.bundle import Notice, Notification, read_bundle
from sidecar.intake.catch_up import CatchUp
from sidecar.intake.follower import Follower
from sidecar.intake.hook_secrets import HookSecrets
from sidecar.intake.notification import Refused, read_put
from sidecar.intake.sources import Source, sources_for
from sidecar.intake.states import forgotten, noted
from sidecar.intake.subscriptions import Subscriptions
from sidecar.intake.wanted import Site

__all__ = [
    "CatchUp",
    "Follower",
    "HookSecrets",
    "Notice",
    "Notification",
    "Refused",
    "Site",
    "Source",
    "Subscriptions",
    "forgotten",
    "noted",
    "read_bundle",
    "read_put",
    "sources_for",
]
