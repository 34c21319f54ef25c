"""Transitions while a ward is charted, over real processes: nothing is dropped, doubled, or written when it may not be."""

import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sidecar.commands.door import door
from sidecar.sandbox.ehr import PracticeEhr
from sidecar.settings import load
from tests.campaigns.runs import fresh_seed
from tests.campaigns.verdict import rows
from tests.harness import encounter, observation_set, patient, serve, until, write_site
from tests.postgres import new_database, skip_when_missing
from tests.versions import DECIDED, models, use

pytestmark = pytest.mark.timeout(400)
AGAIN = 0.4
"""Share of the sets that are of patients with a result."""
WITHIN_S = 1.0
"""In which a transition is in force everywhere."""


def charted(ehr: PracticeEhr) -> Counter[tuple[str, datetime]]:
    """How many results the chart holds of each patient's set."""
    risks = ehr.all("RiskAssessment")
    return Counter((r["subject"]["reference"][8:], datetime.fromisoformat(r["occurrenceDateTime"])) for r in risks)


@dataclass
class Load:
    """A ward that is charted until it is told to stop: sets of new patients, and later ones of those with a result.

    Of a patient who waits, only the newest set becomes a result; so nobody gets another before there is one.
    """

    ehr: PracticeEhr
    rng: random.Random
    moments: dict[str, datetime] = field(default_factory=dict)
    sets: set[tuple[str, datetime]] = field(default_factory=set)
    stopping: bool = False

    async def run(self) -> None:
        started = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
        number = 0
        while not self.stopping:
            number += 1
            who = await self._somebody(f"p{number}")
            self.moments[who] = at = started + timedelta(seconds=number)
            for resource in observation_set(who, at, c9279_1=self.rng.randint(12, 30)):
                await self.ehr.write(resource)
            self.sets.add((who, at))
            await asyncio.sleep(0.04)

    async def _somebody(self, new: str) -> str:
        known = [who for who, at in charted(self.ehr) if self.moments[who] == at] if self.rng.random() < AGAIN else []
        if known:
            return self.rng.choice(known)
        await self.ehr.write(patient(new))
        await self.ehr.write(encounter(new))
        return new


async def decide(config: Path, what: str, version: str | None = None, **more: Any) -> float:
    """Make a transition through the door; when it was done."""
    body = {"what": what, "model": "news2", "version": version, "override": "a test", **DECIDED, **more}

    def ask() -> Any:
        with door(load(config)) as asked:
            return asked("POST", "/models/transition", body)

    await asyncio.to_thread(ask)
    return time.time()


def written(ehr: PracticeEhr) -> list[float]:
    """When each version of each thing of ours was written."""
    ours = [(t, r["id"]) for t in ("RiskAssessment", "Observation", "Device") for r in ehr.all(t) if _is_ours(r)]
    return sorted(
        datetime.fromisoformat(version["meta"]["lastUpdated"]).timestamp()
        for type_name, logical_id in ours
        for version in ehr.history(type_name, logical_id)
    )


def _is_ours(resource: dict[str, Any]) -> bool:
    return resource["resourceType"] != "Observation" or "device" in resource


@contextlib.contextmanager
def servers(folder: Path, ehr: PracticeEhr, engine: str):
    """One process on a file, or two on one PostgreSQL; the settings of the first."""
    with contextlib.ExitStack() as stack:
        root = models(folder, "2.0.0", "3.0.0")
        store = ""
        if engine == "postgres":
            skip_when_missing()
            store = stack.enter_context(new_database())
        configs = []
        for number in range(2 if engine == "postgres" else 1):
            own = folder / f"server{number}"
            own.mkdir()
            keys = f'key_file = "{folder / "server0" / "keys.toml"}"'
            more = {"store": f'url = "{store}"\n{keys}'} if store else {}
            config = write_site(own, ehr.base_url, server='admin_socket = "door"', **more)
            use(config, root)
            configs.append(config)
            served = serve(config)
            stack.callback(served.kill)
        yield configs


async def settled(config: Path, ehr: PracticeEhr) -> None:
    await ehr.quiet(120)

    async def idle() -> bool:
        open_ = "SELECT 1 FROM event WHERE state IN ('pending', 'routed') UNION SELECT 1 FROM work "
        open_ += "UNION SELECT 1 FROM delivery WHERE state = 'queued'"
        return not await asyncio.to_thread(rows, config, open_)

    await until(idle, 120)


