"""How a server serves topic-based Subscriptions, as data: the honest server is the default, real ones differ.

Pure. `Capabilities(backport=None)` switches topics off altogether; `Capabilities(backport=HAPI)` imitates a server
seen in the field; `replace(Backport(), events_operation=False)` takes one thing away. How patient a server is with its
receivers is `DeliveryPolicy`, what goes wrong is `Faults`.
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Content: TypeAlias = Literal["empty", "id-only", "full-resource"]

CONTENTS: tuple[Content, ...] = ("empty", "id-only", "full-resource")


@dataclass(frozen=True, slots=True)
class Backport:
    """What the server does of the Subscriptions R5 Backport guide, and how its notifications look."""

    advertised: bool = True
    """Whether /metadata lists the topics."""
    status_operation: bool = True
    events_operation: bool = True
    missing_operation: Literal[400, 404, 501] = 404
    """The HTTP status of an operation the server does not have."""
    handshake: bool = True
    """Without one a requested Subscription is active at once, whoever listens."""
    heartbeat: bool = True
    contents: frozenset[Content] = frozenset(CONTENTS)
    """The contents a client may ask for; others are refused with 422."""
    sends: Content | None = None
    """The content sent whatever was asked for; None is what was asked for."""
    retention: int = 1000
    """How many events of one Subscription `$events` can still show."""
    counters: Literal["subscription", "bundle"] = "subscription"
    """With "bundle" the numbers start at 1 in every notification, so that no gap can be seen."""
    status_resource: Literal["Parameters", "SubscriptionStatus"] = "Parameters"
    """What entry[0] is; SubscriptionStatus belongs to R4B, not to R4."""
    status_request: bool = True
    """Whether entry[0] has request and response, as a history Bundle must (bdl-3, bdl-4)."""
    names: Literal["kebab", "camel"] = "kebab"
    """How parameters are named: `notification-event` as R4 has it, or `notificationEvent`."""
    timestamp: Literal["valueInstant", "valueDateTime", "valueDate"] = "valueInstant"
    references: Literal["absolute", "relative"] = "absolute"
    versioned_focus: bool = False
    """Whether the focus says which version triggered the event."""
