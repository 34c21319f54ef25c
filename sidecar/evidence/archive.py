"""Store assessments under one identity each, with revisions, and find those that rest on a changed resource.

Identity is a keyed hash of model, patient, encounter and observation-set time: new readings make a new assessment,
a corrected or voided one makes a new revision of the assessment that rested on it. A revision with the same content
as the last one is not stored again. What an exact age went into is stored sealed, beside the evidence: the age, or any
number computed from it, gives the day of birth together with the moment, which stays in the open.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import orjson

from sidecar.errors import Rejected
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
    Reference,
    Stored,
)
from sidecar.store import Cipher, Row, Statement, Step, Store, row_key

_SAME_MOMENT_S = 0.001
_SOMETIMES = ("probabilities", "typical", "terms", "further", "baseline", "error")
"""What only some kinds of model say of an assessment."""
MOST_REMEMBERED = 1000

COLUMNS = (
    "id, identity, revision, patient_key, model, version, model_digest, policy_digest, arm, consent, status, outcome, "
    "reasons, score, at_least, risk, urgent, vector, contributions, content, assessed_at, occurred_at, valid_until, "
    "latest, review, evidence"
)
LATEST = Statement(
    "latest_revision",
    f"SELECT {COLUMNS} FROM assessment WHERE identity = :identity ORDER BY revision DESC LIMIT 1",  # noqa: S608 -- a constant
    quick=True,
)
BY_ID = Statement("assessment_by_id", f"SELECT {COLUMNS} FROM assessment WHERE id = :id", quick=True)  # noqa: S608 -- a constant
RESTING_ON = Statement(
    "resting_on",
    f"SELECT {COLUMNS} FROM assessment WHERE latest = 1 AND status <> 'entered-in-error' AND model = :model "  # noqa: S608 -- a constant
    "AND patient_key = :patient_key AND id IN (SELECT assessment_id FROM basis WHERE resource_key = :resource_key) "
    "ORDER BY occurred_at",
    quick=True,
)
OWNERS = Statement(
    "owners",
    "SELECT DISTINCT assessment.model, assessment.identity, assessment.revision, assessment.patient_key, "
    "assessment.evidence "
    "FROM basis JOIN assessment ON assessment.id = basis.assessment_id "
    "WHERE basis.resource_key = :resource_key AND assessment.latest = 1 AND assessment.status <> 'entered-in-error'",
    quick=True,
)
OF_MOMENT = Statement(
    "of_moment",
    f"SELECT {COLUMNS} FROM assessment WHERE latest = 1 AND ((patient_key = :patient_key AND model = :model "  # noqa: S608 -- a constant
    "AND occurred_at BETWEEN :since AND :until AND outcome <> 'not_scored') OR identity = :identity) "
    "ORDER BY occurred_at DESC",
    quick=True,
)
IN_FORCE = Statement(
    "in_force",
    f"SELECT {COLUMNS} FROM assessment WHERE patient_key = :patient_key AND model = :model AND latest = 1 "  # noqa: S608 -- a constant
    "AND valid_until > :now AND status <> 'entered-in-error' AND outcome <> 'not_scored' ORDER BY occurred_at",
    quick=True,
)
VALID = Statement(
    "valid",
    f"SELECT {COLUMNS} FROM assessment WHERE latest = 1 AND (valid_until, id) > (:valid_until, :id) "  # noqa: S608 -- a constant
    "AND status <> 'entered-in-error' AND outcome <> 'not_scored' ORDER BY valid_until, id LIMIT :most",
)
SUPERSEDE = Statement("supersede", "UPDATE assessment SET latest = 0 WHERE identity = :identity AND latest = 1")
INSERT = Statement(
    "insert_assessment",
    f"INSERT INTO assessment ({COLUMNS}) VALUES (:id, :identity, :revision, :patient_key, :model, :version, "  # noqa: S608 -- a constant
    ":model_digest, :policy_digest, :arm, :consent, :status, :outcome, :reasons, :score, :at_least, :risk, :urgent, "
    ":vector, :contributions, :content, :assessed_at, :occurred_at, :valid_until, 1, NULL, :evidence)",
)
BASIS = Statement(
    "basis",
    "INSERT INTO basis (resource_key, assessment_id) VALUES (:resource_key, :assessment_id) ON CONFLICT DO NOTHING",
    many="INSERT INTO basis (resource_key, assessment_id) VALUES {rows} ON CONFLICT DO NOTHING",
    columns=("resource_key", "assessment_id"),
)
UNREST = Statement("unrest", "DELETE FROM basis WHERE resource_key = :resource_key AND assessment_id = :assessment_id")
TOUCH = Statement("touch", "UPDATE assessment SET evidence = :evidence WHERE id = :id")
REVIEW = Statement(
    "review", "UPDATE assessment SET review = :reason WHERE patient_key = :patient_key AND latest = 1 "
    "AND review IS NULL AND identity IN (SELECT identity FROM effect)",
)  # fmt: skip
CURRENT = Statement(
    "current",
    f"SELECT {COLUMNS} FROM assessment WHERE patient_key = :patient_key AND model = :model "  # noqa: S608 -- a constant
    "AND latest = 1 ORDER BY assessed_at DESC LIMIT 1",
    quick=True,
)


class Archive:
    """The verbs of stored assessments."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher
        self._made: dict[str, tuple[bytes, Stored]] = {}

    def resource_key(self, reference: Reference) -> bytes:
        """The fingerprint of a resource, whatever its version."""
        return self._cipher.token("resource", reference.type, reference.id)

    def identity(self, conclusion: Conclusion) -> bytes:
        """One identity for one observation set of one stay, whoever computes it and how often."""
        evidence = conclusion.evidence
        return self._cipher.token(
            "assessment",
            conclusion.assessment.model,
            evidence.patient.value,
            evidence.encounter.id if evidence.encounter else "",
            f"{evidence.occurred_at.timestamp():.3f}",
        )

    async def latest(self, identity: bytes) -> Stored | None:
        """The newest revision under `identity`."""
        rows = await self._store.read(LATEST, identity=identity)
        return self._open(rows[0]) if rows else None

    async def by_id(self, assessment_id: str) -> Stored | None:
        """One revision."""
        rows = await self._store.read(BY_ID, id=assessment_id)
        return self._open(rows[0]) if rows else None

    async def current(self, patient: PatientId, model: str) -> Stored | None:
        """What was last concluded of a patient, scored or not."""
        rows = await self.found(CURRENT, patient_key=self._patient_key(patient), model=model)
        return rows[0] if rows else None

    async def found(self, statement: Statement, **parameters: object) -> list[Stored]:
        """What a statement over `COLUMNS` finds, opened."""
        return [self._open(row) for row in await self._store.read(statement, **parameters)]

    async def resting_on(self, patient_key: bytes, model: str, focus_keys: Iterable[bytes]) -> list[Stored]:
        """Live assessments of a patient whose basis holds one of the resources, each once, oldest first."""
        found: dict[str, Stored] = {}
        for key in focus_keys:
            for row in await self._store.read(RESTING_ON, patient_key=patient_key, model=model, resource_key=key):
                found.setdefault(row["id"], self._open(row))
        return sorted(found.values(), key=lambda s: s.conclusion.evidence.occurred_at)

    async def owners(self, focus_key: bytes) -> set[tuple[str, str]]:
        """(patient id, model) of assessments that rest on a resource which can no longer be read."""
        rows = await self._store.read(OWNERS, resource_key=focus_key)
        return {(Evidence.from_json(self._unseal(r)).patient.value, r["model"]) for r in rows}

    async def valid(self, after: tuple[float, str], most: int) -> list[Stored]:
        """A page of assessments that hold beyond `after` (a moment and an id), those ending first before the rest."""
        return await self.found(VALID, valid_until=after[0], id=after[1], most=most)

    async def in_force(self, patient: PatientId, model: str, now: float) -> list[Stored]:
        """The results of a patient that hold, in the chart or not, oldest moment first. An ended one never does."""
        found = await self.found(IN_FORCE, patient_key=self._patient_key(patient), model=model, now=now)
        return [stored for stored in found if not stored.conclusion.assessment.vector.ended]

    async def find(self, conclusion: Conclusion, spread_s: float) -> Stored | None:
        """The assessment that `conclusion` is a newer view of: of the same moment, or incomplete and only added to.

        An incomplete result whose every reading still counts is completed under its own identity, instead of leaving
        one more result behind for each reading that comes in.
        """
        evidence = conclusion.evidence
        identity, moment = self.identity(conclusion), evidence.occurred_at.timestamp()
        rows = await self._store.read(
            OF_MOMENT,
            patient_key=self._patient_key(evidence.patient),
            model=conclusion.assessment.model,
            since=moment - spread_s,
            until=moment + _SAME_MOMENT_S,
            identity=identity,
        )
        now_rests_on = {r.relative for r in evidence.basis}
        own = None
        for row in rows:
            stored = self._open(row)
            old = stored.conclusion.evidence
            if row["identity"] == identity:
                own = stored
                if not moment - spread_s <= row["occurred_at"] <= moment + _SAME_MOMENT_S:
                    continue
            if stored.conclusion.assessment.outcome is Outcome.NOT_SCORED:
                continue
            if abs(old.occurred_at.timestamp() - moment) <= _SAME_MOMENT_S:
                return stored
            rests_on = {r.relative for r in old.basis}
            if stored.status == "preliminary" and rests_on and rests_on <= now_rests_on:
                return stored
        return own

    def touched(self, stored: Stored, conclusion: Conclusion) -> list[Step]:
        """Steps for a conclusion that says what `stored` says, from newer versions of the same readings."""
        # Times of the inputs count from `at`, which stays: only the versions are new.
        fresh = replace(stored.conclusion.evidence, basis=conclusion.evidence.basis)
        sealed = self._seal(stored.identity, stored.revision, Conclusion(stored.conclusion.assessment, fresh))
        return [
            Step(TOUCH, [{"id": stored.id, "evidence": sealed}]),
            Step(UNREST, self._rests(stored.id, stored.conclusion.evidence)),
            Step(BASIS, self._rests(stored.id, conclusion.evidence)),
        ]

    def content(self, conclusion: Conclusion, status: str) -> bytes:
        """A hash of everything that is said to a reader; that a reading was touched without changing is not."""
        a, e = conclusion.assessment, conclusion.evidence
        at = e.at.timestamp()
        said = {
            "status": status,
            "model": [a.version, a.model_digest],
            "outcome": a.outcome,
            "reasons": a.reasons,
            "score": a.score,
            "at_least": a.at_least,
            "risk": a.risk,
            "contributions": sorted(a.contributions.items()),
            "features": [[f.name, _number(f.value), _number(f.shown), _moment(at, f)] for f in a.vector.features],
            "remarks": a.vector.remarks,
            "basis": sorted(r.relative for r in e.basis),
            "occurred_at": round(e.occurred_at.timestamp(), 3),
            "valid_until": e.valid_until.timestamp(),
            **({"probabilities": sorted(a.probabilities.items())} if a.probabilities else {}),
            **({"withheld": a.withheld, "labels": e.labels} if a.withheld or e.labels else {}),
            **({"further": sorted(a.further.items())} if a.further else {}),
        }
        # Keyed: a plain hash lets whoever knows the rest try every day of birth.
        return self._cipher.token("content", hashlib.sha256(orjson.dumps(said)).hexdigest())

    def store(self, conclusion: Conclusion, previous: Stored | None, status: str, arm: Arm) -> tuple[str, list[Step]]:
        """The id and the steps that store the next revision under the conclusion's identity (or `previous`'s)."""
        a, e = conclusion.assessment, conclusion.evidence
        identity = previous.identity if previous else self.identity(conclusion)
        revision = previous.revision + 1 if previous else 1
        assessment_id = f"{identity.hex()[:40]}.{revision}"
        plain = _NO_NUMBERS if a.tells_birth_date else _numbers(a)
        row = {
            "id": assessment_id,
            "identity": identity,
            "revision": revision,
            "patient_key": self._patient_key(e.patient),
            "model": a.model,
            "version": a.version,
            "model_digest": a.model_digest,
            "policy_digest": a.policy_digest,
            "arm": arm.value,
            "consent": a.consent.value,
            "status": status,
            "outcome": a.outcome.value,
            "reasons": orjson.dumps(a.reasons).decode(),
            "score": plain["score"],
            "at_least": plain["at_least"],
            "risk": a.risk,
            "urgent": int(a.urgent),
            "vector": orjson.dumps(plain["vector"]).decode(),
            "contributions": orjson.dumps(plain["contributions"]).decode(),
            "content": self.content(conclusion, status),
            "assessed_at": e.at.timestamp(),
            "occurred_at": e.occurred_at.timestamp(),
            "valid_until": e.valid_until.timestamp(),
            "evidence": self._seal(identity, revision, conclusion),
        }
        self._remember(row, arm, conclusion)
        superseded = [Step(SUPERSEDE, [{"identity": identity}])] if previous else []
        return assessment_id, [*superseded, Step(INSERT, [row]), Step(BASIS, self._rests(assessment_id, e))]

    def _remember(self, row: Row, arm: Arm, conclusion: Conclusion) -> None:
        """Keep what is about to be stored, as it will be read: whoever writes it into the chart asks for it next."""
        e = conclusion.evidence
        e = replace(e, at=_fixed(e.at), occurred_at=_fixed(e.occurred_at), valid_until=_fixed(e.valid_until))
        stored = Stored(
            row["id"], row["identity"], row["revision"], row["patient_key"], row["status"], arm, row["content"],
            Conclusion(conclusion.assessment, e),
        )  # fmt: skip
        self._made[row["id"]] = (row["evidence"], stored)
        if len(self._made) > MOST_REMEMBERED:
            del self._made[next(iter(self._made))]

    def _rests(self, assessment_id: str, e: Evidence) -> list[dict[str, object]]:
        return [{"resource_key": self.resource_key(r), "assessment_id": assessment_id} for r in e.basis]

    def _patient_key(self, patient: PatientId) -> bytes:
        return self._cipher.token("patient", patient.value)

    def for_review(self, patient: PatientId, reason: str) -> Step:
        """A step that marks what was written for a patient, for a person to look at."""
        return Step(REVIEW, [{"patient_key": self._patient_key(patient), "reason": reason}])

    def _seal(self, identity: bytes, revision: int, conclusion: Conclusion) -> bytes:
        a, said = conclusion.assessment, conclusion.evidence.to_json()
        if a.tells_birth_date:
            said["numbers"] = _numbers(a)
        return self._cipher.seal("assessment.evidence", row_key(identity, revision), orjson.dumps(said))

    def _unseal(self, row: Any) -> dict[str, Any]:
        key = row_key(row["identity"], row["revision"])
        opened: dict[str, Any] = orjson.loads(self._cipher.open("assessment.evidence", key, row["evidence"]))
        if self._cipher.token("patient", str(opened["patient"])) != row["patient_key"]:
            raise Rejected("sealed:another_patient")
        return opened

    def _open(self, row: Any) -> Stored:
        sealed_by_us, made = self._made.pop(row["id"], (None, None))
        if made is not None and sealed_by_us == row["evidence"]:
            return made
        sealed = self._unseal(row)
        numbers = sealed.get("numbers") or {
            "score": row["score"],
            "at_least": row["at_least"],
            "vector": orjson.loads(row["vector"]),
            "contributions": orjson.loads(row["contributions"]),
        }
        assessment = Assessment(
            model=row["model"],
            version=row["version"],
            model_digest=row["model_digest"],
            policy_digest=row["policy_digest"],
            outcome=Outcome(row["outcome"]),
            reasons=tuple(orjson.loads(row["reasons"])),
            score=numbers["score"],
            at_least=numbers["at_least"],
            risk=row["risk"],
            urgent=bool(row["urgent"]),
            vector=_read_vector(numbers["vector"]),
            contributions=numbers["contributions"],
            consent=Consent(row["consent"]),
            tells_birth_date="numbers" in sealed,
            withheld=tuple(numbers["vector"].get("withheld", ())),
            **{name: numbers["vector"][name] for name in _SOMETIMES if name in numbers["vector"]},
        )
        return Stored(
            id=row["id"],
            identity=row["identity"],
            revision=row["revision"],
            patient_key=row["patient_key"],
            status=row["status"],
            arm=Arm(row["arm"]),
            content=row["content"],
            conclusion=Conclusion(assessment, Evidence.from_json(sealed)),
        )


