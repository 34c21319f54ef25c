"""What a manifest says, in words a clinician and a data scientist both read. Pure.

Every option of a feature, of its sources and of the cohort has its sentence here; an option without one is shown as it
is written, and a test names it.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from sidecar.manifest.cohort import Cohort, CohortFact
from sidecar.manifest.declaration import Manifest
from sidecar.manifest.inputs import Choice, FeatureSpec, Source

_DERIVED = {
    "age": "the patient's exact age in years at the moment of the readings",
    "completed_years": "the patient's age in completed years",
    "sex": "the patient's sex: administrative gender, which a charted birth sex must not contradict (1 male, 0 female)",
    "bmi": "the body mass index, as charted, or from weight and height",
    "length_of_stay": "the days of the present stay, by the calendar of the facility",
    "prior_admissions": "how many admissions began in the window before the present stay",
    "ed_visits": "how many emergency visits began in the window before the present stay",
    "urgent_admission": "whether the present stay began urgently (1) or not (0): by priority, admit source or origin",
    "egfr_ckd_epi_2021": "the eGFR by the CKD-EPI 2021 equation, with age and sex",
}
_SELECTED = {
    "latest": "the latest reading counts",
    "first": "the first reading in the window counts",
    "min": "the least value in the window counts",
    "max": "the largest value in the window counts",
    "mean": "the mean of the values in the window counts",
    "sum": "the sum of the values in the window counts",
    "count": "the number of readings in the window counts",
    "any": "1 when one in the window is not 0",
    "slope": "the slope of the values in the window (least squares) counts",
    "delta": "the newest value in the window less the oldest counts",
    "time_since": "the time since the latest reading counts",
    "duration": "the time that the periods in the window cover counts",
    "weights": "the sum of the weights of the groups that are charted counts",
    "persistent": "1 when it has been so without a break, or a confirmed diagnosis shows it, for long enough",
}
_UNIT_WORDS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))

Sentence = Callable[[Any], str]


def for_long(span: timedelta) -> str:
    """A duration in its largest whole unit: "4 h"."""
    seconds = span.total_seconds()
    word, size = next(((w, s) for w, s in _UNIT_WORDS if seconds >= s and seconds % s == 0), ("s", 1))
    return f"{seconds / size:g} {word}"


def _codes(codes: tuple[str, ...]) -> str:
    shown = ["anything" if code == "*|*" else code for code in codes]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _values(values: Mapping[str, float]) -> str:
    return ", ".join(f"{'anything' if code == '*|*' else code} is {value:g}" for code, value in values.items())


def _between(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:g} to {bounds[1]:g}"


def _weighed(groups: Mapping[str, Any]) -> str:
    said = []
    for group in groups.values():
        instead = f" in place of {', '.join(groups[n].label for n in group.replaces)}" if group.replaces else ""
        said.append(f"{group.label} {group.weight:g}{instead} ({_codes(group.codes)})")
    return "; ".join(said)


def _told_elsewhere(_: object) -> str:
    """Of what has a line of its own."""
    return ""


SOURCE: Mapping[str, Sentence] = {
    "type": lambda s: f"from {s.type}",
    "codes": lambda s: f"with the code {_codes(s.codes)}" if s.codes else "",
    "valuesets": lambda s: f"with a code of the value sets {', '.join(s.valuesets)}",
    "panels": lambda s: f"also as a component of {_codes(s.panels)}",
    "values": lambda s: f"of its coded value, {_values(s.values)}",
    "unit": lambda s: f"read in {s.unit}",
    "units": lambda s: "charted in " + " or ".join(f"{unit} (x {factor:g})" for unit, factor in s.units.items()),
    "plausible": lambda s: f"a value outside {_between(s.plausible)} is implausible and makes the feature missing",
    "above": lambda s: f"yes (1) above {s.above:g}, else no (0)",
    "below": lambda s: f"yes (1) below {s.below:g}, else no (0)",
    "ambiguous": lambda s: f"undecided, so missing, unless the site decides: {_values(s.ambiguous)}",
    "ambiguous_switch": lambda s: f"the site decides by the switch {s.ambiguous_switch}",
    "derive": lambda s: f"and from it {_DERIVED[s.derive]}",
    "factor": lambda s: f"the equation takes it times {s.factor:.6g}",
    "history": lambda s: "also what is over (a resolved diagnosis, a stopped medicine)" if s.history else "",
    "only_newest": lambda s: "only the newest of them" if s.only_newest else "",
    "placed": lambda s: f"at the moment that it {'was charted' if s.placed == 'charted' else 'happened'}",
    "fhirpath": lambda s: f"the value found by the FHIRPath {s.fhirpath}",
    "name": lambda s: f"called {s.name}",
    "label": lambda s: f"named “{s.label}” in reasons",
    "remark": lambda s: f"the note says: “{s.remark}”",
}
FEATURE: Mapping[str, Sentence] = {
    "label": _told_elsewhere,
    "unit": _told_elsewhere,
    "sources": _told_elsewhere,
    "derive": lambda f: f"is {_DERIVED[f.derive]}",
    "inputs": lambda f: f"computed from {' and '.join(f.inputs)}",
    "select": lambda f: _SELECTED[f.select] if f.sources else "",
    "groups": lambda f: f"groups: {_weighed(f.groups)}",
    "per": lambda f: f"the slope is by {'hour' if f.per == 'h' else 'day'}",
    "window": lambda f: f"the window is {for_long(f.window)}",
    "anchor": lambda f: "as of the beginning of the present stay" if f.anchor == "encounter" else "as of the event",
    "joined": lambda f: f"what ended within {for_long(f.joined)} before the stay is part of it",
    "apart": lambda f: f"long enough is {for_long(f.apart)}",
    "max_age": lambda f: f"older than {for_long(f.max_age)} it is stale, which makes the feature missing",
    "plausible": lambda f: f"a value outside {_between(f.plausible)} is implausible and makes the feature missing",
    "required": lambda f: "" if f.required else "it may be missing",
    "absent": lambda f: f"where nothing is charted it is {f.absent:g}",
    "absent_switch": lambda f: f"but only if the site turned {f.absent_switch} on",
    "in_set": lambda f: "" if f.in_set else "it does not belong to the observation set",
    "same_moment": lambda f: "of two readings of one moment the larger counts" if f.same_moment == "larger" else "",
    "words": lambda f: "said as " + ", ".join(f"{value} = {word}" for value, word in f.words.items()),
    "decimals": lambda f: f"said with {f.decimals} decimals",
}
COHORT: Mapping[str, Sentence] = {
    "min_age_years": lambda c: f"aged {c.min_age_years} years or more",
    "max_age_years": lambda c: f"aged {c.max_age_years} years or less",
    "exclude": lambda c: f"not {', '.join(c.exclude)}",
    "stays": lambda c: f"in a stay of the class {_codes(c.stays)}",
    "exclude_when": _told_elsewhere,
    "require": _told_elsewhere,
}
EXCLUSION: Mapping[str, Sentence] = {
    "feature": _told_elsewhere,
    "equals": lambda e: f"is {e.equals:g}",
    "below": lambda e: f"is below {e.below:g}",
    "at_least": lambda e: f"is {e.at_least:g} or more",
    "above": lambda e: f"is above {e.above:g}",
    "reason": _told_elsewhere,
    "text": lambda e: f"({e.text})",
    "unknown": lambda e: f"where it is not known the note says: “{e.unknown}”",
}


def said_of(thing: BaseModel, sentences: Mapping[str, Sentence], *, always: frozenset[str] = frozenset()) -> list[str]:
    """A phrase for each option of `thing` that is not at its default, or is `always` told."""
    phrases = []
    for name, spec in type(thing).model_fields.items():
        value = getattr(thing, name)
        if name not in always and value == spec.get_default(call_default_factory=True):
            continue
        phrases.append(sentences[name](thing) if name in sentences else f"{name}: {value}")
    return [phrase for phrase in phrases if phrase]


def told(manifest: Manifest) -> Iterator[str]:
    """The manifest line by line."""
    yield f"{manifest.called} {manifest.version}: {manifest.title}"
    yield ""
    yield from _what_it_says(manifest)
    yield ""
    yield f"For whom: {'; '.join(said_of(manifest.cohort, COHORT, always=frozenset({'exclude'})))}."
    yield from _cohort(manifest.cohort, manifest)
    yield ""
    yield "Inputs, in the order of the graph:"
    for position, name in enumerate(manifest.graph.features, 1):
        yield from _input(f"{position}. ", name, manifest)
    others = [name for name in manifest.features if name not in manifest.graph.features]
    if others:
        yield ""
        yield "Read beside them, for whom it is or to compute an input:"
        for name in others:
            yield from _input("- ", name, manifest)
    for name, switch in manifest.switches.items():
        yield ""
        yield f"Switch {name} ({'on' if switch.default else 'off'} unless the site decides otherwise): “{switch.on}”"


def _what_it_says(manifest: Manifest) -> Iterator[str]:
    result = manifest.result
    if manifest.kind == "points":
        yield f"Says: a points total, not a probability. Outcome: {result.outcome}."
        for band in manifest.bands:
            yield f"  {band.risk}: {band.words}"
    else:
        yield f"Says: a probability. Outcome: {result.outcome}."
        for output in manifest.outputs:
            yield f"  {output.display}, within {output.horizon.words}"
            if own := output.recalibration:
                yield f"    {own.words} Log odds: {own.intercept:+g} and x {own.slope:g}."
            for rule in output.exclude_when:
                yield f"    not given when {_called(rule, manifest)} {', '.join(said_of(rule, EXCLUSION))}"
            for limit in output.bands:
                yield f"    {limit.risk}: {limit.text} ({limit.source})"
    for further in manifest.further:
        yield f"Kept with it and not charted: {further.label}."
    for name, words in manifest.graph.rest.items():
        yield f"Of no input: {words} ({name})."
    for remark in manifest.remarks:
        yield f"The note says, where it is so: “{remark.text}”"
    yield f"Valid for {for_long(manifest.validity)}."
    yield f"Inputs further apart than {for_long(manifest.spread)} are not one set: the older one is stale."


def _cohort(cohort: Cohort, manifest: Manifest) -> Iterator[str]:
    for rule in cohort.exclude_when:
        yield f"  not when {_called(rule, manifest)} {', '.join(said_of(rule, EXCLUSION))}"
    for need in cohort.require:
        yield f"  only when {manifest.label(need.feature) or need.feature} is shown ({need.reason})"


def _called(rule: CohortFact, manifest: Manifest) -> str:
    return manifest.label(rule.feature) or rule.feature


def _input(mark: str, name: str, manifest: Manifest) -> Iterator[str]:
    if name in manifest.choices:
        yield f"{mark}{manifest.choices[name].label} ({name})"
        yield f"   {_chosen(manifest.choices[name])}"
        return
    spec = manifest.features[name]
    unit = "" if spec.unit.startswith("{") or spec.unit == "1" else f", in {spec.unit}"
    yield f"{mark}{spec.label} ({name}{unit})"
    for source in spec.sources:
        yield f"   {'; '.join(said_of(source, SOURCE, always=frozenset({'type', 'codes'})))}"
    yield f"   {'; '.join([*said_of(spec, FEATURE, always=frozenset({'select'})), _if_missing(spec)])}"


def _chosen(choice: Choice) -> str:
    options = ", ".join(f"{choice.words.get(name, name)} ({value:g})" for name, value in choice.values.items())
    return f"chosen by the site, without a default: {options}. {choice.why}"


def _if_missing(spec: FeatureSpec) -> str:
    if spec.absent is None and spec.required:
        return "missing, it is not imputed"
    return "what it is when absent is said above" if spec.absent is not None else "missing, nothing is said of it"


def explained() -> Mapping[type[BaseModel], Mapping[str, Sentence]]:
    """The sentences by the class whose options they tell."""
    return {Source: SOURCE, FeatureSpec: FEATURE, Cohort: COHORT, CohortFact: EXCLUSION}
