"""HTTP on either side of an interaction: reading a FHIR request, writing a FHIR reply.

https://hl7.org/fhir/R4/http.html#mime-type and #ops (Prefer)
"""

from collections.abc import Mapping
from email.utils import format_datetime

import orjson
from aiohttp import web

from sidecar.sandbox.chart import Version
from sidecar.sandbox.outcome import Refusal, Resource, all_ok, refuse
from sidecar.sandbox.validation import parse_object

MAX_BODY_BYTES = 10 * 1024 * 1024
FHIR_JSON = "application/fhir+json; charset=utf-8"
_READABLE = frozenset({"application/fhir+json", "application/json"})
_WRITABLE = ("json", "*/*", "application/*")


async def read_object(request: web.Request) -> Resource:
    """Return the JSON object in the body.

    Raises:
        Refusal: 415, not declared as FHIR JSON; 413, too large; 400, not a JSON object.
    """
    if request.content_type not in _READABLE:
        raise refuse(415, "not-supported", f"{request.content_type} is not application/fhir+json")
    return parse_object(await read_body(request))


async def read_body(request: web.Request) -> bytes:
    """Return the body.

    Raises:
        Refusal: 413, too large.
    """
    too_large = refuse(413, "too-long", f"the body is larger than {MAX_BODY_BYTES} bytes")
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise too_large
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise too_large from error


def preferences(request: web.Request) -> dict[str, str]:
    """Read the Prefer headers as {"return": "minimal", "handling": "strict"}."""
    parts = ",".join(request.headers.getall("Prefer", [])).replace(";", ",").split(",")
    pairs = (part.partition("=") for part in parts if part.strip())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def require_json_accepted(request: web.Request) -> None:
    """Return if the client takes JSON.

    Raises:
        Refusal: 406, its Accept header rules JSON out.
    """
    accept = request.headers.get("Accept", "*/*")
    if not any(kind in accept for kind in _WRITABLE):
        raise refuse(406, "not-supported", f"this server speaks JSON only, not {accept}")


def reply(
    body: bytes | Resource,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Reply with a resource."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return web.Response(body=raw, status=status, headers={"Content-Type": FHIR_JSON, **(headers or {})})


def refused(refusal: Refusal) -> web.Response:
    """Reply with the OperationOutcome of a refusal."""
    return reply(refusal.outcome(), refusal.status, refusal.headers)


def version_headers(version: Version) -> dict[str, str]:
    """Return ETag and Last-Modified of a version."""
    return {"ETag": version.etag, "Last-Modified": format_datetime(version.at, usegmt=True)}


def read_reply(version: Version) -> web.Response:
    """Reply to read and vread."""
    return reply(version.body, 200, version_headers(version))


def written_reply(request: web.Request, version: Version, status: int, base_url: str) -> web.Response:
    """Reply to create and update; how much is in the body is the client's preference."""
    headers = version_headers(version)
    headers["Location"] = f"{base_url}/{version.reference}/_history/{version.number}"
    wanted = preferences(request).get("return", "representation")
    if wanted == "minimal":
        return web.Response(status=status, headers=headers)
    if wanted == "OperationOutcome":
        return reply(all_ok(f"stored {version.reference}"), status, headers)
    return reply(version.body, status, headers)
