"""The judgement after a campaign: what the chart and the database hold, against what was promised."""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sidecar.app import running_models
from sidecar.deid import load_rules
from sidecar.pipeline import conclude
from sidecar.records import Conclusion, Outcome, PatientSnapshot
from sidecar.settings import load
from sidecar.store import load_keys
from sidecar.writeback import is_chartable
from tests import postgres
from tests.campaigns.charting import CHOICES, Notified, Resource, Ward, code
from tests.campaigns.runs import MAX_PROBLEMS, Found


@dataclass
class Report:
    """What the campaign saw. `problems` names the first `MAX_PROBLEMS`."""

    seed: int
    points: int
    rung: str
    kills: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    wrong: int = 0
    regressions: int = 0
    buried: int = 0
    restarts: int = 0
    readings: int = 0
    risk_assessments: int = 0
    replies_dropped: int = 0
    ready_p50_s: float = 0.0
    ready_max_s: float = 0.0
    settled_max_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Every claim held."""
        return not (self.lost or self.duplicates or self.wrong or self.regressions or self.buried or self.problems)

    def found(self) -> Found:
        """What the run found, as `tests.campaigns.runs` keeps it."""
        return {**asdict(self), "ok": self.ok}

    def saw(self, kind: str, count: int, example: str) -> None:
        """Count `count` breaches of a claim."""
        if count:
            setattr(self, kind, getattr(self, kind) + count)
            self.problems += [f"{kind}: {example}"] if len(self.problems) < MAX_PROBLEMS else []


def rows(config: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows of the servers' database, read beside them."""
    url = load(config).store.url
    if url.startswith("postgresql:"):
        return [tuple(row) for row in postgres.wait_for(postgres.fetch(url, sql))]
    path = url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return list(connection.execute(sql))


def count(config: Path, what: str) -> int:
    """How many rows `FROM what` has."""
    return int(rows(config, f"SELECT count(*) FROM {what}")[0][0])


def held(config: Path) -> int:
    """How many claims the database says somebody has."""
    return sum(
        count(config, f"{table} WHERE claim IS NOT NULL OR lease_until > 0") for table in ("event", "work", "delivery")
    )


def missing(config: Path, acknowledged: Iterable[Notified], *, ended: bool) -> list[Notified]:
    """Acknowledged notifications that the database does not have; with `ended`, or has not finished.

    One about a resource that is not there ends as `gone` and may come again, so its row has no dedupe key any more.
    """
    cipher, state = load_keys(load(config).store.key_file), "state = 'done'" if ended else "1 = 1"
    keys = {row[0] for row in rows(config, f"SELECT dedupe_key FROM event WHERE {state}")}
    keys |= {row[0] for row in rows(config, "SELECT dedupe_key FROM seen")}
    gone = set(rows(config, "SELECT focus_key, version FROM event WHERE reason = 'gone'"))

    def is_there(notified: Notified) -> bool:
        name, version, _ = notified
        return (
            cipher.token("event", "observation", *notified) in keys
            or (cipher.token("resource", *name.split("/")), version) in gone
        )

    return [notified for notified in acknowledged if not is_there(notified)]


def idle(config: Path, since: float) -> bool:
    """Nothing waits, and each source was searched for missed events since the load ended."""
    searched = rows(
        config, f"SELECT count(DISTINCT source) FROM event WHERE reason = 'caught_up' AND heard_at > {since}"
    )[0][0]
    waiting = count(config, "event WHERE state IN ('pending', 'routed')")
    queued = count(config, "delivery WHERE state = 'queued'")
    return searched >= count(config, "subscription") > 0 and waiting == 0 and queued == 0


def points(values: dict[str, float]) -> int:
    """NEWS2, SpO2 scale 1, counted here from the chart of the Royal College of Physicians (2017) and from nothing else."""
    rr, spo2, bp, pulse = values["9279-1"], values["2708-6"], values["8480-6"], values["8867-4"]
    temperature = values["8310-5"]
    return (
        (3 if rr <= 8 or rr >= 25 else 2 if rr >= 21 else 1 if rr <= 11 else 0)
        + (3 if spo2 <= 91 else 2 if spo2 <= 93 else 1 if spo2 <= 95 else 0)
        + (3 if bp <= 90 or bp >= 220 else 2 if bp <= 100 else 1 if bp <= 110 else 0)
        + (3 if pulse <= 40 or pulse >= 131 else 2 if pulse >= 111 else 1 if pulse <= 50 or pulse >= 91 else 0)
        + (
            3
            if temperature <= 35
            else 2
            if temperature >= 39.1
            else 1
            if temperature <= 36 or temperature >= 38.1
            else 0
        )
        + (3 if values["9269-2"] < 15 else 0)
        + (2 if values["3151-8"] > 0 else 0)
    )


