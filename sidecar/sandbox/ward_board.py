"""What the ward page may say of each patient now: one `Row` a patient, the most urgent first.

It promises never to call a number the current score that is not one: an expired, superseded, incomplete or withdrawn
result, or that of a patient who left, is said in words. Pure but for the chart it is given; time is an argument.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sidecar.sandbox.moments import span
from sidecar.sandbox.outcome import Resource
from sidecar.sandbox.ward_chart import VITALS, Reading, Result, Stay, WardChart

TREND = 24
WIDTH, HEIGHT, MARGIN = 148.0, 48.0, 4.0
LEAST_TOP = 10.0
THRESHOLDS = (5, 7)
SHOWN_AFTER_LEAVING = timedelta(hours=12)
LEVELS = {"low": 1, "low-medium": 2, "medium": 3, "high": 4}
URGENT = 4
_RANKS = {4: 0, 3: 1, 2: 2, 0: 3, 1: 4}
"""Order of rows by level: who has no current score comes before who is known to be low."""
_LEFT = 5
_INCOMPLETE = re.compile(r"(URGENT: )?NEWS2 at least ([\d.]+), incomplete: (.*?)\. This is not a total\.")


@dataclass(frozen=True, slots=True)
class Unscored:
    """Why a patient has no current score, as phrases, and when (ward time) that was found."""

    reasons: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds now. `kind` is total, incomplete or none; only a total's `points` are a score."""

    kind: str
    points: str
    says: str
    because: str = ""
    band: str | None = None
    level: int = 0
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Trend:
    """The newest results as a sparkline, `WIDTH` by `HEIGHT`, and in words, oldest first."""

    lines: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    gaps: tuple[float, ...]
    thresholds: tuple[float, ...]
    words: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Vital:
    """The newest reading of one kind. `points` is empty unless the result that holds now rests on this reading."""

    label: str
    value: str
    unit: str
    age: str
    points: str


@dataclass(frozen=True, slots=True)
class Row:
    """One patient as shown; equal rows are the same HTML."""

    key: str
    bed: int
    name: str
    about: str
    reason: str
    stay: str
    verdict: Verdict
    change: str
    trend: Trend
    vitals: tuple[Vital, ...]
    facts: tuple[tuple[str, str], ...]
    inputs: tuple[tuple[str, str, str], ...]
    note: str

    @property
    def order(self) -> tuple[int, int]:
        """Urgent and high first; within a rank by bed, so that rows stay where they are."""
        return (_RANKS[self.verdict.level] if self.stay == "admitted" else _LEFT), self.bed

    @property
    def announcement(self) -> str:
        """What a screen reader hears when this patient got worse."""
        total = f", total {self.verdict.points}" if self.verdict.kind == "total" else ""
        return f"Bed {self.bed}, {self.name}: {self.verdict.says}{total}"


