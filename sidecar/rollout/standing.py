"""The log of transitions and what follows from it. Pure.

Aliases are never stored: champion, canary and shadow are what the entries up to a moment come to, so the log answers
which version was the champion at any time, and no alias can say otherwise.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

EVERYTHING = ""
"""The model of an entry that is about all of them."""
SETTINGS = "settings"
"""The evidence of what a settings file decided, and of nothing else. A decision of a person is not undone by one."""


class What(StrEnum):
    """What an entry does."""

    SHADOW = "shadow"
    END_SHADOW = "end-shadow"
    CANARY = "canary"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    SUSPEND = "suspend"
    RESUME = "resume"
    STOP_WRITES = "stop-writes"
    ALLOW_WRITES = "allow-writes"


OF_A_VERSION = frozenset({What.SHADOW, What.END_SHADOW, What.CANARY, What.PROMOTE})
WRITES = frozenset({What.CANARY, What.PROMOTE})
"""What lets a version write into charts that could not before."""
OF_ALL = frozenset({What.STOP_WRITES, What.ALLOW_WRITES})
BY, MOST = ("patient", "unit"), 100.0


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a model. `digest` pins its manifest, and so every file that it uses."""

    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Canary:
    """A version that scores `percent` of a model's patients, or all patients of so many of its units."""

    version: Version
    percent: float
    by: str = "patient"


@dataclass(frozen=True, slots=True)
class Ask:
    """A transition somebody asks for. `override` is why it is made without the evidence that it needs."""

    what: What
    model: str
    who: str
    why: str
    version: Version | None = None
    percent: float | None = None
    by: str = "patient"
    evidence: str = ""
    override: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A transition in the log: its number, its moment, and the keyed digests of itself and of the entry before."""

    number: int
    at: float
    ask: Ask
    previous: bytes = b""
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the versions of one model stand. `champions` is a stack: the last is in force, a rollback takes it away.

    Without a champion, the first of the `shadows` speaks for the model, to nobody. `withdrawn` are the digests of
    versions that were rolled back. `by_people` says that somebody has decided by a command who writes.
    """

    champions: tuple[Version, ...] = ()
    canary: Canary | None = None
    shadows: tuple[Version, ...] = ()
    suspended: bool = False
    withdrawn: frozenset[str] = frozenset()
    by_people: bool = False
    known: frozenset[Version] = frozenset()

    @property
    def champion(self) -> Version | None:
        """The version in force."""
        return self.champions[-1] if self.champions else None

    @property
    def main(self) -> Version | None:
        """The version that everybody outside the canary is scored with: the champion, else the first shadow."""
        return self.champion or (self.shadows[0] if self.shadows else None)

    @property
    def beside(self) -> tuple[Version, ...]:
        """Versions that run in shadow beside `main`."""
        return tuple(v for v in self.shadows if v != self.main)

    @property
    def runs(self) -> tuple[Version, ...]:
        """Every version that scores somebody."""
        found = (self.main, self.canary.version if self.canary else None, *self.shadows)
        return tuple(dict.fromkeys(v for v in found if v is not None))

    @property
    def warm(self) -> tuple[Version, ...]:
        """Every version that a rollback may bring back: kept loaded."""
        return tuple(dict.fromkeys((*self.runs, *self.champions)))


@dataclass(frozen=True, slots=True)
class Standings:
    """What a log comes to: each model, and whether writing is stopped everywhere."""

    models: Mapping[str, Standing] = field(default_factory=lambda: MappingProxyType({}))
    stopped: bool = False

    def of(self, model: str) -> Standing:
        """How `model` stands; one that is in no entry has nothing."""
        return self.models.get(model, Standing())


def stand(entries: Iterable[Entry], since: Standings | None = None) -> Standings:
    """What `entries`, in order, come to after `since`."""
    found = since or Standings()
    for entry in entries:
        ask = entry.ask
        if ask.what in OF_ALL:
            found = replace(found, stopped=ask.what is What.STOP_WRITES)
        else:
            found = replace(found, models={**found.models, ask.model: _after(found.of(ask.model), ask)})
    return found


