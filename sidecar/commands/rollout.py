"""`sidecar models promote`, `canary`, `shadow`, `rollback`, `which` and their like: asked of the log of transitions.

Their machinery is imported when they run: `--help` pays for none of it.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from sidecar.commands.options import CONFIG, JSON

Command = Callable[..., None]

NAME = click.argument("name")
NOBODY = " Kept in the open and never forgotten: it must not name a patient, and nothing checks that."
WHO = click.option("--who", required=True, help=f"Who decides: a name and a role.{NOBODY}")
WHY = click.option("--why", required=True, help=f"Why, in a sentence.{NOBODY}")
EVIDENCE = click.option("--evidence", default="", help=f"Where the evidence lies: a report, minutes, a ticket.{NOBODY}")
OVERRIDE = click.option("--override", default="", help=f"Why it need not have run in shadow first; recorded.{NOBODY}")
VERSION = click.option("--version", help="Version; may be left out where only one can be meant.")


def _transition(what: str, *options: Callable[[Command], Command], of_all: bool = False) -> Callable[[Command], Any]:
    """A command that appends one transition; its docstring is its help."""

    def made(described: Command) -> click.Command:
        def run(config: Path, *, as_json: bool, **said: Any) -> None:
            _decide(config, {"what": what, "model": said.pop("name", None), **said}, as_json=as_json)

        run.__doc__ = described.__doc__
        given = (*(() if of_all else (NAME,)), *options, WHO, WHY, CONFIG, JSON)
        for option in reversed(given):
            run = option(run)
        return click.command(what)(run)

    return made


@_transition("promote", VERSION, EVIDENCE, OVERRIDE)
def promote() -> None:
    """Make a version the champion of model NAME: what it says is charted from now on."""


@_transition(
    "canary",
    VERSION,
    click.option("--percent", type=click.FloatRange(0, 100, min_open=True), required=True, help="Share of patients."),
    click.option(
        "--by",
        type=click.Choice(["patient", "unit"]),
        default="patient",
        show_default=True,
        help="Whom it is a share of.",
    ),
    EVIDENCE,
    OVERRIDE,
)
def canary() -> None:
    """Let a version write for some patients of model NAME, always the same ones; more when the share grows."""


@_transition("shadow", VERSION)
def shadow() -> None:
    """Let a version of model NAME score beside the champion, for nobody to see. The newest, if none is named."""


@_transition("end-shadow", click.option("--version", required=True, help="Version."))
def end_shadow() -> None:
    """Let a version of model NAME score in shadow no more."""


@_transition("rollback")
def rollback() -> None:
    """Take model NAME back: end its canary; without one, return to the champion before, which is kept loaded."""


@_transition("suspend")
def suspend() -> None:
    """Chart nothing new of model NAME. It goes on in shadow; what is charted is still corrected and ended."""


@_transition("resume")
def resume() -> None:
    """Let model NAME write again."""


@_transition("stop-writes", of_all=True)
def stop_writes() -> None:
    """Write nothing into any chart from now on, on every server within a second. Everything else goes on."""


@_transition("allow-writes", of_all=True)
def allow_writes() -> None:
    """Write again; what waited and still holds is written first."""


@click.command("which")
@click.argument("name", required=False)
@click.option("--at", metavar="TIME", help="As it stood then (ISO 8601 with offset); default: now.")
@CONFIG
@JSON
def which(config: Path, name: str | None, at: str | None, *, as_json: bool) -> None:
    """Print the champion, canary and shadow versions of each model, or of NAME, with their digests."""
    found = _ask(config, "/models/which", {"model": name, "at": at})
    if as_json:
        _print_json(found)
        return
    if found["stopped"]:
        sys.stdout.write("writing is stopped everywhere\n")
    for model, standing in found["models"].items():
        sys.stdout.write(f"{model}: {_in_words(standing)}\n")


@click.command("history")
@click.argument("name", required=False)
@CONFIG
@JSON
def history(config: Path, name: str | None, *, as_json: bool) -> None:
    """Print every transition, or those of NAME: what, when, who, why and on what evidence. Verifies the whole log."""
    found = _ask(config, "/models/history", {"model": name})["entries"]
    if as_json:
        _print_json(found)
        return
    for entry in found:
        sys.stdout.write(_line(entry) + "\n")
    sys.stdout.write(f"{len(found)} transitions; the log is as it was written\n")


@click.command("shadow-report")
@NAME
@VERSION
@CONFIG
@JSON
def shadow_report(config: Path, name: str, version: str | None, *, as_json: bool) -> None:
    """Count how often a version of model NAME would have called somebody, from what it said in shadow."""
    found = _ask(config, "/models/shadow-report", {"model": name, "version": version})
    if as_json:
        _print_json(found)
        return
    write = sys.stdout.write
    write(f"{found['model']} {found['version']} in shadow: {found['results']} results of {found['patients']} patients ")
    write(f"in {found['patient_days']} patient-days, {found['not_scored']} times none\n")
    rate = found["alerts_per_100_patient_days"]
    write(f"alerts: {found['alerts']}, per 100 patient-days {'unknown' if rate is None else rate}\n")
    for band, share in found["per_100_patient_days_from_band"].items():
        write(f"  {band} or higher: {share} per 100 patient-days\n")


@click.command("reload")
@CONFIG
@JSON
def reload(config: Path, *, as_json: bool) -> None:
    """Look at the models' folders again: a newer version begins in shadow, and no event is lost."""
    _print_state(_ask(config, "/models/reload", {}), as_json=as_json)


