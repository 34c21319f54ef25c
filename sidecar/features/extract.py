"""The feature language, compiled once from a manifest to plain closures. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import groupby, takewhile

import msgspec

from sidecar.features.channel import Channels
from sidecar.features.choices import SiteChoices
from sidecar.features.derived import OF_PATIENT, Person
from sidecar.features.readings import Reading
from sidecar.features.stays import OF_STAY, body_mass_index
from sidecar.features.summary import OF_A_WINDOW, Summary, weighted
from sidecar.manifest import FeatureSpec, Manifest
from sidecar.records import DeidentifiedSnapshot, Feature, FeatureVector

Readings = Mapping[str, Sequence[Reading]]


class Extractor:
    """A manifest's features, ready to run on any snapshot."""

    def __init__(self, manifest: Manifest, site: SiteChoices) -> None:
        self._manifest = manifest
        self._switches = {n: site.switches.get(n, s.default) for n, s in manifest.switches.items()}
        self.spread_s = (site.spread or manifest.spread).total_seconds()
        self._channels = Channels(manifest.features, self._switches)
        self._compiled = {
            name: _Compiled(name, spec, self._switches, site.max_age.get(name, spec.max_age))
            for name, spec in manifest.features.items()
        }
        self._weights = tuple(n for n, spec in manifest.features.items() if spec.select == "weights")
        self._indices = tuple(n for n, spec in manifest.features.items() if spec.derive == "bmi")
        self._chosen = {
            name: Feature(name, choice.values[site.choices[name]], "1") for name, choice in manifest.choices.items()
        }
        self._set = tuple(n for n in manifest.graph.features if n in manifest.members)
        self._optional = frozenset(n for n, spec in manifest.features.items() if not spec.required)
        remarked = {n for n, spec in manifest.features.items() if any(s.remark for s in spec.sources)}
        self._remarked = tuple(n for n in manifest.graph.features if n in remarked)
        self._decided = self._decisions()

    @property
    def reads(self) -> Mapping[str, frozenset[str]]:
        """The codes, by resource type, of every statement that any feature is computed from."""
        return self._channels.reads

    def run(
        self, clean: DeidentifiedSnapshot, held: frozenset[int] = frozenset()
    ) -> tuple[FeatureVector, dict[str, Feature]]:
        """The graph's inputs in order with remarks, and every feature by name (the cohort reads the others).

        No remark tells of a statement whose index is in `held`.
        """
        person = Person.of(clean)
        by_channel = self._channels.readings(clean.facts, person)
        readings = {name: by_channel[channel] for name, channel in self._channels.of.items()}
        for name, each in self._channels.of_sources.items():
            readings[name] = [reading for channel in each for reading in by_channel[channel]]
        moment = self._set_moment(readings)
        found = {name: compiled.of(person, readings[name], moment) for name, compiled in self._compiled.items()}
        for name in self._weights:
            channels = self._channels.of_groups[name].items()
            found[name] = self._compiled[name].weighted(person, {g: by_channel[c] for g, c in channels}, moment)
        for name in self._indices:
            found[name] = body_mass_index(self._manifest.features[name], name, found, readings)
        self._apply_spread(found)
        found |= self._chosen
        ordered = tuple(self._needed(found[name]) for name in self._manifest.graph.features)
        told = found
        if held:
            told = {name: f for name, f in found.items() if f.index not in held and held.isdisjoint(f.others)}
        return FeatureVector(ordered, self._remarks(clean, found, told, readings)), found

    def _set_moment(self, readings: Readings) -> float:
        """The moment of the observation set: ages count from here, so that looking again later changes nothing.

        A set whose latest reading is itself too old is no set: ages then count from the trigger, and all are stale.
        """
        latest = [(readings[n][0].seconds, self._compiled[n].max_age) for n in self._set if readings[n]]
        moment, max_age = max(latest, default=(0.0, 0.0))
        return min(moment, 0.0) if -moment <= max_age else 0.0

    def _needed(self, feature: Feature) -> Feature:
        """A feature that is not required may be missing without a reason being counted."""
        optional = feature.reason is not None and feature.name in self._optional
        return msgspec.structs.replace(feature, reason=None) if optional else feature

    def _apply_spread(self, found: dict[str, Feature]) -> None:
        """Inputs belong to one observation set: what is too far behind the latest one is stale."""
        known = (found[n] for n in self._set)
        latest = max((f.seconds for f in known if f.seconds is not None and not math.isnan(f.value)), default=-math.inf)
        for name in self._set:
            feature = found[name]
            if feature.seconds is not None and feature.seconds < latest - self.spread_s:
                found[name] = Feature(name, math.nan, feature.unit, index=feature.index, reason=f"stale:{name}")

    def _remarks(
        self, clean: DeidentifiedSnapshot, found: Mapping[str, Feature], told: Mapping[str, Feature], readings: Readings
    ) -> tuple[str, ...]:
        remarks = [self._manifest.switches[f.assumed].on for f in found.values() if f.assumed]
        remarks += [r for n in self._remarked if n in told and (r := _origin(told[n], readings[n]))]
        remarks += [text for text in self._decided if text not in remarks]
        remarks += [
            rule.unknown
            for rule in self._manifest.cohort.exclude_when
            if rule.unknown and math.isnan(found[rule.feature].value)
        ]
        if clean.encounter_open is None and self._manifest.cohort.of_a_stay:
            remarks.append("Encounter not stated.")
        if clean.encounter_open and self._manifest.cohort.stays:
            remarks.append("The stay has not ended: this is the stay so far.")
        return tuple(remarks)

    def _decisions(self) -> tuple[str, ...]:
        """What every note says of the site's switches; those for absent values speak up when they are used."""
        of_absence = {spec.absent_switch for spec in self._manifest.features.values()}
        switches = {n: s for n, s in self._manifest.switches.items() if n not in of_absence}
        said = (s.on if self._switches[n] else s.off for n, s in switches.items())
        return tuple(dict.fromkeys(filter(None, said)))


