"""Lose, repeat, reorder and delay notifications, restart the EHR with its counters reset, and prove: nothing is missed.

`python -m tests.campaigns.notifications --runs 300 [--seed N] [--together 4] [--state FILE] [--json]`; exit code 0 only if
every claim held. Each run has a seed of its own, a practice EHR with topic Subscriptions and one of the field's quirks, a small
ward, and a sidecar that searches by itself only where its EHR can give no other sign: one that does not count, or one
that restarts and may count past its old number before it is heard again. When all is quiet, `tests.campaigns.verdict`
compares the chart with what the readings say by a count of the points of its own.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import structlog

from sidecar.fhir.signing_keys import ALGORITHMS, new_signing_keys, rotate_signing_keys
from sidecar.records import Reference
from sidecar.sandbox.capability import Capabilities
from sidecar.sandbox.credentials import Credentials
from sidecar.sandbox.delivery import DeliveryPolicy
from sidecar.sandbox.ehr import PracticeEhr
from sidecar.sandbox.faults import Faults
from sidecar.sandbox.quirks import Backport
from sidecar.sandbox.topics import changed_topic
from tests.campaigns.charting import Ward
from tests.campaigns.runs import Found, Row, Run, arguments, carry_out
from tests.campaigns.verdict import Report, Verdict
from tests.harness import House, house, until

SOURCES = ("patient", "encounter", "observation", "condition")
SETTLE_S = 60.0
STEPS = 14
SMART = 'auth = "private_key_jwt"\nclient_id = "sidecar"\ncredential_file = "smart-keys.json"'
TELLING = (
    Backport(),
    Backport(status_request=False, names="camel"),
    Backport(references="relative", versioned_focus=True),
    Backport(status_resource="SubscriptionStatus", timestamp="valueDate"),
    Backport(events_operation=False, missing_operation=501),
    Backport(retention=2),
)
"""Servers that count: what they lose is found by numbers alone, without a search at intervals."""
SILENT = (
    Backport(counters="bundle"),
    Backport(handshake=False, heartbeat=False, status_operation=False, events_operation=False),
)
"""Servers whose losses nothing tells of: the search at intervals finds them."""


class Mishaps:
    """One ward, one EHR, one seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed, self._rng, self._folder = seed, random.Random(seed), folder
        self.counts: Counter[str] = Counter()
        self._telling = self._rng.random() < 0.5
        self._access = Credentials(client_id="sidecar", expires_in=self._rng.choice([2, 300]))
        self._keys = folder / "smart-keys.json"
        self._ehr = PracticeEhr(
            capabilities=Capabilities(backport=self._rng.choice(TELLING if self._telling else TELLING + SILENT)),
            delivery=DeliveryPolicy(second_s=0.2, backoff_s=0.05, give_up_after=3, reorder_hold_s=0.05),
            faults=Faults(rng=random.Random(self._rng.random()), late_s=0.3),
            credentials=self._access,
        )
        self._ward = Ward(self._ehr, random.Random(self._rng.random()), patients=3)

    async def go(self) -> Report:
        """Chart through every mishap, let all come to rest, and judge."""
        self._access.jwks = new_signing_keys(self._keys, self._rng.choice(ALGORITHMS)).public()
        interval = "1h" if self._telling else "1s"
        work = f'catch_up_interval = "{interval}"\ncatch_up_overlap = "5s"\nlease = "3s"'
        async with house(self._folder, self._ehr, subscriptions=self._topics(), work=work, ehr=SMART) as site:
            await self._ward.admit()
            self._roll()
            for _ in range(STEPS):
                await self._mishap()
                await self._ward.chart()
                await asyncio.sleep(self._rng.uniform(0, 0.25))
            ended = time.time()
            self._ehr.faults.clear()
            await self._rest(site, ended)
            report = Report(self._seed, 1, "topics", readings=self._ward.count)
            await self._all_heard(site, report)
        self.counts.update(self._ehr.faults.counts)
        Verdict(self._folder / "sidecar.toml", self._ward, report).give(set())
        report.risk_assessments = len(self._ehr.all("RiskAssessment"))
        return report

    def _topics(self) -> str:
        content = self._rng.choice(["empty", "id-only", "id-only", "full-resource"])
        lines = [f'topics.{name} = "{changed_topic(name.capitalize())}"' for name in SOURCES]
        return "\n".join([*lines, 'heartbeat = "1s"', f'content = "{content}"', 'life = "20s"'])

    def _roll(self) -> None:
        faults = self._ehr.faults
        faults.lose, faults.repeat = self._rng.uniform(0, 0.5), self._rng.uniform(0, 0.3)
        faults.reorder, faults.late = self._rng.uniform(0, 0.3), self._rng.uniform(0, 0.3)
        faults.twin = self._rng.uniform(0, 0.2)

    async def _mishap(self) -> None:
        """Sometimes something worse than a lost notification."""
        mishaps: dict[str, Callable[[], Awaitable[None]]] = {
            "restart": self._ehr.restart,
            "mute": self._toggle_mute,
            "off": lambda: self._end_one("off"),
            "in error": lambda: self._end_one("error"),
            "deleted": lambda: self._end_one(None),
            "down": self._down,
            "no reply": self._no_reply,
            "tokens expired": self._expire,
            "keys rotated": self._rotate,
        }
        if self._telling:
            del mishaps["restart"]
        if self._rng.random() < 0.4:
            name = self._rng.choice(list(mishaps))
            self.counts[name] += 1
            await mishaps[name]()

    async def _toggle_mute(self) -> None:
        self._ehr.faults.mute = not self._ehr.faults.mute

    async def _end_one(self, status: str | None) -> None:
        ours = [s for s in self._ehr.all("Subscription") if s["status"] == "active"]
        if ours and status is None:
            await self._ehr.remove("Subscription", self._rng.choice(ours)["id"])
        elif ours:
            await self._ehr.write(self._rng.choice(ours) | {"status": status}, validate=False)

    async def _down(self) -> None:
        self._ehr.faults.down = True
        await asyncio.sleep(self._rng.uniform(0.1, 0.5))
        self._ehr.faults.down = False

    async def _expire(self) -> None:
        self._access.expire_all()

    async def _rotate(self) -> None:
        """Another key signs, the EHR no longer takes those before, and every token is gone."""
        keys = rotate_signing_keys(self._keys, self._rng.choice(ALGORITHMS)).public()
        self._access.rotate({"keys": keys["keys"][:1]})
        self._access.expire_all()

    async def _no_reply(self) -> None:
        self._ehr.faults.drop_reply_next(only=self._rng.choice(["PUT RiskAssessment", "PUT Subscription"]))

    async def _rest(self, site: House, ended: float) -> None:
        """Until the Subscriptions are active and followed to their ends, and every event and write has ended."""

        left: list[str] = []

        async def over() -> bool:
            left[:] = await self._open(site, ended)
            return not left

        try:
            await site.ehr.quiet(SETTLE_S)
            await until(over, SETTLE_S)
            await until(over, SETTLE_S)
        except AssertionError:
            raise AssertionError("; ".join(left)) from None

    async def _open(self, site: House, ended: float) -> list[str]:
        """What has not come to rest."""
        found = []
        for state in await site.rows("SELECT * FROM subscription"):
            numbers, heard = orjson.loads(state["numbers"]), (state["heard_at"] or 0) > ended + 0.5
            followed = heard and numbers["hole_at"] is None and numbers["doubt"] is None
            if state["status"] != "active" or (self._telling and not followed):
                found.append(f"{state['source']} {state['status']} {state['reason']} heard={heard} {numbers}")
        found += [f"event {r}" for r in await site.rows(
            "SELECT source, state, attempts FROM event WHERE state IN ('pending', 'routed')")]  # fmt: skip
        found += [f"write {r}" for r in await site.rows("SELECT attempts FROM delivery WHERE state = 'queued'")]
        return found if self._telling or await self._searched(site, ended) else [*found, "not searched"]

    async def _searched(self, site: House, ended: float) -> bool:
        query = f"SELECT DISTINCT source FROM event WHERE reason = 'caught_up' AND heard_at > {ended + 0.5}"
        return len(await site.rows(query)) == len(SOURCES)

    async def _all_heard(self, site: House, report: Report) -> None:
        """An event of every reading, in its newest version, was heard."""
        heard = {row["focus_key"] for row in await site.rows("SELECT focus_key FROM event")}
        key = site.sidecar.rooms.archive.resource_key
        for who in self._ward.patients:
            for reading in self._ward.readings(who):
                known = key(Reference("Observation", reading["id"])) in heard
                report.saw("lost", not known, f"{reading['id']} was never heard of")


async def one(run: Run) -> Found:
    """One ward through all its mishaps."""
    mishaps = Mishaps(run.seed, run.folder)
    report = await mishaps.go()
    return {**report.found(), "faults": dict(sorted(mishaps.counts.items()))}


def main() -> int:
    """The command line."""
    parser = arguments("tests.campaigns.notifications", __doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--together", type=int, default=4, help="runs at once")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # the sidecars of this process say nothing
    return carry_out(Row("notifications", options.runs, together=options.together), one, options)


if __name__ == "__main__":
    sys.exit(main())
