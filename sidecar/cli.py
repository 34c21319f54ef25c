"""The command line. Imports are lazy: `--help` pays for none of the machinery behind a command."""

import gc
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from sidecar import __version__
from sidecar.commands import rollout
from sidecar.commands.models import models_group
from sidecar.commands.options import CONFIG, JSON
from sidecar.errors import Misconfigured, SidecarError

EXIT_MISCONFIGURED = 2
EXIT_FAILED = 1

MODES = ("safe_harbor_rules", "keyed_pseudonyms", "limited_data_set")


class _Doors(click.Group):
    """Turns refusals into sentences: what is wrong, how to mend it, exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Misconfigured as error:
            _stop(error.problems, EXIT_MISCONFIGURED)
        except SidecarError as error:
            _stop([error.reason], EXIT_FAILED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 -- the outermost frame of a command; a traceback quotes what it read
            from sidecar import log

            _stop([log.described(error)], EXIT_FAILED)


def _stop(problems: list[str], code: int) -> NoReturn:
    for problem in problems:
        click.echo(f"sidecar: {problem}", err=True)
    sys.exit(code)


@click.group(cls=_Doors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sidecar")
def main() -> None:
    """Put a risk model into an EHR: FHIR events in, explained RiskAssessments out.

    \b
    Try it:        sidecar demo
    Run it:        sidecar keys new sidecar-keys.toml; sidecar serve --config sidecar.toml
    Score a file:  sidecar score bundle.json --model news2
    """  # noqa: D301 -- the backspace tells click to keep the lines


@main.command()
@CONFIG
def serve(config: Path) -> None:
    """Listen to the EHR, score, write back. Ends cleanly on SIGTERM or Ctrl-C."""
    # What is imported stays: looking through it for rubbish again and again was a tenth of a start.
    gc.disable()
    try:
        from sidecar.commands.serve import serve as run
    finally:
        gc.enable()

    sys.exit(run(config))


@main.command()
@click.argument("file", type=click.File("rb"))
@click.option("--model", required=True, help="Model to run, for example news2.")
@click.option("--at", help="Judge as of this moment (ISO 8601 with offset); default: the latest reading's time.")
@click.option("--models-dir", type=click.Path(path_type=Path, file_okay=False), help="Folder of models.")
@click.option("--time-zone", default="UTC", show_default=True, help="The facility's IANA time zone.")
@click.option(
    "--mode", type=click.Choice(MODES), default=MODES[1], show_default=True, help="De-identification; see deid.mode."
)
@click.option("--switch", "switches", multiple=True, metavar="NAME", help="Turn a switch of the manifest on.")
@click.option("--choice", "choices", multiple=True, metavar="NAME=VALUE", help="Make a choice the manifest asks for.")
def score(file: Any, **options: Any) -> None:
    """Score FILE (- for standard input): a Bundle, or NDJSON with a Bundle a line. One JSON line out for each."""
    from sidecar.commands.score import score as run

    sys.exit(run(file, options))


@main.command()
@click.option("--check", type=click.IntRange(min=1), metavar="N", help="End after N RiskAssessments and verify them.")
@click.option(
    "--speed", type=click.FloatRange(min=1), help="Ward hours in an hour; default: 4000 with --check, else 600."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8088, show_default=True, help="Port of the practice EHR."
)
@click.option(
    "--ward", type=click.Path(path_type=Path, file_okay=False), help="Folder of stays; default: the shipped ward."
)
def demo(check: int | None, **options: Any) -> None:
    """Run a practice EHR, a ward of synthetic patients and the sidecar on this machine. Loopback only."""
    from sidecar.commands.demo import demo as run

    sys.exit(run(check, options))


@main.command()
@CONFIG
@JSON
def status(config: Path, as_json: bool) -> None:  # noqa: FBT001 -- click passes options by name
    """How the queue, the Subscriptions and the assessments stand."""
    from sidecar.commands.operate import status as run

    run(config, as_json=as_json)


@main.command("dead-letters")
@CONFIG
@JSON
def dead_letters(config: Path, as_json: bool) -> None:  # noqa: FBT001 -- click passes options by name
    """Events and writes that were set aside, each with its reason; and results to review after a merge."""
    from sidecar.commands.operate import dead_letters as run

    run(config, as_json=as_json)


@main.command()
@CONFIG
@click.argument("letter", required=False)
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
def replay(config: Path, letter: str | None, everything: bool) -> None:  # noqa: FBT001 -- click passes options by name
    """Set a dead letter going again, by its id, or --all; mark a result to review as seen, by its id."""
    from sidecar.commands.operate import replay as run

    if (letter is None) != everything:
        raise click.UsageError("give the id of a dead letter, or --all")
    run(config, letter)


class _OfFiles(click.Group):
    """A group whose first word may be a file: then it is `files` that is meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of that name, else `files` with all of the words."""
        if args and args[0] not in self.commands and (args[0] == "-" or not args[0].startswith("-")):
            return "files", self.commands["files"], args
        return super().resolve_command(ctx, args)


@main.group("deid", cls=_OfFiles)
def deid_group() -> None:
    """De-identify files, or print the rules.

    \b
    sidecar deid FILE|DIR|-   is short for  sidecar deid files FILE|DIR|-
    """  # noqa: D301 -- as above


@deid_group.command("files")
@click.argument("paths", nargs=-1, required=True, metavar="FILE|DIR|-...")
@click.option(
    "--mode", type=click.Choice(MODES), default=MODES[0], show_default=True, help="What becomes of dates, ages, places."
)
@click.option("--diff", is_flag=True, help="Show what each rule did, resource by resource.")
@click.option("--report", is_flag=True, help="Count what was done to each element, in place of the resources: JSON.")
@click.option("--html", is_flag=True, help="The report as a page.")
@click.option("--keys", type=click.Path(path_type=Path, dir_okay=False), help="Key ring: the same tokens in every run.")
@click.option("--vault", type=click.Path(path_type=Path, dir_okay=False), help="File that keeps random tokens, sealed.")
@click.option("--site", default="", metavar="NAME", help="Whose ids they are: no two sites have a token in common.")
@click.option("--names", is_flag=True, help="Say places by the names of files, which may be names of people.")
@click.option("--today", type=click.DateTime(["%Y-%m-%d"]), help="Day by which ages are judged; default: today.")
def deid_files(paths: tuple[str, ...], today: Any, html: bool, report: bool, **options: Any) -> None:  # noqa: FBT001 -- click passes options by name
    """De-identify Bundles, resources and NDJSON, from files, folders or standard input (-); NDJSON out.

    Without --keys or --vault nobody can find anybody again: tokens are made for this run alone.
    """
    from datetime import date

    from sidecar.commands.deid import Asked, run
    from sidecar.deid import Mode

    mode, day = Mode(options.pop("mode")), today.date() if today is not None else date.today()  # noqa: DTZ011 -- the officer's day
    sys.exit(run(paths, Asked(mode, day, report=report or html, html=html, **options)))


rollout.add_to(models_group)
main.add_command(models_group)


@deid_group.command("rules")
@click.argument("types", nargs=-1, metavar="[TYPE]...")
@JSON
def deid_rules(types: tuple[str, ...], as_json: bool) -> None:  # noqa: FBT001 -- click passes options by name
    """Print the de-identification policy: of each element of the TYPEs, or of all, what happens to it and why."""
    from sidecar.commands.rules import rules as run

    run(types, as_json=as_json)


@main.group()
def keys() -> None:
    """Keys of the encrypted columns, and keys that sign us in to the EHR."""


@keys.command("new")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def keys_new(path: Path) -> None:
    """Make a key ring at PATH, readable by you only. Never overwrites."""
    from sidecar.store.keyfile import new_keys

    new_keys(path)
    click.echo(f"wrote {path}; keep it safe, and back it up apart from the database")


@keys.command("smart")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--alg", type=click.Choice(["ES384", "RS384"]), default="ES384", show_default=True, help="Algorithm.")
@click.option("--rotate", is_flag=True, help="Put a fresh key before those in PATH; a running server takes it at once.")
def keys_smart(path: Path, alg: str, rotate: bool) -> None:  # noqa: FBT001 -- click passes options by name
    """Make keys for SMART Backend Services at PATH, readable by you only; prints the public ones, to be registered."""
    from sidecar.commands.keys import smart

    smart(path, alg, rotate=rotate)


@keys.command("rotate")
@CONFIG
def keys_rotate(config: Path) -> None:
    """Add a fresh key to the ring and seal with it from now on. Running servers take it without a restart."""
    from sidecar.commands.keys import rotate

    rotate(config)


@keys.command("reseal")
@CONFIG
def keys_reseal(config: Path) -> None:
    """Seal every encrypted value again with the newest key, while servers run. Can be interrupted and repeated."""
    from sidecar.commands.keys import reseal

    reseal(config)


@keys.command("retire")
@CONFIG
@click.argument("key", type=click.IntRange(1, 255))
@click.option(
    "--anyway",
    is_flag=True,
    help="Also a key of which no copy is left, or of a server that vanished: what they sealed then opens nowhere.",
)
def keys_retire(config: Path, key: int, *, anyway: bool) -> None:
    """Take KEY out of the ring for good; refused while a value or a server needs it."""
    from sidecar.commands.keys import retire

    retire(config, key, anyway=anyway)


@main.group()
def patients() -> None:
    """What is stored of single patients."""


@patients.command("forget")
@CONFIG
@click.argument("patient")
def patients_forget(config: Path, patient: str) -> None:
    """Delete what is stored of PATIENT, the id of a Patient (- reads it from standard input)."""
    from sidecar.commands.patients import forget as run

    run(config, sys.stdin.readline().strip() if patient == "-" else patient)
