"""THE PATH, one screen: consent, context, de-identification, features, scoring, explanation.

A subscription event, a file on the command line and, later, a CDS Hooks call all come through here.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from sidecar.context import ContextReader, Need
from sidecar.deid import Rules, deidentify, inherited, is_sensitive
from sidecar.errors import Rejected
from sidecar.explanation import conclude as explain
from sidecar.explanation import limits_that_act
from sidecar.features import Extractor, exclusion, exclusion_by_inputs
from sidecar.fhir import references
from sidecar.inbox import ModelWait
from sidecar.manifest import SOURCE_TYPES, Manifest
from sidecar.metrics import STAGE_SECONDS
from sidecar.records import (
    Arm,
    Assessment,
    Conclusion,
    Consent,
    Evidence,
    Feature,
    FeatureVector,
    Outcome,
    PatientId,
    PatientSnapshot,
    later,
)
from sidecar.scoring import LoadedModel

_SLOW = ThreadPoolExecutor(1, thread_name_prefix="slow-models")
ABOUT_THE_PATIENT = frozenset({"gone:patient", "another_patient"})
"""Refusals of a read that are a conclusion; others say something of the EHR and nothing of the patient."""
NOT_WHOLE = frozenset({"gone:medication", *(f"too_many:{kind.lower()}" for kind in SOURCE_TYPES)})
"""So are these: the chart cannot be read as a whole, and a part of it would be a wrong number."""


@dataclass(frozen=True, slots=True)
class RunningModel:
    """A loaded model with this site's decisions about it.

    `track` is what its results are filed under, where that is not its own name: a version in shadow beside the model.
    """

    loaded: LoadedModel
    extractor: Extractor
    need: Need
    arm: Arm
    wait: ModelWait
    track: str = ""
    _never_named: dict[str, frozenset[str]] = field(default_factory=dict, init=False, compare=False)

    @property
    def name(self) -> str:
        """What its results are filed under."""
        return self.track or self.loaded.manifest.name

    def never_named(self, rules: Rules) -> frozenset[str]:
        """The inputs that read nothing but what `rules` call sensitive: left out of all results, as "no" tells too."""
        if rules.digest not in self._never_named:
            specs, lists_all = self.loaded.manifest.features.items(), rules.sensitive.lists_all
            found = frozenset(n for n, spec in specs if lists_all(c for s in spec.sources for c in s.codes))
            self._never_named[rules.digest] = found
        return self._never_named[rules.digest]


async def assess(  # noqa: PLR0913, PLR0917 -- the path's inputs, all of them
    reader: ContextReader,
    patient: PatientId,
    model: RunningModel,
    rules: Rules,
    at: datetime,
    seen: Callable[[PatientSnapshot], None],
) -> Conclusion:
    """Read a patient's context and conclude. What can never succeed is a conclusion too: not scored, because.

    `seen` looks at what was read before it is used, and may ask for another look.

    Raises:
        Unavailable, Retryable, Rejected: the EHR did not answer, or not usably.
    """
    try:
        with STAGE_SECONDS.labels("context").time():
            snapshot = await reader.read(patient, model.need, at)
    except Rejected as refusal:
        if refusal.reason not in ABOUT_THE_PATIENT | NOT_WHOLE:
            raise
        return _refused(patient, model, rules, at, refusal.reason)
    seen(snapshot)
    with STAGE_SECONDS.labels("assess").time():
        return await reckon(snapshot, model, rules)


async def reckon(
    snapshot: PatientSnapshot, model: RunningModel, rules: Rules, *, still_in_cohort: bool = False
) -> Conclusion:
    """`conclude`, on the one thread for it when the model is slow, so that it keeps nobody else waiting."""
    run = partial(conclude, snapshot, model, rules, still_in_cohort=still_in_cohort)
    return await asyncio.get_running_loop().run_in_executor(_SLOW, run) if model.loaded.is_slow else run()


def conclude(
    snapshot: PatientSnapshot, model: RunningModel, rules: Rules, *, still_in_cohort: bool = False
) -> Conclusion:
    """From an identified snapshot to a conclusion. Only `deidentify` sees the former; the model sees numbers.

    `still_in_cohort` leaves the cohort's rules out: a past moment is not judged by what became of the patient later.
    Values that the model was not made for are refused all the same.
    """
    consent = Consent.NOT_EVALUATED
    patient = PatientId(str(snapshot.patient.get("id")))
    try:
        clean = deidentify(snapshot, rules, model.extractor.reads)
    except Rejected as refusal:
        return _refused(patient, model, rules, snapshot.at, refusal.reason)
    looked_at = {f.index for f in clean.facts} | {clean.stay.index if clean.stay is not None else None}
    held = frozenset(i for i in looked_at if i is not None and is_sensitive(snapshot.resources[i], rules))
    vector, facts = model.extractor.run(clean, held)
    withheld = _withheld(facts, held, model.never_named(rules))
    labels = _labels(snapshot, facts)
    manifest = model.loaded.manifest
    outside = exclusion_by_inputs(manifest, facts) if still_in_cohort else exclusion(manifest, clean, facts)
    if outside is not None:
        refused = _refused(patient, model, rules, snapshot.at, outside)
        said = replace(refused.assessment, withheld=withheld)
        return Conclusion(said, replace(refused.evidence, labels=labels))
    if manifest.remarks:
        vector = replace(vector, remarks=(*vector.remarks, *limits_that_act(manifest, vector, withheld)))
    concluded = explain(manifest, vector, model.loaded.score(vector))
    assessment = Assessment(
        model=model.name,
        version=manifest.version,
        model_digest=model.loaded.digest,
        policy_digest=rules.digest,
        outcome=concluded.outcome,
        reasons=concluded.reasons,
        score=concluded.score,
        at_least=concluded.at_least,
        risk=concluded.risk,
        urgent=concluded.urgent,
        vector=vector,
        contributions=concluded.contributions,
        consent=consent,
        probabilities=concluded.probabilities,
        tells_birth_date=manifest.uses_exact_age,
        typical=concluded.typical,
        baseline=concluded.baseline,
        error=concluded.error,
        withheld=withheld,
        terms=concluded.terms,
        further=concluded.further,
    )
    return Conclusion(assessment, replace(_evidence(snapshot, patient, vector, manifest), labels=labels))


def newest_reading_at(conclusion: Conclusion, manifest: Manifest) -> datetime | None:
    """When the newest reading was taken that a conclusion looked at, usable or not; None when it looked at none.

    Of a model without readings, as a score of diagnoses is, it is the moment of the look.
    """
    if not any(manifest.features[name].sources for name in manifest.members):
        return conclusion.evidence.at
    used = (f for f in conclusion.assessment.vector.features if f.name in manifest.members and f.index is not None)
    latest = max((f.seconds for f in used if f.seconds is not None), default=None)
    return None if latest is None else later(conclusion.evidence.at, timedelta(seconds=latest))


def _evidence(snapshot: PatientSnapshot, patient: PatientId, vector: FeatureVector, manifest: Manifest) -> Evidence:
    """What the conclusion rests on. Its time is the observation set's: a later scale decision prolongs nothing.

    A result that does not speak of a stay names none: it must not get another identity when the patient is admitted.
    """
    used = [f for f in vector.features if f.index is not None and not (f.reason or "").startswith("stale")]
    sources = {index: snapshot.resources[index] for index in _indices(used)}
    members = [f for f in used if f.name in manifest.members and not (f.reason or "").startswith("future")]
    latest = max((f.seconds for f in members if f.seconds is not None), default=0.0)
    occurred_at = later(snapshot.at, timedelta(seconds=latest))
    return Evidence(
        patient=patient,
        encounter=references.identity(snapshot.encounter) if snapshot.encounter and manifest.cohort.of_a_stay else None,
        basis=tuple(r for i in sorted(sources) if (r := references.identity(sources[i])) is not None),
        at=snapshot.at,
        occurred_at=occurred_at,
        valid_until=later(occurred_at, manifest.validity),
    )


def _indices(features: Collection[Feature]) -> set[int]:
    """The places in the snapshot of all that features come from."""
    found = {f.index for f in features if f.index is not None}
    for feature in features:
        if feature.others:
            found.update(feature.others)
    return found


def _withheld(facts: Mapping[str, Feature], held: frozenset[int], never: frozenset[str]) -> tuple[str, ...]:
    """The inputs that no words name: those of a sensitive resource, and those that nobody's result names."""
    if not held and not never:
        return ()
    return tuple(f.name for f in facts.values() if f.name in never or f.index in held or not held.isdisjoint(f.others))


def _labels(snapshot: PatientSnapshot, facts: Mapping[str, Feature]) -> tuple[str, ...]:
    """Of the patient, the stay, and all that a feature comes from, be it an input or one that the cohort asks for."""
    used = _indices(facts.values())
    stay = [snapshot.encounter] if snapshot.encounter else []
    return inherited([snapshot.patient, *stay, *(snapshot.resources[index] for index in used)])


def _refused(patient: PatientId, model: RunningModel, rules: Rules, at: datetime, reason: str) -> Conclusion:
    manifest = model.loaded.manifest
    assessment = Assessment(
        model=model.name,
        version=manifest.version,
        model_digest=model.loaded.digest,
        policy_digest=rules.digest,
        outcome=Outcome.NOT_SCORED,
        reasons=(reason,),
        score=None,
        at_least=None,
        risk=None,
        urgent=False,
        vector=FeatureVector(()),
        contributions={},
    )
    return Conclusion(assessment, Evidence(patient, None, (), at, at, at))
