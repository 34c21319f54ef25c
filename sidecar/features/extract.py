"""The feature language, compiled once from a manifest to plain closures. Pure.

Two readings of the same moment are ordered by source, then by when they were charted; one that cannot be used comes
before one that can, and then the larger value, so the order of a Bundle never changes a feature.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import groupby, takewhile

from sidecar.features.choices import SiteChoices
from sidecar.features.derived import OF_PATIENT, Person
from sidecar.features.readings import Read, Reading, reader, take
from sidecar.manifest import FeatureSpec, Manifest
from sidecar.records import DeidentifiedSnapshot, Fact, Feature, FeatureVector

FAR_FUTURE_S = 3_600.0
"""A reading further ahead than this is a slip of the pen: it is named when there is nothing else, and passed over."""


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
        self._chosen = {
            name: Feature(name, choice.values[site.choices[name]], "1") for name, choice in manifest.choices.items()
        }

    def run(self, clean: DeidentifiedSnapshot) -> tuple[FeatureVector, dict[str, Feature]]:
        """The graph's inputs in order with remarks, and every feature by name (the cohort reads the others)."""
        person = Person.of(clean)
        readings = {name: compiled.readings(clean.facts, person) for name, compiled in self._compiled.items()}
        moment = self._set_moment(readings)
        found = {
            name: compiled.about(person, moment)
            if compiled.is_of_patient
            else compiled.choose(readings[name], moment if name in self._manifest.members else 0.0)
            for name, compiled in self._compiled.items()
        }
        self._apply_spread(found)
        found |= self._chosen
        ordered = tuple(self._needed(found[name]) for name in self._manifest.graph.features)
        return FeatureVector(ordered, self._remarks(clean, found, readings)), found

    def _set_moment(self, readings: Mapping[str, Sequence[Reading]]) -> float:
        """The moment of the observation set: ages count from here, so that looking again later changes nothing.

        A set whose latest reading is itself too old is no set: ages then count from the trigger, and all are stale.
        """
        latest = [
            (readings[name][0].seconds, self._compiled[name].max_age)
            for name in self._manifest.graph.features
            if name in self._manifest.members and readings[name]
        ]
        moment, max_age = max(latest, default=(0.0, 0.0))
        return min(moment, 0.0) if -moment <= max_age else 0.0

    def _needed(self, feature: Feature) -> Feature:
        """A feature that is not required may be missing without a reason being counted."""
        spec = self._manifest.features.get(feature.name)
        return feature if spec is None or spec.required else replace(feature, reason=None)

    def _apply_spread(self, found: dict[str, Feature]) -> None:
        """Inputs belong to one observation set: what is too far behind the latest one is stale."""
        members = [n for n in self._manifest.graph.features if n in self._manifest.members]
        times = [s for n in members if (s := found[n].seconds) is not None and not math.isnan(found[n].value)]
        for name in members if times else ():
            feature = found[name]
            if feature.seconds is not None and feature.seconds < max(times) - self.spread_s:
                found[name] = Feature(name, math.nan, feature.unit, index=feature.index, reason=f"stale:{name}")

    def _remarks(
        self,
        clean: DeidentifiedSnapshot,
        found: Mapping[str, Feature],
        readings: Mapping[str, Sequence[Reading]],
    ) -> tuple[str, ...]:
        remarks = [self._manifest.switches[f.assumed].on for f in found.values() if f.assumed]
        remarks += [r for n in self._manifest.graph.features if (r := _origin(found[n], readings.get(n, ())))]
        for name, switch in self._manifest.switches.items():
            text = switch.on if self._switches[name] else switch.off
            if text and text not in remarks and name not in self._absent_switches():
                remarks.append(text)
        remarks += [
            rule.unknown
            for rule in self._manifest.cohort.exclude_when
            if rule.unknown and math.isnan(found[rule.feature].value)
        ]
        if clean.encounter_open is None and self._manifest.cohort.of_a_stay:
            remarks.append("Encounter not stated.")
        return tuple(remarks)

    def _absent_switches(self) -> set[str | None]:
        return {spec.absent_switch for spec in self._manifest.features.values()}


