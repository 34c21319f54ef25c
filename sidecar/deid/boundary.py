"""`deidentify`: the one way from an identified snapshot to what a model may see. Pure.

Ages, and whether an encounter is open, are computed here, inside the boundary; times become seconds relative to
the trigger. What has a meaning we do not interpret makes its statement unusable, never silently plain: see
`Fact.trouble`. An explanation finds its source again only by the opaque `Fact.index`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sidecar.deid import ages, statements
from sidecar.deid.by_path import WHOLE, by_path
from sidecar.deid.conditions import abated, abated_period, charted, clinical_status, onset, onset_period, verification
from sidecar.deid.draft import WITH_VALUES, Draft, Reads, View
from sidecar.deid.mode import Mode
from sidecar.deid.modifiers import is_modified, silent
from sidecar.deid.rules import Rule, Rules
from sidecar.deid.times import days, instant, years_between
from sidecar.deid.values import limit, number, quantity
from sidecar.errors import Rejected
from sidecar.records import DeidentifiedSnapshot, Fact, PatientSnapshot, Sex

BIRTH_SEX = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex"
_SEXES = {"male": Sex.MALE, "female": Sex.FEMALE, "M": Sex.MALE, "F": Sex.FEMALE}
_SAYS_NOTHING = {"unknown", "UNK", "ASKU"}
CAPPED_AGE, OLDEST = 90, 150
_OPEN = {"arrived", "triaged", "in-progress", "onleave"}
_ENDED = {"finished", "cancelled", "entered-in-error"}
# Components are statements with modifiers of their own; of extensions one is read, and it is looked into there.
_LOOKED_INTO = {"components", "birth_sex"}
Action = Callable[[Draft, Any, Rule], None]


def deidentify(snapshot: PatientSnapshot, rules: Rules, reads: Reads) -> DeidentifiedSnapshot:
    """What of `snapshot` may be computed with by a model that reads the codes `reads`.

    Raises:
        Rejected: the Patient or Encounter itself carries a modifier that we do not interpret.
    """
    view = View(rules, reads, snapshot.at)
    patient = _walk(Draft(view), rules.types["Patient"], snapshot.patient)
    stay = _walk(Draft(view), rules.types["Encounter"], snapshot.encounter) if snapshot.encounter else None
    for name, draft in (("patient", patient), ("encounter", stay)):
        if draft is not None and draft.trouble:
            raise Rejected(f"{draft.trouble}:{name}")
    view.stay = statements.as_referred_to(snapshot.encounter)
    facts = [fact for index, resource in enumerate(snapshot.resources) for fact in _facts(index, resource, view)]
    return DeidentifiedSnapshot(
        age_years=patient.age,
        age_capped=patient.age_capped,
        deceased=patient.deceased,
        inactive=patient.inactive,
        encounter_open=_is_open(stay),
        facts=tuple(facts),
        policy_digest=rules.digest,
        sex=_sex(patient.sexes),
        lived_s=patient.lived_s,
        stay=statements.present_stay(snapshot, view) if "Encounter" in reads else None,
    )


def _sex(said: frozenset[Sex]) -> Sex:
    """One answer, or none: gender and birth sex that differ are for a person to settle."""
    if not said:
        return Sex.UNKNOWN
    return next(iter(said)) if len(said) == 1 else Sex.CONTRADICTORY


def _facts(index: int, resource: Mapping[str, Any], view: View) -> Sequence[Fact]:
    type_name = str(resource.get("resourceType"))
    table, wanted = view.rules.types.get(type_name), view.reads.get(type_name)
    if not table or not wanted:
        return ()
    draft = _walk(Draft(view, wanted), table, resource)
    if draft.void or draft.unread:
        return ()
    if type_name not in view.plain:
        return _others(index, resource, draft)
    own = (_fact(index, type_name, draft, draft),) if draft.codes else ()
    return (*own, *(_fact(index, type_name, draft, part) for part in draft.parts)) if draft.parts else own


def _others(index: int, resource: Mapping[str, Any], draft: Draft) -> tuple[Fact, ...]:
    """The facts of what is no Observation or Condition, or is asked for by more than plain codes."""
    kind = str(resource.get("resourceType"))
    draft.of_stay = statements.is_of_stay(resource, draft.view)
    if kind not in WITH_VALUES:
        return (*statements.statement(index, kind, draft), *by_path(index, resource, draft))
    parts = (draft, *draft.parts) if draft.codes else draft.parts
    made = (_fact(index, kind, draft, part) for part in parts)
    whole = (msgspec.structs.replace(fact, over=True) for fact in made) if draft.over else made
    return (*whole, *by_path(index, resource, draft))


def _fact(index: int, type_name: str, whole: Draft, part: Draft) -> Fact:
    """What `part` of the statement says: its components have codes and values of their own, and one time."""
    capped = ages.CAPPED if part.aged is not None and ages.tells(part.aged, whole) else None
    nothing = part.absent or capped is not None
    return Fact(
        index,
        type_name,
        part.codes,
        whole.seconds,
        None if nothing else part.value,
        part.unit,
        () if nothing else part.value_codes,
        (whole.trouble if whole.trouble in WHOLE else None) or capped or part.trouble,
        whole.recorded,
        whole.began,
        whole.confirmed,
    )


def _walk(draft: Draft, table: Mapping[str, Rule], resource: Mapping[str, Any]) -> Draft:
    """Apply the rules in the policy's order, so that the order of elements in the JSON changes nothing.

    What a statement is about comes first: one that the model does not read is looked at no further.
    """
    for name, rule in table.items():
        value = resource.get(name)
        if value is not None:
            _ACTIONS[rule.do](draft, value, rule)
            if draft.unread:
                return draft
            kind = type(value)
            if (kind is dict and is_modified(value)) or (
                kind is list and rule.do not in _LOOKED_INTO and is_modified({name: value})
            ):
                draft.trouble = "modifier"
    if not draft.view.rules.siblings.isdisjoint(resource):
        silent(draft, table, resource)
    if draft.aged is not None:
        draft.aged = resource
    return draft


def _is_open(stay: Draft | None) -> bool | None:
    """Open at the trigger? One that finished later was open then; one without an end is as open as its status."""
    if stay is None or stay.open is None:
        return None
    if stay.open:
        return stay.ended_at is None or stay.ended_at >= 0
    return not stay.void and stay.ended_at is not None and stay.ended_at >= 0


def _components(draft: Draft, value: Any, _: Rule) -> None:
    listed = value if isinstance(value, list) else ()
    view, table = draft.view, draft.view.rules.of_component
    parts = (_walk(Draft(view, draft.wanted), table, each) for each in listed if isinstance(each, dict))
    draft.parts = tuple(part for part in parts if part.codes)


def _codes(draft: Draft, value: Any, _: Rule) -> None:
    draft.codes = draft.view.codes_of(value, draft.wanted)
    draft.unread = not draft.codes and not draft.parts
    draft.aged = {} if not draft.unread and ages.is_age(draft, value) else None


def _value_codes(draft: Draft, value: Any, _: Rule) -> None:
    draft.value_codes = draft.view.codings(value)
    if not draft.value_codes:
        draft.trouble = draft.trouble or "unmapped"


def _time(draft: Draft, value: Any, _: Rule) -> None:
    draft.seconds = draft.view.seconds_to(value)


def _period(draft: Draft, value: Any, _: Rule) -> None:
    if isinstance(value, dict):
        draft.seconds = draft.view.seconds_to(value.get("end") or value.get("start"))


def _recorded(draft: Draft, value: Any, _: Rule) -> None:
    seconds = draft.view.seconds_to(value)
    draft.recorded = -math.inf if seconds is None else seconds


def _status(draft: Draft, value: Any, rule: Rule) -> None:
    code = value if isinstance(value, str) else ""
    if code in rule.void:
        draft.void = True
    elif code not in rule.usable:
        draft.trouble = draft.trouble or "status"


def _absent(draft: Draft, _: Any, __: Rule) -> None:
    draft.absent = True


def _uninterpreted(draft: Draft, _: Any, __: Rule) -> None:
    draft.trouble = draft.trouble or "shape"


def _refuse(draft: Draft, _: Any, __: Rule) -> None:
    draft.trouble = "modifier"


def _age(draft: Draft, value: Any, _: Rule) -> None:
    span = days(value)
    if span is not None:
        today = draft.view.at.date()
        draft.age = (years_between(span[1], today), years_between(span[0], today))
        if span[0] == span[1]:
            draft.lived_s = -draft.view.midnight_s(span[0])
        _cap(draft)


def _cap(draft: Draft) -> None:
    """Ages of 90 and more are one where the mode says so, and so is an age that may be 90. 164.514(b)(2)(i)(C)."""
    if draft.view.rules.mode is Mode.SAFE_HARBOR_RULES and draft.age and draft.age[1] >= CAPPED_AGE:
        draft.age, draft.lived_s, draft.age_capped = (min(draft.age[0], CAPPED_AGE), OLDEST), None, True


def _gender(draft: Draft, value: Any, _: Rule) -> None:
    _says_sex(draft, value)


def _birth_sex(draft: Draft, value: Any, _: Rule) -> None:
    """The one extension that is read. http://hl7.org/fhir/us/core/StructureDefinition-us-core-birthsex.html."""
    for extension in value if isinstance(value, list) else ():
        if isinstance(extension, dict) and extension.get("url") == BIRTH_SEX:
            if is_modified(extension):
                draft.trouble = "modifier"
            _says_sex(draft, extension.get("valueCode"))


