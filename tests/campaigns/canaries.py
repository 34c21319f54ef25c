"""Plant values at every place of a chart, run them through a real server with errors of all kinds, and find none again.

`python -m tests.campaigns.canaries --runs 4 --bundles 250 [--engine postgres] [--seed N] [--state FILE] [--json]`; exit
code 0 only if nothing was found. Each run has an EHR full of planted values (`planted_ehr`), a database and a `sidecar
serve` of its own.

Searched, in the seven encodings of `leaks`: every file of the database, its log while it is written and a backup; every
table as it is; what was stored of features, results and explanations, that of sealed columns opened; the log; /metrics;
every answer of every door; what the commands print, extracts by the Safe Harbor rules among it.

Not searched, because it must hold identity: what is sent to the EHR (whose patient it is), and what the sealed columns
hold beside the results. The latter is opened all the same: the search must find every patient there, or it proves
nothing. Codes, numbers and times of readings that a model reads are not planted; the ids of our own Subscriptions and
Devices are the EHR's names for what is ours.
"""

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import httpx
import msgspec
import orjson

from sidecar.app import shipped
from sidecar.evidence import Archive
from sidecar.records import Stored
from sidecar.settings import admin_socket, load
from sidecar.store import Statement, Store, load_keys, open_store
from tests.campaigns.labels import closed_sets, strange
from tests.campaigns.leaks import Canary, Hit, Searcher, as_json
from tests.campaigns.planted_chart import Chart, Resource, chart
from tests.campaigns.planted_ehr import PlantedEhr
from tests.campaigns.planted_store import ENGINES, Database
from tests.campaigns.runs import MAX_PROBLEMS, Found, Row, Run, arguments, carry_out
from tests.campaigns.telling import Teller
from tests.harness import Served, spawn, until, write_site
from tests.ports import free_port

FAULTS, MISUSES, MOST_SERIES = 0.04, 3, 2000
READY_S, SETTLE_S, LOCKED_S = 60.0, 240.0, 6.5
PROMOTED = 'version = "1.0.0"\npromoted_by = "tests"\npromoted_because = "tests"\ndebounce = "0.05s"\nmax_wait = "0.5s"'
SITE = {
    "models__news2": PROMOTED,
    "models__kfre_4var": PROMOTED + '\nchoices = { region = "other" }',
    "server": 'max_body_bytes = 131072\nadmin_socket = "admin"',
    "subscriptions": 'topics.observation = "http://ehr.example/topic"',
    "work": 'catch_up_interval = "2s"\nreview_interval = "5s"\nlease = "10s"\nmax_attempts = 4',
}
COMMANDS = (
    ("status",), ("status", "--json"), ("dead-letters",), ("dead-letters", "--json"), ("replay", "--all"),
)  # fmt: skip

REGION = ("--choice", "region=other")
EXTRACTS = (
    ("deid", "files", "-", "--mode", "safe_harbor_rules"),
    ("deid", "files", "-", "--mode", "safe_harbor_rules", "--diff"),
    ("deid", "files", "-", "--mode", "keyed_pseudonyms", "--report", "--html"),
    ("deid", "rules"),
)
"""Of the other modes only the report: their extracts keep dates, as they are or moved, and two dates are soon one."""
MEASURED = frozenset({"Observation (unread).valueQuantity.value"})
"""A measured value is what an extract is made for."""


