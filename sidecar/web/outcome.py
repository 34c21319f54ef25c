"""OperationOutcomes that name an element path and no value.

https://hl7.org/fhir/R4/operationoutcome.html
"""

import asyncio
import contextlib

import orjson
from aiohttp import web

FHIR_JSON = "application/fhir+json"
DRAIN_BYTES = 64 * 1024
DRAIN_S = 1.0


def refusal(status: int, code: str, diagnostics: str, path: str | None = None) -> web.Response:
    """An error answer. `diagnostics` never quotes what was sent."""
    issue: dict[str, object] = {"severity": "error", "code": code, "diagnostics": diagnostics}
    if path is not None:
        issue["expression"] = [path]
    body = orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
    return web.Response(status=status, body=body, content_type=FHIR_JSON)


async def turn_away(request: web.Request, response: web.Response) -> web.Response:
    """Answer at once; read at most 64 KiB more so that the answer arrives, then drop the connection."""
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    drained = 0
    with contextlib.suppress(TimeoutError, ConnectionError, web.RequestPayloadError):
        async with asyncio.timeout(DRAIN_S):
            async for chunk in request.content.iter_any():
                drained += len(chunk)
                if drained >= DRAIN_BYTES:
                    break
    if request.transport is not None:
        request.transport.close()
    return response
