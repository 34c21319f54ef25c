"""Reasons and rationales as a clinician reads them. Pure."""

import math
from collections.abc import Mapping
from dataclasses import replace

from sidecar.manifest import SOURCE_TYPES, Manifest, in_unit
from sidecar.records import Assessment, Feature

_BY_FEATURE = {
    "missing": "{label} not charted",
    "stale": "{label} too old for this observation set",
    "implausible": "check patient: {label} {value} is outside the plausible range",
    "unit": "{label} charted in a unit that cannot be read safely",
    "comparator": "{label} charted as a limit, not a value",
    "future": "{label} charted in the future",
    "ambiguous": '{label} charted in a way that leaves it undecided (AVPU "Alert" does not exclude new confusion)',
    "unmapped": "{label} charted with a code this model does not know",
    "status": "{label} has an unknown status",
    "modifier": "{label} carries a modifier that changes its meaning",
    "shape": "{label} is not charted as a number",
    "imprecise": "{label} charted with a date too imprecise to tell when it was",
    "few": "{label} charted too few times to tell a change",
    "contradictory": "{label} charted in ways that contradict each other",
}
_PLAIN = {
    "out_of_cohort:age": "outside the age range of this score",
    "out_of_cohort:deceased": "patient recorded as deceased",
    "out_of_cohort:discharged": "encounter has ended",
    "out_of_cohort:inactive": "patient record is inactive or merged into another",
    "out_of_cohort:pregnant": "not for use in pregnancy",
    "out_of_cohort:egfr": "eGFR outside the range this equation was made for",
    "out_of_cohort:ckd_duration": "chronic kidney disease of at least 3 months is not shown in the chart",
    "out_of_cohort:dialysis": "on dialysis, or end-stage kidney disease recorded",
    "out_of_cohort:transplant": "kidney transplant recorded",
    "out_of_cohort:acute_kidney_injury": "acute kidney injury recorded as active",
    "missing:birth_date": "birth date unknown, so the age limit cannot be checked",
    "imprecise:birth_date": "birth date too imprecise to tell the age",
    "deid:age_capped": "90 or older, and this site's de-identification rules let no exact age reach the model",
    "missing:sex": "sex not recorded as male or female, which this equation needs",
    "contradictory:sex": "administrative gender and birth sex contradict each other, and this equation needs one",
    "missing:encounter": "no hospital stay of the kind this score is for in the chart",
    "gone:medication": "the chart names a medicine that is not there, so what is taken is not known",
    "not_computable": "these inputs give no number",
    "another_patient": "the chart returned another patient's resource; nothing was used",
    "modifier:patient": "the patient record carries a modifier that is not understood",
    "modifier:encounter": "the encounter carries a modifier that is not understood",
    **{f"too_many:{kind.lower()}": f"more {kind} resources in the chart than can be read" for kind in SOURCE_TYPES},
}
_OUTSIDE = "outside the patients that this score is for, by an input that is not named (sensitive)"
_UNUSABLE = "an input that is not named (sensitive) cannot be used"
_NOT_NAMED = "an input is not named (sensitive)"
_BY_OCCLUSION = "by occlusion, one input at a time (not additive, not SHAP)"


def reason_in_words(
    reason: str, manifest: Manifest, features: tuple[Feature, ...] = (), withheld: tuple[str, ...] = ()
) -> str:
    """One stored reason as a phrase, which does not name what is `withheld`. An unknown reason is returned as it is."""
    if withheld and not _told_of(reason, manifest).isdisjoint(withheld):
        return _OUTSIDE if reason.startswith("out_of_cohort:") else _UNUSABLE
    word, _, name = reason.partition(":")
    told = manifest.reason_text(name) if word == "out_of_cohort" else ""
    if told or reason in _PLAIN:
        return told or _PLAIN[reason]
    label = manifest.label(name)
    if word in _BY_FEATURE and label is not None:
        value = next((in_unit(f.shown, f.unit) for f in features if f.reason == reason and f.shown is not None), "")
        return " ".join(_BY_FEATURE[word].format(label=label, value=value).split())
    return reason.replace("_", " ").replace(":", ": ")


def rationales(assessment: Assessment, manifest: Manifest) -> dict[str, str]:
    """What each probability comes from, by output, where each has terms of its own; else nothing."""
    return {
        name: rationale(replace(assessment, contributions=terms), manifest) for name, terms in assessment.terms.items()
    }


def rationale(assessment: Assessment, manifest: Manifest, most: int = 3) -> str:
    """What the result comes from, the strongest first: "respiratory rate 26/min (3), supplemental oxygen (2)".

    Of a probability model: each input with how many times it raises or lowers the hazard or odds of `compared_with`, or
    by how many percentage points the probability would change with that input alone at its typical value, or by how
    many it moves the probability away from the mean of the prototypes.
    """
    if not assessment.withheld:
        return _said(assessment, manifest, most)
    named = _without(assessment)
    if not any(named.contributions.values()) and any(assessment.contributions.values()):
        return "what it comes from is not named (sensitive)"
    return f"{_said(named, manifest, most)}; {_NOT_NAMED}"


