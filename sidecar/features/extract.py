"""The feature language, compiled once from a manifest to plain closures. Pure.

Two readings of the same moment are ordered by source, then by when they were charted; one that cannot be used comes
before one that can, and then the larger value, so the order of a Bundle never changes a feature.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from sidecar.features.units import converter
from sidecar.manifest import FeatureSpec, Manifest, Source
from sidecar.records import DeidentifiedSnapshot, Fact, Feature, FeatureVector

CLOCK_SKEW_S = 300.0
"""A reading up to this far ahead of the trigger is taken as now; beyond it, it is a reading from the future."""

FAR_FUTURE_S = 3_600.0
"""A reading further ahead than this is a slip of the pen: it is named when there is nothing else, and passed over."""


@dataclass(frozen=True, slots=True)
class SiteChoices:
    """What a site decided for a model: its switches, and maximum ages that differ from the manifest's."""

    switches: Mapping[str, bool] = field(default_factory=dict)
    max_age: Mapping[str, timedelta] = field(default_factory=dict)
    spread: timedelta | None = None


@dataclass(frozen=True, slots=True)
class _Reading:
    seconds: float
    value: float
    trouble: str | None
    index: int
    unit: str


_Read = Callable[[Fact], tuple[float, str | None] | None]


class Extractor:
    """A manifest's features, ready to run on any snapshot."""

    def __init__(self, manifest: Manifest, site: SiteChoices) -> None:
        self._manifest = manifest
        self._switches = {n: site.switches.get(n, s.default) for n, s in manifest.switches.items()}
        self.spread_s = (site.spread or manifest.spread).total_seconds()
        self._compiled = {
            name: _Compiled(name, spec, self._switches, site.max_age.get(name, spec.max_age))
            for name, spec in manifest.features.items()
        }

    def run(self, clean: DeidentifiedSnapshot) -> tuple[FeatureVector, dict[str, Feature]]:
        """The graph's inputs in order with remarks, and every feature by name (the cohort reads the others)."""
        readings = {name: compiled.readings(clean.facts) for name, compiled in self._compiled.items()}
        moment = self._set_moment(readings)
        found = {
            name: compiled.choose(readings[name], moment if self._manifest.features[name].in_set else 0.0)
            for name, compiled in self._compiled.items()
        }
        self._apply_spread(found)
        ordered = tuple(self._needed(found[name]) for name in self._manifest.graph.features)
        return FeatureVector(ordered, self._remarks(clean, found)), found

    def _set_moment(self, readings: Mapping[str, Sequence[_Reading]]) -> float:
        """The moment of the observation set: ages count from here, so that looking again later changes nothing.

        A set whose latest reading is itself too old is no set: ages then count from the trigger, and all are stale.
        """
        latest = [
            (readings[name][0].seconds, self._compiled[name].max_age)
            for name in self._manifest.graph.features
            if self._manifest.features[name].in_set and readings[name]
        ]
        moment, max_age = max(latest, default=(0.0, 0.0))
        return min(moment, 0.0) if -moment <= max_age else 0.0

    def _needed(self, feature: Feature) -> Feature:
        """A feature that is not required may be missing without a reason being counted."""
        return feature if self._manifest.features[feature.name].required else replace(feature, reason=None)

    def _apply_spread(self, found: dict[str, Feature]) -> None:
        """Inputs belong to one observation set: what is too far behind the latest one is stale."""
        members = [n for n in self._manifest.graph.features if self._manifest.features[n].in_set]
        times = [s for n in members if (s := found[n].seconds) is not None and not math.isnan(found[n].value)]
        for name in members if times else ():
            feature = found[name]
            if feature.seconds is not None and feature.seconds < max(times) - self.spread_s:
                found[name] = Feature(name, math.nan, feature.unit, index=feature.index, reason=f"stale:{name}")

    def _remarks(self, clean: DeidentifiedSnapshot, found: Mapping[str, Feature]) -> tuple[str, ...]:
        remarks = [self._manifest.switches[f.assumed].on for f in found.values() if f.assumed]
        for name, switch in self._manifest.switches.items():
            text = switch.on if self._switches[name] else switch.off
            if text and text not in remarks and name not in self._absent_switches():
                remarks.append(text)
        remarks += [
            rule.unknown
            for rule in self._manifest.cohort.exclude_when
            if rule.unknown and math.isnan(found[rule.feature].value)
        ]
        if clean.encounter_open is None:
            remarks.append("Encounter not stated.")
        return tuple(remarks)

    def _absent_switches(self) -> set[str | None]:
        return {spec.absent_switch for spec in self._manifest.features.values()}


