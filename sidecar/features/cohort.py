"""For whom a model must not speak. Pure."""

from collections.abc import Mapping

from sidecar.manifest import Cohort
from sidecar.records import DeidentifiedSnapshot, Feature


def exclusion(cohort: Cohort, clean: DeidentifiedSnapshot, facts: Mapping[str, Feature]) -> str | None:
    """The reason this patient is outside the cohort, or None.

    What is not known and would exclude (a birth date) excludes; what may be unknown (pregnancy) is remarked on
    by the extractor instead.
    """
    if "inactive" in cohort.exclude and clean.inactive:
        return "out_of_cohort:inactive"
    if "deceased" in cohort.exclude and clean.deceased:
        return "out_of_cohort:deceased"
    if "discharged" in cohort.exclude and clean.encounter_open is False:
        return "out_of_cohort:discharged"
    for rule in cohort.exclude_when:
        if facts[rule.feature].value == rule.equals:
            return f"out_of_cohort:{rule.reason}"
    return _age(cohort, clean.age_years)


def _age(cohort: Cohort, age: tuple[int, int] | None) -> str | None:
    if cohort.min_age_years is None and cohort.max_age_years is None:
        return None
    if age is None or age[0] < 0:
        return "missing:birth_date"
    youngest, oldest = age
    low = cohort.min_age_years if cohort.min_age_years is not None else 0
    high = cohort.max_age_years if cohort.max_age_years is not None else 999
    if oldest < low or youngest > high:
        return "out_of_cohort:age"
    return None if youngest >= low and oldest <= high else "imprecise:birth_date"
