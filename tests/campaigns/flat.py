"""What an event costs as charts grow from 100 to 10,000 readings, and the store from 100 to 100,000 patients: the same.

`python -m tests.campaigns.flat [--longest 10000] [--patients 100000] [--plot FILE.svg] [--seed N] [--state FILE] [--json]`;
exit code 0 only if every claim held. The figure is the server's CPU for an event at saturation: the median of `PIECES`
pieces, with the least and the most. Each length of charts is a run with a server of its own; the patients of the store
are all events of one server, which wrote each one's result.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from tests.campaigns.long_chart import long_ehr
from tests.campaigns.plant import cpu_per_event, plant, rss_mib
from tests.campaigns.plot import Line, draw
from tests.campaigns.runs import Found, Row, Run, arguments, carry_out

LENGTHS, STORES = (100, 300, 1000, 3000, 10_000), (100, 1000, 10_000, 30_000, 100_000)
WARM_UP, PIECES = 300, 5
FLAT = 1.25
"""The most that the dearest may cost of the cheapest: CPU figures of one program differ by some 15 % on a busy machine."""


async def chart_of(run: Run, length: int, events: int) -> Found:
    """What an event costs where every patient's chart has so many readings."""
    with long_ehr(run.folder, length) as stub, plant(run.folder, run.seed, stub) as there:
        await there.feed(min(WARM_UP, events))
        before = (await there.stats())["requests"]
        costs = await cpu_per_event(there, events, PIECES)
        after = (await there.stats())["requests"]
        asked = (sum(after.values()) - sum(before.values())) / events / PIECES
        return _judged("readings in the chart", [[length, median(costs), costs[0], costs[-1], round(asked, 2)]])


async def store_of(run: Run, sizes: list[int], events: int) -> Found:
    """What an event costs as the store fills."""
    rows: list[list[float]] = []
    with plant(run.folder, run.seed) as there:
        for size in sizes:
            await there.feed(max(1, size - there.told))
            costs = await cpu_per_event(there, events, PIECES)
            rows.append([size, median(costs), costs[0], costs[-1], rss_mib(there.running)])
        found = _judged("patients in the store", rows)
        lost = await there.lost()
    return found | {"lost": lost, "ok": not lost}


def _judged(what: str, rows: list[list[float]]) -> Found:
    return {"what": what, "curve": rows, "problems": [], "ok": True}


def curves(done: Mapping[int, Found]) -> dict[str, list[list[float]]]:
    """The rows of all runs by what grew, smallest first."""
    found: dict[str, list[list[float]]] = {}
    for each in done.values():
        if "what" in each:
            found.setdefault(each["what"], []).extend(each["curve"])
    return {what: sorted(rows) for what, rows in found.items()}


def steep(done: Mapping[int, Found]) -> list[str]:
    """Curves that are not flat."""
    found = []
    for what, rows in curves(done).items():
        ratio = max(row[1] for row in rows) / min(row[1] for row in rows)
        if ratio > FLAT:
            found.append(f"the dearest event costs {ratio:.2f} times the cheapest, by {what}")
    return found


def lines(done: Mapping[int, Found]) -> list[str]:
    """Both curves as tables."""
    shown = []
    for what, rows in curves(done).items():
        last = "requests/event" if what.startswith("readings") else "RSS MiB"
        shown.append(f"{what}: CPU us/event (median, least, most), {last}")
        shown += ["".join(f"{value:>10}" for value in row) for row in rows]
        shown.append(f"  dearest / cheapest {max(r[1] for r in rows) / min(r[1] for r in rows):.3f}")
    return shown


def plot(done: Mapping[int, Found], file: Path) -> None:
    """Both curves as one picture."""
    drawn = [
        Line(what, [(row[0], row[1] / 1e3, row[2] / 1e3, row[3] / 1e3) for row in rows])
        for what, rows in curves(done).items()
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(draw("CPU per event", "ms", drawn))


def main() -> int:
    """The command line."""
    parser = arguments("tests.campaigns.flat", __doc__)
    parser.add_argument("--longest", type=int, default=LENGTHS[-1], help="readings in a chart")
    parser.add_argument("--patients", type=int, default=STORES[-1], help="in the store")
    parser.add_argument("--events", type=int, default=600, help="in each piece that is measured")
    parser.add_argument("--plot", type=Path, default=None, help="draw the curves into this SVG file")
    options = parser.parse_args()
    lengths = [n for n in LENGTHS if n <= options.longest]
    stores = [n for n in STORES if n <= options.patients]

    async def one(run: Run) -> Found:
        if run.number < len(lengths):
            return await chart_of(run, lengths[run.number], options.events)
        return await store_of(run, stores, options.events)

    def show(done: Mapping[int, Found]) -> list[str]:
        if options.plot is not None:
            plot(done, options.plot)
        return lines(done)

    settings = {"lengths": lengths, "stores": stores, "events": options.events}
    return carry_out(Row("flat", len(lengths) + 1, settings, across=steep, show=show), one, options)


if __name__ == "__main__":
    sys.exit(main())
