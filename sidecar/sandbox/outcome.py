"""How the practice EHR says no: a `Refusal` carries the HTTP status and becomes an OperationOutcome.

Pure. https://hl7.org/fhir/R4/operationoutcome.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Resource: TypeAlias = dict[str, Any]
"""A FHIR resource, or any JSON object, as parsed."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One problem: an issue-type code, what is wrong, and the FHIRPath of the element if there is one."""

    code: str
    diagnostics: str
    expression: str | None = None

    def to_json(self, severity: str = "error") -> Resource:
        """Render as `OperationOutcome.issue`."""
        issue: Resource = {"severity": severity, "code": self.code, "diagnostics": self.diagnostics}
        if self.expression:
            issue["expression"] = [self.expression]
        return issue


class Refusal(Exception):
    """The request is refused: HTTP status, the problems found, and headers the client needs."""

    def __init__(self, status: int, issues: Sequence[Issue], headers: Mapping[str, str] | None = None) -> None:
        """Refuse with `status`; `issues` is never empty."""
        super().__init__("; ".join(issue.diagnostics for issue in issues))
        self.status = status
        self.issues = tuple(issues)
        self.headers = dict(headers or {})

    def outcome(self) -> Resource:
        """Render as an OperationOutcome."""
        return {"resourceType": "OperationOutcome", "issue": [issue.to_json() for issue in self.issues]}

    def within(self, place: str) -> "Refusal":
        """Return the same refusal, its problems located below `place` (an entry of a Bundle)."""
        issues = [Issue(i.code, f"{place}: {i.diagnostics}", place) for i in self.issues]
        return Refusal(self.status, issues, self.headers)


def refuse(status: int, code: str, diagnostics: str, expression: str | None = None) -> Refusal:
    """Return a `Refusal` with a single problem, to be raised by the caller."""
    return Refusal(status, [Issue(code, diagnostics, expression)])


def all_ok(diagnostics: str) -> Resource:
    """Return the informational OperationOutcome of `Prefer: return=OperationOutcome`."""
    issue = Issue("informational", diagnostics).to_json("information")
    return {"resourceType": "OperationOutcome", "issue": [issue]}
