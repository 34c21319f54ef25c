"""What the two sides have in common: both import this file, so it needs nothing but the standard library."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path


def serve(bundles: Path, job: Callable[[bytes], float | None]) -> None:
    """Answer each line of standard input: "warm" with the probabilities, a number with the CPU of that many passes.

    One Bundle a line in `bundles`. The CPU is this process's, all its threads, in microseconds per Bundle.
    """
    raw = bundles.read_bytes().splitlines()
    for line in sys.stdin:
        word = line.strip()
        if word == "warm":
            answer: object = [job(each) for each in raw]
            gc.collect()
            gc.freeze()
        else:
            answer = _cpu_us(raw, job, int(word))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _cpu_us(raw: list[bytes], job: Callable[[bytes], float | None], passes: int) -> float:
    began = time.process_time()
    for _ in range(passes):
        for each in raw:
            job(each)
    return (time.process_time() - began) * 1e6 / (len(raw) * passes)
