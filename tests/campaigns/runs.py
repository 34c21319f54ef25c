"""What every campaign shares: a row of seeded runs that may be interrupted and gone on with, and one summary line.

A run has a seed of its own (the campaign's plus its number) and a folder of its own, so that it can be repeated alone.
With `--state FILE` each run that held is kept as one JSON line. The same campaign, started again with the same file and
seed, goes on from there; without a seed it takes that of the file. A run that failed is not kept, and so comes again.
Ctrl-C ends the runs under way, cleans up after them, and shows what was found so far.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.harness import Served, serve

Found = dict[str, Any]
"""What a run found: figures by name, `ok`, and the `problems` seen."""

MAX_PROBLEMS = 20
INTERRUPTED = 130
CLAIMS = frozenset({"lost", "duplicates", "wrong", "regressions", "buried", "leaks"})
"""Breaches, shown also when there were none."""
NOT_FIGURES = frozenset({"problems", "curve", "what"})


@dataclass(frozen=True)
class Run:
    """One run of a campaign."""

    number: int
    seed: int
    folder: Path


One = Callable[[Run], Awaitable[Found]]


@dataclass(frozen=True)
class Row:
    """So many runs of a campaign, `together` at once; `settings` are what must be the same to go on with a state file.

    Of what the runs found, by number, `across` says which claims about them together do not hold once all have ended, and
    `show` gives lines to print above the summary.
    """

    name: str
    runs: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    together: int = 1
    across: Callable[[Mapping[int, Found]], Sequence[str]] = lambda _: ()
    show: Callable[[Mapping[int, Found]], Sequence[str]] = lambda _: ()


class State:
    """Runs that held, one JSON line each. Without a path nothing is kept."""

    def __init__(self, path: Path | None, row: Row) -> None:
        self._path = path
        self._of = {"campaign": row.name, "settings": json.loads(json.dumps(dict(row.settings)))}

    def _lines(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if self._path is not None and self._path.exists():
            for line in self._path.read_text().splitlines():
                with contextlib.suppress(ValueError):  # the last one, cut by a kill
                    found.append(json.loads(line))
        return [line for line in found if {name: line.get(name) for name in self._of} == self._of]

    def seed(self) -> int | None:
        """The seed of the campaign that the file holds; None when it holds none."""
        lines = self._lines()
        return lines[-1]["seed"] if lines else None

    def kept(self, seed: int) -> dict[int, Found]:
        """What the runs with this seed found, by number."""
        return {line["run"]: line["found"] for line in self._lines() if line["seed"] == seed}

    def keep(self, seed: int, number: int, found: Found) -> None:
        """Add a run."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
            with self._path.open("a") as file:
                line = {**self._of, "seed": seed, "run": number, "found": found}
                file.write(("\n" if torn else "") + json.dumps(line) + "\n")


def fresh_seed() -> int:
    """`SIDECAR_SEED`, else a new one."""
    return int(os.environ.get("SIDECAR_SEED") or int.from_bytes(os.urandom(4)))


