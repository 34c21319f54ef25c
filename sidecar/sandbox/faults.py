"""Faults an EHR has, on demand and repeatable: by counters, or by chance from a seeded generator.

```python
ehr.faults.lose_next(2)                                # the next two notifications never come
ehr.faults.mishap_next("late", only="Observation")     # the next one about an Observation comes after `late_s`
ehr.faults.repeat = 0.1                                # one in ten comes twice
ehr.faults.mute = True                                 # nothing comes any more, and the Subscription stays active
await ehr.restart()                                    # counters start again, what was not delivered is gone
assert ehr.faults.counts["lost"] == 2
```

What is lost was numbered before: `$events` and the number of events since the start still tell of it.
https://hl7.org/fhir/R4/http.html#Status-Codes
"""

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["fail", "cut", "drop_reply"]
Mishap: TypeAlias = Literal["lose", "repeat", "reorder", "late", "twin"]
Count: TypeAlias = Literal[
    "lost", "repeated", "reordered", "late", "twinned", "given up", "forgotten", "mute heartbeats"
]
"""What `Faults.counts` counts: notifications, by what was to befall them, for each Subscription by itself."""


@dataclass(slots=True)
class Planned:
    """A fault planned for the next `remaining` requests.

    `only` is a method and a type ("POST Task"), or a method and a whole shape ("GET Subscription/{id}/$events").
    """

    kind: Kind
    remaining: int
    only: str | None = None
    status: int = 503
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """What befalls one sending of a notification."""

    overtaken: bool = False
    """Sent after the one that follows it."""
    late_s: float = 0.0
    """Sent so much later, while others go ahead."""
    twin: bool = False
    """Sent over two connections at once."""


@dataclass(slots=True)
class Faults:
    """What goes wrong next. Everything is off until set, and `clear` turns everything off again but `counts`.

    Requests: `delay_s` before each, `down` closes every connection without a reply, `token_down` those to the token
    endpoint. Notifications: `lose`, `repeat`, `reorder`, `late` and `twin` are probabilities, drawn in the order of the
    writes whatever receivers do; `mute` sends neither events nor heartbeats, and tells nobody.
    """

    rng: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - repeatable, not secret
    delay_s: float = 0.0
    down: bool = False
    token_down: bool = False
    lose: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0
    late: float = 0.0
    late_s: float = 0.5
    twin: float = 0.0
    mute: bool = False
    counts: Counter[Count] = field(default_factory=Counter)
    _planned: list[Planned] = field(default_factory=list)
    _mishaps: list[tuple[Mishap, str | None]] = field(default_factory=list)
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
        self.mishap_next("lose", n)

    def mishap_next(self, mishap: Mishap, n: int = 1, only: str | None = None) -> None:
        """Let `mishap` befall the next `n` notifications, or those about a resource of the type `only`."""
        self._mishaps += [(mishap, only)] * n

    def refuse_activation_next(self, n: int = 1) -> None:
        """Answer the next `n` requested Subscriptions with status `error`."""
        self._refuse_activations += n

    def clear(self) -> None:
        """Turn every fault off; the generator goes on where it was."""
        self.delay_s = self.lose = self.repeat = self.reorder = self.late = self.twin = 0.0
        self.down = self.mute = self.token_down = False
        self._planned.clear()
        self._mishaps.clear()
        self._refuse_activations = 0

    def take(self, operation: str) -> Planned | None:
        """Use up and return the first planned fault that applies to `operation` ("PUT Observation/{id}")."""
        for planned in self._planned:
            if planned.remaining > 0 and planned.only in {None, operation, operation.partition("/")[0]}:
                planned.remaining -= 1
                return planned
        return None

    def fates(self, type_name: str) -> list[Fate]:
        """Decide what befalls the next notification, about a `type_name`: one fate for each time it is sent."""
        if self.mute or self._befalls("lose", self.lose, type_name):
            self.counts["lost"] += 1
            return []
        repeated = self._befalls("repeat", self.repeat, type_name)
        self.counts["repeated"] += repeated
        return [self._fate(type_name) for _ in range(1 + repeated)]

    def _fate(self, type_name: str) -> Fate:
        overtaken = self._befalls("reorder", self.reorder, type_name)
        late = self._befalls("late", self.late, type_name)
        twin = self._befalls("twin", self.twin, type_name)
        self.counts["reordered"] += overtaken
        self.counts["late"] += late
        self.counts["twinned"] += twin
        return Fate(overtaken, self.late_s if late else 0.0, twin)

    def _befalls(self, mishap: Mishap, probability: float, type_name: str) -> bool:
        """Use up a planned mishap, or else draw one by chance."""
        for planned in ((mishap, None), (mishap, type_name)):
            if planned in self._mishaps:
                self._mishaps.remove(planned)
                return True
        return probability > 0 and self.rng.random() < probability

    def refuses_activation(self) -> bool:
        """Use up one refused activation, if any is planned."""
        refused = self._refuse_activations > 0
        self._refuse_activations -= refused
        return refused
