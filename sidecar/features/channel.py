"""From the facts of a snapshot to the readings of each channel, newest first. Pure.

A channel is what features that read the same sources in the same way have in common: the latest, the least and the mean
of one vital sign are computed from one list of readings. Each fact is looked at once, whatever the number of features.

Two readings of the same moment are ordered by source, then by when they were charted; one that cannot be used comes
before one that can, and then the larger value, so the order of a Bundle never changes a feature.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from sidecar.features.derived import Person
from sidecar.features.readings import Read, Reading, reader, take
from sidecar.manifest import FeatureSpec, PathRead, Source, wanted
from sidecar.records import Fact

FAR_FUTURE_S = 3_600.0
"""A reading further ahead than this is a slip of the pen: it is named when there is nothing else, and passed over."""
_OF_THE_NEWEST = {"latest", "min", "max", "mean"}
Key = tuple[float, float, int, float, str, float]


@dataclass(frozen=True, slots=True)
class _Way:
    """How a channel reads a statement of one code. Of several sources the first has rank 0.

    One without a time counts as of `undated_s`.
    """

    channel: int
    rank: int
    source: Source
    read: Read
    unit: str
    larger: bool
    undated_s: float


class Channels:
    """The channels of a manifest's features, each known by its position."""

    def __init__(self, features: Mapping[str, FeatureSpec], switches: Mapping[str, bool]) -> None:
        self._switches = switches
        self._ways: dict[tuple[str, str], list[_Way]] = {}
        self._specs: list[FeatureSpec] = []
        self.of = {name: self._channel(spec) for name, spec in features.items()}
        self.of_groups = {
            name: {group: self._channel(_of_group(spec, group)) for group in spec.groups}
            for name, spec in features.items()
        }
        # What a stay says in several codes is read by each source, so that what says both is seen to.
        self.of_sources = {
            name: [self._channel(spec.model_copy(update={"sources": (source,)})) for source in spec.sources]
            for name, spec in features.items()
            if spec.derive == "urgent_admission"
        }
        self.reads = reads(features.values())

    def _channel(self, spec: FeatureSpec) -> int:
        """The channel of a feature: one that there is, if it reads the same in the same way."""
        same = [n for n, other in enumerate(self._specs) if _reads(other) == _reads(spec)]
        if same:
            return same[0]
        position = len(self._specs)
        self._specs.append(spec)
        known: set[tuple[str, str]] = set()
        for rank, source in enumerate(spec.sources):
            read = reader(source, spec, self._switches)
            larger = spec.same_moment == "larger"
            way = _Way(position, rank, source, read, source.unit or spec.unit, larger, _undated_s(spec))
            for key in ((source.type, code) for code in keys(source)):
                if key not in known:
                    known.add(key)
                    self._ways.setdefault(key, []).append(way)
        return position

    def readings(self, facts: Sequence[Fact], person: Person) -> list[list[Reading]]:
        """Candidate readings by channel. One from the near future is there as a trouble: it is not passed over."""
        keyed: list[list[tuple[Key, Reading]]] = [[] for _ in self._specs]
        for fact in facts:
            for way in self._ways_of(fact):
                reading = take(fact, person, way.source, way.read, way.unit)
                if reading is not None:
                    if reading.seconds == -math.inf:
                        reading = msgspec.structs.replace(reading, seconds=way.undated_s)
                    keyed[way.channel].append((_key(reading, fact, way), reading))
        return [_without_the_older(_newest_first(each)) for each in keyed]

    def _ways_of(self, fact: Fact) -> Sequence[_Way]:
        """How a fact is read: by each channel once, by the first of its codes that the channel reads."""
        if fact.over:
            return [way for way in self._first_ways(fact) if way.source.history]
        if len(fact.codes) == 1:
            return self._ways.get((fact.type, fact.codes[0]), ())
        return self._first_ways(fact)

    def _first_ways(self, fact: Fact) -> Sequence[_Way]:
        first: dict[int, _Way] = {}
        for code in fact.codes:
            for way in self._ways.get((fact.type, code), ()):
                first.setdefault(way.channel, way)
        return tuple(first.values())


