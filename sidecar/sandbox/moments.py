"""FHIR dates and times as half-open spans, and how search prefixes compare them.

Pure. A date without a zone is read as UTC.
https://hl7.org/fhir/R4/search.html#date and https://hl7.org/fhir/R4/datatypes.html#dateTime
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

BEGINNING = datetime.min.replace(tzinfo=UTC)
END = datetime.max.replace(tzinfo=UTC)

_DATE_TIME = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:T(?P<clock>\d\d:\d\d(?P<seconds>:\d\d(?P<fraction>\.\d+)?)?)(?P<zone>Z|[+-]\d\d:\d\d)?)?)?)?",
)


@dataclass(frozen=True, slots=True)
class Span:
    """The time a FHIR date can mean: from `low`, up to but not including `high`."""

    low: datetime
    high: datetime


@lru_cache(maxsize=65_536)
def span(text: str) -> Span:
    """Read a FHIR date, dateTime or instant as the span its precision leaves open.

    Raises:
        ValueError: `text` is not a FHIR date.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        msg = f"{text!r} is not a FHIR date, dateTime or instant (is a '+' in it percent-encoded?)"
        raise ValueError(msg)
    try:
        return _span(text, match)
    except OverflowError as error:
        msg = f"{text!r} is beyond the calendar"
        raise ValueError(msg) from error


def _span(text: str, match: re.Match[str]) -> Span:
    year, month, day = (int(match[part] or 1) for part in ("year", "month", "day"))
    if match["clock"] is None:
        low = datetime(year, month, day, tzinfo=UTC)
        if match["day"]:
            return Span(low, low + timedelta(days=1))
        if match["month"]:
            return Span(low, datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC))
        return Span(low, datetime(year + 1, 1, 1, tzinfo=UTC) if year < END.year else END)
    fraction = match["fraction"] or ""
    whole = text.replace(fraction, fraction[:7], 1) if fraction else text
    low = datetime.fromisoformat(whole)
    low = (low if low.tzinfo else low.replace(tzinfo=UTC)).astimezone(UTC)
    if match["seconds"] is None:
        return Span(low, low + timedelta(minutes=1))
    digits = min(max(len(fraction) - 1, 0), 6)
    return Span(low, low + timedelta(microseconds=10 ** (6 - digits)))


def period_span(period: dict[str, str]) -> Span:
    """Read a FHIR Period; a missing end is open, as R4 search says.

    Raises:
        ValueError: a bound is not a FHIR date.
    """
    low = span(period["start"]).low if "start" in period else BEGINNING
    high = span(period["end"]).high if "end" in period else END
    return Span(low, high)


def _contains(wanted: Span, target: Span) -> bool:
    return wanted.low <= target.low and target.high <= wanted.high


_COMPARISONS: dict[str, Callable[[Span, Span], bool]] = {
    "eq": _contains,
    "ne": lambda wanted, target: not _contains(wanted, target),
    "gt": lambda wanted, target: target.high > wanted.high,
    "lt": lambda wanted, target: target.low < wanted.low,
    "ge": lambda wanted, target: target.high > wanted.high or _contains(wanted, target),
    "le": lambda wanted, target: target.low < wanted.low or _contains(wanted, target),
    "sa": lambda wanted, target: target.low >= wanted.high,
    "eb": lambda wanted, target: target.high <= wanted.low,
}
PREFIXES = frozenset(_COMPARISONS)


def compares(prefix: str, wanted: Span, target: Span) -> bool:
    """Tell whether `target` satisfies `prefix` `wanted`, by R4's rules on ranges."""
    return _COMPARISONS[prefix](wanted, target)


def milliseconds(at: datetime) -> datetime:
    """Cut `at` to whole milliseconds UTC: what a version is stored with is what its JSON says."""
    at = at.astimezone(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def instant(at: datetime) -> str:
    """Write `at` as a FHIR instant in UTC."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
