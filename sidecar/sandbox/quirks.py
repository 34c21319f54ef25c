"""How a server serves topic-based Subscriptions, as data: the honest server is the default, real ones differ.

Pure. How patient a server is with its receivers is `delivery.DeliveryPolicy`, what goes wrong is `faults.Faults`.

```python
PracticeEhr(capabilities=Capabilities(backport=None))                              # classic Subscriptions only
PracticeEhr(capabilities=Capabilities(backport=HAPI))                              # a server seen in the field
PracticeEhr(capabilities=Capabilities(backport=Backport(events_operation=False)))  # honest, but without $events
PracticeEhr(delivery=DeliveryPolicy(second_s=0.1))                                 # heartbeats ten times as fast
```

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


HAPI = Backport(
    status_operation=False,
    events_operation=False,
    handshake=False,
    heartbeat=False,
    status_request=False,
    timestamp="valueDate",
    references="relative",
)
"""HAPI JPA 8; with `DeliveryPolicy(gives_up="drop", enforces_end=False)`, and `restart()` for its numbers in memory."""

ATHENA = Backport(
    events_operation=False,
    contents=frozenset({"id-only"}),
    counters="bundle",
    status_resource="SubscriptionStatus",
)
"""athenahealth's event platform: STU1.0 shapes of R4B in an R4 API, and numbers that show no gap."""

SEKMET = Backport(status_request=False)
"""sekmet-fhir 0.1: all of the guide, but for the request of entry[0]."""