class _Compiled:
    """One feature: candidate codes to readers, then a selection."""

    def __init__(self, name: str, spec: FeatureSpec, switches: Mapping[str, bool], max_age: timedelta) -> None:
        self._name, self._spec = name, spec
        self._of_patient = OF_PATIENT.get(spec.derive or "")
        self.max_age = max_age.total_seconds()
        self._window = (spec.window or max_age).total_seconds()
        self._larger = spec.same_moment == "larger"
        self._readers: dict[tuple[str, str], Read] = {}
        self._rank: dict[tuple[str, str], int] = {}
        for rank, source in enumerate(spec.sources):
            for code in source.codes:
                self._readers.setdefault((source.type, code), reader(source, spec, switches))
                self._rank.setdefault((source.type, code), rank)
        allowed = spec.absent is not None and (spec.absent_switch is None or switches[spec.absent_switch])
        self._absent = spec.absent if allowed else None
        self._assumed = spec.absent_switch if allowed else None

    @property
    def is_of_patient(self) -> bool:
        """Whether it is about the patient, and needs no reading."""
        return self._of_patient is not None

    def about(self, person: Person, moment: float) -> Feature:
        """A feature of the patient as of `moment`."""
        found = self._of_patient(person, moment) if self._of_patient else f"missing:{self._name}"
        if isinstance(found, str):
            return _missing(self._name, self._spec.unit, found)
        return Feature(self._name, found, self._spec.unit)

    def readings(self, facts: Sequence[Fact], person: Person) -> list[Reading]:
        """Candidate readings, newest first. One from the near future is there as a trouble: it is not passed over."""
        keyed: list[tuple[tuple[float, float, int, float, str, float], Reading]] = []
        for fact in facts:
            key = next((k for c in fact.codes if (k := (fact.type, c)) in self._readers), None)
            if key is None:
                continue
            source = self._spec.sources[self._rank[key]]
            reading = take(fact, person, source, self._readers[key], source.unit or self._spec.unit)
            if reading is None:
                continue
            # NaN has no order: were it a key, the order of the Bundle would decide.
            known = -math.inf if math.isnan(reading.value) else reading.value
            told = _weight(reading.value, reading.trouble) if self._larger else 0.0
            trouble = reading.trouble or ""
            keyed.append(((reading.seconds, told, -self._rank[key], fact.recorded, trouble, known), reading))
        keyed.sort(key=lambda pair: pair[0], reverse=True)
        ordered = [reading for _, reading in keyed]
        return [r for r in ordered if r.seconds <= FAR_FUTURE_S] or ordered

    def choose(self, readings: Sequence[Reading], moment: float) -> Feature:
        """The feature as of `moment` (seconds relative to the trigger), from which ages count."""
        if not readings:
            return self._nothing(f"missing:{self._name}")
        if self._spec.apart is not None:
            return self._persistent(readings, moment, self._spec.apart.total_seconds())
        latest = readings[0]
        if latest.seconds < moment - self.max_age:
            return self._stale(latest)
        if self._spec.select != "latest":
            return self._aggregate(readings)
        if latest.trouble:
            return _missing(self._name, self._spec.unit, _why(self._name, latest), latest)
        return Feature(self._name, latest.value, self._spec.unit, latest.seconds, latest.index)

    def _nothing(self, reason: str, reading: Reading | None = None) -> Feature:
        if self._absent is not None:
            said = self._assumed
            return Feature(self._name, self._absent, self._spec.unit, assumed=said)
        return _missing(self._name, self._spec.unit, reason, reading)

    def _stale(self, latest: Reading) -> Feature:
        """An assumption may stand in for a reading that is too old only when that reading said the same."""
        reason = f"stale:{self._name}"
        forgotten = latest.seconds < -2 * self.max_age  # no further back is the EHR asked
        if forgotten or (latest.trouble is None and latest.value == self._absent):
            return self._nothing(reason, latest)
        return _missing(self._name, self._spec.unit, reason, latest)

    def _persistent(self, readings: Sequence[Reading], moment: float, apart_s: float) -> Feature:
        """1 when it has been so for long enough: by a confirmed Condition, or by readings of nothing else for so long.

        The readings are the unbroken run that ends with the newest. One in between that says otherwise, or cannot be
        read, breaks it: two injuries that healed are no chronic disease.
        """
        measured = [r for r in readings if r.source.type == "Observation" and r.seconds >= moment - self._window]
        first_of_moment = (next(same) for _, same in groupby(measured, key=lambda r: r.seconds))
        run = [r.seconds for r in takewhile(_shows, first_of_moment)]
        since = [r.began for r in readings if _shows(r) and r.confirmed and r.began is not None]
        lasting = bool(run) and run[0] - run[-1] >= apart_s
        lasting = lasting or any(began <= moment - apart_s for began in since)
        return Feature(self._name, float(lasting), self._spec.unit)

    def _aggregate(self, readings: Sequence[Reading]) -> Feature:
        """Over the window before the trigger."""
        inside = [r for r in readings if r.seconds >= -self._window]
        if not inside and self._spec.select != "count":
            return self._stale(readings[0])
        if not inside:
            return Feature(self._name, 0.0, self._spec.unit)
        bad = next((r for r in inside if r.trouble), None)
        if bad is not None:
            return _missing(self._name, self._spec.unit, _why(self._name, bad), bad)
        values = [r.value for r in inside]
        chosen = _SELECT[self._spec.select](values)
        source = next((r for r in inside if r.value == chosen), inside[0])
        return Feature(self._name, float(chosen), self._spec.unit, inside[0].seconds, source.index)


def _shows(reading: Reading) -> bool:
    return reading.trouble is None and reading.value == 1


def _why(name: str, reading: Reading) -> str:
    """The reason of a reading that cannot be used: of the value as charted, or of what it was to be computed with."""
    trouble = reading.trouble or ""
    return trouble if ":" in trouble else f"{trouble}:{reading.source.name or name}"


def _origin(feature: Feature, readings: Sequence[Reading]) -> str:
    """What the note says of where a feature's value comes from."""
    used = (r for r in readings if (r.index, r.seconds) == (feature.index, feature.seconds) and r.trouble is None)
    reading = next(used, None)
    return reading.remark if reading is not None else ""


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


_SELECT: Mapping[str, Callable[[list[float]], float]] = {"min": min, "max": max, "mean": _mean, "count": len}


def _missing(name: str, unit: str, reason: str, reading: Reading | None = None) -> Feature:
    if reading is None:
        return Feature(name, math.nan, unit, reason=reason)
    if reason.startswith("stale"):
        return Feature(name, math.nan, unit, index=reading.index, reason=reason)
    shown = reading.value if reading.trouble == "implausible" else None
    return Feature(name, math.nan, reading.unit, reading.seconds, reading.index, reason, shown=shown)


def _weight(value: float, trouble: str | None) -> float:
    """Which of two readings of one moment tells more: an unreadable one, then the larger; an unknown answer least."""
    if trouble in {"ambiguous", "unmapped"}:
        return -math.inf
    return math.inf if math.isnan(value) else value
