"""What happens to claimed work that did not succeed, by the kind of error. One rule for routing, assessing, writing.

An outage counts no attempt. An EHR that answers others but not this request is no outage: such work is tried
again with doubling pauses, and set aside with its reason when `max_attempts` (or, for "busy" answers, many more) are
used up, so that one bad resource cannot keep the others waiting.
"""

from dataclasses import dataclass
from typing import Literal, TypeGuard

from sidecar.errors import ClaimLost, NotHere, Rejected, Retryable, SidecarError, Unavailable
from sidecar.fhir.gate import Gate
from sidecar.settings import Work

LONGEST_PAUSE_S = 60.0
PATIENCE = 4
"""How many times `max_attempts` an EHR may say "busy" to one resource, and how often before pauses double."""


@dataclass(frozen=True, slots=True)
class Aftermath:
    """`leave` it (somebody else owns it), `release` it untried or try `again`, `pause_s` from now, or `bury` it."""

    what: Literal["leave", "release", "again", "bury"]
    reason: str
    pause_s: float = 0.0


def _may_be_away(error: SidecarError) -> TypeGuard[Unavailable | Retryable]:
    return isinstance(error, Unavailable) or (isinstance(error, Retryable) and error.reason.startswith("ehr_error"))


async def aftermath(error: SidecarError, failures: int, gate: Gate, work: Work) -> Aftermath:
    """The consequence of `error` for work that had failed `failures` times before this."""
    if isinstance(error, NotHere):
        return Aftermath("release", error.reason, error.delay_s)
    if isinstance(error, ClaimLost | Rejected):
        return Aftermath("leave" if isinstance(error, ClaimLost) else "bury", error.reason)
    if _may_be_away(error) and await gate.is_away(error):
        return Aftermath("release", error.reason)
    most = work.max_attempts * (PATIENCE if isinstance(error, Unavailable) else 1)
    if failures + 1 >= most:
        return Aftermath("bury", error.reason)
    if isinstance(error, Unavailable):  # the EHR said how long; only its patience with us is tried by more
        return Aftermath("again", error.reason, min(error.delay_s * 2 ** max(0, failures - PATIENCE), LONGEST_PAUSE_S))
    delay_s = error.delay_s if isinstance(error, Retryable) else 1.0
    return Aftermath("again", error.reason, min(delay_s * 2 ** min(failures, 8), LONGEST_PAUSE_S))