class WardBoard:
    """The rows of a ward. Beds are numbered in the order of admission and never given twice."""

    def __init__(self, chart: WardChart) -> None:
        """Show what `chart` holds; the caller has it catch up."""
        self._chart = chart
        self._beds: dict[str, int] = {}

    def rows(self, now: datetime, unscored: Mapping[str, Unscored]) -> list[Row]:
        """Return everyone on the ward, and who left within `SHOWN_AFTER_LEAVING`, in order."""
        for encounter in self._chart.stays.by_id:
            self._beds.setdefault(encounter, len(self._beds) + 1)
        rows = []
        for key, patient in self._chart.patients.by_id.items():
            stays = self._chart.stays.by_patient.get(key)
            if not stays:
                continue
            stay = max(stays.values(), key=lambda each: each.began_at)
            if not (stay.over and stay.ended_at and now - stay.ended_at > SHOWN_AFTER_LEAVING):
                rows.append(self._row(key, patient, stay, _Moment(now, unscored.get(key))))
        return sorted(rows, key=lambda row: row.order)

    def _row(self, key: str, patient: Resource, stay: Stay, moment: "_Moment") -> Row:
        results = self._results(key, stay)
        totals = [self._chart.total(result) for result in results]
        status = _status(patient, stay)
        newest = results[-1] if results else None
        verdict = moment.verdict(status, stay, newest, totals[-1] if totals else None)
        return Row(
            key=key,
            bed=self._beds[stay.encounter],
            name=_name(patient),
            about=f"{_age(patient, moment.now)}, {_sex(patient)}",
            reason=stay.reason,
            stay=status,
            verdict=verdict,
            change=_change(results, totals, moment) if verdict.kind == "total" else "",
            trend=_trend(results, totals, moment),
            vitals=tuple(self._vitals(key, newest if verdict.kind != "none" else None, moment)),
            facts=tuple(_facts(newest, totals[-1], verdict, moment)) if newest else (),
            inputs=tuple(self._inputs(newest, moment)) if newest else (),
            note=newest.note if newest else "",
        )

    def _results(self, key: str, stay: Stay) -> list[Result]:
        """Return the newest results of this stay, oldest first."""
        own = self._chart.results.by_patient.get(key, {}).values()
        of_stay = (result for result in own if result.encounter in {None, stay.encounter})
        return sorted(of_stay, key=lambda result: result.at)[-TREND:]

    def _vitals(self, key: str, holds: Result | None, moment: "_Moment") -> Iterator[Vital]:
        """Yield the newest reading of each vital, with its points in the result that holds; absent is said."""
        rested_on = {
            reading.version.logical_id
            for reference, reading in (self._chart.cited(holds) if holds else ())
            if reading is not None and not _changed(reference, reading)
        }
        newest: dict[str, tuple[tuple[datetime, bool], Reading]] = {}
        for reading in self._chart.readings.by_patient.get(key, {}).values():
            rank = reading.at, reading.version.logical_id in rested_on
            if reading.vital and reading.text and (reading.vital not in newest or rank >= newest[reading.vital][0]):
                newest[reading.vital] = rank, reading
        points = self._chart.points(holds) if holds else {}
        for vital in VITALS:
            if vital not in newest:
                yield Vital(vital, "not charted", "", "", "")
                continue
            (at, scored), reading = newest[vital]
            value, _, unit = (reading.text or "").partition(" ") if vital != "Consc." else (reading.text or "", "", "")
            given = points.get(vital, 0.0) if scored else 0.0
            yield Vital(vital, value, unit, moment.ago(at), f"{given:g}" if given else "")

    def _inputs(self, result: Result, moment: "_Moment") -> Iterator[tuple[str, str, str]]:
        """Yield name, value and time of every reading a result rests on."""
        for reference, reading in self._chart.cited(result):
            if reading is None:
                yield "a reading", "no longer in the chart", ""
            elif not reading.is_score:
                value = reading.text or "no value"
                said = f"{value} (changed since)" if _changed(reference, reading) else value
                yield reading.name, said, moment.when(reading.at)


