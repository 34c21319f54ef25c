"""Reasons and rationales as a clinician reads them. Pure."""

from sidecar.manifest import Manifest, in_unit
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
}
_PLAIN = {
    "out_of_cohort:age": "outside the age range of this score",
    "out_of_cohort:deceased": "patient recorded as deceased",
    "out_of_cohort:discharged": "encounter has ended",
    "out_of_cohort:inactive": "patient record is inactive or merged into another",
    "out_of_cohort:pregnant": "not for use in pregnancy",
    "missing:birth_date": "birth date unknown, so the age limit cannot be checked",
    "imprecise:birth_date": "birth date too imprecise to check the age limit",
    "another_patient": "the chart returned another patient's resource; nothing was used",
    "modifier:patient": "the patient record carries a modifier that is not understood",
    "modifier:encounter": "the encounter carries a modifier that is not understood",
}


def reason_in_words(reason: str, manifest: Manifest, features: tuple[Feature, ...] = ()) -> str:
    """One stored reason as a phrase. An unknown reason is returned as it is, never hidden."""
    if reason in _PLAIN:
        return _PLAIN[reason]
    word, _, name = reason.partition(":")
    if word in _BY_FEATURE and name in manifest.features:
        spec = manifest.features[name]
        value = next((in_unit(f.shown, f.unit) for f in features if f.name == name and f.shown is not None), "")
        return " ".join(_BY_FEATURE[word].format(label=spec.label, value=value).split())
    return reason.replace("_", " ").replace(":", ": ")


def rationale(assessment: Assessment, manifest: Manifest, most: int = 3) -> str:
    """The parameters that scored, highest first: "respiratory rate 26/min (3), supplemental oxygen (2)"."""
    by_name = {f.name: f for f in assessment.vector.features}
    scored = sorted(
        ((points, name) for name, points in assessment.contributions.items() if points > 0),
        key=lambda pair: (-pair[0], pair[1]),
    )
    if not scored:
        return "no parameter scored above 0"
    said = []
    for points, name in scored[:most]:
        spec, feature = manifest.features[name], by_name[name]
        said.append(f"{spec.label} {spec.say(feature.value)} ({points:g})")
    left = len(scored) - most
    return ", ".join(said) + (f" and {left} more" if left > 0 else "")
