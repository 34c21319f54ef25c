"""The same words where an input is not named: then no other has a number from which its own could be told. Pure."""

from dataclasses import replace

from sidecar.explanation import words
from sidecar.manifest import Manifest
from sidecar.records import Assessment

_NOTHING = "what it comes from is not named (sensitive)"
_NO_NUMBERS = "an input is not named (sensitive), so no input has a number here"


def rationales(assessment: Assessment, manifest: Manifest) -> dict[str, str]:
    """What each probability comes from, by output, where each has terms of its own; else nothing."""
    return {
        name: rationale(replace(assessment, contributions=terms), manifest) for name, terms in assessment.terms.items()
    }


def rationale(assessment: Assessment, manifest: Manifest, most: int = 3) -> str:
    """What the result comes from, the strongest first: `most` of what counts, or six terms of a probability.

    Points and terms sum to the result, and Shapley values to it less their baseline: all of them but one tell that one.
    So where an input is withheld the others are named without any. Changes by occlusion sum to nothing, and stay.
    """
    is_shares = assessment.baseline is not None
    sums_up = is_shares or bool(manifest.result.effect) or not manifest.outputs
    counts = is_shares or any(assessment.contributions.values())
    if not assessment.withheld or assessment.typical or not sums_up or not counts:
        return words.rationale(assessment, manifest, most)
    terms = {n: round(t * 100, 1) if is_shares else t for n, t in assessment.contributions.items()}
    values = {f.name: f.value for f in assessment.vector.features if f.name not in assessment.withheld}
    named = sorted((n for n in values if terms.get(n)), key=lambda n: (-abs(terms[n]), n))
    if not named:
        return _NOTHING
    most = 6 if assessment.probabilities else most
    said = ", ".join(manifest.say(name, values[name]) for name in named[:most])
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return f"{'by Shapley values: ' if is_shares else ''}{said}{more}; {_NO_NUMBERS}"
