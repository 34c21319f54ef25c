"""Golden Bundles of a model: a chart, and what must come of it, from the Bundle to the score.

`golden/NAME.json` is `{"bundle": Bundle, "expected": {...}}`, with `at`, `time_zone`, `switches` and `choices` where
they matter. What is expected are the fields that `sidecar score` prints, as many of them as matter, and `features`, the
values that the graph was given, by name (null is missing). Numbers may differ by `atol`, 1e-6 unless said.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidecar.app import running_model
from sidecar.context import from_bundle
from sidecar.deid import load_rules
from sidecar.errors import Misconfigured, Rejected
from sidecar.pipeline import conclude
from sidecar.records import Conclusion
from sidecar.scoring import LoadedModel
from sidecar.settings import ModelSettings

FOLDER = "golden/"


class Expected(BaseModel):
    """What must come out; a field that is left out is not compared."""

    model_config = ConfigDict(extra="forbid")

    outcome: str | None = None
    reasons: list[str] | None = None
    score: float | None = None
    at_least: float | None = None
    risk: str | None = None
    probabilities: dict[str, float] = Field(default_factory=dict)
    contributions: dict[str, float] = Field(default_factory=dict)
    features: dict[str, float | None] = Field(default_factory=dict)


class Golden(BaseModel):
    """One golden file."""

    model_config = ConfigDict(extra="forbid")

    note: str = ""
    bundle: dict[str, Any]
    at: datetime | None = None
    time_zone: str = "UTC"
    switches: dict[str, bool] = Field(default_factory=dict)
    choices: dict[str, str] = Field(default_factory=dict)
    expected: Expected
    atol: float = Field(default=1e-6, ge=0)


def golden_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The golden files among a folder's."""
    return tuple(n for n in names if n.startswith(FOLDER) and n.endswith(".json"))


def golden_troubles(model: LoadedModel, content: bytes) -> list[str]:
    """How what comes of a golden Bundle differs from what is expected; empty when it does not."""
    try:
        golden = Golden.model_validate(orjson.loads(content))
        if golden.at is not None and golden.at.tzinfo is None:
            return ["at: give a time with its offset"]
        running = running_model(model, ModelSettings(switches=golden.switches, choices=golden.choices))
        stays = frozenset(model.manifest.cohort.stays)
        snapshot = from_bundle(golden.bundle, model.manifest.set_codes, golden.at, ZoneInfo(golden.time_zone), stays)
        conclusion = conclude(snapshot, running, load_rules())
    except orjson.JSONDecodeError:
        return ["is no JSON"]
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found]
    except Misconfigured as error:
        return error.problems
    except (Rejected, OSError, ValueError, KeyError) as error:
        return [f"cannot be judged: {getattr(error, 'reason', type(error).__name__)}"]
    return list(_differences(golden, conclusion))


def _differences(golden: Golden, conclusion: Conclusion) -> Iterator[str]:
    a, expected = conclusion.assessment, golden.expected
    said: dict[str, object] = {"outcome": a.outcome.value, "reasons": list(a.reasons), "score": a.score}
    said |= {"at_least": a.at_least, "risk": a.risk}
    for name in expected.model_fields_set & set(said):
        if not _same(getattr(expected, name), said[name], golden.atol):
            yield f"{name} is {said[name]}, expected {getattr(expected, name)}"
    values = {f.name: None if math.isnan(f.value) else f.value for f in a.vector.features}
    tables: tuple[tuple[str, Mapping[str, float | None], Mapping[str, float | None]], ...] = (
        ("probabilities", expected.probabilities, a.probabilities),
        ("contributions", expected.contributions, a.contributions),
        ("features", expected.features, values),
    )
    for table, wanted, got in tables:
        for name, value in wanted.items():
            if name not in got or not _same(value, got[name], golden.atol):
                yield f"{table}.{name} is {got.get(name, 'not there')}, expected {value}"


def _same(wanted: object, got: object, atol: float) -> bool:
    if isinstance(wanted, float) and isinstance(got, int | float):
        return abs(wanted - got) <= atol
    return wanted == got
