"""Dates and times under each mode: seconds between them, moved by whole days, or as they are. Pure.

https://hl7.org/fhir/R4/datatypes.html#dateTime
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from sidecar.deid.general.tally import KEPT, REPLACED
from sidecar.deid.general.visit import Visit

DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
MASKED = {"extension": [{"url": DATA_ABSENT, "valueCode": "masked"}]}
"""What stands beside a date that had to go, so that nobody reads "not there"."""

_WRITTEN = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)"
    r"(?:T((?:[01]\d|2[0-3]):[0-5]\d(?::(?:[0-5]\d|60))?)(?:(\.\d{1,6})\d*)?(Z|[+-](?:0\d|1[0-4]):[0-5]\d)?)?)?)?",
    re.ASCII,
)
_TIME = re.compile(r"((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.\d+)?", re.ASCII)


class Written(msgspec.Struct, frozen=True, gc=False):
    """A FHIR date or time, taken apart. `day` is None when only a year or a month is known."""

    year: int
    day: date | None
    month: str
    clock: str
    zone: str

    @property
    def text(self) -> str:
        """As it was, but for digits of a second beyond the sixth."""
        if self.day is None:
            return f"{self.year:04d}{self.month}"
        return self.day.isoformat() + self.clock + self.zone

    @property
    def moment(self) -> datetime | None:
        """The instant; None without a time of day and a zone, or in a leap second, which has no place on a clock."""
        if self.day is None or not self.zone:
            return None
        try:
            return datetime.fromisoformat(self.text).astimezone(UTC)
        except (ValueError, OverflowError):
            return None


def read(value: object, kind: str) -> Written | None:
    """`value` as a date, dateTime or instant of R4, whichever `kind` says; None when it is not one.

    The time of a dateTime may lack its seconds or its zone, as some EHRs write it; a date has none.
    """
    found = _WRITTEN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    year, month, day, clock, fraction, zone = found.groups()
    if (clock and kind == "date") or (kind == "instant" and not zone):
        return None
    try:
        first = date(int(year), int(month or 1), int(day or 1))
    except ValueError:
        return None
    return Written(
        first.year,
        first if day else None,
        f"-{month}" if month and not day else "",
        f"T{clock}{fraction or ''}" if clock else "",
        zone or "",
    )


def moved(written: Written, by: timedelta) -> str | None:
    """The same time of day, `by` whole days later; None for a part of a date, and where the calendar ends.

    A time with a zone is written in UTC: with the offset of another season beside it, the clock change would tell by
    how much a date was moved.
    """
    if written.day is None:
        return None
    try:
        if not written.zone:
            return (written.day + by).isoformat() + written.clock
        moment = written.moment
        if moment is None:
            return None
        _, point, fraction = written.clock.partition(".")
        return (moment + by).replace(tzinfo=None).isoformat(timespec="seconds") + point + fraction + "Z"
    except OverflowError:
        return None


class Plain:
    """Dates as they are, if they are dates."""

    def put(self, out: dict[str, Any], name: str, written: Written, _visit: Visit) -> str | None:
        """Write the element `name` into `out`; says what was done, None when nothing may be written."""
        out[name] = written.text
        return KEPT


class Moved:
    """Dates moved by the shift of their patient; without a patient, or with a part of a date, none."""

    def put(self, out: dict[str, Any], name: str, written: Written, visit: Visit) -> str | None:
        """Write the element `name` into `out`; says what was done, None when nothing may be written."""
        by = visit.shift()
        text = moved(written, by) if by is not None else None
        if text is None:
            return None
        out[name] = text
        return REPLACED


def time_of_day(value: object) -> str | None:
    """A time of day without a date, to the second."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    return found[1] if found is not None else None
