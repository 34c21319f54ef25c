"""What is computed of the present stay, and of two features: its length, its urgency, a body mass index. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence

from sidecar.features.derived import Person
from sidecar.features.readings import Reading
from sidecar.features.summary import NO_STAY
from sidecar.manifest import FeatureSpec
from sidecar.records import Feature

_METRES: Mapping[str, float] = {"m": 1.0, "cm": 0.01}


def length_of_stay(spec: FeatureSpec, name: str, person: Person, _: Sequence[Reading]) -> Feature:
    """Days by the facility's calendar: 0 when it ended on the day on which it began; of an open one until today."""
    stay = person.stay
    if stay is None or stay.days is None:
        return Feature(name, math.nan, spec.unit, reason=NO_STAY if stay is None else f"imprecise:{name}")
    if stay.ended is not None and spec.max_age and stay.ended < -spec.max_age.total_seconds():
        return Feature(name, math.nan, spec.unit, index=stay.index, reason=f"stale:{name}")
    return Feature(name, float(stay.days), spec.unit, 0.0 if stay.ended is None else stay.ended, stay.index)


def urgent_admission(spec: FeatureSpec, name: str, person: Person, readings: Sequence[Reading]) -> Feature:
    """1 when the stay says that it was urgent, or came out of an emergency visit; 0 when it says that it was planned.

    What says both is for a person to settle, and what says nothing is not known.
    """
    stay = person.stay
    if stay is None or stay.began is None:
        return Feature(name, math.nan, spec.unit, reason=NO_STAY)
    said = {r.value for r in readings if r.index == stay.index and not r.trouble}
    began, joined = stay.began, spec.joined.total_seconds()
    visits = [r for r in readings if r.index != stay.index and r.value == 1 and _led_to(r, began, joined)]
    if said == {0.0} and not visits:
        return Feature(name, 0.0, spec.unit, index=stay.index)
    if 0.0 in said:
        return Feature(name, math.nan, spec.unit, index=stay.index, reason=f"contradictory:{name}")
    if said or visits:
        used = [stay.index, *(r.index for r in visits)]
        first, *others = [index for index in used if index is not None]
        return Feature(name, 1.0, spec.unit, index=first, others=tuple(others))
    if spec.absent is not None:
        return Feature(name, spec.absent, spec.unit)
    return Feature(name, math.nan, spec.unit, index=stay.index, reason=f"missing:{name}")


def _led_to(visit: Reading, began: float, joined: float) -> bool:
    """Whether a visit began before the stay, and ended when it began or shortly before."""
    last = visit.seconds if visit.until is None or math.isinf(visit.until) else visit.until
    return visit.seconds <= began and last >= began - joined


OF_STAY: Mapping[str, Callable[[FeatureSpec, str, Person, Sequence[Reading]], Feature]] = {
    "length_of_stay": length_of_stay,
    "urgent_admission": urgent_admission,
}


def body_mass_index(
    spec: FeatureSpec, name: str, found: Mapping[str, Feature], readings: Mapping[str, Sequence[Reading]]
) -> Feature:
    """kg/m² of the newest weight and height, unless a BMI was charted at the same time or later.

    Which is newer is decided by what is charted, usable or not: an older BMI does not stand in for a weight that
    cannot be read.
    """
    charted, weighed, (weight, height) = found[name], readings[spec.inputs[0]], (found[n] for n in spec.inputs)
    reported = readings[name]
    if reported and (not weighed or reported[0].seconds >= weighed[0].seconds):
        return charted
    bad = next((f for f in (weight, height) if f.reason is not None or math.isnan(f.value)), None)
    if bad is not None:
        return Feature(name, math.nan, spec.unit, bad.seconds, bad.index, bad.reason or f"missing:{name}")
    metres = height.value * _METRES[height.unit]
    value = weight.value / metres**2
    others = () if height.index is None else (height.index,)
    low, high = spec.plausible or (-math.inf, math.inf)
    if not low <= value <= high:
        return Feature(name, math.nan, spec.unit, weight.seconds, weight.index, f"implausible:{name}", shown=value)
    return Feature(name, value, spec.unit, weight.seconds, weight.index, others=others)
