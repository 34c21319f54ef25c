"""What a run found: a table for people, and `bench.json`."""

import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.scenarios import Bench, Figure

LIBRARIES = ("aiohttp", "asyncpg", "msgspec", "numpy", "onnxruntime", "orjson", "sqlalchemy", "uvloop")
ABSOLUTE = {
    "cpu_us_per_event": "CPU us/event",
    "events_per_s": "events/s",
    "ack_p99_ms": "ack p99 ms",
    "latency_p99_ms": "result p99 ms",
    "p99_ms": "p99 ms",
    "writes_per_event": "writes/event",
    "rss_mib": "RSS MiB",
}
"""Shown beside each figure, CPU first: the wall clock's depend on who else uses the machine."""


def as_json(bench: Bench, figures: Sequence[Figure]) -> dict[str, Any]:
    """Every figure by its name at the top, and beside them ranges, rounds, absolute figures and versions."""
    return {
        **{f.name: round(f.found.median, 4) for f in figures},
        "range": {f.name: [round(f.found.low, 4), round(f.found.high, 4)] for f in figures},
        "rounds": {f.name: [round(r, 4) for r in f.found.rounds] for f in figures},
        "must_hold": {f.name: f.bar for f in figures if f.bar},
        "absolute": {f.name: {side: medians(rounds) for side, rounds in f.sides.items()} for f in figures},
        "remarks": {f.name: f.remark for f in figures if f.remark},
        "refused": bench.refused,
        "skipped": bench.skipped,
        "failed": bench.failed,
        "asked": {"rounds": bench.rounds, "events": bench.events, "seed": bench.seed},
        "versions": versions(),
    }


def medians(rounds: Sequence[Any]) -> dict[str, Any]:
    """The median of each absolute figure over the rounds of a side; the largest memory."""
    plain = [asdict(one) if is_dataclass(one) and not isinstance(one, type) else one for one in rounds]
    found: dict[str, Any] = {
        name: round(median(one[name] for one in plain), 3) for name, value in plain[0].items() if _is_number(value)
    }
    kinds = sorted({kind for one in plain for kind in one.get("requests_per_event", {})})
    if kinds:
        requests = [one["requests_per_event"] for one in plain]
        found["requests_per_event"] = {kind: round(median(r.get(kind, 0.0) for r in requests), 3) for kind in kinds}
    return found


def versions() -> dict[str, str]:
    """What was measured, and on what."""
    return {
        "python": platform.python_version(),
        "sidecar": version("ehr-sidecar"),
        **{name: version(name) for name in LIBRARIES},
        "sqlite": sqlite3.sqlite_version,
        "kernel": platform.release(),
        "cpus": str(os.cpu_count()),
    }


def show(bench: Bench, figures: Sequence[Figure]) -> None:
    """Tables on stdout: the ratios, the absolute figures, and what each side asked the EHR for."""
    console = Console(width=130)
    ratios = Table("figure", "median (range)", "must hold", "remark", title=f"{bench.rounds} rounds")
    absolute = Table("figure", "side", *ABSOLUTE.values(), title="medians of the rounds")
    asked = Table("figure", "side", "requests to the EHR per event")
    for figure in figures:
        ratios.add_row(figure.name, figure.found.words, figure.bar, figure.remark)
        for side, rounds in figure.sides.items():
            found = medians(rounds)
            shown = [f"{found[name]:.4g}" if name in found else "" for name in ABSOLUTE]
            absolute.add_row(figure.name, side, *shown)
            if "requests_per_event" in found:
                kinds = found["requests_per_event"]
                each = ", ".join(f"{n:.2f} {kind}" for kind, n in kinds.items())
                asked.add_row(figure.name, side, f"{sum(kinds.values()):.2f}: {each}")
    for table in (ratios, absolute, asked):
        if table.row_count:
            console.print(table)
    told = {"skipped": bench.skipped, "refused": bench.refused, "not measured": bench.failed}
    for line in (f"{what}: {one}" for what, all_ in told.items() for one in all_):
        console.print(line, highlight=False)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