def _says_sex(draft: Draft, code: object) -> None:
    """An answer that is neither (`other`, or no code of FHIR) is an answer too, and contradicts male and female."""
    said = code if isinstance(code, str) else ""
    if said not in _SAYS_NOTHING:
        draft.sexes |= {_SEXES.get(said, Sex.UNKNOWN)}


def _deceased(draft: Draft, value: Any, _: Rule) -> None:
    """Dead at the trigger? A day counts from its beginning; what cannot be read counts as dead."""
    if not isinstance(value, str):
        draft.deceased = value is True
    elif (moment := instant(value)) is not None:
        draft.deceased = moment <= draft.view.at
    else:
        span = days(value)
        draft.deceased = span is None or span[0] <= draft.view.at.date()


def _inactive(draft: Draft, value: Any, _: Rule) -> None:
    draft.inactive = draft.inactive or value is False


def _merged(draft: Draft, value: Any, _: Rule) -> None:
    links = value if isinstance(value, list) else ()
    draft.inactive = draft.inactive or any(
        isinstance(link, dict) and link.get("type") == "replaced-by" for link in links
    )


def _open_status(draft: Draft, value: Any, rule: Rule) -> None:
    status = value if isinstance(value, str) else ""
    draft.open = True if status in _OPEN else False if status in _ENDED else None
    draft.void = draft.void or (status in _ENDED and status in statements.NEVER_WAS)
    if draft.wanted:
        statements.standing(draft, value, rule)


