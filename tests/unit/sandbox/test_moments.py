"""FHIR dates as spans: laws that hold for every pair of dates."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.sandbox.moments import compares, instant, milliseconds, period_span, span

_TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds
_SIZES = st.sampled_from([4, 7, 10, 16, 19, 23])


@st.composite
def dates(draw):
    text = draw(_TIMES).isoformat(timespec="milliseconds")[: draw(_SIZES)]
    return text + "Z" if "T" in text else text


@given(dates(), dates())
def test_prefixes_agree_with_each_other(wanted, target):
    a, b = span(wanted), span(target)
    says = {prefix: compares(prefix, a, b) for prefix in ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb")}
    assert says["ne"] != says["eq"]
    assert says["ge"] == (says["gt"] or says["eq"])
    assert says["le"] == (says["lt"] or says["eq"])
    assert says["gt"] or says["lt"] or says["eq"]
    assert not says["sa"] or says["gt"]
    assert not says["eb"] or says["lt"]
    assert not (says["sa"] and says["eb"])


@given(_TIMES)
def test_an_instant_is_found_by_what_it_is_written_as(at):
    written = span(instant(at))
    assert written.low == milliseconds(at)
    assert written.high - written.low == timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("text", "low", "length"),
    [
        ("2024", datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=366)),
        ("2024-02", datetime(2024, 2, 1, tzinfo=UTC), timedelta(days=29)),
        ("2024-12", datetime(2024, 12, 1, tzinfo=UTC), timedelta(days=31)),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC), timedelta(days=1)),
        ("2024-02-29T23:30-01:00", datetime(2024, 3, 1, 0, 30, tzinfo=UTC), timedelta(minutes=1)),
        (
            "2024-02-29T23:30:15.5Z",
            datetime(2024, 2, 29, 23, 30, 15, 500_000, tzinfo=UTC),
            timedelta(seconds=0.1),
        ),
    ],
)
def test_precision_is_the_length_of_the_span(text, low, length):
    assert span(text).low == low
    assert span(text).high - span(text).low == length


@pytest.mark.parametrize(
    "text", ["", "24", "2024-13", "2024-02-30", "2024-01-01T10", "2024-01-01T10:00:00 01:00", "now"]
)
def test_what_is_no_date_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - each in its own words
        span(text)


def test_a_period_without_an_end_has_none():
    assert period_span({"start": "2024"}).high > span("9998").low