class _Compiled:
    """One feature: candidate codes to readers, then a selection."""

    def __init__(self, name: str, spec: FeatureSpec, switches: Mapping[str, bool], max_age: timedelta) -> None:
        self._name, self._spec = name, spec
        self.max_age = max_age.total_seconds()
        self._window = (spec.window or max_age).total_seconds()
        self._larger = spec.same_moment == "larger"
        self._readers: dict[tuple[str, str], _Read] = {}
        self._rank: dict[tuple[str, str], int] = {}
        self._units = [source.unit or spec.unit for source in spec.sources]
        for rank, source in enumerate(spec.sources):
            for code in source.codes:
                self._readers.setdefault((source.type, code), _reader(source, spec, switches))
                self._rank.setdefault((source.type, code), rank)
        allowed = spec.absent is not None and (spec.absent_switch is None or switches[spec.absent_switch])
        self._absent = spec.absent if allowed else None
        self._assumed = spec.absent_switch if allowed else None

    def readings(self, facts: Sequence[Fact]) -> list[_Reading]:
        """Candidate readings, newest first. One from the near future is there as a trouble: it is not passed over."""
        keyed: list[tuple[tuple[float, float, int, float, str, float], _Reading]] = []
        for fact in facts:
            key = next((k for c in fact.codes if (k := (fact.type, c)) in self._readers), None)
            got = self._readers[key](fact) if key is not None else None
            seconds = _seconds(fact)
            if key is None or got is None or seconds is None:
                continue
            value, trouble = got if seconds <= CLOCK_SKEW_S else (math.nan, "future")
            reading = _Reading(seconds, value, trouble, fact.index, self._units[self._rank[key]])
            # NaN has no order: were it a key, the order of the Bundle would decide.
            known = -math.inf if math.isnan(value) else value
            told = _weight(value, trouble) if self._larger else 0.0
            keyed.append(((seconds, told, -self._rank[key], fact.recorded, trouble or "", known), reading))
        keyed.sort(key=lambda pair: pair[0], reverse=True)
        ordered = [reading for _, reading in keyed]
        return [r for r in ordered if r.seconds <= FAR_FUTURE_S] or ordered

    def choose(self, readings: Sequence[_Reading], moment: float) -> Feature:
        """The feature as of `moment` (seconds relative to the trigger), from which ages count."""
        if not readings:
            return self._nothing(f"missing:{self._name}")
        latest = readings[0]
        if latest.seconds < moment - self.max_age:
            return self._stale(latest)
        if self._spec.select != "latest":
            return self._aggregate(readings)
        if latest.trouble:
            return _missing(self._name, self._spec.unit, f"{latest.trouble}:{self._name}", latest)
        return Feature(self._name, latest.value, self._spec.unit, latest.seconds, latest.index)

    def _nothing(self, reason: str, reading: _Reading | None = None) -> Feature:
        if self._absent is not None:
            said = self._assumed
            return Feature(self._name, self._absent, self._spec.unit, assumed=said)
        return _missing(self._name, self._spec.unit, reason, reading)

    def _stale(self, latest: _Reading) -> Feature:
        """An assumption may stand in for a reading that is too old only when that reading said the same."""
        reason = f"stale:{self._name}"
        forgotten = latest.seconds < -2 * self.max_age  # no further back is the EHR asked
        if forgotten or (latest.trouble is None and latest.value == self._absent):
            return self._nothing(reason, latest)
        return _missing(self._name, self._spec.unit, reason, latest)

    def _aggregate(self, readings: Sequence[_Reading]) -> Feature:
        """Over the window before the trigger."""
        inside = [r for r in readings if r.seconds >= -self._window]
        if not inside and self._spec.select != "count":
            return self._stale(readings[0])
        if not inside:
            return Feature(self._name, 0.0, self._spec.unit)
        bad = next((r for r in inside if r.trouble), None)
        if bad is not None:
            return _missing(self._name, self._spec.unit, f"{bad.trouble}:{self._name}", bad)
        values = [r.value for r in inside]
        chosen = _SELECT[self._spec.select](values)
        source = next((r for r in inside if r.value == chosen), inside[0])
        return Feature(self._name, float(chosen), self._spec.unit, inside[0].seconds, source.index)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