def _open_until(draft: Draft, value: Any, rule: Rule) -> None:
    end = value.get("end") if isinstance(value, dict) else None
    draft.ended_at = draft.view.seconds_to(end)
    if draft.wanted:
        statements.happened_period(draft, value, rule)


_ACTIONS: Mapping[str, Action] = {
    "abated": abated,
    "abated_period": abated_period,
    "absent": _absent,
    "came_and_went": statements.came_and_went,
    "age": _age,
    "birth_sex": _birth_sex,
    "booked": statements.booked,
    "booked_until": statements.booked_until,
    "charted": charted,
    "clinical_status": clinical_status,
    "codes": _codes,
    "coding": statements.coding,
    "components": _components,
    "deceased": _deceased,
    "gender": _gender,
    "happened": statements.happened,
    "happened_period": statements.happened_period,
    "inactive": _inactive,
    "kinds": statements.kinds,
    "limit": limit,
    "merged": _merged,
    "must_not": statements.must_not,
    "number": number,
    "onset": onset,
    "onset_period": onset_period,
    "open_status": _open_status,
    "open_until": _open_until,
    "part": statements.part,
    "period": _period,
    "quantity": quantity,
    "recorded": _recorded,
    "refuse": _refuse,
    "standing": statements.standing,
    "status": _status,
    "status_word": statements.status_word,
    "time": _time,
    "uninterpreted": _uninterpreted,
    "value_codes": _value_codes,
    "verification": verification,
    "weaker": statements.weaker,
}