def _told_of(reason: str, manifest: Manifest) -> frozenset[str]:
    """The features that a reason tells of."""
    word, _, name = reason.partition(":")
    if word != "out_of_cohort":
        of_source = (f for f, spec in manifest.features.items() if any(s.name == name for s in spec.sources))
        return frozenset({name, *of_source})
    return frozenset(rule.feature for rule in manifest.rules if rule.reason == name)


def _without(assessment: Assessment) -> Assessment:
    named = {name: term for name, term in assessment.contributions.items() if name not in assessment.withheld}
    return replace(assessment, contributions=named)


def _said(assessment: Assessment, manifest: Manifest, most: int) -> str:
    by_name = {f.name: f for f in assessment.vector.features}
    if assessment.baseline is not None:
        return _shares(assessment, assessment.baseline, manifest, by_name)
    if assessment.typical:
        return _changes(assessment, manifest, by_name)
    if manifest.result.effect:
        return _multiples(assessment, manifest, by_name)
    if manifest.outputs:  # not scored, or by another version of the model, whose terms this one cannot put into words
        return "no explanation is kept of this probability" if assessment.probabilities else "no probability is given"
    rest = manifest.graph.rest
    scored = sorted(
        ((points, name) for name, points in assessment.contributions.items() if points and name not in rest),
        key=lambda pair: (-abs(pair[0]), pair[1]),
    )
    said = [f"{manifest.say(name, by_name[name].value)} ({points:.3g})" for points, name in scored[:most]]
    left = len(scored) - most
    fixed = [f"{words} ({p:.3g})" for name, words in rest.items() if (p := assessment.contributions.get(name))]
    found = ", ".join(said) + (f" and {left} more" if left > 0 else "") if said else "no parameter scored above 0"
    return f"{found}; {', '.join(fixed)}" if fixed else found


def _multiples(assessment: Assessment, manifest: Manifest, by_name: Mapping[str, Feature], most: int = 6) -> str:
    if not assessment.contributions:
        return "no probability is given"
    known = (
        (name, term) for name, term in assessment.contributions.items() if term and name not in manifest.graph.rest
    )
    terms = sorted(known, key=lambda pair: (-abs(pair[1]), pair[0]))
    said = [f"{manifest.say(name, by_name[name].value)} (x {_multiple(term)})" for name, term in terms[:most]]
    more = f" and {len(terms) - most} more" if len(terms) > most else ""
    return f"{manifest.result.effect} compared with {manifest.result.compared_with}: {', '.join(said)}{more}"


def _changes(assessment: Assessment, manifest: Manifest, by_name: Mapping[str, Feature], most: int = 6) -> str:
    """The strongest changes. One that rounds to 0.0 is left out: it would read as none at all."""
    rounded = {name: round(change * 100, 1) for name, change in assessment.contributions.items()}
    seen = sorted((n for n in rounded if rounded[n]), key=lambda n: (-abs(assessment.contributions[n]), n))
    if not seen:
        return (
            f"{_BY_OCCLUSION}: no input changes the probability by 0.1 percentage points compared with a typical value"
        )
    said = [
        f"{manifest.say(n, by_name[n].value)} ({rounded[n]:+.1f} percentage points compared with "
        f"{manifest.say_value(n, assessment.typical[n])})"
        for n in seen[:most]
    ]
    more = f" and {len(seen) - most} more" if len(seen) > most else ""
    return f"{_BY_OCCLUSION}: {', '.join(said)}{more}"


def _shares(
    assessment: Assessment, baseline: float, manifest: Manifest, by_name: Mapping[str, Feature], most: int = 6
) -> str:
    """The largest Shapley values; one that rounds to 0.0 is left out, as above."""
    shares = assessment.contributions
    seen = sorted((n for n, share in shares.items() if round(share * 100, 1)), key=lambda n: (-abs(shares[n]), n))
    begin = f"by Shapley values, from {baseline * 100:.1f} %, the mean of the model's prototypes"
    if not seen:
        return f"{begin}: no input moves it by 0.1 percentage points"
    said = [f"{manifest.say(n, by_name[n].value)} ({shares[n] * 100:+.1f} percentage points)" for n in seen[:most]]
    more = f" and {len(seen) - most} more" if len(seen) > most else ""
    error = f"; standard error at most {assessment.error * 100:.1g}" if assessment.error else ""
    return f"{begin}: {', '.join(said)}{more}{error}"


def _multiple(term: float) -> str:
    """The factor e^term in three digits; what is too large for that is said as such."""
    return f"{math.exp(term):.3g}" if term < 20 else "more than 1e8"