class Verdict:
    """Compares the chart and the database with what was promised."""

    def __init__(self, config: Path, ward: Ward, report: Report) -> None:
        self._config, self._ward, self._report = config, ward, report
        self._settings = load(config)
        self._ehr = ward.ehr
        self._risks = self._ehr.all("RiskAssessment")

    def give(self, acknowledged: set[Notified]) -> None:
        """Look at everything."""
        self._stored(acknowledged)
        self._doubles()
        for who in self._ward.patients:
            self._final_state(who)
        for risk in self._risks:
            self._stands(risk)
            self._order(risk)

    def _stored(self, acknowledged: set[Notified]) -> None:
        lost = missing(self._config, acknowledged, ended=True)
        buried = rows(self._config, "SELECT reason FROM event WHERE state = 'buried'")
        buried += rows(self._config, "SELECT reason FROM delivery WHERE state = 'buried'")
        self._report.saw("lost", len(lost), str(lost[:1]))
        self._report.saw("buried", len(buried), str(buried[:1]))
        self._report.saw("wrong", held(self._config), "a claim is held after a clean stop")

    def _doubles(self) -> None:
        scores = [r for r in self._ehr.all("Observation") if not r["id"].startswith("o-")]
        for name, resources, moment in (("RiskAssessment", self._risks, "occurrenceDateTime"),
                                        ("Observation", scores, "effectiveDateTime")):  # fmt: skip
            by_identifier = Counter(r["identifier"][0]["value"] for r in resources)
            by_moment = Counter((r["subject"]["reference"], r[moment]) for r in resources)
            for counts in (by_identifier, by_moment):
                self._report.saw("duplicates", sum(n - 1 for n in counts.values()), f"{name} {counts.most_common(1)}")
        self._report.saw("duplicates", max(len(self._ehr.all("Device")) - 1, 0), "Device")

    def _final_state(self, who: str) -> None:
        """What the chart says of a patient's newest set is what the readings say, by the pipeline run once more here."""
        expected = self._expected(who)
        a, at = expected.assessment, expected.evidence.occurred_at
        risk = next((r for r in self._of(who) if datetime.fromisoformat(r["occurrenceDateTime"]) == at), None)
        if risk is None:
            self._report.saw("wrong", is_chartable(a.outcome, urgent=a.urgent), f"{who} has no result for {at}")
            return
        basis = {b["reference"].partition("/_history/")[0] for b in risk["basis"] if "/_history/" in b["reference"]}
        self._report.saw("wrong", basis != {r.relative for r in expected.evidence.basis}, f"{who}: old basis at {at}")
        if a.outcome is Outcome.SCORED:
            self._report.saw("wrong", self._total(risk) != a.score, f"{who}: {self._total(risk)}, not {a.score}")
        self._report.saw("wrong", risk["status"] == "entered-in-error", f"{who}: withdrawn at {at}")

    def _expected(self, who: str) -> Conclusion:
        (model,) = running_models(self._settings).values()
        record, stay = self._ehr.read("Patient", who), self._ehr.read("Encounter", f"e-{who}")
        assert record is not None
        snapshot = PatientSnapshot(record, stay, tuple(self._ward.readings(who)), datetime.now(UTC))
        return conclude(snapshot, model, load_rules())

    def _of(self, who: str) -> list[Resource]:
        return [r for r in self._risks if r["subject"]["reference"] == f"Patient/{who}"]

    def _total(self, risk: Resource) -> float | None:
        """The points total that a RiskAssessment cites."""
        cited = [b["reference"] for b in risk["basis"] if "/_history/" not in b["reference"]]
        total = self._ehr.read(*cited[0].split("/")) if cited else None
        return total["valueQuantity"]["value"] if total and total["status"] != "entered-in-error" else None

    def _stands(self, risk: Resource) -> None:
        """A result rests on what its readings say now; a total is the sum of exactly those."""
        if risk["status"] == "entered-in-error":
            return
        values: dict[str, float] = {}
        for reference in (b["reference"] for b in risk.get("basis", ()) if "/_history/" in b["reference"]):
            _, logical_id, _, number = reference.split("/")
            versions = self._ehr.history("Observation", logical_id)
            cited, current = versions[int(number) - 1], versions[-1]
            fresh = current["status"] != "entered-in-error" and current["valueQuantity"] == cited["valueQuantity"]
            self._report.saw("wrong", not fresh, f"{risk['id']} rests on {reference}, which has changed")
            values[code(current)] = current["valueQuantity"]["value"]
        if len(values) == len(CHOICES):
            self._report.saw("wrong", self._total(risk) != points(values), f"{risk['id']}: not {points(values)}")

    def _order(self, risk: Resource) -> None:
        """Later versions never rest on earlier versions of a reading."""
        newest: dict[str, int] = {}
        for version in self._ehr.history("RiskAssessment", risk["id"]):
            for reference in (b["reference"] for b in version.get("basis", ()) if "/_history/" in b["reference"]):
                reading, _, number = reference.partition("/_history/")
                self._report.saw("regressions", int(number) < newest.get(reading, 0), f"{risk['id']} went back")
                newest[reading] = max(int(number), newest.get(reading, 0))
