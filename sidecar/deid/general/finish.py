"""What a table cannot say element by element: that a value was there, that somebody died, that a condition ended. Pure.

Dropping these without a trace would turn a statement into its opposite, and a number whose meaning is dropped may be an
age or a telephone number.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.deid.general.ages import Ages
from sidecar.deid.general.codes import ABSENT, interpretation_of, is_plain
from sidecar.deid.general.moments import MASKED, read
from sidecar.deid.general.quantities import CAP_YEARS, UNKNOWN_UNIT, is_number
from sidecar.deid.general.tally import DROPPED, GENERALISED
from sidecar.deid.general.visit import Refused, Visit
from sidecar.deid.mode import Mode
from sidecar.deid.policy import Policy

Finish = Callable[[Mapping[str, Any], dict[str, Any], Visit], None]
_ABATED = ("abatementDateTime", "abatementAge", "abatementPeriod", "abatementRange", "abatementString")
_MEASURED = ("valueQuantity", "valueInteger", "valueRange", "valueRatio")
_NUMBERS = ("detailQuantity", "detailRange", "detailRatio", "detailInteger")


def finishes(policy: Policy, mode: Mode, ages: Ages | None) -> Mapping[str, tuple[Finish, ...]]:
    """What is done at the end of a table, by its path. `ages`: by which none over 89 may show."""
    births = () if mode is Mode.LIMITED_DATA_SET else (_drop_birth(policy.birth_codes),)
    of_value: tuple[Finish, ...] = (_nameless_value, *births)
    if ages is not None:
        of_value += (_observed_age(policy.age_codes, ages),)
    of_value += (_unread_limit(policy), _mask_value)
    return {
        "Observation": of_value,
        "Observation.component": of_value,
        "Observation.referenceRange": (_whole_range,),
        "QuestionnaireResponse.item": (_nameless_answers(capped=ages is not None),),
        "Goal.target": (_nameless_target,),
        "Condition": (_say_ended,),
        "Patient": (_say_dead,),
        "FamilyMemberHistory": (_say_relative_dead,),
        "Dosage": (_say_as_needed("Dosage"),),
        "ServiceRequest": (_say_as_needed("ServiceRequest"),),
    }


def _lost(source: Mapping[str, Any], out: dict[str, Any], prefix: str) -> bool:
    """Whether a choice element was there and nothing of it is left; that it is masked is said in another way then."""
    if not any(name.lstrip("_").startswith(prefix) and value is not None for name, value in source.items()):
        return False
    for name in [each for each in out if each.startswith(f"_{prefix}") and out[each] is MASKED]:
        del out[name]
    return not any(name.startswith((prefix, f"_{prefix}")) for name in out)


def _known_choice(source: Mapping[str, Any], known: tuple[str, ...], prefix: str, path: str) -> None:
    """Other versions of FHIR have other choices, and there a false one says that it is not so.

    Raises:
        Refused: one says something that R4 has no element for.
    """
    for name, value in source.items():
        if name.startswith(prefix) and name not in known and value is not None and value is not False:
            raise Refused(f"modifier:{path}")


def _drop_values(out: dict[str, Any], visit: Visit, path: str) -> None:
    for name in [each for each in out if each.startswith("value") or each == "referenceRange"]:
        del out[name]
        visit.tell(f"{path}.{name}", DROPPED)


def _nameless_value(_: Mapping[str, Any], out: dict[str, Any], visit: Visit) -> None:
    """A value that nobody can name any more has no meaning: it may be an age or a telephone number."""
    if "code" not in out:
        _drop_values(out, visit, "Observation")


def _unread_limit(policy: Policy) -> Finish:
    """A number with an interpretation in words that nobody reads: it may say "off scale", and then it is a limit."""
    readable = interpretation_of(policy)

    def finish(source: Mapping[str, Any], out: dict[str, Any], visit: Visit) -> None:
        said = source.get("interpretation")
        if said is None or (isinstance(said, list) and all(readable(each) or is_plain(each) for each in said)):
            return
        for name in _MEASURED:
            if out.pop(name, None) is not None:
                visit.tell(f"Observation.{name}", DROPPED)

    return finish


def _nameless_answers(*, capped: bool) -> Finish:
    """The same of an answer whose question had to go; where ages are capped, of a bare number that may be one."""

    def finish(_: Mapping[str, Any], out: dict[str, Any], visit: Visit) -> None:
        for answer in out.get("answer", ()):
            given = answer.get("valueQuantity", {})
            bare = given.get("unit", UNKNOWN_UNIT) == UNKNOWN_UNIT and given.get("value", 0) >= CAP_YEARS
            if given and ("linkId" not in out or (capped and bare)):
                del answer["valueQuantity"]
                visit.tell("QuestionnaireResponse.item.answer.valueQuantity", DROPPED)
        left = [answer for answer in out.pop("answer", ()) if answer]
        if left:
            out["answer"] = left

    return finish


def _nameless_target(_: Mapping[str, Any], out: dict[str, Any], visit: Visit) -> None:
    """The same of a goal's number, when nobody knows what is measured."""
    for name in _NUMBERS if "measure" not in out else ():
        if out.pop(name, None) is not None:
            visit.tell(f"Goal.target.{name}", DROPPED)