def reads(features: Iterable[FeatureSpec]) -> dict[str, frozenset[str]]:
    """The codes of every statement that a feature is computed from, by resource type.

    What is asked of the present stay asks for the stays, whatever their codes.
    """
    found: dict[str, list[Source]] = {}
    stays = False
    for spec in features:
        stays = stays or spec.anchor == "encounter"
        for source in spec.sources:
            found.setdefault(source.type, []).append(source)
    if stays:
        found.setdefault("Encounter", [])
    return {kind: _wanted(sources) for kind, sources in found.items()}


def _wanted(sources: Sequence[Source]) -> frozenset[str]:
    codes = frozenset(code for source in sources for code in source.codes)
    history = frozenset(code for source in sources if source.history for code in source.codes)
    paths = {
        PathRead(key, frozenset(source.codes), source.fhirpath)
        for source in sources
        if source.fhirpath is not None
        for key in keys(source)
    }
    return wanted(codes, history, tuple(sorted(paths, key=lambda path: path.key)))


def keys(source: Source) -> tuple[str, ...]:
    """The codes by which facts of a source are known; of one by FHIRPath it is one that stands for the expression."""
    if source.fhirpath is None:
        return source.codes
    said = "\n".join([source.type, *sorted(source.codes), source.fhirpath])
    return (f"urn:ehr-sidecar:fhirpath|{hashlib.sha256(said.encode()).hexdigest()[:16]}",)


def _of_group(spec: FeatureSpec, group: str) -> FeatureSpec:
    """What is read of one group: the feature's sources with the group's codes in place of all."""
    codes = spec.groups[group].codes
    return spec.model_copy(update={"sources": tuple(s.model_copy(update={"codes": codes}) for s in spec.sources)})


def _reads(spec: FeatureSpec) -> tuple[object, ...]:
    """All that decides how a feature's readings come about; the rest is what is then done with them."""
    return spec.sources, spec.unit, spec.plausible, spec.same_moment, spec.select == "time_since", _undated_s(spec)


def _undated_s(spec: FeatureSpec) -> float:
    """Where a statement without a time stands: for what the newest decides it may be that one, else it is anywhere."""
    return 0.0 if spec.select in _OF_THE_NEWEST and spec.anchor == "event" else -math.inf


def _key(reading: Reading, fact: Fact, way: _Way) -> Key:
    # NaN has no order: were it a key, the order of the Bundle would decide.
    known = -math.inf if math.isnan(reading.value) else reading.value
    told = _weight(reading.value, reading.trouble) if way.larger else 0.0
    return reading.seconds, told, -way.rank, fact.recorded, reading.trouble or "", known


def _newest_first(keyed: list[tuple[Key, Reading]]) -> list[Reading]:
    keyed.sort(key=lambda pair: pair[0], reverse=True)
    ordered = [reading for _, reading in keyed]
    if not ordered or ordered[0].seconds <= FAR_FUTURE_S:
        return ordered
    return [r for r in ordered if r.seconds <= FAR_FUTURE_S or r.source.type == "Appointment"] or ordered


def _without_the_older(readings: list[Reading]) -> list[Reading]:
    """The readings without what a newer one of the same source takes the place of, where the source says that."""
    if not any(r.source.only_newest for r in readings):
        return readings
    newest = {id(r.source): r for r in reversed(readings)}
    return [r for r in readings if not r.source.only_newest or newest[id(r.source)] is r]


def _weight(value: float, trouble: str | None) -> float:
    """Which of two readings of one moment tells more: an unreadable one, then the larger; an unknown answer least."""
    if trouble in {"ambiguous", "unmapped"}:
        return -math.inf
    return math.inf if math.isnan(value) else value
