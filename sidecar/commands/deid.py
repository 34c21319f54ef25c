"""`sidecar deid`: de-identify files, or say what would be done to them.

De-identified resources go to standard output as NDJSON, one a line, in the order of the input; what people should know
goes to standard error. A refused resource or an unreadable line is left out, counted and said by place and reason,
never by content. A place is a number: what a file is called may be the name of a person.
"""

import contextlib
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sidecar.commands.deid_read import documents, files_in
from sidecar.commands.deid_report import as_html, as_json
from sidecar.commands.deid_vault import FileVault, MemoryVault
from sidecar.deid import Engine, KeyedNames, Mode, Names, Tally, VaultNames, load_policy, load_rules
from sidecar.errors import Misconfigured
from sidecar.store import load_keys

SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for. `keys` is a key ring, `vault` a file; without them tokens are for this run alone.

    `site` says whose ids they are, `names` that places are said by the names of files.
    """

    mode: Mode
    today: date
    diff: bool = False
    report: bool = False
    html: bool = False
    keys: Path | None = None
    vault: Path | None = None
    site: str = ""
    names: bool = False


@dataclass
class Seen:
    """What went by: documents that could not be read, by place, and the tally of what was done."""

    tally: Tally
    resources: int = 0
    unreadable: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether all was read and nothing refused."""
        return not self.unreadable and not self.tally.refused


def run(paths: tuple[str, ...], asked: Asked) -> int:
    """De-identify everything in `paths`; 0 when all of it was read and passed, else 1.

    Raises:
        Misconfigured: a path that is not there, nothing to read, an unusable key ring or vault.
    """
    files = list(files_in(paths))
    seen = Seen(Tally(listing=asked.diff))
    with _names(asked) as names:
        engine = Engine(load_policy(), asked.mode, names, asked.today, seen.tally)
        _through(engine, files, asked, seen)
    if asked.report:
        told = as_html if asked.html else as_json
        sys.stdout.write(told(seen.tally, asked.mode, load_rules(mode=asked.mode).digest, len(seen.unreadable)))
    _say(seen)
    return 0 if seen.is_clean else 1


def _through(engine: Engine, files: list[Path | None], asked: Asked, seen: Seen) -> None:
    out = sys.stdout.buffer
    with _progress() as advance:
        for number, file in enumerate(files, start=1):
            name = "standard input" if file is None else str(file) if asked.names else f"file {number}"
            for place, document in documents(file, name):
                if not isinstance(document, dict):
                    seen.unreadable.append(f"{place}: {document if isinstance(document, str) else 'no resource'}")
                    continue
                before = seen.tally.refused.copy()
                done = _one(engine, document, seen)
                seen.resources += 1
                advance(seen.resources)
                if asked.diff:
                    _show(place, done, seen.tally, seen.tally.refused - before)
                elif done is not None and not asked.report:
                    out.write(orjson.dumps(done) + b"\n")
    out.flush()


def _one(engine: Engine, document: Mapping[str, Any], seen: Seen) -> dict[str, Any] | None:
    """One document's de-identified form. An error that nobody expected refuses it alone, by its class."""
    try:
        return engine.resource(document)
    except Misconfigured:
        raise
    except Exception as error:  # noqa: BLE001 -- the outermost frame of one document; the rest of the run goes on
        seen.tally.refused[f"error:{type(error).__name__}"] += 1
        return None


@contextlib.contextmanager
def _names(asked: Asked) -> Iterator[Names]:
    """Tokens and shifts: of the key ring, of the vault, or for this run alone.

    Raises:
        Misconfigured: a vault without a ring to seal it, or for a mode that has none.
    """
    ring = load_keys(asked.keys) if asked.keys is not None else None
    if asked.mode is not Mode.SAFE_HARBOR_RULES:
        if asked.vault is not None:
            raise Misconfigured([f"--vault is for safe_harbor_rules; tokens of {asked.mode} come from --keys"])
        key = ring.token("deid", "names") if ring is not None else secrets.token_bytes(32)
        yield KeyedNames(key, asked.site)
        return
    if asked.vault is None:
        yield VaultNames(MemoryVault(), asked.site)
        return
    if ring is None:
        raise Misconfigured(["--vault says who everybody is and is sealed: give the key ring with --keys"])
    with FileVault(asked.vault, ring) as vault:
        # A report gives nothing out, so it uses up no first moment and names nobody for good.
        yield VaultNames(vault.copy() if asked.report else vault, asked.site)


def _show(place: str, after: Mapping[str, Any] | None, tally: Tally, refused: Mapping[str, int]) -> None:
    """What each rule did to one resource. Values are shown only as they are afterwards."""
    out, steps = sys.stdout, Counter((s.path, s.what) for s in tally.steps or ())
    out.write(f"--- {place}\n")
    for (path, what), times in steps.items():
        out.write(f"{what:<12} {path}{f' x {times}' if times > 1 else ''}\n")
    for reason, times in refused.items():
        out.write(f"{'refused':<12} {reason}{f' x {times}' if times > 1 else ''}\n")
    if after is not None:
        out.write(f"+++ {orjson.dumps(after).decode()}\n")
    if tally.steps is not None:
        tally.steps.clear()


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """A line on standard error while it lasts, where somebody looks."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    began, told = time.monotonic(), [0.0]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=None)

        def advance(resources: int) -> None:
            now = time.monotonic()
            if now - told[0] > 0.2:
                told[0] = now
                progress.update(
                    task, description=f"{resources:,} resources, {resources / max(now - began, 0.001):,.0f}/s"
                )

        yield advance


def _say(seen: Seen) -> None:
    err = sys.stderr
    refused = seen.tally.refused.total()
    err.write(
        f"{seen.resources:,} read, {sum(seen.tally.resources.values()):,} resources passed, {refused:,} refused\n"
    )
    for reason, times in seen.tally.refused.most_common(SHOWN_PROBLEMS):
        err.write(f"refused: {reason} x {times:,}\n")
    for problem in seen.unreadable[:SHOWN_PROBLEMS]:
        err.write(f"not read: {problem}\n")
    if len(seen.unreadable) > SHOWN_PROBLEMS:
        err.write(f"not read: {len(seen.unreadable) - SHOWN_PROBLEMS:,} more\n")
