"""The admin door: a Unix socket that only the server's own user can open. The command line speaks through it."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from sidecar import operations
from sidecar.store import Store

Says = Mapping[str, Callable[[], Mapping[str, Any]]]


def admin_app(store: Store, wake: Callable[[], None], says: Says) -> web.Application:
    """`wake` sets the pumps going after a replay; `says` are parts of the status that only this process knows."""

    def answer(body: object) -> web.Response:
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def status(_: web.Request) -> web.Response:
        return answer(await operations.status(store) | {part: say() for part, say in says.items()})

    async def dead_letters(_: web.Request) -> web.Response:
        return answer(await operations.dead_letters(store))

    async def replay(request: web.Request) -> web.Response:
        count = await operations.replay(store, request.query.get("id"))
        wake()
        return answer({"replayed": count})

    app = web.Application()
    app.router.add_get("/status", status)
    app.router.add_get("/dead-letters", dead_letters)
    app.router.add_post("/replay", replay)
    return app
