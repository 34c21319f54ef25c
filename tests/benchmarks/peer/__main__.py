"""The nearest peer on the same job, side by side: `python -m tests.benchmarks.peer`.

The same bytes of the same Bundles go in on both sides, the same graph is run, and a RiskAssessment comes out as JSON.
Each side is a process of its own, with its own interpreter and packages; they take turns, and the CPU of the process is
what is compared, round by round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Self

from tests.benchmarks.peer import bundles, model
from tests.peers import peer

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[2]
PASSES = {"ours": 5, "peer": 1}
"""How often each side goes through the Bundles in a round, so that both work about as long."""
GOAL = 0.2
TOLERANCE = 1e-6


class Side:
    """One side's process. Ends with the block."""

    def __init__(self, command: list[str | Path]) -> None:
        self._process = subprocess.Popen(
            command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, word: str | int):
        """What the side answers; see `rounds.serve`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"a side ended with {self._process.wait()}")
        return json.loads(answer)


def compare(raw: list[bytes], rounds: int) -> dict[str, object]:
    """Run both sides on `raw`, alternating. Ends the program if they do not say the same of every patient they score."""
    theirs_python = peer.programs(HERE) / "python"
    with tempfile.TemporaryDirectory() as scratch:
        folder = model.write(Path(scratch))
        file = Path(scratch) / "bundles.ndjson"
        file.write_bytes(b"\n".join(raw))
        with (
            Side([sys.executable, "-m", "tests.benchmarks.peer.ours", file, folder]) as ours,
            Side([theirs_python, HERE / "theirs.py", file, folder / "model.onnx"]) as theirs,
        ):
            scored, unlike = agreement(ours.ask("warm"), theirs.ask("warm"))
            if unlike:
                raise SystemExit(f"{unlike} of {len(raw)} patients have another probability on the other side")
            cpu: dict[str, list[float]] = {"ours": [], "peer": []}
            for number in range(rounds):
                for name in ("ours", "peer") if number % 2 == 0 else ("peer", "ours"):
                    cpu[name].append({"ours": ours, "peer": theirs}[name].ask(PASSES[name]))
    return _figures(cpu) | {"rounds": rounds, "patients": len(raw), "scored": scored, "bytes": len(raw[0])}


def agreement(ours: list[float | None], theirs: list[float | None]) -> tuple[int, int]:
    """How many patients we gave a probability, and how many of these the peer gave another."""
    both = [(mine, other) for mine, other in zip(ours, theirs, strict=True) if mine is not None]
    return len(both), sum(other is None or not abs(mine - other) <= TOLERANCE for mine, other in both)


def _figures(cpu: dict[str, list[float]]) -> dict[str, object]:
    ratios = [mine / other for mine, other in zip(cpu["ours"], cpu["peer"], strict=True)]
    return {
        "same_job_cpu_ratio": round(statistics.median(ratios), 4),
        "range": [round(min(ratios), 4), round(max(ratios), 4)],
        "ours_cpu_us": round(statistics.median(cpu["ours"]), 1),
        "peer_cpu_us": round(statistics.median(cpu["peer"]), 1),
    }


def main() -> int:
    """Print the figures; 0 when the goal is met."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peer", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bundles", type=Path, help="other Bundles, one a line, instead of generated ones")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    raw = (
        options.bundles.read_bytes().splitlines()
        if options.bundles
        else bundles.bundles(options.patients, options.seed)
    )
    found = compare(raw, options.rounds) | {
        "seed": options.seed,
        "peer": _locked(),
        "onnxruntime": version("onnxruntime"),
    }
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write("".join(f"{name:20} {value}\n" for name, value in found.items()))
    return 0 if float(str(found["same_job_cpu_ratio"])) <= GOAL else 1


def _locked() -> str:
    lines = (HERE / "requirements.in").read_text().splitlines()
    return next(line for line in lines if line.startswith("healthchain"))


if __name__ == "__main__":
    sys.exit(main())
