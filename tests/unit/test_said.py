"""Whatever is put into a log line, an error's reason, a metric's label or a refusal is a literal or was looked at, here.

A value that is new on one of these lists needs a look at where it comes from: it must be a name of ours, a class, a number
that no payload chooses, or one of a closed set.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).parents[2]
ERRORS = {
    "SidecarError", "Retryable", "TooEarly", "Rejected", "Unavailable", "NotStored", "NotHere", "Conflict", "ClaimLost",
}  # fmt: skip
REFUSALS = {"refusal", "Refused", "_later"}
LEVELS = {"debug", "info", "warning", "error"}
REASONS = {
    "error.reason",
    "refusal.reason",
    "failure.reason",
    "down.reason",
    "why.reason",
    "full.reason",
    "conflict.reason",
}
LOOKED_AT = {
    "log": REASONS | {
        "'; '.join(error.problems)", "'; '.join(found)", "PurePath(filename).name", "_at(error.__traceback__)", "_at(traceback)",
        "_logger(record.name)", "_words(failure)", "at", "category.__name__", "cause", "cipher.sealing", "duty", "error", "full.retry_after_s",
        "how", "label", "len(found)", "len(late)", "len(self.models)", "level", "lineno", "model.name", "name", "number",
        "one.letter", "one.means", "one.type", "place", "problem", "reason", "self._refused.pop(reason, 0)", "self._refused[full.reason]",
        "self.addresses[0]", "self.name", "self.sealing", "source.name", "type(error).__name__", "type_name",
    },
    "error": REASONS | {
        "UNSAFE", "UNSURE", "durability.UNSAFE", "answer.status", "response.status", "cause", "draft.trouble", "duty", "name", "refused",
        "resource.get('resourceType')", "statement.name", "type(error).__name__", "type(group.failed).__name__", "whole.type.lower()", "why",
    },
    "label": {
        "a.model", "a.outcome.value", "a.version", "bin_name", "bins[feature.name].of(feature.value)", "duty", "feature",
        "feature.name", "full.reason", "how", "label", "manifest.name", "model.arm.value", "model.loaded.digest[:12]", "name",
        "old.interaction", "old.type", "one.interaction", "one.type", "operation", "reason", "result.state", "self.name",
        "source.name", "status_class", "stored.conclusion.assessment.model", "str(response.status)", "type_name", "version", "why",
    },
    "refusal": {
        "MAX_EVENTS", "MAX_EVENTS + MAX_OTHERS", "STATUS", "focus.type", "full.reason", "full.retry_after_s", "known.status",
        "name", "path", "problem.path", "problem.problem", "self._body_s", "self._max_body", "source.type", "type_name", "why",
    },
}  # fmt: skip


def said_in(call: ast.Call) -> tuple[str, list[ast.expr]] | None:
    """What kind of saying a call is, and what is said; None when it says nothing."""
    match call.func:
        case ast.Attribute(attr=name, value=value) if name in LEVELS and "get()" in ast.unparse(value):
            return "log", [*call.args, *(k.value for k in call.keywords)]
        case ast.Attribute(attr="labels"):
            return "label", call.args
        case ast.Name(id=name) if name in ERRORS:
            return "error", call.args[:1]
        case ast.Name(id=name) if name in REFUSALS:
            return "refusal", call.args
    return None


def values(said: ast.expr) -> Iterator[str]:
    """The parts of an expression that are no literals."""
    match said:
        case ast.Constant():
            return
        case ast.JoinedStr(values=parts):
            for part in parts:
                if isinstance(part, ast.FormattedValue):
                    yield from values(part.value)
        case ast.IfExp(body=one, orelse=other):
            yield from values(one)
            yield from values(other)
        case _:
            yield ast.unparse(said)


def said(source: str) -> set[tuple[str, str]]:
    calls = (said_in(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {(call[0], value) for call in calls if call for each in call[1] for value in values(each)}


def everything() -> set[tuple[str, str]]:
    modules = [p for p in (REPO / "sidecar").rglob("*.py") if not {"sandbox", "commands"} & set(p.parts)]
    assert len(modules) > 80
    return {each for module in modules for each in said(module.read_text())}


def test_nothing_is_said_that_nobody_looked_at():
    assert {f"{kind}: {value}" for kind, value in everything() if value not in LOOKED_AT[kind]} == set()


def test_nothing_is_on_the_lists_that_is_not_said():
    assert {(kind, v) for kind, listed in LOOKED_AT.items() for v in listed - REASONS} <= everything()


def test_a_new_value_is_seen_wherever_it_is_said():
    text = """
log.get().error("x", reason=f"no {patient.id}")
raise Rejected(f"shape:{body}" if body else "shape")
EVENTS.labels(event.focus.id).inc()
return refusal(400, "invalid", str(error))
"""
    assert said(text) == {
        ("log", "patient.id"), ("error", "body"), ("label", "event.focus.id"), ("refusal", "str(error)"),
    }  # fmt: skip
