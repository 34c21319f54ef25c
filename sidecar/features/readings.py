"""From facts to readings: what one source of a feature makes of one charted statement. Pure."""

import functools
import math
from collections.abc import Callable, Mapping

import msgspec

from sidecar.features.derived import Person, from_value
from sidecar.features.units import converter
from sidecar.manifest import ANY, FeatureSpec, Source, in_unit
from sidecar.records import Fact

CLOCK_SKEW_S = 300.0
"""A reading up to this far ahead of the trigger is taken as now; beyond it, it is a reading from the future."""


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One candidate value of a feature, at `seconds` relative to the trigger; NaN with `trouble` when not usable.

    `charted` is the value as charted, in `unit`; `began` since when a Condition is there, at the latest, and
    `confirmed` whether it proves anything. `until` is when it ended: infinity while it goes on, None when nothing is
    said of an end. A statement that says nothing of when it was lies anywhere: from minus infinity until infinity.
    """

    seconds: float
    value: float
    trouble: str | None
    index: int
    source: Source
    unit: str
    charted: float = math.nan
    began: float | None = None
    confirmed: bool = True
    until: float | None = None

    @property
    def remark(self) -> str:
        """What the note says of where this value comes from."""
        return self.source.remark.replace("{value}", in_unit(float(f"{self.charted:.3g}"), self.unit))


Taken = tuple[float, str | None, float]
"""Value, trouble, and the value as charted."""
Read = Callable[[Fact, Person], Taken | None]


STATES = frozenset({"Condition", "AllergyIntolerance", "MedicationRequest", "MedicationStatement"})
"""What holds from when it was said until it is said to be over; without a time it holds now."""


def moment(fact: Fact) -> float | None:
    """When the fact counts; a Condition without a time holds now."""
    return 0.0 if fact.seconds is None and fact.type in STATES else fact.seconds


def take(fact: Fact, person: Person, source: Source, read: Read, unit: str) -> Reading | None:
    """The reading that `source` makes of `fact`; None when it holds no value, or nobody knows when it was measured."""
    if fact.type != "Observation":
        return _stated(fact, person, source, read)
    seconds, got = fact.seconds, read(fact, person)
    if seconds is None or got is None:
        return None
    value, trouble, charted = got if seconds <= CLOCK_SKEW_S else (math.nan, "future", math.nan)
    return Reading(seconds, value, trouble, fact.index, source, unit, charted, fact.began, fact.confirmed)


def _stated(fact: Fact, person: Person, source: Source, read: Read) -> Reading | None:
    """The same of a statement that is no Observation: an appointment may lie ahead, a diagnosis goes on."""
    charted = source.placed == "charted"
    seconds, got = (fact.recorded if charted else moment(fact)), read(fact, person)
    if got is None:
        return None
    if seconds is None or math.isinf(seconds):
        return _undated(fact, person, source, got)
    ahead = seconds > CLOCK_SKEW_S and fact.type != "Appointment"
    value, trouble, shown = (math.nan, "future", math.nan) if ahead else got
    # "Active" is what nobody has changed since; a medicine whose time has ended is taken no more.
    is_over = fact.over or (fact.type == "MedicationStatement" and fact.ended is not None and fact.ended <= 0)
    if is_over and not source.history:
        return None
    goes_on = fact.type in STATES and not is_over
    until = math.inf if goes_on or (fact.type == "Encounter" and fact.ended is None) else fact.ended
    began = seconds if charted else fact.began
    return Reading(seconds, value, trouble, fact.index, source, source.unit or "1", shown, began, fact.confirmed, until)


def _undated(fact: Fact, person: Person, source: Source, got: Taken) -> Reading:
    """Of what was at some time that nobody said: it may lie in any window, and before or after anything else.

    What names the present stay was in it, after it began: a window that is the stay holds it all the same.
    """
    stay, unit = person.stay, source.unit or "1"
    if not fact.of_stay or stay is None or stay.began is None or source.placed == "charted":
        trouble = got[1] or "imprecise"
        return Reading(-math.inf, math.nan, trouble, fact.index, source, unit, began=math.inf, until=fact.ended)
    value, told, shown = got
    first, last = math.nextafter(stay.began, math.inf), 0.0 if stay.ended is None else stay.ended
    return Reading(first, value, told, fact.index, source, unit, shown, max(first, last), fact.confirmed, fact.ended)


def reader(source: Source, spec: FeatureSpec, switches: Mapping[str, bool]) -> Read:
    """Compile one source."""
    if source.type not in {"Observation", "DiagnosticReport"} and source.fhirpath is None:
        return _present(source.values)
    if spec.select == "time_since":
        return _measured
    if source.values:
        decided = source.ambiguous_switch is not None and switches[source.ambiguous_switch]
        values = {**source.values, **source.ambiguous} if decided else source.values
        return _coded(values, frozenset(source.ambiguous))
    if source.type == "DiagnosticReport" and source.fhirpath is None:
        return _present({})
    return _numeric(source, spec)


def _measured(fact: Fact, _: Person) -> Taken | None:
    """That something was measured, whatever it was: a limit and a strange unit are a measurement, too."""
    if fact.value is None and not fact.value_codes and fact.trouble is None:
        return None
    return 1.0, fact.trouble if fact.trouble in {"modifier", "status"} else None, 1.0


def _present(values: Mapping[str, float]) -> Read:
    """What a statement's code stands for; 1 where nothing is said of it."""
    if set(values) <= {ANY}:
        value = values.get(ANY, 1.0)
        return lambda fact, _: (value, fact.trouble, value)

    def read(fact: Fact, _: Person) -> Taken | None:
        found = next((values[code] for code in fact.codes if code in values), values.get(ANY))
        if found is None:
            return math.nan, fact.trouble or "unmapped", math.nan
        return found, fact.trouble, found

    return read


