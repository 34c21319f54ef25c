"""/metrics, /livez and /readyz. Ready means: the database works, models are loaded; never: the EHR answers."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from sidecar.errors import SidecarError
from sidecar.metrics import LOGGED_ERRORS, exposition


def ops_app(ready: Callable[[], Awaitable[bool]], refresh: Callable[[], Awaitable[None]]) -> web.Application:
    """`refresh` sets the gauges that are read from the database; it runs before each scrape, and may fail."""

    async def metrics(_: web.Request) -> web.Response:
        try:
            await refresh()
        except SidecarError:  # the other metrics are needed most when the database is in trouble
            LOGGED_ERRORS.labels("metrics").inc()
        return web.Response(body=exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        fine = await ready()
        return web.Response(text="ready\n" if fine else "not ready\n", status=200 if fine else 503)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    return app
