"""`python -m tests.benchmarks [--only NAME] [--rounds 7] [--events 3000] [--seed N]`."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import model, sides, trial
from tests.benchmarks.ratios import ratio

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as scratch:
        graph = model.write(Path(scratch) / "models", asked.seed)
        found: dict[str, list[trial.Trial]] = {"yardstick": [], "sidecar": []}
        for number in range(asked.rounds):
            for side in (sides.yardstick, sides.sidecar):
                load = trial.Load(trial.distinct(asked.events))
                one = trial.run(side, load, graph, Path(scratch) / f"{number}-{side.__name__}")
                found[side.__name__].append(one)
                sys.stderr.write(f"round {number + 1} {side.__name__}: {one}\n")
        cpu = {name: [t.cpu_us_per_event for t in trials] for name, trials in found.items()}
        sys.stdout.write(f"cpu_per_event_ratio {ratio(cpu['sidecar'], cpu['yardstick']).words}\n")
