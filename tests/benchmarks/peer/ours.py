"""Our side, a process that answers one line of JSON to each line it reads: see `rounds`.

The job is what `sidecar score` does with one Bundle, with every safeguard on: parse, is everything this patient's, what
was known, de-identify, cohort, staleness, plausibility, units, score, explain, render the RiskAssessment and its Device.
"""

from __future__ import annotations

import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import orjson

from sidecar.app import running_model
from sidecar.commands.score import line_of
from sidecar.deid import load_rules
from sidecar.scoring import load_model
from sidecar.settings import ModelSettings
from tests.benchmarks.peer.rounds import serve


def main() -> None:
    bundles, folder = sys.argv[1:]
    model = running_model(load_model(Path(folder)), ModelSettings())
    rules, tz = load_rules(), ZoneInfo("UTC")
    (output,) = model.loaded.manifest.outputs

    def job(raw: bytes) -> float | None:
        said = line_of(orjson.loads(raw), model, rules, None, tz)
        orjson.dumps(said)
        return said["probabilities"].get(output.name)

    serve(Path(bundles), job)


if __name__ == "__main__":
    main()
