"""The values rooms pass to each other: frozen, slotted, and typed so that identity cannot leak by accident.

Identified values (`PatientId`, `Reference`, `PatientSnapshot`, `Evidence`) redact their `repr`, so a log line, an
exception or a debugger shows their type and nothing else. `extract` accepts only a `DeidentifiedSnapshot`.
Times named `_at` are aware datetimes or, where a number, seconds since the Unix epoch in UTC.
What is made by the dozen for each event (`Fact`, `Feature`) is a msgspec struct: a frozen dataclass takes ten times as
long to make.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

import msgspec

# FHIR R4 id: https://hl7.org/fhir/R4/datatypes.html#id. "." and ".." are legal ids and illegal paths.
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
ENDED = "No longer current: "
"""How the remark begins that ends a result."""


def is_fhir_id(value: object) -> bool:
    """Whether `value` may be put into a path as a resource id."""
    return isinstance(value, str) and bool(_ID.fullmatch(value)) and value.strip(".") != ""


def later(moment: datetime, by: timedelta) -> datetime:
    """The instant `by` after `moment`, in its zone; plain addition counts wall-clock hours across a clock change."""
    return (moment.astimezone(UTC) + by).astimezone(moment.tzinfo)


def is_type_name(value: object) -> bool:
    """Whether `value` has the form of a FHIR resource type name."""
    return isinstance(value, str) and bool(_TYPE.fullmatch(value))


@dataclass(frozen=True, slots=True)
class Redacted:
    """Base of identified values: their `repr` names the type and nothing else."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__


@dataclass(frozen=True, slots=True, repr=False)
class PatientId(Redacted):
    """The logical id of a Patient in the EHR. Never logged, never a metric label."""

    value: str


@dataclass(frozen=True, slots=True, repr=False)
class Reference(Redacted):
    """A resource in the configured EHR, with the version that was read where one is known."""

    type: str
    id: str
    version: str | None = None

    @property
    def relative(self) -> str:
        """`Type/id`, the form written into references."""
        return f"{self.type}/{self.id}"

    @property
    def versioned(self) -> str:
        """`Type/id/_history/version` when the version is known, else `Type/id`."""
        return f"{self.relative}/_history/{self.version}" if self.version else self.relative


class Consent(StrEnum):
    """What is known of the patient's consent. Unevaluated consent is never recorded as permission."""

    NOT_EVALUATED = "not_evaluated"


class Outcome(StrEnum):
    """How an assessment ended."""

    SCORED = "scored"
    INCOMPLETE = "incomplete"
    NOT_SCORED = "not_scored"


class Arm(StrEnum):
    """What a model version may do: `shadow` scores are stored and never written; a `canary` has some patients."""

    SHADOW = "shadow"
    CANARY = "canary"
    CHAMPION = "champion"

    @property
    def writes(self) -> bool:
        """Whether its results go into the chart."""
        return self is not Arm.SHADOW


@dataclass(frozen=True, slots=True, repr=False)
class Event(Redacted):
    """Something happened in the EHR: which resource, as far as the notification says, and when we heard.

    `focus is None` is an empty ping: a request to catch up from the watermark. `version` and `updated_at` come
    from a hint that is used for nothing but telling a repeat from news.
    """

    source: str
    heard_at: float
    focus: Reference | None = None
    updated_at: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class PatientSnapshot(Redacted):
    """Identified: what was read of one patient, as the EHR sent it, seen from the moment `at`."""

    patient: Mapping[str, Any]
    encounter: Mapping[str, Any] | None
    resources: tuple[Mapping[str, Any], ...]
    at: datetime


class Fact(msgspec.Struct, frozen=True, gc=False):
    """One coded statement after de-identification. `index` points into the snapshot; only write-back resolves it.

    `seconds`, `recorded` (when it was charted) and `began` (since when a condition is there, at the latest) are
    relative to the trigger, negative = before it. `codes` and `value_codes` are `system|code` of known systems only.
    `unit` is a UCUM code. `trouble` says why the value must not be used, else None. A diagnosis that is not `confirmed`
    (differential, provisional) may exclude and proves nothing. A statement whose time is known to a day or less has
    `seconds` at its beginning and `began` at its end. `ended` is when it ended, if it has; `days` how many days of the
    facility's calendar it took; `over` says that it was and is not any more, and `of_stay` that it names the
    present stay as the one it was in.
    """

    index: int
    type: str
    codes: tuple[str, ...]
    seconds: float | None
    value: float | None = None
    unit: str | None = None
    value_codes: tuple[str, ...] = ()
    trouble: str | None = None
    recorded: float = -math.inf
    began: float | None = None
    confirmed: bool = True
    ended: float | None = None
    days: int | None = None
    over: bool = False
    of_stay: bool = False


class Stay(msgspec.Struct, frozen=True, gc=False):
    """The present stay, relative to the trigger; of a date without a time of day, since that day began.

    `ended` is None as long as it is open; `days` are those of the facility's calendar, until its end or the trigger.
    `index` is its place in the snapshot, if it is among the statements.
    """

    began: float | None
    ended: float | None
    days: int | None
    index: int | None


class Sex(StrEnum):
    """What the chart says of a patient's sex; `contradictory` when it says two things."""

    MALE = "male"
    FEMALE = "female"
    UNKNOWN = "unknown"
    CONTRADICTORY = "contradictory"


