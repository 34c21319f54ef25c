"""For whom a model must not speak. Pure."""

from collections.abc import Mapping

from sidecar.manifest import Cohort, Manifest
from sidecar.records import DeidentifiedSnapshot, Feature

UNREADABLE = frozenset({"modifier", "status", "shape", "unit", "comparator", "ambiguous", "unmapped", "future"})
"""Troubles of a fact that is charted: what it says is not known, and it may be what excludes."""


def exclusion(manifest: Manifest, clean: DeidentifiedSnapshot, facts: Mapping[str, Feature]) -> str | None:
    """The reason this patient is outside the cohort, or None.

    What is not known and would exclude (a birth date, a dialysis charted in a way that cannot be read) excludes; what
    may be unknown (pregnancy) is remarked on by the extractor instead. What must be shown is asked last, and only of a
    patient whose inputs are all there.
    """
    cohort = manifest.cohort
    if "inactive" in cohort.exclude and clean.inactive:
        return "out_of_cohort:inactive"
    if "deceased" in cohort.exclude and clean.deceased:
        return "out_of_cohort:deceased"
    if "discharged" in cohort.exclude and clean.encounter_open is False:
        return "out_of_cohort:discharged"
    reason = _excluded(manifest, facts, only_inputs=False) or _age(cohort, clean)
    return reason or _not_shown(manifest, facts)


def exclusion_by_inputs(manifest: Manifest, facts: Mapping[str, Feature]) -> str | None:
    """The reason, as far as the model's own inputs give one: values it was not made for, whenever they were."""
    return _excluded(manifest, facts, only_inputs=True)


def _excluded(manifest: Manifest, facts: Mapping[str, Feature], *, only_inputs: bool) -> str | None:
    for rule in manifest.cohort.exclude_when:
        is_input = rule.feature in manifest.graph.features
        if only_inputs and not is_input:
            continue
        fact = facts[rule.feature]
        if rule.holds(fact.value):
            return f"out_of_cohort:{rule.reason}"
        trouble = (fact.reason or "").partition(":")[0]
        if not is_input and not rule.unknown and trouble in UNREADABLE:
            return fact.reason
    return None


def _not_shown(manifest: Manifest, facts: Mapping[str, Feature]) -> str | None:
    if any(facts[name].reason for name in manifest.graph.features):
        return None
    for need in manifest.cohort.require:
        if facts[need.feature].value != need.equals:
            return f"out_of_cohort:{need.reason}"
    return None


def _age(cohort: Cohort, clean: DeidentifiedSnapshot) -> str | None:
    if cohort.min_age_years is None and cohort.max_age_years is None:
        return None
    age = clean.age_years
    if age is None or age[0] < 0:
        return "missing:birth_date"
    youngest, oldest = age
    low = cohort.min_age_years if cohort.min_age_years is not None else 0
    high = cohort.max_age_years if cohort.max_age_years is not None else 999
    if oldest < low or youngest > high:
        return "out_of_cohort:age"
    if youngest >= low and oldest <= high:
        return None
    return "deid:age_capped" if clean.age_capped else "imprecise:birth_date"