def _coded(values: Mapping[str, float], ambiguous: frozenset[str]) -> Read:
    def read(fact: Fact, _: Person) -> Taken | None:
        if not fact.value_codes and fact.value is None and fact.trouble is None:
            return None
        for code in fact.value_codes:
            if code in values:
                return values[code], fact.trouble, values[code]
            if code in ambiguous:
                return math.nan, fact.trouble or "ambiguous", math.nan
        return math.nan, fact.trouble or "unmapped", math.nan

    return read


def _numeric(source: Source, spec: FeatureSpec) -> Read:
    plausible = source.plausible or (spec.plausible if source.above is None and source.below is None else None)
    low, high = plausible or (-math.inf, math.inf)
    convert, cut = _units(source, source.unit or spec.unit), _cut(source)

    def read(fact: Fact, person: Person) -> Taken | None:
        if fact.trouble:
            return math.nan, fact.trouble, math.nan
        if fact.value is None:
            return (math.nan, "shape", math.nan) if fact.value_codes else None
        charted = convert(fact)
        if charted is None:
            return math.nan, "unit", math.nan
        if not low <= charted <= high:
            return charted, "implausible", charted
        if source.derive is None:
            return cut(charted), None, charted
        derived = from_value(source.derive, charted * source.factor, person, fact.seconds or 0.0)
        return (math.nan, derived, charted) if isinstance(derived, str) else (cut(derived), None, charted)

    return read


def _units(source: Source, unit: str) -> Callable[[Fact], float | None]:
    """A fact's value in `unit`, by the first of the source's units that its own can be read as; None when none fits."""
    known = source.units or {unit: 1.0}

    @functools.lru_cache(maxsize=128)  # the units that cross are a closed list
    def way(charted: str | None) -> tuple[Callable[[float], float], float] | None:
        found = ((converter(charted, written), factor) for written, factor in known.items())
        return next(((plain, factor) for plain, factor in found if plain is not None), None)

    def convert(fact: Fact) -> float | None:
        found = way(fact.unit)
        return None if found is None else found[0](fact.value or 0.0) * found[1]

    return convert


def _cut(source: Source) -> Callable[[float], float]:
    """A number as it is, or as yes (1) and no (0) beyond a threshold."""
    above, below = source.above, source.below
    if above is not None:
        return lambda value: float(value > above)
    if below is not None:
        return lambda value: float(value < below)
    return float
