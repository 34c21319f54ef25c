"""The values of a test vector, in the words of a manifest: what extraction would have read from a chart."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.features import OF_VALUE, converter
from sidecar.manifest import Cohort, Manifest, Source, Vectors


class UnusableVector(Exception):
    """A vector that cannot be run as it is, or does not agree; the message says why."""


def plain(text: object) -> str:
    """A word of the file as it may be shown: no more than a few printable characters."""
    said = str(text)
    return said if said.isprintable() and len(said) <= 60 else ascii(said[:60])


def number(name: str, value: object) -> float:
    """`value` as a number; a JSON true is 1, as models have it, and null is missing (NaN).

    Raises:
        UnusableVector: it is none.
    """
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        raise UnusableVector(f"{plain(name)}: not a number, and [vectors.values] does not say what it means")
    return float(value)


def values_of(manifest: Manifest, mapping: Vectors, inputs: Mapping[str, Any]) -> dict[str, float]:
    """The graph's inputs, what the cohort asks for, and what a feature is derived from, by the manifest's names.

    Raises:
        UnusableVector: an input is not named, is no number, or is in a unit that its source does not read.
    """
    units = {unit: name for name, unit in mapping.units.items()}
    if stray := sorted(set(inputs) - set(mapping.inputs) - set(units) - {mapping.horizon}):
        raise UnusableVector(f"inputs that [vectors] does not name: {', '.join(map(plain, stray))}")
    values = {}
    for name, target in mapping.inputs.items():
        if name in inputs:
            given = _meant(manifest, mapping, name, inputs[name])
            unit = inputs.get(mapping.units.get(name, ""))
            values[target] = given if unit is None else _in_own_unit(manifest, name, target, given, unit)
    return {**_derived(manifest, values), **values}


def _meant(manifest: Manifest, mapping: Vectors, name: str, given: object) -> float:
    """A value as a number. Words, and true and false, may be mapped; their case means nothing."""
    if not isinstance(given, bool | str):
        return number(name, given)
    target, word = mapping.inputs[name], str(given).casefold()
    words = {w.casefold(): value for w, value in mapping.values.get(name, {}).items()}
    if target in manifest.choices:
        words = {**{w.casefold(): value for w, value in manifest.choices[target].values.items()}, **words}
    if word in words:
        return words[word]
    yes_or_no = target in manifest.features and set(manifest.features[target].words) == {"0", "1"}
    return float(word == "true") if yes_or_no and word in {"true", "false"} else number(name, given)


def _in_own_unit(manifest: Manifest, name: str, target: str, given: float, unit: object) -> float:
    """`given` in the unit of the feature, or of its equation, by the first source that reads `unit`."""
    if isinstance(unit, str):
        for source, own in _read_as(manifest, target):
            for written, factor in (source.units or {own: 1.0}).items():
                if (convert := converter(unit, written)) is not None:
                    return convert(given) * factor * source.factor
    raise UnusableVector(f"{plain(name)}: no source of {target} reads the unit {plain(unit)}")


def _read_as(manifest: Manifest, target: str) -> Iterator[tuple[Source, str]]:
    """The sources that `target` is the value of, each with its unit."""
    for name, spec in manifest.features.items():
        for source in spec.sources:
            if (source.name or name) == target and (source.name is not None or not source.derive):
                yield source, source.unit or spec.unit


def _derived(manifest: Manifest, values: Mapping[str, float]) -> dict[str, float]:
    """What equations make of the values, for features that are not given."""
    about: dict[str, float] = {
        spec.derive: values.get(name, math.nan) for name, spec in manifest.features.items() if spec.derive
    }
    found = {}
    for name in manifest.graph.features:
        for source in manifest.features[name].sources if name in manifest.features else ():
            # `factor` 1 is the equation's own unit, which is the one that a vector's value is in by now.
            if source.derive and source.name and source.factor == 1 and source.name in values:
                years, male = about.get("age", math.nan), about.get("sex", math.nan)
                try:
                    found[name] = OF_VALUE[source.derive](values[source.name], years, male)
                except (ArithmeticError, TypeError, ValueError):
                    raise UnusableVector(f"{name} cannot be computed from {source.name}") from None
    return found


def no_result(manifest: Manifest, values: Mapping[str, float]) -> str | None:
    """The reason why the path gives no result for a patient with these values, as far as they tell; None if it does."""
    for rule in manifest.cohort.exclude_when:
        if rule.holds(values.get(rule.feature, math.nan)):
            return f"out_of_cohort:{rule.reason}"
    for need in manifest.cohort.require:
        if values.get(need.feature, need.equals) != need.equals:
            return f"out_of_cohort:{need.reason}"
    for name, spec in manifest.features.items():
        given = values.get(name, math.nan)
        if spec.derive in {"age", "completed_years"} and not math.isnan(given) and not _of_age(manifest.cohort, given):
            return "out_of_cohort:age"
        if not math.isnan(given) and not spec.can_be(given):
            return f"implausible:{name}"
        for source in spec.sources:
            charted = values.get(source.name or "", math.nan)
            # `factor` 1: a value of the same name in another unit has another range.
            low, high = source.plausible or (-math.inf, math.inf)
            if source.factor == 1 and (charted < low or charted > high):
                return f"implausible:{source.name}"
    return None


def _of_age(cohort: Cohort, years: float) -> bool:
    """Whether somebody of that age is in the cohort; a year of age lasts until the next birthday."""
    oldest = math.inf if cohort.max_age_years is None else cohort.max_age_years + 1
    return (cohort.min_age_years or 0) <= years < oldest