class Scene:
    """One EHR, one server, one seed."""

    def __init__(self, run: Run, bundles: int, module: str, engine: str) -> None:
        self._run, self._bundles, self._module = run, bundles, module
        # One that leaks on purpose needs no trouble to be caught.
        self._troubled = module == "sidecar"
        self._database: Database = ENGINES[engine](run.folder)
        self._rng = random.Random(run.seed)
        self._ehr = PlantedEhr(run.seed, FAULTS)
        self._charts: list[Chart] = []
        self._logs_of_database: list[bytes] = []
        self._scrapes: list[str] = []
        self._printed: list[bytes] = []
        self._extracts: list[bytes] = []
        self._at = datetime.now(UTC).replace(microsecond=0)

    async def play(self) -> Found:
        """Tell everything, let it come to rest, stop, search."""
        port = free_port()
        await self._ehr.start(port)
        store = f'url = "{self._database.url}"'
        self._config = write_site(self._run.folder, self._ehr.base_url, store=store, **SITE)
        served = spawn(self._config, self._module)
        self._teller = Teller(served.settings, self._run.seed)
        try:
            await until(lambda: len(set(self._ehr.subscribed)) == 4 or served.process.poll() is not None, READY_S)
            await self._tell_all(served)
            self._ehr.heal()
            await until(partial(self._idle, served), SETTLE_S)
            await self._look_round(served)
            ended = await asyncio.to_thread(served.terminate)
        finally:
            served.kill()
            await self._teller.close()
            await self._ehr.stop()
        return await asyncio.to_thread(self._judge, served, ended)

    def close(self) -> None:
        """Leave nothing behind."""
        self._database.close()

    async def _tell_all(self, served: Served) -> None:
        moments = sorted(self._rng.sample(range(self._bundles), min(MISUSES, max(self._bundles // 6, 1))))
        for number in range(self._bundles):
            told = chart(self._run.seed, number, self._at)
            self._charts.append(told)
            self._ehr.add(told)
            await self._teller.tell(told)
            if number in moments:
                await self._teller.misuse()
                await self._look(served)
            if number == moments[-1] and self._troubled:
                await self._locked_out()

    async def _look(self, served: Served) -> None:
        """What can only be seen while it runs."""
        self._scrapes.append(await self._teller.scrape())
        self._logs_of_database.append(await asyncio.to_thread(self._database.log))
        assert served.process.poll() is None, "the server ended"

    async def _locked_out(self) -> None:
        """Somebody else holds the database for longer than anybody waits: nothing can be stored."""
        await asyncio.gather(self._database.shut(LOCKED_S), *(self._teller.tell(c) for c in self._charts[-3:]))

    async def _idle(self, served: Served) -> bool:
        socket = str(admin_socket(served.settings))
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=socket), base_url="http://x", timeout=30
        ) as client:
            state = (await client.get("/status")).json()
        assert served.process.poll() is None, "the server ended"
        await asyncio.sleep(0.2)
        return not ({"pending", "routed"} & set(state["events"])) and "queued" not in state["writes"]

    async def _look_round(self, served: Served) -> None:
        """Metrics, commands with and without a server, and a backup."""
        await self._look(served)
        await asyncio.to_thread(self._database.back_up)
        for command in COMMANDS if self._troubled else COMMANDS[:1]:
            await asyncio.to_thread(self._command, *command, "--config", str(self._config))
        await until(partial(self._idle, served), SETTLE_S)

    def _command(self, *words: str, given: bytes = b"") -> None:
        self._printed += self._said_by(given, *words)

    def _said_by(self, given: bytes, *words: str) -> tuple[bytes, bytes]:
        command = [sys.executable, "-m", self._module, *words]
        done = subprocess.run(command, check=False, input=given, capture_output=True, timeout=200)
        return done.stdout, done.stderr

    def _commands_without_a_server(self) -> None:
        for command in COMMANDS[1:4:2]:
            self._command(*command, "--config", str(self._config))
        folder = shipped("models") / "news2" / "1.0.0"
        self._command("models", "check", str(folder), "--vectors", str(folder / "reference.json"))
        bundles = [_bundle(c.resources.values()) for c in self._charts[:20]]
        broken = [_bundle([*c.resources.values(), {"resourceType": "Observation"}]) for c in self._charts[:3]]
        given = b"\n".join(orjson.dumps(each) for each in (*bundles, *broken)) + b"\n{ broken \n"
        with ThreadPoolExecutor(2) as side_by_side:
            self._printed += side_by_side.map(partial(self._scored, given), (("news2",), ("kfre_4var", *REGION)))
            said = list(side_by_side.map(lambda words: self._said_by(given, *words), EXTRACTS))
        self._extracts += [text for both in said for text in both]

    def _scored(self, given: bytes, model: tuple[str, ...]) -> bytes:
        """What write-back would put into the chart names the patient, as it must; the rest must not."""
        out, rest = self._said_by(given, "score", "-", "--model", *model)
        lines = [orjson.loads(line) for line in out.splitlines()]
        return orjson.dumps([{n: v for n, v in line.items() if n != "resources"} for line in lines]) + rest

    def _judge(self, served: Served, ended: int) -> Found:
        """Search everything."""
        if self._troubled:
            self._commands_without_a_server()
        canaries = (
            [c for told in self._charts for c in told.canaries] + self._teller.planter.canaries + self._ehr.errors
        )
        searcher = Searcher(canaries)
        hits: set[Hit] = set()
        for place, data in self._places():
            hits |= searcher.search(place, data)
        opened, results = self._stored()
        hits |= searcher.search("features and results", results)
        hits |= {h for h in searcher.search("extracts", iter(self._extracts)) if h.path not in MEASURED}
        missed = self._not_found(opened)
        series, labels = self._labels(served)
        found = sorted({f"{h.place}: {h.path} ({h.encoding})" for h in hits})
        silent = self._troubled and not all(self._extracts[::2])
        missed += ["an extract is empty"] if silent else []
        problems = [*found, *missed, *labels, *([] if ended == 0 else [f"the server ended with {ended}"])]
        return {
            "ok": not problems, "problems": problems[:MAX_PROBLEMS], "where": sorted({f"{h.place}: {h.encoding}" for h in hits}),
            "bundles": len(self._charts), "values": len(canaries), "element_paths_max": len({c.path for c in canaries}),
            "written": len(self._ehr.written), "faults": dict(sorted(self._ehr.counts.items())),
            "answers": {str(n): c for n, c in sorted(self._teller.statuses.items())}, "series_max": series,
            "searched_mb": round(searcher.read_bytes / 1e6, 1), "leaks": len(found),
        }  # fmt: skip

    def _places(self) -> Iterator[tuple[str, bytes | Iterator[bytes]]]:
        """Everything but what is opened."""
        yield from self._database.places()
        yield "database log", iter(self._logs_of_database)
        yield "metrics", iter(s.encode() for s in self._scrapes)
        yield "answers", iter(self._teller.answers)
        yield "commands", iter(self._printed)

    def _stored(self) -> tuple[list[bytes], list[bytes]]:
        """Of every assessment: whom it is about, as it is sealed; and what a model saw and said, wherever that lies."""
        settings = load(self._config)
        store = open_store(settings.store.url)
        archive = Archive(store, load_keys(settings.store.key_file))
        try:
            kept = asyncio.run(_all_of(store, archive))
        finally:
            store.close()
        conclusions = [stored.conclusion for stored in kept if stored is not None]
        return [as_json(c.evidence.to_json()) for c in conclusions], [
            msgspec.json.encode(c.assessment) for c in conclusions
        ]

    def _not_found(self, opened: Sequence[bytes]) -> list[str]:
        """The search must find in the opened columns everyone who was assessed."""
        assessed = sorted({orjson.loads(each)["patient"] for each in opened})
        named = Searcher([Canary(f"patient {n}", who, who) for n, who in enumerate(assessed)])
        seen = {h.path for h in named.search("opened", iter(opened))}
        missed = len(assessed) - len(seen)
        few = len(assessed) < len(self._charts) / 2
        return [
            *([f"{missed} patients are not found where they are"] if missed else []),
            *([f"only {len(assessed)} patients were assessed"] if few else []),
        ]

    def _labels(self, served: Served) -> tuple[int, list[str]]:
        """How many series there are, and what of them is from no closed set."""
        sets = closed_sets(served.settings)
        series = sum(not line.startswith("#") for line in self._scrapes[-1].splitlines())
        problems = dict.fromkeys(problem for scrape in self._scrapes for problem in strange(scrape, sets))
        return series, [*problems, *([f"{series} series"] if series > MOST_SERIES else [])]


def _bundle(resources: Iterable[Resource]) -> Resource:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}


async def _all_of(store: Store, archive: Archive) -> list[Stored | None]:
    rows = await store.read(Statement("every_assessment", "SELECT id FROM assessment"))
    return [await archive.by_id(row["id"]) for row in rows]


async def one(run: Run, bundles: int = 250, module: str = "sidecar", engine: str = "sqlite") -> Found:
    """One server, `bundles` patients; `module` runs in place of `sidecar`."""
    scene = Scene(run, bundles, module, engine)
    try:
        return await scene.play()
    finally:
        await asyncio.to_thread(scene.close)


def main() -> int:
    """The command line."""
    parser = arguments("tests.campaigns.canaries", __doc__)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--bundles", type=int, default=250, help="patients, and so Bundles, a run")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="sqlite")
    options = parser.parse_args()
    row = Row("canaries", options.runs, {"bundles": options.bundles, "engine": options.engine})
    return carry_out(row, partial(one, bundles=options.bundles, engine=options.engine), options)


if __name__ == "__main__":
    sys.exit(main())
