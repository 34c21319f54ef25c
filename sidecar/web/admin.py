"""The admin door: a Unix socket that only the server's own user can open. The command line speaks through it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from sidecar import operations
from sidecar.errors import Misconfigured
from sidecar.operations import Verb
from sidecar.store import Store

Says = Mapping[str, Callable[[], Mapping[str, Any]]]


def admin_app(store: Store, wake: Callable[[], None], says: Says, verbs: Mapping[str, Verb]) -> web.Application:
    """`wake` sets the pumps going after a replay; `says` are parts of the status that only this process knows.

    `verbs` are asked for by path; what one refuses is answered 409 with every problem.
    """

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

    def asked(verb: Verb) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def run(request: web.Request) -> web.Response:
            try:
                return answer(await verb(orjson.loads(await request.read())))
            except Misconfigured as refusal:
                return web.Response(status=409, body=orjson.dumps({"problems": refusal.problems}))

        return run

    app = web.Application()
    for path, verb in verbs.items():
        app.router.add_post(path, asked(verb))
    app.router.add_get("/status", status)
    app.router.add_get("/dead-letters", dead_letters)
    app.router.add_post("/replay", replay)
    return app
