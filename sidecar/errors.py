"""Errors named by what the caller does next.

None of them carries an HTTP status: `sidecar.web` and `sidecar.fhir` translate. None carries a value from a
payload: `reason` comes from a closed vocabulary (`word:detail`, where detail is a feature, element or setting
name), so it may be stored, counted, logged and shown.
"""


class SidecarError(Exception):
    """Any refusal this project raises on purpose."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Retryable(SidecarError):
    """Try the same work again after `delay_s`; attempts are counted."""

    def __init__(self, reason: str, delay_s: float = 1.0) -> None:
        super().__init__(reason)
        self.delay_s = delay_s


class TooEarly(SidecarError):
    """Nothing has failed: what must end first may last for `delay_s` more. Try again then; no attempt is counted."""

    def __init__(self, reason: str, delay_s: float) -> None:
        super().__init__(reason)
        self.delay_s = delay_s


class Rejected(SidecarError):
    """The input can never succeed as it is: bury it with its reason."""


class Unavailable(SidecarError):
    """A dependency is down: stop claiming until it answers; attempts are not counted."""

    def __init__(self, reason: str, delay_s: float = 1.0) -> None:
        super().__init__(reason)
        self.delay_s = delay_s


class NotStored(SidecarError):
    """Our own database could not commit or read: keep the claim, wait, let the lease bring the work back."""


class NotHere(SidecarError):
    """Another server can do this, or this one when it is set up like the others: leave it, uncounted, for `delay_s`."""

    def __init__(self, reason: str, delay_s: float = 5.0) -> None:
        super().__init__(reason)
        self.delay_s = delay_s


class Conflict(SidecarError):
    """Somebody else changed the resource first: read it again, then decide."""


class ClaimLost(SidecarError):
    """The lease ran out and another worker owns the work: drop the result, say nothing."""


class Misconfigured(SidecarError):
    """Refuse to start. `problems` lists every fault found, each with how to mend it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
