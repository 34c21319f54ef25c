"""How often a model would have called somebody, counted from the results of its shadow period. Pure.

An alert is an escalation: a patient's result in a higher band than the last one before it, or the first in any band
above the lowest. A band that lasts calls once. A patient-day is a calendar day of the facility on which a patient was
looked at, whatever came of it.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from typing import Any

PER = 100


@dataclass(frozen=True, slots=True)
class Seen:
    """One stored result: whose, on which day, and how high its band is (0 = the lowest, None = no result)."""

    patient: bytes
    day: date
    level: int | None


@dataclass(slots=True)
class Alerts:
    """Counts results as they are added, those of one patient in the order of their readings.

    `bands` are the codes of the bands from the lowest up; the first calls nobody.
    """

    bands: tuple[str, ...]
    results: int = 0
    not_scored: int = 0
    patients: int = 0
    patient_days: int = 0
    escalations: Counter[int] = field(default_factory=Counter)
    _patient: bytes = b""
    _days: set[date] = field(default_factory=set)
    _level: int = 0

    def add(self, seen: Seen) -> None:
        """Count one more. Patients come one after the other."""
        if seen.patient != self._patient:
            self._patient, self._days, self._level = seen.patient, set(), 0
            self.patients += 1
        if seen.day not in self._days:
            self._days.add(seen.day)
            self.patient_days += 1
        if seen.level is None:
            self.not_scored += 1
            return
        self.results += 1
        if seen.level > self._level:
            self.escalations[seen.level] += 1
        self._level = seen.level

    def rate(self, lowest: int) -> float | None:
        """Alerts per 100 patient-days into bands from `lowest` up; None when nobody was looked at."""
        if not self.patient_days:
            return None
        count = sum(n for level, n in self.escalations.items() if level >= lowest)
        return count * PER / self.patient_days

    def to_json(self) -> dict[str, Any]:
        """The report. Nothing in it is of one patient."""
        from_bands = {name: self.rate(level) for level, name in enumerate(self.bands) if level}
        return {
            "results": self.results,
            "not_scored": self.not_scored,
            "patients": self.patients,
            "patient_days": self.patient_days,
            "alerts": sum(self.escalations.values()),
            "alerts_per_100_patient_days": _rounded(self.rate(1)),
            "per_100_patient_days_from_band": {name: _rounded(rate) for name, rate in from_bands.items()},
        }


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 2)