class _Compiled:
    """One feature: what is done with the readings of its channel."""

    def __init__(self, name: str, spec: FeatureSpec, switches: Mapping[str, bool], max_age: timedelta) -> None:
        self._name, self._spec, self._unit = name, spec, spec.unit
        self._of_patient = OF_PATIENT.get(spec.derive or "")
        # What has a window and no age of its own is as old as its window lets it be.
        self.max_age = (max_age or spec.window or max_age).total_seconds()
        self._window = (spec.window or max_age).total_seconds()
        self._in_set, self._apart = spec.of_set, spec.apart.total_seconds() if spec.apart is not None else None
        self._over = _SELECT.get(spec.select)
        allowed = spec.absent is not None and (spec.absent_switch is None or switches[spec.absent_switch])
        self._absent = spec.absent if allowed else None
        self._assumed = spec.absent_switch if allowed else None
        self._of_stay = OF_STAY.get(spec.derive or "")
        self._summary = Summary(name, spec, self.max_age, self._absent) if _is_summary(spec) else None
        parts = {g: spec.model_copy(update={"select": "any", "absent": None}) for g in spec.groups}
        self._groups = {g: Summary(name, part, self.max_age, None) for g, part in parts.items()}

    def weighted(self, person: Person, readings: Mapping[str, Sequence[Reading]], moment: float) -> Feature:
        """The sum of the weights of the groups that are there."""
        at = moment if self._in_set else 0.0
        return weighted(self._name, self._spec, {g: s.of(person, readings[g], at) for g, s in self._groups.items()})

    def of(self, person: Person, readings: Sequence[Reading], moment: float) -> Feature:
        """The feature as of `moment`, in seconds relative to the trigger; as of the trigger if it is in no set."""
        if self._of_patient is None:
            return self._of_readings(person, readings, moment if self._in_set else 0.0)
        found = self._of_patient(person, moment)
        if isinstance(found, str):
            return _missing(self._name, self._unit, found)
        return Feature(self._name, found, self._unit)

    def _of_readings(self, person: Person, readings: Sequence[Reading], moment: float) -> Feature:
        if self._summary is not None:
            return self._summary.of(person, readings, moment)
        if self._of_stay is not None:
            return self._of_stay(self._spec, self._name, person, readings)
        return self._choose(readings, moment)

    def _choose(self, readings: Sequence[Reading], moment: float) -> Feature:
        """What the readings come to at `moment`, from which ages count."""
        if not readings:
            return self._nothing(f"missing:{self._name}")
        if self._apart is not None:
            return self._persistent(readings, moment, self._apart)
        latest = readings[0]
        if latest.seconds < moment - self.max_age:
            return self._stale(latest)
        if self._over is not None:
            return self._aggregate(readings, self._over)
        if latest.trouble:
            return _missing(self._name, self._unit, _why(self._name, latest), latest)
        return Feature(self._name, latest.value, self._unit, latest.seconds, latest.index)

    def _nothing(self, reason: str, reading: Reading | None = None) -> Feature:
        if self._absent is not None:
            said = self._assumed
            return Feature(self._name, self._absent, self._unit, assumed=said)
        return _missing(self._name, self._unit, reason, reading)

    def _stale(self, latest: Reading) -> Feature:
        """An assumption may stand in for a reading that is too old only when that reading said the same.

        A graph that handles absence takes one that is too old as absent.
        """
        reason = f"stale:{self._name}"
        forgotten = latest.seconds < -2 * self.max_age  # no further back is the EHR asked
        handled = self._absent is not None and math.isnan(self._absent)
        if forgotten or handled or (latest.trouble is None and latest.value == self._absent):
            return self._nothing(reason, latest)
        return _missing(self._name, self._unit, reason, latest)

    def _persistent(self, readings: Sequence[Reading], moment: float, apart_s: float) -> Feature:
        """1 when it has been so for long enough: by a confirmed Condition, or by readings of nothing else for so long.

        The readings are the unbroken run that ends with the newest. One in between that says otherwise, or cannot be
        read, breaks it: two injuries that healed are no chronic disease.
        """
        measured = [r for r in readings if r.source.type == "Observation" and r.seconds >= moment - self._window]
        first_of_moment = (next(same) for _, same in groupby(measured, key=lambda r: r.seconds))
        run = list(takewhile(_shows, first_of_moment))
        shown = (
            r for r in readings if _shows(r) and r.confirmed and r.began is not None and r.began <= moment - apart_s
        )
        if (proof := next(shown, None)) is not None:
            return Feature(self._name, 1.0, self._unit, index=proof.index)
        if not run or run[0].seconds - run[-1].seconds < apart_s:
            return Feature(self._name, 0.0, self._unit)
        first, *others = dict.fromkeys(r.index for r in run)
        return Feature(self._name, 1.0, self._unit, index=first, others=tuple(others))

    def _aggregate(self, readings: Sequence[Reading], over: Callable[[list[float]], float]) -> Feature:
        """Over the window before the trigger."""
        all_inside = readings[-1].seconds >= -self._window
        inside = readings if all_inside else [r for r in readings if r.seconds >= -self._window]
        if not inside and self._spec.select != "count":
            return self._stale(readings[0])
        if not inside:
            return Feature(self._name, 0.0, self._unit)
        bad = next((r for r in inside if r.trouble), None)
        if bad is not None:
            return _missing(self._name, self._unit, _why(self._name, bad), bad)
        values = [r.value for r in inside]
        chosen = over(values)
        source = next((r.index for r in inside if r.value == chosen), inside[0].index)
        # It rests on all of them: another one could become the largest when it is corrected.
        others = tuple(dict.fromkeys(r.index for r in inside if r.index != source))
        return Feature(self._name, float(chosen), self._unit, inside[0].seconds, source, others=others)


def _is_summary(spec: FeatureSpec) -> bool:
    """Whether it is computed from all readings of a window that is not the plain one of measurements."""
    if spec.derive in {"length_of_stay", "urgent_admission"} or spec.select in {"weights", "persistent"}:
        return False
    counted = spec.select == "count" and all(s.type != "Observation" for s in spec.sources)
    return spec.anchor == "encounter" or counted or spec.select in OF_A_WINDOW


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
