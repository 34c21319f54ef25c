"""The scenarios: what is measured under which name, in alternating rounds of both sides."""

import contextlib
import itertools
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tests import postgres
from tests.benchmarks import cpu, sides, trial
from tests.benchmarks.ratios import Ratio, alone, ratio
from tests.benchmarks.sides import ROOT, Refused, Side
from tests.benchmarks.trial import Load, Trial, distinct, steadily

MOST_REFUSED = 3
SLOW_PER_S = 50.0
SHARE_OF_SATURATION = 0.4
BURST, BURST_S, BURSTS_PER_S = 10, 0.2, 5.0
INSERTS = 5
"""Of the durable insert, for each event of the other scenarios: one is done in microseconds."""
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, its bar, and what lies behind it: for each side the rounds it was computed from."""

    name: str
    found: Ratio
    bar: str
    sides: Mapping[str, Sequence[Any]]
    remark: str = ""


@dataclass
class Bench:
    """What is asked for, and what this run knows so far."""

    scratch: Path
    graph: Path
    rounds: int
    events: int
    seed: int
    tell: Tell
    saturated: dict[str, list[Trial]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _folders: Iterator[int] = field(default_factory=itertools.count)

    def folder(self) -> Path:
        """A new name below the scratch folder."""
        return self.scratch / f"trial-{next(self._folders)}"

    def rng(self, round_: int) -> random.Random:
        """The same moments for both sides of a round."""
        return random.Random(f"{self.seed}/{round_}")

    def compare(self, name: str, plans: Mapping[str, tuple[Side, Callable[[int], Load]]]) -> dict[str, list[Trial]]:
        """Each side once a round, in turns that change places. A round that was refused is measured again, all of it.

        Raises:
            Refused: too many were.
        """
        found: dict[str, list[Trial]] = {side: [] for side in plans}
        left = MOST_REFUSED
        for number in range(self.rounds):
            while (together := self._round(name, number, plans)) is None:
                left -= 1
                if left <= 0:
                    raise Refused(f"{name}: {self.refused[-1]}")
            for side, one in together.items():
                found[side].append(one)
        return found

    def _round(
        self, name: str, number: int, plans: Mapping[str, tuple[Side, Callable[[int], Load]]]
    ) -> dict[str, Trial] | None:
        order = list(plans) if number % 2 == 0 else list(plans)[::-1]
        together = {}
        for which in order:
            side, load = plans[which]
            label = f"{name} {number + 1}/{self.rounds} {which}"
            try:
                one = trial.run(side, load(number), self.graph, self.folder())
            except Refused as refusal:
                self.refused.append(f"{label}: {refusal}")
                self.tell(f"{label}: refused: {refusal}")
                return None
            self.tell(f"{label}: {one.words}")
            together[which] = one
        return together


def both(bench: Bench, name: str, load: Callable[[int], Load]) -> dict[str, list[Trial]]:
    """The sidecar and the yardstick under one load."""
    return bench.compare(name, {"sidecar": (sides.sidecar, load), "yardstick": (sides.yardstick, load)})


def _ratio(trials: Mapping[str, Sequence[Trial]], figure: str) -> Ratio:
    """Of the first side to the second."""
    ours, theirs = ([getattr(t, figure) for t in side] for side in trials.values())
    return ratio(ours, theirs)


def saturated(bench: Bench) -> Iterator[Figure]:
    """As many as are acknowledged, each of another patient; the model reads 7 of the 15 codes in the chart."""
    bench.saturated = both(bench, "saturated", lambda _: Load(distinct(bench.events)))
    yield Figure("cpu_per_event_ratio", _ratio(bench.saturated, "cpu_us_per_event"), "<= 2.0", bench.saturated)


def all_used(bench: Bench) -> Iterator[Figure]:
    """The same with 50 readings that the model reads, so that asking for less saves nothing."""
    trials = both(bench, "saturated, all 50 used", lambda _: Load(distinct(bench.events), codes="used"))
    yield Figure("cpu_per_event_all_used_ratio", _ratio(trials, "cpu_us_per_event"), "", trials)


def slow(bench: Bench) -> Iterator[Figure]:
    """50 a second, whatever becomes of them: from the intended moment to the result in the chart."""

    def load(number: int) -> Load:
        return Load(distinct(bench.events), steadily(bench.events, SLOW_PER_S, bench.rng(number)))

    trials = both(bench, "50/s", load)
    remark = f"the sidecar's debounce of {trials['sidecar'][0].debounce_s:g} s is subtracted"
    yield Figure("p99_at_50_ratio", _ratio(trials, "latency_p99_ms"), "<= 3.0", trials, remark)


def acknowledged(bench: Bench) -> Iterator[Figure]:
    """Each side at 40 % of what it managed when saturated in this run: from sending to the acknowledgement."""
    if not bench.saturated:
        list(saturated(bench))
    rates = {
        side: SHARE_OF_SATURATION * median(t.events_per_s for t in trials) for side, trials in bench.saturated.items()
    }

    def load(side: str, number: int) -> Load:
        return Load(distinct(bench.events), steadily(bench.events, rates[side], bench.rng(number)))

    plans = {
        "sidecar": (sides.sidecar, partial(load, "sidecar")),
        "yardstick": (sides.yardstick, partial(load, "yardstick")),
    }
    trials = bench.compare("40 % of saturation", plans)
    remark = ", ".join(f"{side} at {rate:.0f}/s" for side, rate in rates.items())
    yield Figure("ack_p99_ratio", _ratio(trials, "ack_p99_ms"), "<= 2.0", trials, remark)


def burst(bench: Bench) -> Iterator[Figure]:
    """Ten notifications of a patient within 200 ms, of many patients; the chart changes with every look at it."""

    def load(number: int) -> Load:
        rng, moments = bench.rng(number), list[tuple[float, str]]()
        for b in range(max(1, bench.events // BURST)):
            begins = b / BURSTS_PER_S
            moments += [(begins + rng.uniform(0, BURST_S), f"p{b}") for _ in range(BURST)]
        moments.sort()
        return Load([who for _, who in moments], [at for at, _ in moments], restless=True)

    trials = both(bench, "bursts", load)
    found = alone([t.writes_per_event for t in trials["sidecar"]])
    yield Figure("burst_writes_per_event", found, "<= 0.3", trials)


def on_postgres(bench: Bench) -> Iterator[Figure]:
    """The sidecar on PostgreSQL beside itself on SQLite, saturated. The server's own CPU is told, not counted."""
    if (lacking := postgres.missing()) is not None:
        bench.skipped.append(f"postgres_cpu_ratio: {lacking}")
        return
    with sides.uninterrupted():
        cluster = postgres.Cluster()
    server: list[float] = []

    @contextlib.contextmanager
    def side(folder: Path, stub: sides.Stub, graph: Path) -> Iterator[sides.Running]:
        pid = int((cluster.folder / "data" / "postmaster.pid").read_text().split()[0])
        url, before = cluster.database(migrated=False), cpu.cpu_s(pid)
        with sides.sidecar(folder, stub, graph, store=url) as running:
            yield running
        server.append((cpu.cpu_s(pid) - before) / bench.events * 1e6)
        cluster.drop(url)

    def load(_: int) -> Load:
        return Load(distinct(bench.events))

    try:
        trials = bench.compare("databases", {"PostgreSQL": (side, load), "SQLite": (sides.sidecar, load)})
    finally:
        cluster.remove()
    found = _ratio(trials, "cpu_us_per_event")
    remark = f"the database server took {median(server):.0f} us/event beside"
    yield Figure("postgres_cpu_ratio", found, "<= 1.3", trials, remark)


