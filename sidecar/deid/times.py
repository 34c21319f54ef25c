"""FHIR dates and times as instants or local days. Pure. https://hl7.org/fhir/R4/datatypes.html#dateTime."""

import re
from calendar import monthrange
from datetime import date, datetime

_INSTANT = re.compile(r"\d\d\d\d-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")


def instant(value: object) -> datetime | None:
    """The moment `value` names, or None: a date without a time of day never satisfies an hourly window."""
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def days(value: object) -> tuple[date, date] | None:
    """The first and last day a (partial) FHIR date may mean, or None when it is not one."""
    if not isinstance(value, str):
        return None
    text = value[:10] if "T" in value else value
    if not _DATE.fullmatch(text):
        return None
    year, *rest = (int(p) for p in text.split("-"))
    try:
        first = date(year, *[*rest, 1, 1][:2])
        month = rest[0] if rest else 12
        last = first if len(rest) == 2 else date(year, month, monthrange(year, month)[1])
    except ValueError:
        return None
    return first, last


def years_between(born: date, on: date) -> int:
    """Completed years of age; someone born on 29 February completes a year on 1 March of a common year."""
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))
