"""The ward, replayed through a sidecar into a server at the pace of who has to follow it, and what that left behind."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sidecar import operations
from sidecar.app import shipped
from sidecar.records import PatientId, Reference
from sidecar.sandbox.ward import Ward, WardClock, load_ward
from sidecar.writeback.render import ASSESSMENT_SYSTEM
from tests.harness import cipher_in, until
from tests.peers.servers import Server
from tests.peers.site import PATIENCE_S, Chart, Site, key_of, site_at

WARD_SPEED = 14400.0
STAYS = ("stay-01", "stay-02", "stay-05", "stay-06")
"""The shorter stays of the ward: some 570 resources. All eleven (2432) say the same in four times the time."""
FEW_BEHIND = 30
EVENTS = "SELECT state, count(*) AS n FROM event WHERE focus_type IS NOT NULL GROUP BY 1"
WRITES = "SELECT CASE state WHEN 'buried' THEN reason ELSE state END AS how, count(*) AS n FROM delivery GROUP BY 1"
EFFECTS = (
    "SELECT DISTINCT effect.identity, assessment.patient_key, effect.risk_assessment, effect.observation "
    "FROM effect JOIN assessment ON assessment.identity = effect.identity"
)


class Pace:
    """Seconds of replay. They stand still while a resource is being written or the sidecar is behind: on a slow machine
    the ward takes longer and says the same, instead of growing stale before anyone reads it."""

    def __init__(self) -> None:
        self._passed, self._since = 0.0, time.monotonic()
        self._stopped = False

    def __call__(self) -> float:
        return self._passed if self._stopped else self._passed + time.monotonic() - self._since

    def stop(self) -> None:
        self._passed, self._stopped = self(), True

    def go(self) -> None:
        self._since, self._stopped = time.monotonic(), False


@dataclass
class Ledger:
    """Every version that was written and concerns a source, against every event that the sidecar has."""

    site: Site
    folder: Path
    versions: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    """The event keys of each resource's versions, oldest first."""

    def wrote(self, stored: dict[str, Any]) -> None:
        """Take note of a version, as the server returned it."""
        source = self._source_of(stored)
        if source is None:
            return
        relative, meta = f"{stored['resourceType']}/{stored['id']}", stored["meta"]
        key = cipher_in(self.folder).token("event", source, relative, meta["versionId"], meta["lastUpdated"])
        self.versions[relative].append(key)

    async def account(self) -> "Account":
        """What became of every version so far."""
        rows = await self.site.rows("SELECT dedupe_key, state FROM event WHERE dedupe_key IS NOT NULL")
        states = {row["dedupe_key"]: row["state"] for row in rows}
        account = Account(written=sum(map(len, self.versions.values())))
        for keys in self.versions.values():
            heard = [key in states for key in keys]
            account.heard += sum(heard)
            account.superseded += sum(not there for there in heard[: max(_last(heard), 0)])
            account.lost += sum(not there for there in heard[_last(heard) + 1 :])
            account.open += states.get(keys[-1]) != "done"
        return account

    def _source_of(self, stored: dict[str, Any]) -> str | None:
        codes = {f"{c['system']}|{c['code']}" for c in stored.get("code", {}).get("coding", []) if "system" in c}
        for source in self.site.sidecar.rooms.sources:
            if source.type == stored["resourceType"]:
                concerned = not source.query or bool(codes & set(dict(source.query)["code"].split(",")))
                return source.name if concerned else None
        return None


@dataclass
class Account:
    """Versions written = heard + superseded (a later version of the same resource was heard) + lost."""

    written: int
    heard: int = 0
    superseded: int = 0
    lost: int = 0
    open: int = 0
    """Resources whose last version has not come to its end."""


def _last(heard: list[bool]) -> int:
    return max((n for n, there in enumerate(heard) if there), default=-1)


@dataclass
class PacedWriter:
    """Writes the ward at the pace of who has to follow it."""

    site: Site
    pace: Pace
    ledger: Ledger
    few_behind: int
    look_every: int
    written: int = 0

    async def write(self, resource: dict[str, Any]) -> dict[str, Any]:
        self.pace.stop()
        stored = await self.site.chart.write(resource)
        self.written += 1
        self.ledger.wrote(stored)
        if self.written % self.look_every == 0 and await self._behind() > self.few_behind:
            await until(self._caught_up, PATIENCE_S)
        self.pace.go()
        return stored

    async def _caught_up(self) -> bool:
        return await self._behind() <= self.few_behind // 2

    async def _behind(self) -> int:
        (row,) = await self.site.rows("SELECT count(*) AS queued FROM delivery WHERE state = 'queued'")
        return (await self.ledger.account()).open + row["queued"]


