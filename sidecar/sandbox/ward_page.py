"""The ward page over HTTP: one page, and a feed of what changed on it.

Rows are HTML made here by one template, for the first page and for every push alike; the script only puts them in
place, and without it the page is complete. It writes nothing to the EHR. No sign-in: the EHR listens on loopback.
What may be said of a patient is `ward_board`. https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import orjson
from aiohttp import web

from sidecar.sandbox.ehr import PracticeEhr
from sidecar.sandbox.ward_board import Row, Unscored, WardBoard, duration
from sidecar.sandbox.ward_chart import WardChart

__all__ = ["Unscored", "WardPage"]

PERIOD_S = 0.5
HEARTBEAT_S = 3.0
"""How long the feed is silent at most; the page calls itself not live after three times that."""
HEARTBEAT = b"event: beat\ndata: beat\n\n"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Board:
    """One state of the page: the header's texts by field, and the rows in order."""

    fields: Mapping[str, str]
    rows: tuple[Row, ...]


class WardPage:
    """The routes of the page. One per EHR; any number of readers."""

    def __init__(
        self,
        ehr: PracticeEhr,
        clock: Callable[[], datetime],
        unscored: Callable[[], Awaitable[Mapping[str, Unscored]]],
        progress: Callable[[], tuple[int, int]],
    ) -> None:
        """Show `ehr`. `clock` (aware) is ward time, `progress` gives events sent and in total."""
        self._ehr, self._clock, self._unscored, self._progress = ehr, clock, unscored, progress
        self._chart = WardChart(ehr)
        self._board = WardBoard(self._chart)
        loader = jinja2.FileSystemLoader(_TEMPLATES)
        environment = jinja2.Environment(
            loader=loader,
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._template = environment.get_template("ward.html")
        self._made: dict[str, tuple[Row, str]] = {}

    def mount(self) -> None:
        """Add the routes to the EHR; before `ehr.start()`."""
        for path in ("/", "/ward"):
            self._ehr.add_page(path, self._page)
        self._ehr.add_page("/ward/ward.css", _file("ward.css", "text/css"))
        self._ehr.add_page("/ward/ward.js", _file("ward.js", "text/javascript"))
        self._ehr.add_page("/ward/state.json", self._state)
        self._ehr.add_page("/ward/feed", self._feed)

    async def _page(self, _request: web.Request) -> web.Response:
        board = await self._now()
        html = self._template.render(fields=board.fields, rows=board.rows)
        return web.Response(text=html, content_type="text/html", charset="utf-8", headers=HEADERS)

    async def _state(self, _request: web.Request) -> web.Response:
        body = orjson.dumps(self._as_json(await self._now()))
        return web.Response(body=body, content_type="application/json", headers=HEADERS)

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        """Send the state, then every change of it, at most one in `PERIOD_S`, until the reader leaves."""
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        loop = asyncio.get_running_loop()
        sent: dict[str, str] = {}
        last: Board | None = None
        spoke_at = loop.time()
        with suppress(ConnectionResetError):
            await response.write(b"retry: 2000\n\n")
            while request.transport is not None:
                board = await self._now()
                if board != last or loop.time() - spoke_at >= HEARTBEAT_S:
                    message = HEARTBEAT if board == last else self._event(board, sent)
                    await response.write(message)
                    last, spoke_at = board, loop.time()
                await asyncio.sleep(PERIOD_S)
        return response

    async def _now(self) -> Board:
        """Take stock: catch up with the EHR and decide what may be said of everyone at ward time."""
        unscored = await self._unscored()
        self._chart.catch_up()
        now = self._clock()
        rows = tuple(self._board.rows(now, unscored))
        return Board(self._fields(now, rows), rows)

    def _fields(self, now: datetime, rows: tuple[Row, ...]) -> dict[str, str]:
        sent, total = self._progress()
        latencies = [each.latency_s for each in self._chart.results.by_id.values() if each.latency_s is not None]
        here = [row.verdict for row in rows if row.stay == "admitted"]
        urgent = sum(each.level == 4 for each in here)
        return {
            "clock": f"{now:%H:%M}",
            "day": f"{now:%a} {now.day} {now:%b %Y}, {now:%Z}",
            "events": f"{sent:,} of {total:,}",
            "written": f"{self._chart.written:,}",
            "p50": duration(statistics.median(latencies)) if latencies else "none yet",
            "admitted": str(len(here)),
            "urgent": str(urgent),
            "medium": str(sum(each.band in {"medium", "low-medium"} for each in here)),
            "unknown": str(sum(each.kind != "total" for each in here)),
            "title": f"{f'({urgent}) ' if urgent else ''}Practice ward",
        }

    def _html(self, row: Row) -> str:
        """Render a row, or return what it was rendered to while it is still the same."""
        made = self._made.get(row.key)
        if made is None or made[0] != row:
            context = self._template.new_context({"row": row})
            made = self._made[row.key] = row, "".join(self._template.blocks["row"](context))
        return made[1]

    def _as_json(self, board: Board) -> dict[str, Any]:
        self._made = {row.key: self._made[row.key] for row in board.rows if row.key in self._made}
        return {"fields": board.fields, "rows": [self._entry(row) for row in board.rows]}

    def _entry(self, row: Row) -> dict[str, Any]:
        verdict = row.verdict
        return {
            "id": row.key,
            "bed": row.bed,
            "stay": row.stay,
            "kind": verdict.kind,
            "total": verdict.points if verdict.kind == "total" else None,
            "band": verdict.band,
            "says": verdict.says,
            "because": verdict.because,
            "urgent": verdict.urgent,
            "level": verdict.level,
            "announcement": row.announcement,
            "html": self._html(row),
        }

    def _event(self, board: Board, sent: dict[str, str]) -> bytes:
        """Write a state as an event; rows this reader has already come without their HTML."""
        state = self._as_json(board)
        for gone in sent.keys() - {entry["id"] for entry in state["rows"]}:
            del sent[gone]  # the reader drops it, too: who comes back is sent whole
        for entry in state["rows"]:
            if sent.get(entry["id"]) == entry["html"]:
                entry["html"] = None
            else:
                sent[entry["id"]] = entry["html"]
        return b"data: " + orjson.dumps(state) + b"\n\n"


def _file(name: str, content_type: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    body = (_TEMPLATES / name).read_bytes()

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=HEADERS)

    return answer