def _fixed(moment: datetime) -> datetime:
    """`moment` with its offset instead of its zone: that is how it is read back."""
    offset = moment.utcoffset()
    return moment if offset is None else moment.replace(tzinfo=timezone(offset))


def _moment(at: float, feature: Feature) -> int | None:
    return None if feature.seconds is None else round(at + feature.seconds)


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _numbers(a: Assessment) -> dict[str, Any]:
    """What went into the model and what came out."""
    rows = [
        [f.name, _number(f.value), f.unit, f.seconds, f.index, f.reason, f.assumed, f.shown] for f in a.vector.features
    ]
    document: dict[str, Any] = {"features": rows, "remarks": a.vector.remarks}
    if a.withheld:
        document["withheld"] = a.withheld
    document |= {name: said for name in _SOMETIMES if (said := getattr(a, name)) not in (None, {})}
    return {"score": a.score, "at_least": a.at_least, "vector": document, "contributions": dict(a.contributions)}


_NO_NUMBERS: Mapping[str, Any] = {
    "score": None, "at_least": None, "vector": {"features": [], "remarks": []}, "contributions": {},
}  # fmt: skip


def _read_vector(stored: Mapping[str, Any]) -> FeatureVector:
    features = tuple(
        Feature(name, math.nan if value is None else value, *rest) for name, value, *rest in stored["features"]
    )
    return FeatureVector(features, tuple(stored["remarks"]))
