"""Births and deaths: the years that may stay, and ages over 89 that may not show. Pure. 45 CFR 164.514(b)(2)(i)(C)."""

from collections.abc import Mapping
from datetime import date, timedelta, timezone
from typing import Any

from sidecar.deid.general.moments import Moved, Plain, Written, read
from sidecar.deid.general.quantities import OVER_89
from sidecar.deid.general.tally import GENERALISED
from sidecar.deid.general.visit import Visit
from sidecar.deid.general.years import Years
from sidecar.deid.times import days

AGE = "urn:ehr-sidecar:age"
_CAP_YEARS = 90
_EASTERNMOST, _WESTERNMOST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))


def over_89(born: date, on: date) -> bool:
    """Whether somebody born on `born` has completed 90 years by `on`; on 29 February, by 28 February at the latest."""
    if born.year + _CAP_YEARS > date.max.year:
        return False
    try:
        birthday = born.replace(year=born.year + _CAP_YEARS)
    except ValueError:
        birthday = date(born.year + _CAP_YEARS, 2, 28)
    return on >= birthday


class Births:
    """The date of birth by the mode. Where only years stay, it goes with an age over 89, today or at death.

    Of a part of a date the earliest day counts, and of the time of a death the latest calendar day that it is anywhere:
    whoever may be over 89 loses the year. That they are 90 or more is said only where it is certain.
    """

    def __init__(self, moments: Plain | Moved | Years, today: date) -> None:
        self._moments, self._today = moments, today

    def put(self, out: dict[str, Any], name: str, written: Written, visit: Visit) -> str | None:
        """Write the date of birth as `name` into `out`; says what was done, None when nothing may be written."""
        if not isinstance(self._moments, Years):
            return self._moments.put(out, name, written, visit)
        span = days(written.text)
        if span is None:
            return None
        died = _death(visit.source)
        if not over_89(span[0], max(self._today, died[1]) if died is not None else self._today):
            out[name] = f"{written.year:04d}"
            return GENERALISED
        if not over_89(span[1], died[0] if died is not None else self._today):
            return None
        out[f"_{name}"] = {"extension": [{"url": AGE, "valueAge": dict(OVER_89)}]}
        return GENERALISED


def _death(patient: Mapping[str, Any]) -> tuple[date, date] | None:
    """The first and the last calendar day on which the patient can have died; None for the living."""
    said = patient.get("deceasedDateTime")
    if said is None and patient.get("deceasedBoolean") is not True and patient.get("_deceasedDateTime") is None:
        return None
    written = read(said, "dateTime")
    span = days(written.text) if written is not None else None
    if written is None or span is None:
        return date.min, date.min
    moment = written.moment
    if moment is None:
        return span
    try:
        return moment.astimezone(_WESTERNMOST).date(), max(span[1], moment.astimezone(_EASTERNMOST).date())
    except OverflowError:
        return date.min, date.max