def durable(bench: Bench) -> Iterator[Figure]:
    """Inserts alone, in a process a side and round."""
    found: dict[str, list[dict[str, float]]] = {"sidecar": [], "yardstick": []}
    for number in range(bench.rounds):
        order = ("sidecar", "yardstick") if number % 2 == 0 else ("yardstick", "sidecar")
        for side in order:
            one = _inserted({"sidecar": "record"}.get(side, side), INSERTS * bench.events, bench.folder())
            bench.tell(
                f"durable insert {number + 1}/{bench.rounds} {side}: {one['cpu_us_per_event']:.0f} us/event, "
                f"{one['events_per_s']:.0f}/s, p99 {one['p99_ms']:.1f} ms"
            )
            found[side].append(one)
    for name, key, bar in (
        ("durable_insert_cpu_ratio", "cpu_us_per_event", "<= 1.5"),
        ("durable_insert_rate_ratio", "events_per_s", ">= 0.7"),
    ):
        ours, theirs = ([one[key] for one in found[side]] for side in ("sidecar", "yardstick"))
        yield Figure(name, ratio(ours, theirs), bar, found)


def boundary(bench: Bench) -> Iterator[Figure]:
    """De-identification, labels and sealed evidence alone, beside a whole event of the yardstick."""
    if not bench.saturated:
        list(saturated(bench))
    found = []
    for number in range(bench.rounds):
        folder = bench.folder()
        shutil.copytree(bench.graph.parents[2], folder / "models")
        command = [sys.executable, "-m", "tests.benchmarks.boundary", str(bench.events), str(folder / "models")]
        done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, start_new_session=True)
        found.append(json.loads(done.stdout))
        said = ", ".join(f"{part} {us:.0f}" for part, us in found[-1].items())
        bench.tell(f"boundary {number + 1}/{bench.rounds}: {said} us")
    bare = [t.cpu_us_per_event for t in bench.saturated["yardstick"]]
    yield Figure(
        "deid_cpu_ratio", ratio([one["cpu_us_per_event"] for one in found], bare), "<= 0.3", {"sidecar": found}
    )


def _inserted(side: str, events: int, folder: Path) -> dict[str, float]:
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "tests.benchmarks.durable", side, str(events), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, start_new_session=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


Scenario = Callable[[Bench], Iterator[Figure]]
SCENARIOS: Mapping[str, Scenario] = {
    "saturated": saturated,
    "all-used": all_used,
    "at-50": slow,
    "ack": acknowledged,
    "durable": durable,
    "burst": burst,
    "postgres": on_postgres,
    "boundary": boundary,
}