@dataclass(frozen=True)
class Replayed:
    """What the ward left behind, in the server and in the sidecar."""

    figures: dict[str, Any]
    account: Account
    events: dict[str, int]
    writes: Mapping[str, int]
    effects: int
    devices: list[dict[str, Any]]
    results: list[dict[str, Any]]
    """The RiskAssessments of ours; on a server that declares none, the Observations."""
    rested_on: dict[str, list[Reference]]
    there: dict[str, dict[str, Any] | None]


async def replay(server: Server, folder: Path) -> Replayed:
    """Replay the ward once. A server that tells of nothing is followed closely, or its past would pass unseen."""
    chart = Chart(server)
    pace = Pace()
    clock = WardClock(datetime.now(UTC), WARD_SPEED, pace)
    stays = [stay for stay in load_ward(shipped("ward")) if stay.name in STAYS]
    every = "5s" if server.tells else "1s"
    try:
        async with site_at(chart, folder, clock=clock.now, debounce="0.05s", catch_up_interval=every) as site:
            ledger = Ledger(site, folder)
            writer = PacedWriter(site, pace, ledger, *((FEW_BEHIND, 5) if server.tells else (0, 10)))
            started = time.monotonic()
            await Ward(stays, writer, clock).run()

            async def done() -> bool:
                return (await ledger.account()).open == 0 and await site.idle()

            await until(done, PATIENCE_S)
            return await _left_behind(site, ledger, writer.written, time.monotonic() - started)
    finally:
        await chart.close()


async def _left_behind(site: Site, ledger: Ledger, written: int, seconds: float) -> Replayed:
    status = await operations.status(site.sidecar.rooms.store)
    patients = [relative.partition("/")[2] for relative in ledger.versions if relative.startswith("Patient/")]
    results = [result for each in patients for result in await _results_of(site, each)]
    rested_on = {key_of(result): await site.rested_on(result) for result in results}
    cited = {r.versioned for basis in rested_on.values() for r in basis}
    cited |= {r["basis"][0]["reference"] for r in results if r["resourceType"] == "RiskAssessment"}
    account = await ledger.account()
    return Replayed(
        figures=await _figures(site, status, results, account) | {"resources": written, "seconds": round(seconds, 1)},
        account=account,
        events={row["state"]: row["n"] for row in await site.rows(EVENTS)},
        writes={row["how"]: row["n"] for row in await site.rows(WRITES)},
        effects=await _effects(site, patients, results[0]["resourceType"]),
        devices=await site.chart.all("Device?identifier=urn:ehr-sidecar:model-digest|"),
        results=results,
        rested_on=rested_on,
        there=await _look_up(site.chart, cited),
    )


async def _results_of(site: Site, patient_id: str) -> list[dict[str, Any]]:
    statement = await site.chart.read("metadata")
    if any(r["type"] == "RiskAssessment" for r in statement["rest"][0]["resource"]):
        found = await site.risk_assessments(patient_id)
        return [r for r in found if r["identifier"][0]["system"] == ASSESSMENT_SYSTEM]
    return await site.totals(patient_id)


async def _effects(site: Site, patients: Iterable[str], kind: str) -> int:
    """How many results of the ward's patients the sidecar says are there; the server holds other tests' patients, too."""
    column = {"RiskAssessment": "risk_assessment", "Observation": "observation"}[kind]
    ours = {site.sidecar.rooms.events.patient_key(PatientId(each)) for each in patients}
    return sum(row[column] is not None and row["patient_key"] in ours for row in await site.rows(EFFECTS))


async def _look_up(chart: Chart, references: Iterable[str]) -> dict[str, dict[str, Any] | None]:
    room = asyncio.Semaphore(8)

    async def look(reference: str) -> tuple[str, dict[str, Any] | None]:
        async with room:
            answer = await chart.get(reference)
            return reference, answer.json() if answer.status_code == 200 else None

    return dict(await asyncio.gather(*map(look, references)))


async def _figures(
    site: Site, status: dict[str, Any], results: list[dict[str, Any]], account: Account
) -> dict[str, Any]:
    outcomes = {row["outcome"]: row["n"] for row in status["assessments"]}
    sql = "SELECT 1000 * (settled_at - heard_at) AS ms FROM delivery WHERE state = 'written' ORDER BY ms"
    waits = [round(row["ms"]) for row in await site.rows(sql)]
    return {
        "server": site.chart.server.name,
        "versions": account.written,
        "heard": account.heard,
        "superseded": account.superseded,
        "lost": account.lost,
        "assessments": sum(outcomes.values()),
        "incomplete": outcomes.get("incomplete", 0),
        "not_scored": outcomes.get("not_scored", 0),
        "in_ehr": len(results),
        "duplicates": len(results) - len({key_of(result) for result in results}),
        "writes": status["writes"],
        "event_to_write_p50_ms": waits[len(waits) // 2],
        "event_to_write_p99_ms": waits[int(len(waits) * 0.99)],
    }
