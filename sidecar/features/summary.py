"""From the readings of a window to one number: sums, counts, changes, weights, and what is asked of a stay. Pure.

A window ends at the event, or it is the present stay, or the time before that. A reading that cannot be used, or whose
date is too imprecise to tell whether it is inside, makes the whole missing: none is left out in silence. Only what is
true whatever it says is still said: a diagnosis that is there is there, beside another that cannot be read.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import msgspec

from sidecar.features.derived import DAY_S, Person
from sidecar.features.readings import STATES, Reading
from sidecar.manifest import OF_NOTHING, FeatureSpec, Group
from sidecar.records import Feature, Stay

SECONDS_PER: Mapping[str, float] = {
    "s": 1.0, "min": 60.0, "h": 3600.0, "d": float(DAY_S), "wk": 7.0 * DAY_S, "a": 365.25 * DAY_S,
}  # fmt: skip
NO_STAY = "missing:encounter"


class Window(msgspec.Struct, frozen=True, gc=False):
    """From `low` to `high`, in seconds relative to the trigger; `stay` is what it is, or what it is measured from."""

    low: float
    high: float
    stay: Stay | None = None
    joined: float = 0.0
    is_the_stay: bool = False

    def holds(self, reading: Reading) -> bool | None:
        """Whether a reading is inside; None when its date is too imprecise to tell.

        Of Encounters the stay itself is in the window that is the stay, and none other that falls into it.
        """
        if self.stay is not None and self.is_the_stay and reading.source.type == "Encounter":
            return reading.index == self.stay.index
        if self.stay is not None and self._is_of_the_stay(reading):
            return False
        if reading.source.type in STATES and reading.source.placed == "happened":
            first = reading.seconds if reading.began is None else min(reading.began, reading.seconds)
            last = first if reading.until is None else reading.until
            return first <= self.high and last >= self.low
        first = reading.seconds
        last = first if reading.source.type == "Observation" or reading.began is None else reading.began
        if first >= self.low and last <= self.high:
            return True
        return False if last < self.low or first > self.high else None

    def _is_of_the_stay(self, reading: Reading) -> bool:
        """The stay itself, and what it came out of: an emergency visit that ended in an admission is none before it."""
        stay = self.stay
        if stay is None or stay.began is None or reading.source.type != "Encounter":
            return False
        last = reading.seconds if reading.until is None or math.isinf(reading.until) else reading.until
        return reading.index == stay.index or last >= stay.began - self.joined


class Summary:
    """One feature that is computed from all readings in its window."""

    def __init__(self, name: str, spec: FeatureSpec, max_age_s: float, absent: float | None) -> None:
        self._name, self._spec, self._unit, self._absent = name, spec, spec.unit, absent
        self._window = spec.window.total_seconds() if spec.window is not None else None
        self._max_age = max_age_s
        self._ages = bool(spec.max_age) and any(s.type not in STATES for s in spec.sources)
        self._ages = self._ages and spec.select not in OF_NOTHING
        # Where the site decides what absence means, nothing is not 0 until it has decided.
        self._zero = (
            spec.absent_switch is None
            and spec.select in OF_NOTHING
            and all(s.type != "Observation" for s in spec.sources)
        )

    def of(self, person: Person, readings: Sequence[Reading], moment: float) -> Feature:
        """The feature as of `moment`. Of several readings of one moment the first counts, but for sums and counts."""
        window = self._bounds(person, moment)
        if isinstance(window, str):
            return self._missing(window)
        if window.is_the_stay:  # another Encounter says nothing of this one, not even that it is too old
            readings = [r for r in readings if r.source.type != "Encounter" or window.holds(r)]
        held = [(r, window.holds(r)) for r in readings]
        if self._spec.select == "any":
            return self._any(held, readings)
        unsure = next((r for r, inside in held if inside is None), None)
        if unsure is not None:
            return self._missing(f"imprecise:{self._name}", unsure)
        return self._of_inside([r for r, inside in held if inside], readings, window, moment)

    def _of_inside(
        self, inside: Sequence[Reading], readings: Sequence[Reading], window: Window, moment: float
    ) -> Feature:
        if not inside or (self._ages and inside[0].seconds < moment - self._max_age):
            return self._of_nothing(readings)
        bad = next((r for r in inside if r.trouble), None)
        if bad is not None and (self._spec.select not in _OF_ONE or bad is _one(self._spec.select, inside)):
            return self._missing(self._why(bad), bad)
        return self._folded(inside, window, moment)

    def _folded(self, inside: Sequence[Reading], window: Window, moment: float) -> Feature:
        select = self._spec.select
        if select in _OF_ONE:
            chosen = _one(select, inside)
            since = (moment - chosen.seconds) / SECONDS_PER[self._unit] if select == "time_since" else chosen.value
            return self._found(since, [chosen])
        counted = [r for r in inside if r.confirmed]
        if select in {"slope", "delta"}:
            return self._change(counted or inside)
        if select == "duration":
            return self._found(_covered(counted, window) / SECONDS_PER[self._unit], counted)
        if not counted and select not in OF_NOTHING:
            return self._of_nothing(inside)
        return self._found(_FOLDS[select]([r.value for r in counted]), counted)

    def _change(self, inside: Sequence[Reading]) -> Feature:
        """What changed between moments; of those of one moment the first counts."""
        series = [next(same) for _, same in groupby(inside, key=lambda r: r.seconds)]
        if len(series) < _LEAST_OF_A_CHANGE:
            return self._missing(f"few:{self._name}", inside[0])
        if self._spec.per is None:
            return self._found(series[0].value - series[-1].value, series)
        return self._found(_slope(series, SECONDS_PER[self._spec.per]), series)

    def _any(self, held: Sequence[tuple[Reading, bool | None]], readings: Sequence[Reading]) -> Feature:
        """1 when one is there, whatever others say that cannot be read; 0 only when all can be read."""
        shown = [r for r, inside in held if inside and r.confirmed and not r.trouble and r.value]
        if shown:
            return self._found(1.0, shown)
        bad = next((r for r, inside in held if inside is not False and r.trouble), None)
        if bad is not None:
            return self._missing(self._why(bad), bad)
        unsure = next((r for r, inside in held if inside is None and r.confirmed and r.value), None)
        if unsure is not None:
            return self._missing(f"imprecise:{self._name}", unsure)
        none = [r for r, inside in held if inside]
        return self._found(0.0, none) if none else self._of_nothing(readings)

    def _bounds(self, person: Person, moment: float) -> Window | str:
        """The window, or the reason why there is none."""
        if self._spec.anchor == "event":
            return Window(moment - (self._max_age if self._window is None else self._window), math.inf)
        stay = person.stay
        if stay is None or stay.began is None:
            return NO_STAY
        if self._window is not None:
            return Window(stay.began - self._window, stay.began, stay, self._spec.joined.total_seconds())
        return Window(stay.began, math.inf if stay.ended is None else stay.ended, stay, is_the_stay=True)

    def _of_nothing(self, readings: Sequence[Reading]) -> Feature:
        """Nothing inside: absent, or too old. Of diagnoses, stays and the like that is none; of measurements not."""
        if self._absent is not None:
            return Feature(self._name, self._absent, self._unit)
        if self._zero:
            return Feature(self._name, 0.0, self._unit)
        if self._spec.select == "count" and readings:
            return Feature(self._name, 0.0, self._unit)
        return self._missing(f"{'stale' if readings else 'missing'}:{self._name}", readings[0] if readings else None)

    def _found(self, value: float, of: Sequence[Reading]) -> Feature:
        indexes = tuple(dict.fromkeys(r.index for r in of))
        if not indexes:
            return Feature(self._name, float(value), self._unit)
        newest = max(r.seconds for r in of)
        return Feature(self._name, float(value), self._unit, min(newest, 0.0), indexes[0], others=indexes[1:])

    def _missing(self, reason: str, reading: Reading | None = None) -> Feature:
        return Feature(
            self._name, math.nan, self._unit, index=None if reading is None else reading.index, reason=reason
        )

    def _why(self, reading: Reading) -> str:
        trouble = reading.trouble or ""
        return trouble if ":" in trouble else f"{trouble}:{reading.source.name or self._name}"


def weighted(name: str, spec: FeatureSpec, found: Mapping[str, Feature]) -> Feature:
    """The sum over the groups that are there and that none which is there replaces; `found` has each as 1 or 0."""
    there = {group for group, feature in found.items() if feature.value == 1}
    replaced = {milder for group in there for milder in spec.groups[group].replaces}
    counted = [g for g in spec.groups if g in there and g not in replaced]
    unknown = [g for g, f in found.items() if f.reason is not None and not _settled(g, there, spec.groups)]
    if unknown:
        return msgspec.structs.replace(found[unknown[0]], name=name, unit=spec.unit, value=math.nan)
    used = tuple(dict.fromkeys(i for g in counted for f in (found[g],) for i in (f.index, *f.others) if i is not None))
    value = math.fsum(spec.groups[group].weight for group in counted)
    return Feature(name, value, spec.unit, index=used[0] if used else None, others=used[1:])


def _settled(group: str, there: set[str], groups: Mapping[str, Group]) -> bool:
    """Whether it makes no difference that a group is unknown: one that replaces it is there."""
    return any(group in groups[each].replaces for each in there)


OF_A_WINDOW = frozenset({"first", "sum", "any", "slope", "delta", "time_since", "duration"})
"""Selections that are made here only; the others are when they are about the present stay, or count statements."""
_LEAST_OF_A_CHANGE = 2
_OF_ONE = frozenset({"latest", "first", "time_since"})


def _one(select: str, inside: Sequence[Reading]) -> Reading:
    """The reading that counts alone: the newest, or the first of the oldest moment."""
    if select != "first":
        return inside[0]
    return next(r for r in inside if r.seconds == inside[-1].seconds)


def _covered(readings: Sequence[Reading], window: Window) -> float:
    """How long the readings' periods cover the window together, up to the trigger."""
    end = min(window.high, 0.0)
    spans = sorted((max(r.seconds, window.low), min(r.seconds if r.until is None else r.until, end)) for r in readings)
    covered, reached = 0.0, -math.inf
    for first, last in spans:
        covered += max(0.0, last - max(first, reached))
        reached = max(reached, last)
    return covered


def _slope(series: Sequence[Reading], per: float) -> float:
    """The least-squares slope, in the value's unit by `per` seconds."""
    mean_t = math.fsum(r.seconds for r in series) / len(series)
    mean_v = math.fsum(r.value for r in series) / len(series)
    rise = math.fsum((r.seconds - mean_t) * (r.value - mean_v) for r in series)
    return per * rise / math.fsum((r.seconds - mean_t) ** 2 for r in series)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


_FOLDS: Mapping[str, Callable[[list[float]], float]] = {
    "min": min, "max": max, "mean": _mean, "sum": math.fsum, "count": len,
}  # fmt: skip
