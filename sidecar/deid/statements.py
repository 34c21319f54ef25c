"""What is particular to statements that are no Observation: what they are about, when they were, what became of them.

Pure. A stay has a class, a medicine an order, an appointment a status that is itself what is counted. What never was,
was only planned or must not be done is void; what is over counts where a model asks for history.
https://hl7.org/fhir/R4/encounter.html and /medicationrequest.html, /procedure.html, /appointment.html, ...
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sidecar.deid.conditions import FAR_FUTURE_S
from sidecar.deid.draft import Draft, View, is_over
from sidecar.deid.rules import Rule
from sidecar.deid.times import days, instant
from sidecar.manifest import ANY
from sidecar.records import Fact, PatientSnapshot, Stay

APPOINTMENT_STATUS = "http://hl7.org/fhir/appointmentstatus"
NEVER_WAS = ("planned", "cancelled", "entered-in-error")
"""What a stay is that the patient has not been in."""
_WHOLE_DAY_S = 86_400.0


def statement(index: int, type_name: str, draft: Draft) -> Sequence[Fact]:
    """The fact that a statement comes to, if it is about what the model reads."""
    whatever = ANY in draft.wanted and ANY not in draft.codes and not draft.by_name
    codes = (*draft.codes, ANY) if whatever else draft.codes
    if not codes:
        return ()
    fact = Fact(
        index, type_name, codes, draft.seconds, draft.value, draft.unit, draft.value_codes, draft.trouble,
        draft.recorded, draft.began, draft.confirmed, ended(draft), draft.days, draft.over,
        draft.of_stay,
    )  # fmt: skip
    return (fact,)


def ended(draft: Draft) -> float | None:
    """When it ended, if it has by the trigger; an appointment may end later."""
    end = draft.ended_at
    return None if end is None or (end > 0 and draft.seconds is not None and draft.seconds <= 0) else end


def present_stay(snapshot: PatientSnapshot, view: View) -> Stay | None:
    """When the present stay began and ended, and how many days of the facility's calendar it took so far.

    There is none where the stay is only planned, or never was.
    """
    if snapshot.encounter is None or snapshot.encounter.get("status") in NEVER_WAS:
        return None
    period = snapshot.encounter.get("period")
    start, end = (period.get("start"), period.get("end")) if isinstance(period, Mapping) else (None, None)
    began = _span(view, start)
    ended = view.seconds_to(end)
    same = (i for i, r in enumerate(snapshot.resources) if _is(r, snapshot.encounter))
    return Stay(
        began=None if began is None else began[0],
        ended=None if ended is None or ended > 0 else ended,
        days=_days(view, start, end),
        index=next(same, None),
    )


def as_referred_to(stay: Mapping[str, Any] | None) -> str | None:
    """How a statement refers to a stay of the same EHR, if it was one."""
    if stay is None or stay.get("status") in NEVER_WAS or not isinstance(logical_id := stay.get("id"), str):
        return None
    return f"Encounter/{logical_id}"


def is_of_stay(resource: Mapping[str, Any], view: View) -> bool:
    """Whether a statement names the present stay as the one it was in."""
    told = resource.get("encounter", resource.get("context"))
    written = told.get("reference") if isinstance(told, Mapping) else None
    return view.stay is not None and isinstance(written, str) and written.partition("/_history/")[0] == view.stay


def _is(resource: Mapping[str, Any], stay: Mapping[str, Any]) -> bool:
    return resource.get("resourceType") == "Encounter" and resource.get("id") == stay.get("id")


def coding(draft: Draft, value: Any, _: Rule) -> None:
    """A Coding, as the class of a stay."""
    _also(draft, {"coding": [value]})


def kinds(draft: Draft, value: Any, _: Rule) -> None:
    """One concept more that says what the statement is about, or several."""
    for concept in value if isinstance(value, list) else [value]:
        _also(draft, concept)


def came_and_went(draft: Draft, value: Any, _: Rule) -> None:
    """Where a stay came from and where it ended: what is read of `hospitalization`."""
    if isinstance(value, dict):
        _also(draft, value.get("admitSource"))
        _also(draft, value.get("dischargeDisposition"))


def _also(draft: Draft, concept: Any) -> None:
    if draft.wanted:
        draft.codes += tuple(c for c in draft.view.codes_of(concept, draft.wanted) if c not in draft.codes)


def status_word(draft: Draft, value: Any, rule: Rule) -> None:
    """The status as a code: whether somebody came is what is asked of an appointment.

    One of a doubtful status is void but to who asks for that status, and to them it is nothing else.
    """
    status = value if isinstance(value, str) else ""
    code = f"{APPOINTMENT_STATUS}|{status}"
    asked = code in draft.wanted
    if status in rule.doubtful:
        draft.codes, draft.by_name, draft.void = (code,), True, draft.void or not asked
        return
    standing(draft, value, rule)
    if status in rule.usable and asked:
        draft.codes += (code,)


def standing(draft: Draft, value: Any, rule: Rule) -> None:
    """A status or an intent: whether it was, is over, or proves nothing."""
    code = value if isinstance(value, str) else ""
    if code in rule.void:
        draft.void = True
    elif code in rule.over:
        is_over(draft)
    elif code in rule.doubtful:
        draft.confirmed = False
    elif code not in rule.usable:
        draft.trouble = draft.trouble or "status"


def must_not(draft: Draft, value: Any, _: Rule) -> None:
    """An order not to do it is no order to do it; what is no plain "no" is not understood."""
    if value is True:
        draft.void = True
    elif value is not False:
        draft.trouble = draft.trouble or "modifier"


def weaker(draft: Draft, value: Any, _: Rule) -> None:
    """A dose that is less than was needed proves nothing."""
    if value is not False:
        draft.confirmed = False


def part(draft: Draft, _: Any, __: Rule) -> None:
    """A part of another stay is not one more stay."""
    draft.void = draft.void or bool(draft.wanted)


def happened(draft: Draft, value: Any, _: Rule) -> None:
    """When it was: from the first to the last moment that a (partial) date may mean."""
    if not draft.wanted:
        return
    span = _span(draft.view, value)
    if span is not None:
        draft.seconds, draft.began = span
        draft.void = draft.void or span[0] > FAR_FUTURE_S


def happened_period(draft: Draft, value: Any, rule: Rule) -> None:
    """The same by the start of a period, and how long it went on."""
    if isinstance(value, dict) and draft.wanted:
        start, end = value.get("start"), value.get("end")
        happened(draft, start if start is not None else end, rule)
        _until(draft, end)
        draft.days = _days(draft.view, start, end)


def booked(draft: Draft, value: Any, _: Rule) -> None:
    """When an appointment is: one that is still to come counts, too."""
    draft.seconds = draft.began = draft.view.seconds_to(value)


def booked_until(draft: Draft, value: Any, _: Rule) -> None:
    """When it ends."""
    draft.ended_at = draft.view.seconds_to(value)


def _until(draft: Draft, end: object) -> None:
    span = _span(draft.view, end)
    if span is not None:
        draft.ended_at = min(span[1], 0.0) if span[0] <= 0 else span[1]


def _span(view: View, value: object) -> tuple[float, float] | None:
    """The first and the last moment that a date or time may mean, relative to the trigger."""
    seconds = view.seconds_to(value)
    if seconds is not None:
        return seconds, seconds
    span = days(value)
    if span is None:
        return None
    return view.midnight_s(span[0]), view.midnight_s(span[1]) + _WHOLE_DAY_S


def _days(view: View, start: object, end: object) -> int | None:
    """The days between two local dates; without an end, or with one ahead, until today."""
    first, last = _day(view, start), _day(view, end)
    today = view.at.date()
    if first is None or first > today:
        return None
    if end is not None and last is None:
        return None
    reached = today if last is None or last > today else last
    return (reached - first).days if reached >= first else None


def _day(view: View, value: object) -> date | None:
    moment = instant(value)
    if moment is not None:
        return moment.astimezone(view.at.tzinfo).date()
    span = days(value)
    return span[0] if span is not None and span[0] == span[1] else None
