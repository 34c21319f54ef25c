"""Features that are computed: one function each, by the name the manifest uses. Pure.

A function gives a number, or the reason why there is none; nothing is guessed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sidecar.records import DeidentifiedSnapshot, Sex, Stay

DAY_S = 86_400
YEAR_DAYS = 365.25


@dataclass(frozen=True, slots=True)
class Person:
    """What is known of the patient whatever is charted."""

    sex: Sex
    age_years: tuple[int, int] | None
    lived_s: float | None
    age_capped: bool
    stay: Stay | None = None

    @classmethod
    def of(cls, clean: DeidentifiedSnapshot) -> "Person":
        """The patient of a snapshot."""
        return cls(clean.sex, clean.age_years, clean.lived_s, clean.age_capped, clean.stay)


def age(person: Person, seconds: float) -> float | str:
    """Age in years, to the day and without a cap, at the moment `seconds` relative to the trigger.

    Whole days, so that looking again later from another trigger gives the same number. A birth date without its day
    gives none: a year of age is 2 % of a kidney failure risk.
    """
    if person.age_capped:
        return "deid:age_capped"
    if person.lived_s is None:
        known = person.age_years is not None and person.age_years[0] >= 0
        return "imprecise:birth_date" if known else "missing:birth_date"
    days = round(person.lived_s + seconds) // DAY_S
    return days / YEAR_DAYS if days >= 0 else "missing:birth_date"


def completed_years(person: Person, _: float) -> float | str:
    """Age in years by birthdays, at the trigger; a birth date without its day gives one where all days do.

    Where the policy tells no more than "90 or older" it is 90: no score that asks for years by birthdays tells the
    oldest apart, or speaks of them at all.
    """
    if person.age_years is None or person.age_years[0] < 0:
        return "missing:birth_date"
    youngest, oldest = person.age_years
    if youngest != oldest and not (person.age_capped and youngest >= 90):
        return "deid:age_capped" if person.age_capped else "imprecise:birth_date"
    return float(youngest)


def sex(person: Person, _: float) -> float | str:
    """1 = male, 0 = female; what is neither, or both, is a reason."""
    if person.sex is Sex.CONTRADICTORY:
        return "contradictory:sex"
    if person.sex is Sex.UNKNOWN:
        return "missing:sex"
    return float(person.sex is Sex.MALE)


def egfr_ckd_epi_2021(creatinine_mg_dl: float, age_years: float, male: float) -> float:
    """The eGFR in mL/min/1.73 m² by the CKD-EPI creatinine equation of 2021, which has no race term.

    Inker LA et al. N Engl J Med 2021;385:1737. Creatinine is of serum or plasma, traceable to IDMS.
    """
    kappa, alpha, factor = (0.9, -0.302, 1.0) if male else (0.7, -0.241, 1.012)
    ratio = creatinine_mg_dl / kappa
    return float(142 * min(ratio, 1.0) ** alpha * max(ratio, 1.0) ** -1.2 * 0.9938**age_years * factor)


OF_PATIENT: Mapping[str, Callable[[Person, float], float | str]] = {
    "age": age,
    "completed_years": completed_years,
    "sex": sex,
}
OF_VALUE: Mapping[str, Callable[[float, float, float], float]] = {"egfr_ckd_epi_2021": egfr_ckd_epi_2021}
"""Equations of a charted value, the age in years at its moment, and sex (1 = male)."""


def from_value(name: str, value: float, person: Person, seconds: float) -> float | str:
    """The equation `name` of a value charted at `seconds`, for this patient as they were then."""
    years, male = age(person, seconds), sex(person, seconds)
    if isinstance(years, str) or isinstance(male, str):
        return years if isinstance(years, str) else str(male)
    return OF_VALUE[name](value, years, male)
