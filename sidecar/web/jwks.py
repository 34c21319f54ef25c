"""Our public keys, for the EHR that verifies what we sign: `GET {public_url}/.well-known/jwks.json`.

https://www.rfc-editor.org/rfc/rfc7517#section-5 https://hl7.org/fhir/smart-app-launch/client-confidential-asymmetric.html
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from sidecar.web.outcome import refusal, turn_away

PATH = "/.well-known/jwks.json"
MAX_AGE_S = 300


def publish_keys(app: web.Application, public_keys: Callable[[], Mapping[str, Any] | None]) -> None:
    """Serve the set on `app`, before whatever else guards it: it is public, and has no secret in it."""

    @web.middleware
    async def jwks(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path != PATH or request.method not in {"GET", "HEAD"}:
            return await handler(request)
        if request.can_read_body:
            return await turn_away(request, refusal(400, "invalid", "a body is not taken here"))
        headers = {"Cache-Control": f"public, max-age={MAX_AGE_S}"}
        return web.Response(body=orjson.dumps(public_keys()), content_type="application/json", headers=headers)

    app.middlewares.insert(0, jwks)
