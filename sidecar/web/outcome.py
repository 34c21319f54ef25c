"""OperationOutcomes that name an element path and no value.

https://hl7.org/fhir/R4/operationoutcome.html
"""

import orjson
from aiohttp import web

FHIR_JSON = "application/fhir+json"


def refusal(status: int, code: str, diagnostics: str, path: str | None = None) -> web.Response:
    """An error answer. `diagnostics` never quotes what was sent."""
    issue: dict[str, object] = {"severity": "error", "code": code, "diagnostics": diagnostics}
    if path is not None:
        issue["expression"] = [path]
    body = orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
    return web.Response(status=status, body=body, content_type=FHIR_JSON)