@dataclass
class Times:
    """When what was decided, and how many writes waited while none was allowed."""

    rolled_back: float
    stopped: float
    allowed: float
    waiting: int


async def transitions(config: Path) -> Times:
    """Every kind of transition, a second apart."""
    await decide(config, "shadow", "2.0.0")
    await asyncio.sleep(1)
    await decide(config, "promote", "2.0.0")
    await asyncio.sleep(1)
    await decide(config, "canary", "3.0.0", percent=30)
    await asyncio.sleep(1)
    await decide(config, "canary", "3.0.0", percent=70)
    await asyncio.sleep(1)
    await decide(config, "rollback")
    rolled_back = await decide(config, "rollback")
    await asyncio.sleep(2)
    stopped = await decide(config, "stop-writes")
    await asyncio.sleep(4)
    ((waiting,),) = await asyncio.to_thread(rows, config, "SELECT count(*) FROM delivery WHERE state = 'queued'")
    allowed = time.time()
    await decide(config, "allow-writes")
    await asyncio.sleep(1)
    await decide(config, "promote", "3.0.0")
    await asyncio.sleep(1)
    return Times(rolled_back, stopped, allowed, waiting)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_transitions_under_load_drop_and_double_nothing_and_are_in_force_within_a_second(tmp_path, engine):
    seed = fresh_seed()
    sys.stdout.write(f"SIDECAR_SEED={seed}\n")
    ehr = PracticeEhr()
    await ehr.start()
    with servers(tmp_path, ehr, engine) as configs:
        config = configs[0]
        ward = Load(ehr, random.Random(seed))
        charting = asyncio.create_task(ward.run())
        await until(lambda: len(charted(ehr)) > 10, 60)
        times = await transitions(config)
        ward.stopping = True
        await charting
        await settled(config, ehr)

        assert charted(ehr) == Counter(ward.sets)
        totals = Counter(
            (o["subject"]["reference"], o["effectiveDateTime"]) for o in ehr.all("Observation") if _is_ours(o)
        )
        assert totals.total() == len(ward.sets) == len(totals)
        for table in ("event", "delivery"):
            assert rows(config, f"SELECT reason FROM {table} WHERE state = 'buried'") == []
        ends = dict(rows(config, "SELECT coalesce(reason, state), count(*) FROM delivery GROUP BY 1"))
        assert ends.keys() <= {"written", "superseded", "version_withdrawn"}, ends
        sys.stdout.write(f"{engine}: {len(ward.sets)} sets; {ends}; {times.waiting} waited\n")

        assert times.waiting > 0
        when = written(ehr)
        assert [at for at in when if times.stopped + WITHIN_S < at < times.allowed] == []
        assert [at for at in when if at > times.allowed]
        sys.stdout.write(
            f"last write {max(a for a in when if a < times.allowed) - times.stopped:.3f} s after the stop\n"
        )

        digests = dict(rows(config, "SELECT digest, version FROM model_version WHERE name = 'news2'"))
        results = rows(config, "SELECT assessed_at, model_digest, arm FROM assessment WHERE model = 'news2'")
        assert {digests[d] for _, d, _ in results} == {"1.0.0", "2.0.0", "3.0.0"}
        late = {digests[d] for at, d, _ in results if times.rolled_back + WITHIN_S < at < times.allowed}
        assert late == {"1.0.0"}
        await as_the_log_says(config, results)
    await ehr.stop()


async def as_the_log_says(config: Path, results: list[tuple[Any, ...]]) -> None:
    """Each result names the version that was in its arm at its moment, or within the second before."""

    def which() -> list[Any]:
        with door(load(config)) as ask:
            moments = ((at, at - WITHIN_S) for at, _, _ in results)
            said = (datetime.fromtimestamp(m, UTC).isoformat() for pair in moments for m in pair)
            return [ask("POST", "/models/which", {"model": "news2", "at": at})["models"]["news2"] for at in said]

    stood = iter(await asyncio.to_thread(which))
    for _, digest, arm in results:
        then = [next(stood), next(stood)]
        assert digest in {s[arm]["digest"] for s in then if s[arm] is not None}