def add_to(group: click.Group) -> None:
    """Put every command of this module into `group`."""
    for command in (
        promote, canary, shadow, end_shadow, rollback, suspend, resume, stop_writes, allow_writes, which, history,
        shadow_report, reload,
    ):  # fmt: skip
        group.add_command(command)


def _ask(config: Path, where: str, body: Mapping[str, Any]) -> Any:
    from sidecar import settings
    from sidecar.commands.door import door

    with door(settings.load(config)) as ask:
        return ask("POST", where, body)


def _decide(config: Path, body: Mapping[str, Any], *, as_json: bool) -> None:
    from sidecar.errors import Unavailable

    try:
        found = _ask(config, "/models/transition", body)
    except Unavailable as error:
        first = "it may be recorded all the same: look at what stands (sidecar models which) before you repeat it"
        raise Unavailable(f"{error.reason}; {first}") from None
    if not as_json:
        sys.stdout.write(_line(found["done"]) + "\n")
    _print_state(found, as_json=as_json)


def _print_state(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    if found["stopped"]:
        sys.stdout.write("writing is stopped everywhere\n")
    for model, standing in found["models"].items():
        sys.stdout.write(f"{model}: {_in_words(standing)}\n")
    for problem in found["lacks"]:
        sys.stdout.write(f"not there: {problem}\n")


def _print_json(found: object) -> None:
    import orjson

    sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")


def _in_words(standing: Mapping[str, Any]) -> str:
    champion, canary_, shadows = standing["champion"], standing["canary"], standing["shadow"]
    said = [f"champion {_named(champion)}" if champion else "no champion"]
    if standing["suspended"]:
        said.append("suspended")
    if canary_:
        said.append(f"canary {_named(canary_)} for {canary_['percent']:g} % by {canary_['by']}")
    said += [f"shadow {_named(version)}" for version in shadows]
    if standing["back_to"]:
        said.append(f"a rollback returns to {_named(standing['back_to'])}")
    return ", ".join(said)


def _named(version: Mapping[str, Any]) -> str:
    return f"{version['version']} ({version['digest'][:12]})"


def _line(entry: Mapping[str, Any]) -> str:
    what = [entry["what"], entry["model"], entry["version"]]
    said = [f"{entry['number']:>4} {entry['at'][:19]}Z", " ".join(part for part in what if part)]
    if entry["percent"] is not None:
        said.append(f"{entry['percent']:g} % by {entry['by']}")
    said.append(f"by {entry['who']}: {entry['why']}")
    said += [f"{name}: {entry[name]}" for name in ("evidence", "override") if entry[name]]
    return " | ".join(said)
