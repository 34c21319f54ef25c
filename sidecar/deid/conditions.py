"""What is particular to diagnoses: since when they are there, whether they still are, and what they prove. Pure.

https://hl7.org/fhir/R4/condition.html
"""

import math
from typing import Any

from sidecar.deid.draft import Draft, is_over, pairs
from sidecar.deid.rules import Rule
from sidecar.deid.times import days

FAR_FUTURE_S = 3_600.0
"""A time up to this far ahead may be one clock running before another; what begins later is planned, or a slip."""


def onset(draft: Draft, value: Any, _: Rule) -> None:
    """When it counts, if the time of day is known; since when it is there, whatever part of a date is known."""
    draft.seconds = draft.view.seconds_to(value)
    _there_since(draft, value)
    _not_yet(draft, value)


def onset_period(draft: Draft, value: Any, _: Rule) -> None:
    """The same, by the start of a period; its end alone says only when it counts."""
    if isinstance(value, dict):
        draft.seconds = draft.view.seconds_to(value.get("start") or value.get("end"))
        _there_since(draft, value.get("start"))
        _not_yet(draft, value.get("start"))


def _not_yet(draft: Draft, value: object) -> None:
    """A condition that begins after the trigger, or on a later day, is not there yet."""
    seconds, span = draft.view.seconds_to(value), days(value)
    if seconds is not None:
        draft.void = draft.void or seconds > FAR_FUTURE_S
    elif span is not None:
        draft.void = draft.void or span[0] > draft.view.at.date()


def abated(draft: Draft, value: Any, _: Rule) -> None:
    """What is over is not there any more, unless a clinical status says that it is: then nobody knows."""
    seconds, span = draft.view.seconds_to(value), days(value)
    today = draft.view.at.date()
    if seconds is not None:
        over, ahead = seconds <= 0, seconds > 0
    elif span is not None:
        over, ahead = span[1] <= today, span[0] > today
    else:
        over = ahead = False
    if over and (draft.over or not draft.stated):
        is_over(draft)
    elif not ahead:
        draft.trouble = draft.trouble or "status"


def abated_period(draft: Draft, value: Any, rule: Rule) -> None:
    """The same, by the end of a period, else its start."""
    if isinstance(value, dict):
        abated(draft, value.get("end") or value.get("start"), rule)


def charted(draft: Draft, value: Any, _: Rule) -> None:
    """When it was recorded: it was there by then."""
    seconds = draft.view.seconds_to(value)
    draft.recorded = -math.inf if seconds is None else seconds
    _there_since(draft, value)


def _there_since(draft: Draft, value: object) -> None:
    """The latest moment that a (partial) date may mean; of several, the earliest proves the longest time."""
    seconds, span = draft.view.seconds_to(value), days(value)
    if seconds is None and span is not None:
        seconds = draft.view.midnight_s(span[1]) + 86_400.0
    if seconds is not None:
        draft.began = seconds if draft.began is None else min(draft.began, seconds)


def clinical_status(draft: Draft, value: Any, rule: Rule) -> None:
    """Whether it is active, as far as anybody says."""
    draft.stated = True
    _coded_status(draft, value, rule)


def verification(draft: Draft, value: Any, rule: Rule) -> None:
    """Whether it is more than a suspicion."""
    draft.confirmed = not _coded_status(draft, value, rule) & rule.doubtful


def _coded_status(draft: Draft, value: Any, rule: Rule) -> set[str]:
    codes = {code for system, code in pairs(value) if system == rule.system and isinstance(code, str)}
    if codes & rule.void:
        draft.void = True
    elif codes & rule.over:
        is_over(draft)
    elif not codes & (rule.usable | rule.doubtful):
        draft.trouble = draft.trouble or "status"
    return codes