def _whole_range(source: Mapping[str, Any], out: dict[str, Any], _: Visit) -> None:
    """A range for others must not be read as the patient's: without whom it applies to, nothing of it stays."""
    if any(source.get(name) is not None and name not in out for name in ("appliesTo", "age")):
        out.clear()


def _mask_value(source: Mapping[str, Any], out: dict[str, Any], _: Visit) -> None:
    """A value that had to go is withheld, not missing."""
    if "dataAbsentReason" not in out and _lost(source, out, "value"):
        out["dataAbsentReason"] = {"coding": [{"system": ABSENT, "code": "masked"}]}


def _say_ended(source: Mapping[str, Any], out: dict[str, Any], _: Visit) -> None:
    """When it ended may not be said; that it ended may."""
    _known_choice(source, _ABATED, "abatement", "Condition.abatement[x]")
    if _lost({name: value for name, value in source.items() if name.lstrip("_") in _ABATED}, out, "abatement"):
        out["abatementString"] = "masked"


def _say_dead(source: Mapping[str, Any], out: dict[str, Any], _: Visit) -> None:
    """The same of a death."""
    _known_choice(source, ("deceasedBoolean", "deceasedDateTime"), "deceased", "Patient.deceased[x]")
    if _lost(
        {name: source[name] for name in ("deceasedDateTime", "_deceasedDateTime") if name in source}, out, "deceased"
    ):
        out["deceasedBoolean"] = True


def _say_relative_dead(source: Mapping[str, Any], out: dict[str, Any], _: Visit) -> None:
    """The same of a relative's, where an age or a date says it: a text may say that they live."""
    age, span, day = (source.get(f"deceased{kind}") for kind in ("Age", "Range", "Date"))
    ends = [age, *((span.get("low"), span.get("high")) if isinstance(span, dict) else ())]
    aged = any(isinstance(end, dict) and is_number(end.get("value")) for end in ends)
    if (aged or read(day, "date") is not None) and not any(name.startswith("deceased") for name in out):
        out["deceasedBoolean"] = True


def _say_as_needed(path: str) -> Finish:
    """What is taken as needed is not taken by the clock, whatever it is needed for."""
    known = ("asNeededBoolean", "asNeededCodeableConcept")

    def finish(source: Mapping[str, Any], out: dict[str, Any], _: Visit) -> None:
        _known_choice(source, known, "asNeeded", f"{path}.asNeeded[x]")
        said, why = source.get("asNeededBoolean"), source.get("asNeededCodeableConcept")
        unread = said is not None and not isinstance(said, bool)
        if unread or source.get("_asNeededBoolean") is not None or (why is not None and said is False):
            raise Refused(f"modifier:{path}.asNeeded[x]")
        if why is not None and "asNeededCodeableConcept" not in out:
            out["asNeededBoolean"] = True

    return finish


def _is_of(codes: frozenset[str], out: Mapping[str, Any], visit: Visit) -> bool:
    """Whether a statement, or the one that it is a component of, has one of these codes."""
    whole = visit.source.get("code")
    listed = whole.get("coding") if isinstance(whole, dict) else None
    coded = [*out.get("code", {}).get("coding", ()), *(listed if isinstance(listed, list) else ())]
    return any(f"{each.get('system')}|{each.get('code')}" in codes for each in coded if isinstance(each, dict))


def _drop_birth(birth_codes: frozenset[str]) -> Finish:
    """A date or year of birth is Patient's to say, and its mode's."""

    def finish(_: Mapping[str, Any], out: dict[str, Any], visit: Visit) -> None:
        if _is_of(birth_codes, out, visit):
            _drop_values(out, visit, "Observation")

    return finish


def _observed_age(age_codes: frozenset[str], ages: Ages) -> Finish:
    """An age is an age in whatever unit, or in none; in any other form it is not known to be under 90."""

    def finish(source: Mapping[str, Any], out: dict[str, Any], visit: Visit) -> None:
        if not _is_of(age_codes, out, visit):
            return
        kept = ages.observed(source, visit) if "code" in out else {}
        visit.said = None
        out.pop("referenceRange", None)
        if kept != {name: value for name, value in out.items() if name.startswith("value")}:
            _drop_values(out, visit, "Observation")
            out.update(kept)
            visit.tell("Observation.value[x]", GENERALISED if kept else DROPPED)

    return finish
