"""`python -m tests.benchmarks [--rounds 7] [--events 3000] [--only NAME] [--seed N] [--quick] [--json bench.json]`.

Measures the sidecar as shipped beside the least that does the same job, in alternating rounds, and writes the table to
stdout, progress to stderr and everything to `bench.json`. `python -m tests.benchmarks yardstick --bare SCRIPT` compares
our yardstick with another one, given by its script and its graph. Ctrl-C ends every process that was started.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType

from tests.benchmarks import model, report, sides
from tests.benchmarks.ratios import ratio
from tests.benchmarks.scenarios import SCENARIOS, Bench, Figure, Scenario
from tests.benchmarks.sides import Refused, Side
from tests.benchmarks.trial import Load, distinct

ROUNDS, EVENTS = 7, 3_000
QUICK_ROUNDS, QUICK_EVENTS = 1, 60


def _asked(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").splitlines()[2])
    parser.add_argument("what", nargs="?", choices=["yardstick"], help="compare the yardstick with another one instead")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--events", type=int, default=EVENTS, help="notifications a side and round")
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), help="this scenario; may be repeated")
    parser.add_argument("--seed", type=int, default=None, help="of the graph and of the moments; printed")
    parser.add_argument("--quick", action="store_true", help="one small round each: does it work at all?")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    parser.add_argument("--bare", type=Path, help="script of another yardstick, with gbm.onnx beside it")
    asked = parser.parse_args(arguments)
    if asked.what == "yardstick" and asked.bare is None:
        parser.error("yardstick needs --bare SCRIPT")
    if asked.rounds < 1 or asked.events < 1:
        parser.error("at least one round of one event")
    return asked


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 0 when every figure was measured, or skipped for want of a peer."""
    asked = _asked(arguments)
    seed = random.SystemRandom().randrange(2**32) if asked.seed is None else asked.seed
    _tell(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as scratch:
        bench = Bench(
            scratch=Path(scratch),
            graph=model.write(Path(scratch) / "models", seed),
            rounds=QUICK_ROUNDS if asked.quick else asked.rounds,
            events=QUICK_EVENTS if asked.quick else asked.events,
            seed=seed,
            tell=_tell,
        )
        figures = _figures(bench, asked.only) if asked.what is None else _yardsticks(bench, asked.bare.resolve())
    report.show(bench, figures)
    if not asked.what:
        asked.json.write_text(json.dumps(report.as_json(bench, figures), indent=2) + "\n")
        _tell(f"written to {asked.json}")
    return 1 if bench.failed else 0


def _figures(bench: Bench, only: list[str] | None) -> list[Figure]:
    """Of every scenario asked for; one that is refused does not cost the others."""
    return [f for name in only or SCENARIOS for f in _measured(bench, SCENARIOS[name])]


def _yardsticks(bench: Bench, script: Path) -> list[Figure]:
    """Our yardstick beside another one: the same graph, charts, notifications and EHR."""
    bench.graph = script.with_name("gbm.onnx")
    return _measured(bench, partial(_yardstick_ratio, sides.bare(script)))


def _measured(bench: Bench, scenario: Scenario) -> list[Figure]:
    figures: list[Figure] = []
    try:
        figures += scenario(bench)
    except Refused as refusal:
        bench.failed.append(str(refusal))
    return figures


def _yardstick_ratio(other: Side, bench: Bench) -> Iterator[Figure]:
    plans = {"ours": sides.yardstick, "theirs": other}
    trials = bench.compare(
        "yardsticks", {name: (side, lambda _: Load(distinct(bench.events))) for name, side in plans.items()}
    )
    cpu = {name: [t.cpu_us_per_event for t in found] for name, found in trials.items()}
    yield Figure("yardstick_cpu_ratio", ratio(cpu["ours"], cpu["theirs"]), "0.85 to 1.15", trials)


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _stop(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        _tell("stopped; every process has ended and nothing was written")
        sys.exit(130)
