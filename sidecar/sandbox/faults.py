"""Faults an EHR has, on demand and repeatable: by counters, or by chance from a seeded generator.

https://hl7.org/fhir/R4/http.html#Status-Codes
"""

from dataclasses import dataclass, field
from random import Random
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["fail", "cut", "drop_reply"]


@dataclass(slots=True)
class Planned:
    """A fault planned for the next `remaining` requests; `only` is a method and a type, as "POST Task"."""

    kind: Kind
    remaining: int
    only: str | None = None
    status: int = 503
    retry_after_s: float | None = None


@dataclass(slots=True)
class Faults:
    """What goes wrong next. Everything is off until set, and `clear` turns everything off again.

    Requests: `delay_s` before each, `down` closes every connection without a reply, `token_down` those to the token
    endpoint. Notifications: `lose`,
    `repeat` and `reorder` are probabilities, drawn in the order of the writes whatever receivers do.
    """

    rng: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - repeatable, not secret
    delay_s: float = 0.0
    down: bool = False
    token_down: bool = False
    lose: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0
    _planned: list[Planned] = field(default_factory=list)
    _lose_next: int = 0
    _refuse_activations: int = 0

    def fail_next(
        self,
        n: int = 1,
        status: int = 503,
        retry_after_s: float | None = None,
        only: str | None = None,
    ) -> None:
        """Answer the next `n` matching requests with `status`, writing nothing."""
        self._planned.append(Planned("fail", n, only, status, retry_after_s))

    def cut_next(self, n: int = 1, only: str | None = None) -> None:
        """Close the connection on the next `n` matching requests before anything is written."""
        self._planned.append(Planned("cut", n, only))

    def drop_reply_next(self, n: int = 1, only: str | None = None) -> None:
        """Do what the next `n` matching requests ask, then close the connection instead of answering."""
        self._planned.append(Planned("drop_reply", n, only))

    def lose_next(self, n: int = 1) -> None:
        """Lose the next `n` notifications."""
        self._lose_next += n

    def refuse_activation_next(self, n: int = 1) -> None:
        """Answer the next `n` requested Subscriptions with status `error`."""
        self._refuse_activations += n

    def clear(self) -> None:
        """Turn every fault off; the generator goes on where it was."""
        self.delay_s = self.lose = self.repeat = self.reorder = 0.0
        self.down = self.token_down = False
        self._planned.clear()
        self._lose_next = self._refuse_activations = 0

    def take(self, operation: str) -> Planned | None:
        """Use up and return the first planned fault that applies to `operation` ("PUT Observation")."""
        for planned in self._planned:
            if planned.remaining > 0 and planned.only in {None, operation}:
                planned.remaining -= 1
                return planned
        return None

    def copies(self) -> int:
        """Decide how often the next notification is sent: 0 when lost, 2 when repeated."""
        if self._lose_next > 0:
            self._lose_next -= 1
            return 0
        if self.rng.random() < self.lose:
            return 0
        return 2 if self.rng.random() < self.repeat else 1

    def overtaken(self) -> bool:
        """Decide whether the next notification is sent after the one that follows it."""
        return self.rng.random() < self.reorder

    def refuses_activation(self) -> bool:
        """Use up one refused activation, if any is planned."""
        refused = self._refuse_activations > 0
        self._refuse_activations -= refused
        return refused