def _after(now: Standing, ask: Ask) -> Standing:
    if ask.what in OF_A_VERSION and ask.version is not None:
        then = _of_a_version(replace(now, known=now.known | {ask.version}), ask, ask.version)
        # What begins or ends in shadow decides nothing, unless it wrote as a canary.
        return then if ask.what not in WRITES and then.canary == now.canary else _decided(then, ask)
    match ask.what:
        case What.ROLLBACK if now.canary is not None:
            now = _withdrawn(replace(now, canary=None), now.canary.version)
        case What.ROLLBACK:
            now = _withdrawn(now, now.champions[-1]) if now.champions else now
        case What.SUSPEND:
            now = replace(now, suspended=True)
        case What.RESUME:
            now = replace(now, suspended=False)
    return _decided(now, ask)


def _withdrawn(now: Standing, version: Version) -> Standing:
    """Without `version` among the champions: a later rollback must not bring back what was taken back before."""
    champions = tuple(v for v in now.champions if v != version)
    shadows = tuple(v for v in now.shadows if v not in champions[-1:])  # who writes again is in shadow no more
    return replace(now, champions=champions, shadows=shadows, withdrawn=now.withdrawn | {version.digest})


def _of_a_version(now: Standing, ask: Ask, version: Version) -> Standing:
    others = tuple(v for v in now.shadows if v != version)
    canary = None if now.canary is not None and now.canary.version == version else now.canary
    match ask.what:
        case What.SHADOW:
            back = replace(now, shadows=(*others, version), canary=canary)
            return back if canary is now.canary else _withdrawn(back, version)
        case What.END_SHADOW:
            return replace(now, shadows=others)
        case What.CANARY:
            running = Canary(version, ask.percent or 0.0, ask.by)
            # Who is not in the canary of a model without a champion goes on in shadow.
            shadows = others if now.champion else now.shadows or (version,)
            return replace(now, canary=running, shadows=shadows, withdrawn=now.withdrawn - {version.digest})
        case _:
            earlier = tuple(v for v in now.champions if v != version)
            return replace(
                now, champions=(*earlier, version), canary=None, shadows=others, suspended=False,
                withdrawn=now.withdrawn - {version.digest},
            )  # fmt: skip


def _decided(now: Standing, ask: Ask) -> Standing:
    """Who has decided about writing."""
    return replace(now, by_people=now.by_people or ask.evidence != SETTINGS)


def stood(entries: Iterable[Entry], at: float) -> Standings:
    """How everything stood at the moment `at`."""
    return stand(e for e in entries if e.at <= at)


def why_not(ask: Ask, now: Standings) -> str | None:
    """Why `ask` cannot be done as things stand, in words; None when it can."""
    if not ask.who.strip() or not ask.why.strip():
        return "who and why must be said"
    return next((why for holds, why in _refusals(ask, now) if holds), None)


Refusals = Iterator[tuple[bool, str]]


def _refusals(ask: Ask, now: Standings) -> Refusals:
    """Each with whether it holds."""
    standing = now.of(ask.model)
    writes = standing.champion is not None or standing.canary is not None
    match ask.what:
        case What.STOP_WRITES:
            yield now.stopped, "writing is stopped already"
        case What.ALLOW_WRITES:
            yield not now.stopped, "writing is allowed already"
        case What.ROLLBACK:
            earlier = standing.canary is not None or len(standing.champions) > 1
            yield (
                not earlier,
                "there is no canary and no earlier champion to go back to; suspend stops the one there is",
            )
        case What.SUSPEND:
            yield standing.suspended, "it is suspended already"
            yield not writes, "nothing of it writes: it has no champion and no canary"
        case What.RESUME:
            yield not standing.suspended, "it is not suspended"
        case _ if ask.version is None:
            yield True, "a version must be named"
        case _:
            yield from _refusals_of(ask, ask.version, standing)


def _refusals_of(ask: Ask, version: Version, standing: Standing) -> Refusals:
    other = any(v.version == version.version and v.digest != version.digest for v in standing.known)
    yield other, f"version {version.version} has another digest than when it was first seen; give it a new number"
    is_champion = version == standing.champion
    match ask.what:
        case What.SHADOW:
            yield is_champion, "it is the champion: roll back, suspend, or promote another"
            yield version in standing.shadows, "it is in shadow already"
        case What.END_SHADOW:
            yield version not in standing.shadows, "it is not in shadow"
            yield version == standing.main, "it alone speaks for the model; put another in shadow first"
        case What.CANARY:
            yield is_champion, "it is the champion already"
            yield not 0 < (ask.percent or 0.0) <= MOST, "a canary takes more than 0 and at most 100 percent"
            yield ask.by not in BY, "a canary is by patient or by unit"
        case What.PROMOTE:
            yield is_champion, "it is the champion already" + ("; resume it" if standing.suspended else "")