@dataclass(frozen=True, slots=True)
class DeidentifiedSnapshot:
    """What may reach a model: codes, numbers and seconds relative to the trigger. No id, date, name or text.

    `age_years` is the youngest and the oldest the patient may be. `lived_s` is the seconds from the beginning of the
    day of birth to the trigger; None unless that day is known. A model that needs an exact age gets it from there.
    `age_capped` says that the policy's mode tells no more than that the patient is, or may be, 90 or older.
    """

    age_years: tuple[int, int] | None
    deceased: bool
    inactive: bool
    encounter_open: bool | None
    facts: tuple[Fact, ...]
    policy_digest: str
    sex: Sex = Sex.UNKNOWN
    lived_s: float | None = None
    age_capped: bool = False
    stay: Stay | None = None


class Feature(msgspec.Struct, frozen=True, gc=False):
    """One input of a model. `value` is NaN when missing, and then `reason` says why.

    `assumed` names the site switch under which an absent value was given one. `seconds` is relative to the
    trigger; `index` is the opaque pointer to the source, `others` point to all else that it was computed from. `shown`
    is an implausible value, in `unit`, to be shown as "check patient" and never computed with.
    """

    name: str
    value: float
    unit: str
    seconds: float | None = None
    index: int | None = None
    reason: str | None = None
    assumed: str | None = None
    shown: float | None = None
    others: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FeatureVector:
    """A model's inputs in the order of its graph, and what a clinician should be told about them."""

    features: tuple[Feature, ...]
    remarks: tuple[str, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why each missing feature is missing, each reason once."""
        return tuple(dict.fromkeys(f.reason for f in self.features if f.reason))

    @property
    def ended(self) -> str:
        """The remark that says why the result is no longer current; empty as long as it is."""
        return next((r for r in self.remarks if r.startswith(ENDED)), "")


@dataclass(frozen=True, slots=True)
class Score:
    """What the graph said: a total (NaN when not computable), the points or terms behind it, and probabilities.

    Points and terms sum to the total. `probabilities` are in [0, 1], by the names of the manifest's outputs. Of a graph
    without terms there is no total (NaN) and no points; `changes` has for each input by how much the probability is
    higher than with that input at its typical value, and they sum to nothing; or, where there is a `baseline`, its
    Shapley value, and they sum to the probability less the baseline. `error` is their largest standard error. Of
    outputs with terms of their own `terms` has those of each, and total and points are the first one's. `further` are
    other totals of the same inputs, by name.
    """

    total: float
    points: Mapping[str, float]
    probabilities: Mapping[str, float] = field(default_factory=dict)
    changes: Mapping[str, float] = field(default_factory=dict)
    baseline: float | None = None
    error: float | None = None
    terms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    further: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was concluded, with nothing that identifies anyone.

    `score` is a total of all inputs (of a probability model: its linear predictor, if the graph gives one); `at_least`
    the least it can be when some are missing. They are never both set. `contributions` are the graph's points or terms,
    which sum to the score, or the `changes` of a graph without them, which sum to nothing; `typical` has the values
    that those compare with. Where there is a `baseline` they are Shapley values, which sum to the probability less the
    baseline; `error` is their largest standard error. `risk` is the band's code of a total; the bands of
    `probabilities` follow from the manifest. `urgent` means an incomplete result must still be shown.
    `tells_birth_date` means that an exact age went in: with the moment, the numbers give the day of birth, whatever
    else is left out. `withheld` names the inputs that no words name, because they may reveal a
    sensitive condition; then no other input is told with what it counts for. `terms` are the contributions by output,
    where each has its own: then score and contributions are those of the first that is given. A scored result has
    reasons where some of its outputs are not given. `further` are other totals of the same inputs, by name.
    """

    model: str
    version: str
    model_digest: str
    policy_digest: str
    outcome: Outcome
    reasons: tuple[str, ...]
    score: float | None
    at_least: float | None
    risk: str | None
    urgent: bool
    vector: FeatureVector
    contributions: Mapping[str, float]
    consent: Consent = Consent.NOT_EVALUATED
    probabilities: Mapping[str, float] = field(default_factory=dict)
    tells_birth_date: bool = False
    typical: Mapping[str, float] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()
    terms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    further: Mapping[str, float] = field(default_factory=dict)
    baseline: float | None = None
    error: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Evidence(Redacted):
    """Identified: whom an assessment is about, what it rests on, and until when it holds.

    `labels` are the security labels (`system|code`) that the result inherits from what it rests on.
    """

    patient: PatientId
    encounter: Reference | None
    basis: tuple[Reference, ...]
    at: datetime
    occurred_at: datetime
    valid_until: datetime
    labels: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The form that is encrypted into the evidence column."""
        return {
            "patient": self.patient.value,
            "encounter": [self.encounter.id, self.encounter.version] if self.encounter else None,
            "basis": [[r.type, r.id, r.version] for r in self.basis],
            "at": self.at.isoformat(),
            "occurred_at": self.occurred_at.isoformat(),
            "valid_until": self.valid_until.isoformat(),
            **({"labels": list(self.labels)} if self.labels else {}),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        encounter = stored["encounter"]
        return cls(
            patient=PatientId(stored["patient"]),
            encounter=Reference("Encounter", *encounter) if encounter else None,
            basis=tuple(Reference(*r) for r in stored["basis"]),
            at=datetime.fromisoformat(stored["at"]),
            occurred_at=datetime.fromisoformat(stored["occurred_at"]),
            valid_until=datetime.fromisoformat(stored["valid_until"]),
            labels=tuple(stored.get("labels", ())),
        )


@dataclass(frozen=True, slots=True, repr=False)
class Conclusion(Redacted):
    """An assessment and the identified evidence it rests on."""

    assessment: Assessment
    evidence: Evidence


@dataclass(frozen=True, slots=True, repr=False)
class Stored(Redacted):
    """One stored revision of an assessment. `status` is its FHIR status; `content` a hash of what a reader sees."""

    id: str
    identity: bytes
    revision: int
    patient_key: bytes
    status: str
    arm: Arm
    content: bytes
    conclusion: Conclusion
