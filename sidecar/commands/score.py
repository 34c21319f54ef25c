"""`sidecar score`: the same path on a file, without an EHR."""

import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import orjson

from sidecar.app import running_model, shipped
from sidecar.context import from_bundle
from sidecar.deid import Mode, Rules, load_rules, unreadable
from sidecar.errors import Misconfigured, Rejected
from sidecar.explanation import rationale, rationales, reason_in_words
from sidecar.pipeline import RunningModel, conclude
from sidecar.records import Conclusion, Outcome
from sidecar.scoring import load_models
from sidecar.settings import ModelSettings
from sidecar.writeback import Links, device, observation, risk_assessment

MAX_FILE_BYTES = 512 * 1024 * 1024


def score(file: BinaryIO, options: Mapping[str, Any]) -> int:
    """One JSON line for each Bundle in `file`; 0 when every line was a Bundle that could be judged, else 1.

    Raises:
        Misconfigured: an unknown model or switch, a wrong digest, a time that is not one.
    """
    tz, at = _zone(options["time_zone"]), _moment(options["at"])
    root: Path = options["models_dir"] or shipped("models")
    loaded = load_models(root, {options["model"]: None})[options["model"]]
    choices = _choices(options["choices"])
    model = running_model(loaded, ModelSettings(switches=dict.fromkeys(options["switches"], True), choices=choices))
    rules = load_rules(mode=Mode(options["mode"]))
    if problems := unreadable(rules, model.extractor.reads):
        raise Misconfigured(problems)
    failed = False
    for bundle in _bundles(file):
        try:
            if isinstance(bundle, Rejected):
                raise bundle
            line = line_of(bundle, model, rules, at, tz)
        except Rejected as refusal:
            failed = True
            line = _refused(model, refusal.reason)
        sys.stdout.write(orjson.dumps(line).decode() + "\n")
    return 1 if failed else 0


def line_of(bundle: object, model: RunningModel, rules: Rules, at: datetime | None, tz: ZoneInfo) -> dict[str, Any]:
    """What is said of one Bundle, with the resources that write-back would put into the chart.

    Raises:
        Rejected: see `from_bundle`.
    """
    manifest = model.loaded.manifest
    snapshot = from_bundle(bundle, manifest.set_codes, at, tz, frozenset(manifest.cohort.stays))
    return _line(conclude(snapshot, model, rules), model)


def _bundles(file: BinaryIO) -> Iterator[object]:
    """A whole-file Bundle, or one a line. A line that does not parse is a refusal of its own."""
    raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise Misconfigured([f"the file is larger than {MAX_FILE_BYTES} bytes; split it into several"])
    whole = _parse(raw)
    if not isinstance(whole, Rejected):
        yield whole
        return
    lines = [_parse(line) for line in raw.splitlines() if line.strip()]
    # One Bundle on a line of its own makes it NDJSON, whatever the other lines hold: no patient is lost to a bad line.
    ndjson = any(isinstance(line, dict) and line.get("resourceType") == "Bundle" for line in lines)
    yield from lines if ndjson else [whole]


def _parse(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return Rejected("shape:JSON")


def _line(conclusion: Conclusion, model: RunningModel) -> dict[str, Any]:
    a = conclusion.assessment
    return {
        "model": a.model,
        "version": a.version,
        "outcome": a.outcome.value,
        "reasons": list(a.reasons),
        "score": a.score,
        "at_least": a.at_least,
        "probabilities": dict(a.probabilities),
        "risk": a.risk,
        "contributions": dict(a.contributions),
        "typical": dict(a.typical),
        **({"baseline": a.baseline, "error": a.error} if a.baseline is not None else {}),
        **({"terms": {name: dict(terms) for name, terms in a.terms.items()}} if a.terms else {}),
        **({"further": dict(a.further)} if a.further else {}),
        "resources": _resources(conclusion, model),
    }


def _resources(conclusion: Conclusion, model: RunningModel) -> list[dict[str, Any]]:
    """What write-back would put into the chart; empty when it would put nothing there."""
    import hashlib

    a, e, manifest = conclusion.assessment, conclusion.evidence, model.loaded.manifest
    if a.outcome is Outcome.NOT_SCORED:
        return []
    # A file has no key ring: this identity is stable for the file's content and is not the one a server would use.
    said = f"{a.model}|{e.patient.value}|{e.encounter.id if e.encounter else ''}|{e.occurred_at.timestamp():.3f}"
    made = device(manifest, a.model_digest)
    links = Links(
        identity=hashlib.sha256(said.encode()).digest(),
        status="final" if a.outcome is Outcome.SCORED else "preliminary",
        device=f"Device/{made['id']}",
        rationale=rationale(a, manifest),
        rationales=rationales(a, manifest),
        reasons=tuple(reason_in_words(r, manifest, a.vector.features, a.withheld) for r in a.reasons),
    )
    total = None if manifest.outputs else observation(conclusion, manifest, links)
    if total is None:
        return [made, risk_assessment(conclusion, manifest, links)]
    from dataclasses import replace

    pointing = replace(links, observation=f"Observation/{total['id']}")
    return [made, total, risk_assessment(conclusion, manifest, pointing)]


def _refused(model: RunningModel, reason: str) -> dict[str, Any]:
    manifest = model.loaded.manifest
    return {
        "model": manifest.name,
        "version": manifest.version,
        "outcome": Outcome.NOT_SCORED.value,
        "reasons": [reason],
        "score": None,
        "at_least": None,
        "probabilities": {},
        "risk": None,
        "contributions": {},
        "typical": {},
        "resources": [],
    }


def _choices(written: tuple[str, ...]) -> dict[str, str]:
    """`("region=other",)` as a table.

    Raises:
        Misconfigured: not of that form, or one choice made twice.
    """
    pairs = [text.partition("=") for text in written]
    if any(not (name and value) for name, _, value in pairs):
        raise Misconfigured(["--choice: give NAME=VALUE, for example region=other"])
    names = [name for name, _, _ in pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise Misconfigured([f"--choice: {', '.join(sorted(twice))} is given more than once; which one counts?"])
    return {name: value for name, _, value in pairs}


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise Misconfigured([f'--time-zone: "{name}" is not an IANA time zone such as Europe/London']) from None


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or not 1900 <= moment.year <= 2999:
        raise Misconfigured(["--at: give a time with its offset, for example 2026-03-01T14:30:00+00:00"])
    return moment
