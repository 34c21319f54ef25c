"""The gate in front of /fhir: counts, faults, authorization, and every error as an OperationOutcome."""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

from sidecar.sandbox import permissions
from sidecar.sandbox.credentials import Credentials
from sidecar.sandbox.faults import Faults, Planned
from sidecar.sandbox.outcome import Issue, Refusal
from sidecar.sandbox.replies import refused, require_json_accepted

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

PREFIX = "/fhir"
TOKEN_PATH = "/token"  # noqa: S105 - a path
PAGE_PATH = "/_page"
OPEN_PATHS = frozenset({f"{PREFIX}/metadata", f"{PREFIX}/.well-known/smart-configuration"})

_LOG = logging.getLogger(__name__)
_FAULT_ISSUES = {429: "throttled", 503: "transient"}


class Gate:
    """Everything that happens to a request before and after its interaction."""

    def __init__(self, faults: Faults, credentials: Credentials | None) -> None:
        """Let through what `credentials` accept (None: everyone), and break what `faults` say."""
        self.requests: Counter[tuple[str, str]] = Counter()
        self._faults = faults
        self._credentials = credentials

    async def pass_through(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Take a request through the gate; pages others mounted are none of its business."""
        if request.path != TOKEN_PATH and not f"{request.path}/".startswith(f"{PREFIX}/"):
            return await handler(request)
        if self._faults.down or (self._faults.token_down and request.path == TOKEN_PATH):
            return _hang_up(request)
        method, shape = request.method, _shape(request)
        self.requests[method, shape] += 1
        fault = self._faults.take(f"{method} {shape}")
        if self._faults.delay_s:
            await asyncio.sleep(self._faults.delay_s)
        if fault is not None and fault.kind == "cut":
            return _hang_up(request)
        if fault is not None and fault.kind == "fail":
            return refused(_failure(fault))
        response = await self._answer(request, handler)
        return _hang_up(request) if fault is not None else response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._authorize(request)
            require_json_accepted(request)
            response = await handler(request)
        except Refusal as refusal:
            response = refused(refusal)
        except web.HTTPException as error:
            response = refused(_as_refusal(request, error))
        except Exception:  # noqa: BLE001 - outermost frame: a bug of ours becomes a 500 and a stack trace
            _LOG.exception("practice EHR failed on %s %s", request.method, request.path)
            response = refused(Refusal(500, [Issue("exception", "the practice EHR has a bug: see its log")]))
        if "X-Request-Id" in request.headers:
            response.headers["X-Request-Id"] = request.headers["X-Request-Id"]
        return response

    def _authorize(self, request: web.Request) -> None:
        if self._credentials is None or request.path in OPEN_PATHS or request.path == TOKEN_PATH:
            return
        granted = self._credentials.granted(request.headers.get("Authorization"))
        if granted is None:
            issue = Issue("login", "a valid bearer token is required")
            raise Refusal(401, [issue], {"WWW-Authenticate": "Bearer"})
        path = request.path.removeprefix(PREFIX)
        if path == PAGE_PATH:  # a later page of a search that was let through
            return
        type_name, letters = permissions.required(request.method, path)
        allowed = permissions.allow(granted, type_name, letters)
        (self._credentials.used if allowed else self._credentials.forbidden).add((type_name, letters))
        if not allowed:
            issue = Issue("forbidden", f"the token's scopes do not include system/{type_name}.{letters}")
            raise Refusal(403, [issue], {"WWW-Authenticate": 'Bearer error="insufficient_scope"'})


def _shape(request: web.Request) -> str:
    """Name what a request is about, without ids: `Patient`, `Patient/{id}`, `Bundle` for the base."""
    if request.path == TOKEN_PATH:
        return "token"
    steps = [step for step in request.path.removeprefix(PREFIX).split("/") if step]
    if not steps:
        return "Bundle"
    if len(steps) > 1 and steps[1][0] not in "_$" and not steps[0].startswith("."):
        steps[1] = "{id}"
    if len(steps) > 3:
        steps[3] = "{vid}"
    return "/".join(steps[:4])


def _hang_up(request: web.Request) -> web.Response:
    """Close the connection without a reply."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _failure(fault: Planned) -> Refusal:
    headers = {} if fault.retry_after_s is None else {"Retry-After": str(math.ceil(fault.retry_after_s))}
    issue = Issue(_FAULT_ISSUES.get(fault.status, "exception"), f"fault injected: HTTP {fault.status}")
    return Refusal(fault.status, [issue], headers)


def _as_refusal(request: web.Request, error: web.HTTPException) -> Refusal:
    """Turn aiohttp's own 404 and 405 into what a FHIR server says."""
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    issue = Issue("not-supported", f"{request.method} {request.path}: {error.reason}")
    return Refusal(error.status, [issue], headers)
