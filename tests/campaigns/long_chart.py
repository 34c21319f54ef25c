"""The benchmarks' EHR with charts that go back for years: `python -m tests.campaigns.long_chart PORT NOW SIZE`."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import uvloop

from tests.benchmarks import ehr, sides
from tests.benchmarks.payloads import Chart
from tests.benchmarks.sides import Stub
from tests.campaigns.plant import SIZE
from tests.ports import free_port

OLDER = timedelta(hours=30)


@dataclass(frozen=True)
class LongChart(Chart):
    """The newest `SIZE` readings are of the last day, as in any chart; one an hour before that."""

    def at(self, k: int) -> datetime:
        """When reading `k` was taken."""
        if k >= SIZE:
            return self.now - OLDER - (k - SIZE) * timedelta(hours=1)
        return Chart(self.now, SIZE, self.codes).at(k)

    def telling(self, event: int) -> int:
        """A reading of the last day."""
        return Chart(self.now, SIZE, self.codes).telling(event)


@contextlib.contextmanager
def long_ehr(folder: Path, chart: LongChart) -> Iterator[Stub]:
    """Start one."""
    port = free_port()
    command = ("tests.campaigns.long_chart", str(port), chart.now.isoformat(), str(chart.size))
    with sides.process(folder, "ehr", *command) as started:
        stub = Stub(started, f"http://127.0.0.1:{port}", chart)

        def answers() -> bool:
            with contextlib.suppress(OSError, httpx.HTTPError):
                return bool(stub.ask("stats"))
            return False

        started.wait_for(answers, "the EHR's start")
        yield stub


if __name__ == "__main__":
    at, moment, size = sys.argv[1:]
    uvloop.run(ehr.serve(int(at), LongChart(datetime.fromisoformat(moment), int(size))))