_SELECT: Mapping[str, Callable[[list[float]], float]] = {"min": min, "max": max, "mean": _mean, "count": len}


def _missing(name: str, unit: str, reason: str, reading: _Reading | None = None) -> Feature:
    if reading is None:
        return Feature(name, math.nan, unit, reason=reason)
    if reason.startswith("stale"):
        return Feature(name, math.nan, unit, index=reading.index, reason=reason)
    shown = reading.value if reading.trouble == "implausible" else None
    return Feature(name, math.nan, reading.unit, reading.seconds, reading.index, reason, shown=shown)


def _seconds(fact: Fact) -> float | None:
    """When the fact counts; a Condition without a time holds now."""
    return 0.0 if fact.seconds is None and fact.type == "Condition" else fact.seconds


def _weight(value: float, trouble: str | None) -> float:
    """Which of two readings of one moment tells more: an unreadable one, then the larger; an unknown answer least."""
    if trouble in {"ambiguous", "unmapped"}:
        return -math.inf
    return math.inf if math.isnan(value) else value


def _reader(source: Source, spec: FeatureSpec, switches: Mapping[str, bool]) -> _Read:
    """Compile one source: fact -> (value, trouble), or None when the fact holds no value at all."""
    if source.values:
        decided = source.ambiguous_switch is not None and switches[source.ambiguous_switch]
        values = {**source.values, **source.ambiguous} if decided else source.values
        return _present(values) if source.type == "Condition" else _coded(values, frozenset(source.ambiguous))
    plausible = source.plausible or (spec.plausible if source.above is None and source.below is None else None)
    return _numeric(source.unit or spec.unit, plausible or (-math.inf, math.inf), _cut(source))


def _present(values: Mapping[str, float]) -> _Read:
    value = next(iter(values.values()))
    return lambda fact: (value, fact.trouble)


def _coded(values: Mapping[str, float], ambiguous: frozenset[str]) -> _Read:
    def read(fact: Fact) -> tuple[float, str | None] | None:
        if not fact.value_codes and fact.value is None and fact.trouble is None:
            return None
        for code in fact.value_codes:
            if code in values:
                return values[code], fact.trouble
            if code in ambiguous:
                return math.nan, fact.trouble or "ambiguous"
        return math.nan, fact.trouble or "unmapped"

    return read


def _numeric(unit: str, plausible: tuple[float, float], cut: Callable[[float], float]) -> _Read:
    def read(fact: Fact) -> tuple[float, str | None] | None:
        if fact.trouble:
            return math.nan, fact.trouble
        if fact.value is None:
            return (math.nan, "shape") if fact.value_codes else None
        convert = converter(fact.unit, unit)
        if convert is None:
            return math.nan, "unit"
        value = convert(fact.value)
        if not plausible[0] <= value <= plausible[1]:
            return value, "implausible"
        return cut(value), None

    return read


def _cut(source: Source) -> Callable[[float], float]:
    """A number as it is, or as yes (1) and no (0) beyond a threshold."""
    above, below = source.above, source.below
    if above is not None:
        return lambda value: float(value > above)
    if below is not None:
        return lambda value: float(value < below)
    return float
