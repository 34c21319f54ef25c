"""`sidecar models check`: everything that can be known of a model's folder before it meets a patient.

Each check says what it found and, where it failed, what to do. One that fails does not hide the others; what would have
to open unverified bytes is not run.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from sidecar import toml
from sidecar.commands.models_golden import golden_names, golden_troubles
from sidecar.commands.models_probe import agreement_of_terms, answers_on_missing, microseconds
from sidecar.commands.models_vectors import tally_of
from sidecar.errors import Misconfigured
from sidecar.manifest import Manifest, ModelFolder, files_in, missing_mandatory, read_file, read_folder
from sidecar.manifest.card import FILE as CARD
from sidecar.manifest.card import parse_card
from sidecar.manifest.folder import MANIFEST, unfilled
from sidecar.scoring import LoadedModel, card_of, parse_reference, version_folder, warm
from sidecar.scoring.wire import Malformed, objections

FROZEN = "vectors.json"
SLOW_US = 5_000.0
_MARKS = {True: "✓", False: "✗", None: "-"}


@dataclass(frozen=True, slots=True)
class Check:
    """One check: whether it holds (None: there is nothing to check, or it could not be run), and what to do."""

    name: str
    holds: bool | None
    said: str
    todo: str = ""


@dataclass(slots=True)
class Found:
    """What is known of a folder so far."""

    folder: Path
    names: tuple[str, ...] = ()
    manifest: Manifest | None = None
    files: ModelFolder | None = None
    model: LoadedModel | None = None
    checks: list[Check] = field(default_factory=list)


def check(folder: Path, *, as_json: bool) -> int:
    """Print what every check of `folder` found; 0 when none fails, else 1."""
    found = examined(version_folder(folder))
    failed = [c for c in found.checks if c.holds is False]
    sys.stdout.write(_json(found) if as_json else _text(found))
    return 1 if failed else 0


def examined(folder: Path) -> Found:
    """Run every check."""
    found = Found(folder)
    for name, todo, run in _CHECKS:
        try:
            holds, said = run(found)
        except Misconfigured as error:
            holds, said = False, "\n".join(p.removeprefix(f"{folder}/") for p in error.problems)
        found.checks.append(Check(name, holds, said, "" if holds or said.startswith(_NOT_RUN) else todo))
    return found


Said = tuple[bool | None, str]
_NOT_RUN = "not run"
_NOT_LOADED: Said = (None, f"{_NOT_RUN}: the files are not verified, or do not load")


def _looked_through(found: Found) -> Said:
    found.names = files_in(found.folder)
    return True, f"{len(found.names) + 1} files, none that must not be there"


def _declared(found: Found) -> Said:
    path = found.folder / MANIFEST
    try:
        text = read_file(found.folder, MANIFEST).decode()
    except UnicodeDecodeError:
        return False, "is not text in UTF-8"
    if left := unfilled(text):
        return False, "\n".join(["still to be filled in:", *(f"line {line}: {said}" for line, said in left)])
    found.manifest = toml.parse(text, str(path), Manifest)
    count = len(found.manifest.features)
    return True, f"{found.manifest.name} {found.manifest.version}, {found.manifest.kind}, {count} features"


def _pinned(found: Found) -> Said:
    if found.manifest is None:
        return None, f"{_NOT_RUN}: the manifest cannot be read"
    found.files = read_folder(found.folder)
    return True, f"each of {len(found.files.files)} files is the one that the manifest pins"


def _unopened(found: Found) -> Said:
    name = found.manifest.graph.file if found.manifest else "model.onnx"
    content = read_file(found.folder, name)
    try:
        problems = objections(content)
    except Malformed as problem:
        problems = [str(problem)]
    return not problems, "\n".join(problems) or f"{len(content)} bytes of ONNX's own operators, all data inside"


def _runs(found: Found) -> Said:
    if found.files is None:
        return _NOT_LOADED
    found.model = warm(found.files)
    graph = found.model.manifest.graph
    return True, f"takes {len(graph.features)} inputs, gives tensors of the declared names, types and shapes"


def _missing(found: Found) -> Said:
    if found.model is None:
        return _NOT_LOADED
    answered = answers_on_missing(found.model)
    if answered:
        return False, f"gives a number although it does not know: {', '.join(answered)}"
    return True, "with any one input missing, or all, there is no result"


def _sums(found: Found) -> Said:
    if found.model is None:
        return _NOT_LOADED
    return agreement_of_terms(found.model)


def _golden(found: Found) -> Said:
    names = golden_names(found.names)
    if found.files is None or found.model is None:
        return _NOT_LOADED
    if not names:
        return None, "there is no golden/NAME.json"
    troubles = [f"{n}: {why}" for n in names for why in golden_troubles(found.model, found.files.files[n])]
    return not troubles, "\n".join(troubles) or f"{len(names)} Bundles give what is expected of them"


def _frozen(found: Found) -> Said:
    if not _has(found, FROZEN):
        return None, f"there is no {FROZEN}"
    if found.model is None:
        return _NOT_LOADED
    tally = tally_of(found.model, found.folder / FROZEN)
    first = f"; {tally.disagree[0]}" if tally.disagree else ""
    return tally.agree == tally.total > 0, f"{tally.agree} of {tally.total} agree{first}"


def _reference(found: Found) -> Said:
    manifest = found.manifest
    if manifest is None or manifest.reference is None:
        return None, "there is no reference: drift cannot be measured"
    content = read_file(found.folder, manifest.reference)
    given = parse_reference(content, str(found.folder / manifest.reference))["features"]
    wrong = sorted(set(given) ^ {n for n in manifest.graph.features if n in manifest.features})
    if wrong:
        return False, f"it is not of the inputs of the graph: {', '.join(wrong)}"
    return True, f"bins of {len(given)} inputs"


def _carded(found: Found) -> Said:
    if not _has(found, CARD):
        return False, f"there is no {CARD}"
    raw = read_file(found.folder, CARD)
    card = card_of(found.files) if found.files else parse_card(raw.decode(errors="replace"), CARD)
    lacking = missing_mandatory(card)
    return not lacking, f"missing: {', '.join(lacking)}" if lacking else "every mandatory attribute is given"


def _has(found: Found, name: str) -> bool:
    """Whether a file is there, also in a folder that something is wrong with."""
    return os.path.lexists(found.folder / name)


def _quick(found: Found) -> Said:
    if found.model is None:
        return _NOT_LOADED
    took = microseconds(found.model)
    return took <= SLOW_US, f"{took:.0f} µs a score, on this machine"


_CHECKS: tuple[tuple[str, str, Callable[[Found], Said]], ...] = (
    ("folder", "Remove what is named; only a graph and text belong here.", _looked_through),
    ("manifest", "Mend the lines that are named.", _declared),
    ("digests", "Look at the files that are named; then run `sidecar models seal` on the folder.", _pinned),
    ("graph, unopened", "Export the graph again: one file, ONNX's own operators, no functions.", _unopened),
    ("graph, run", "Make [graph] name the tensors that the graph has, or export it again.", _runs),
    ("missing inputs", "Let the graph pass NaN through, or declare `absent = nan` where it handles it.", _missing),
    ("explanation", "The points must sum to the total; give [explanation] where the graph has none.", _sums),
    ("golden Bundles", "Put Bundles with what you expect of them into golden/, and mend what differs.", _golden),
    ("frozen vectors", f"Put rows with the trained model's own answers into {FROZEN}, and mend what differs.", _frozen),
    ("reference", "Put the distribution of the inputs into reference.json and name it in the manifest.", _reference),
    ("card", "Fill in card.toml; without it the model may run in shadow and not be promoted.", _carded),
    ("speed", f"Make the graph smaller: more than {SLOW_US:.0f} µs hold up other patients.", _quick),
)


def _text(found: Found) -> str:
    return "".join(f"{line}\n" for line in _lines(found))


def _lines(found: Found) -> Iterator[str]:
    manifest = found.manifest
    yield f"{manifest.name} {manifest.version}: {manifest.title}" if manifest else str(found.folder)
    width = max(len(c.name) for c in found.checks)
    for one in found.checks:
        first, *more = one.said.split("\n")
        yield f"{_MARKS[one.holds]} {one.name:<{width}}  {first}"
        yield from (f"  {'':<{width}}  {line}" for line in more)
        if one.todo:
            yield f"  {'':<{width}}  → {one.todo}"
    failed = sum(c.holds is False for c in found.checks)
    yield "all checks hold" if not failed else f"{failed} of {len(found.checks)} checks fail"


def _json(found: Found) -> str:
    manifest = found.manifest
    said = {
        "model": manifest.name if manifest else None,
        "version": manifest.version if manifest else None,
        "digest": found.files.digest if found.files else None,
        "ok": not any(c.holds is False for c in found.checks),
        "checks": [
            {"check": c.name, "ok": c.holds, "said": c.said.replace("\n", "; "), "todo": c.todo} for c in found.checks
        ],
    }
    return orjson.dumps(said).decode() + "\n"


def _row(one: Check) -> dict[str, str | bool | None]:
    return {"check": one.name, "ok": one.holds, "said": one.said.replace("\n", "; "), "todo": one.todo}
