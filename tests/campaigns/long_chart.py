"""The benchmarks' EHR with charts that go back for years: `python -m tests.campaigns.long_chart PORT NOW SIZE`."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

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
        return Chart(self.now, self.base, SIZE, self.codes).at(k)

    def telling(self, event: int) -> int:
        """A reading of the last day."""
        return Chart(self.now, self.base, SIZE, self.codes).telling(event)


@contextlib.contextmanager
def long_ehr(folder: Path, size: int) -> Iterator[Stub]:
    """Start an EHR whose patients have `size` readings, most of them old."""
    port, now = free_port(), datetime.now(UTC)
    command = ("-m", "tests.campaigns.long_chart", str(port), now.isoformat(), str(size))
    with sides.process(folder, "ehr", *command) as started:
        stub = Stub(started, f"http://127.0.0.1:{port}", _chart(port, now, size))

        def answers() -> bool:
            with contextlib.suppress(OSError):
                return bool(stub.ask("stats"))
            return False

        started.wait_for(answers, "the EHR's start")
        yield stub


def _chart(port: int, now: datetime, size: int) -> LongChart:
    return LongChart(now, f"http://127.0.0.1:{port}/fhir", size)


if __name__ == "__main__":
    number, moment, length = sys.argv[1:]
    chart = _chart(int(number), datetime.fromisoformat(moment), int(length))
    uvloop.run(ehr.serve(int(number), ehr.Ehr(chart, restless=False)))