@dataclass(frozen=True, slots=True)
class _Moment:
    """The ward's now, and why there was no score the last time it was tried."""

    now: datetime
    unscored: Unscored | None

    def verdict(self, status: str, stay: Stay, result: Result | None, total: float | None) -> Verdict:
        """Decide what may be said; anything in doubt is no current score."""
        because = self._because(status, stay, result)
        if result is not None and result.status == "preliminary" and not self._lapsed(status, result):
            return self._incomplete(result, because)
        if result is None or because:
            return Verdict("none", "—", "No current score", "; ".join(because))
        points = "?" if total is None else f"{total:g}"
        says = result.risk or result.band or "band not stated"
        corrected = f" ({result.status})" if result.status in {"corrected", "amended"} else ""
        level = LEVELS.get(result.band or "", 0)
        return Verdict("total", points, says + corrected, "", result.band, level)

    def _because(self, status: str, stay: Stay, result: Result | None) -> list[str]:
        """Say why the newest result is not a current score; empty when it is one."""
        if status != "admitted":
            at = f" at {self.when(stay.ended_at)}" if stay.ended_at else ""
            return ["the patient died" if status == "died" else f"the patient was discharged{at}"]
        said: list[str] = []
        if self.unscored and (result is None or self.unscored.at > result.at):
            said += self.unscored.reasons or ("the last attempt to score gave no result",)
        if result is None:
            return said or ["nothing was scored yet"]
        if result.until is None:
            said.append("the last result does not say how long it holds")
        elif result.until <= self.now:
            said.append(f"the last result held until {self.when(result.until)}")
        return said

    def _lapsed(self, status: str, result: Result) -> bool:
        return status != "admitted" or result.until is None or result.until <= self.now

    def _incomplete(self, result: Result, because: Sequence[str]) -> Verdict:
        """Show an incomplete result while it holds: silence must not hide the sickest patient."""
        found = _INCOMPLETE.search(result.note)
        urgent = bool(found and found[1]) or "at least high" in result.risk or "at least medium" in result.risk
        says = f"at least {found[2]}, incomplete" if found else result.risk or "incomplete"
        why = [found[3]] if found else []
        why += [each for each in because if each not in why]
        points = f"≥ {found[2]}" if found else "…"
        return Verdict("incomplete", points, says, "; ".join(why), None, URGENT if urgent else 0, urgent)

    def when(self, at: datetime) -> str:
        """Write a time of today as a time, any other with its day."""
        at = at.astimezone(self.now.tzinfo)
        if at.date() == self.now.date():
            return f"{at:%H:%M}"
        year = "" if at.year == self.now.year else f" {at.year}"
        return f"{at.day} {at:%b}{year} {at:%H:%M}"

    def ago(self, at: datetime) -> str:
        """Write how long ago `at` was, in ward time."""
        minutes = max(0, int((self.now - at).total_seconds() // 60))
        if minutes < 60:
            return f"{minutes} min" if minutes else "now"
        hours, rest = divmod(minutes, 60)
        return f"{hours} h {rest:02}" if hours < 48 else f"{hours // 24} d"


def duration(seconds: float) -> str:
    """Write a latency."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _changed(reference: str, reading: Reading) -> bool:
    """Whether a reading is not any more in the version that `reference` names."""
    version = reference.partition("/_history/")[2]
    return bool(version) and version != str(reading.version.number)


def _status(patient: Resource, stay: Stay) -> str:
    if patient.get("deceasedBoolean") or "deceasedDateTime" in patient or stay.died:
        return "died"
    return "discharged" if stay.over else "admitted"


def _name(patient: Resource) -> str:
    names = patient.get("name", [])
    name: Resource = next((each for each in names if each.get("use") == "official"), next(iter(names), {}))
    given = " ".join(name.get("given", []))
    return ", ".join(filter(None, (name.get("family"), given))) or name.get("text") or "Name not charted"


def _age(patient: Resource, now: datetime) -> str:
    text = patient.get("birthDate")
    if not text:
        return "age not charted"
    born, today = span(text).low, now.date()
    years = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
    return f"{'' if len(text) == len('2000-01-01') else 'about '}{years} y"


def _sex(patient: Resource) -> str:
    sex = patient.get("gender", "unknown")
    return "sex not known" if sex == "unknown" else str(sex)


def _change(results: Sequence[Result], totals: Sequence[float | None], moment: _Moment) -> str:
    """Compare the newest total with the complete one before it."""
    pairs = [(total, result) for total, result in zip(totals, results, strict=True) if total is not None]
    if len(pairs) < 2 or totals[-1] is None:
        return ""
    (before, earlier), (newest, _) = pairs[-2:]
    word = "up" if newest > before else "down" if newest < before else "unchanged"
    since = moment.when(earlier.at)
    return f"unchanged since {since}" if word == "unchanged" else f"{word} from {before:g} at {since}"


def _facts(
    result: Result,
    total: float | None,
    verdict: Verdict,
    moment: _Moment,
) -> Iterator[tuple[str, str]]:
    """Yield what there is to know of the newest result, current or not."""
    if verdict.kind == "none":
        said = f"{total:g}, {result.risk or result.band}" if total is not None else result.risk or "no total"
        yield "Last result, not current", said
    if result.rationale:
        yield "Mostly from", result.rationale
    yield "Readings of", moment.when(result.at)
    if result.until:
        yield ("Holds until" if result.until > moment.now else "Held until"), moment.when(result.until)
    yield "Status", result.status
    if result.latency_s is not None:
        yield "In the chart after", duration(result.latency_s)


def _trend(results: Sequence[Result], totals: Sequence[float | None], moment: _Moment) -> Trend:
    """Draw totals over time; an incomplete result breaks the line."""
    top = max([LEAST_TOP, *(total for total in totals if total is not None)])

    def height(points: float) -> float:
        return round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * points / top, 1)

    across = _across([result.at for result in results])
    runs: list[list[tuple[float, float]]] = [[]]
    gaps: list[float] = []
    for result, total in zip(results, totals, strict=True):
        if total is None:
            gaps.append(across(result.at))
            runs.append([])
        else:
            runs[-1].append((across(result.at), height(total)))
    ends = [run[-1] for run in runs if len(run) == 1 or (run and run is runs[-1])]
    words = tuple((moment.when(result.at), _said(result, total)) for result, total in zip(results, totals, strict=True))
    lines = tuple(" ".join(f"{x},{y}" for x, y in run) for run in runs if len(run) > 1)
    return Trend(lines, tuple(ends), tuple(gaps), tuple(height(each) for each in THRESHOLDS), words)


def _said(result: Result, total: float | None) -> str:
    if total is not None:
        return f"{total:g}"
    return "incomplete" if result.status == "preliminary" else "total not in the chart"


def _across(times: Sequence[datetime]) -> Callable[[datetime], float]:
    """Return where a time lies from left to right."""
    length = (times[-1] - times[0]).total_seconds() if times else 0.0

    def place(at: datetime) -> float:
        share = (at - times[0]).total_seconds() / length if length else 1.0
        return round(MARGIN + (WIDTH - 2 * MARGIN) * share, 1)

    return place