def arguments(module: str, about: str | None) -> argparse.ArgumentParser:
    """A command line with what all campaigns take."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=(about or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=None, help="repeat a campaign; default: SIDECAR_SEED, else random")
    parser.add_argument("--json", action="store_true", help="every figure, as JSON")
    parser.add_argument("--state", type=Path, default=None, help="keep runs that held here, and go on from there")
    return parser


def carry_out(row: Row, one: One, options: argparse.Namespace) -> int:
    """Run what is still to be run, print what was found, and say by the exit code whether every claim held."""
    state = State(options.state, row)
    given = options.seed is not None or "SIDECAR_SEED" in os.environ
    known = None if given else state.seed()
    seed = options.seed if options.seed is not None else fresh_seed() if known is None else known
    done = {number: found for number, found in state.kept(seed).items() if number < row.runs}
    interrupted = False
    try:
        asyncio.run(_go(row, one, _Progress(row, seed, state, done)))
    except KeyboardInterrupt:
        interrupted = True
    found = merged([done[number] for number in sorted(done)])
    breaches = row.across(done) if len(done) == row.runs and all(each["ok"] for each in done.values()) else ()
    found["problems"] = [*found.get("problems", ()), *breaches]
    ok = not breaches and all(each["ok"] for each in done.values())
    if options.json:
        runs = [{"run": number, **done[number]} for number in sorted(done)]
        whole = {"campaign": row.name, "seed": seed, **row.settings, **found, "ok": ok, "interrupted": interrupted}
        sys.stdout.write(json.dumps({**whole, "runs": runs}, indent=2) + "\n")
    else:
        lines = [*row.show(done), *found["problems"], _summary(row, seed, done, found)]
        sys.stdout.writelines(f"{line}\n" for line in lines)
    return INTERRUPTED if interrupted else 0 if ok else 1


def _summary(row: Row, seed: int, done: Mapping[int, Found], found: Found) -> str:
    failed = sum(not each["ok"] for each in done.values())
    whole = "FAILED" if found["problems"] else "held" if len(done) == row.runs else "so far held"
    verdict = f"{failed} FAILED" if failed else whole
    figures = ", ".join(
        f"{name} {value}" for name, value in found.items() if name in CLAIMS or (value and name not in NOT_FIGURES)
    )
    return f"{row.name}: {verdict}, {len(done)} of {row.runs} runs, seed {seed}; {figures}"


@dataclass
class _Progress:
    """What was found so far, by number."""

    row: Row
    seed: int
    state: State
    done: dict[int, Found]
    started: float = field(default_factory=time.monotonic)

    def add(self, number: int, found: Found) -> None:
        self.done[number] = found
        if found["ok"]:
            self.state.keep(self.seed, number, found)
        if sys.stderr.isatty():
            failed = sum(not each["ok"] for each in self.done.values())
            seconds = time.monotonic() - self.started
            sys.stderr.write(
                f"\r{self.row.name}: {len(self.done)}/{self.row.runs} runs, {failed} failed, {seconds:.0f} s "
            )
            sys.stderr.flush()


async def _go(row: Row, one: One, progress: _Progress) -> None:
    slots = asyncio.Semaphore(row.together)

    async def run(number: int) -> None:
        async with slots:
            with tempfile.TemporaryDirectory(prefix=f"{row.name}-campaign-") as folder:
                progress.add(number, await _judged(one, Run(number, progress.seed + number, Path(folder))))

    async with asyncio.TaskGroup() as group:
        for number in range(row.runs):
            if number not in progress.done:
                group.create_task(run(number))


async def _judged(one: One, run: Run) -> Found:
    """What the run found; one that did not come to its end failed, and the others go on."""
    started = time.monotonic()
    try:
        found = await one(run)
    except (AssertionError, OSError, TimeoutError) as error:
        found = {"ok": False, "problems": [f"did not come to its end: {type(error).__name__}: {error}"]}
    problems = [f"seed {run.seed}: {problem}" for problem in found.get("problems", ())]
    return {**found, "problems": problems, "seconds": round(time.monotonic() - started, 1)}


async def begun(config: Path) -> Served:
    """A server that is ready; when interrupted before it is, it is killed and not left behind."""
    starting = asyncio.create_task(asyncio.to_thread(serve, config))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(AssertionError):
            (await starting).kill()
        raise


def merged(runs: Sequence[Found]) -> Found:
    """Figures of several runs as one: `max` and `p50` in a name say how; other numbers are added up, words kept."""
    names = dict.fromkeys(name for run in runs for name in run if name not in {"ok", "seed"})
    return {name: _together(name, [run[name] for run in runs if name in run]) for name in names}


def _together(name: str, values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, dict):
        return merged(values)
    if isinstance(first, list):
        return [each for value in values for each in value][:MAX_PROBLEMS]
    if isinstance(first, str):
        return ", ".join(dict.fromkeys(values))
    parts = name.split("_")
    result = max(values) if "max" in parts else median(values) if "p50" in parts else sum(values)
    return round(result, 3) if isinstance(result, float) else result
