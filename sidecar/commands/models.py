"""`sidecar models`: the doors to model folders. Imports are lazy, as in `sidecar.cli`."""

import sys
from pathlib import Path
from typing import Any

import click

from sidecar.commands.options import JSON

_FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
_MODELS_DIR = click.option(
    "--models-dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of models; default: the shipped ones.",
)


@click.group("models")
def models_group() -> None:
    """Model folders."""


@models_group.command("list")
@_MODELS_DIR
@JSON
def models_list(models_dir: Path | None, as_json: bool) -> None:  # noqa: FBT001 -- click passes options by name
    """List the models there are: versions, digest of the newest, kind, and whether its card is complete."""
    from sidecar.commands.models_list import list_models

    sys.exit(list_models(models_dir, as_json=as_json))


@models_group.command("show")
@click.argument("name")
@_MODELS_DIR
def models_show(name: str, models_dir: Path | None) -> None:
    """Explain the model NAME, or NAME/VERSION, in words: for whom it is, each input, and what it says."""
    from sidecar.commands.models_list import show

    sys.exit(show(name, models_dir))


@models_group.command("card")
@click.argument("name")
@_MODELS_DIR
@click.option("--html", is_flag=True, help="A page instead of Markdown.")
def models_card(name: str, models_dir: Path | None, html: bool) -> None:  # noqa: FBT001 -- click passes options by name
    """Print the card of the model NAME, or NAME/VERSION: what a risk officer must know."""
    from sidecar.commands.models_card import card

    sys.exit(card(name, models_dir, html=html))


@models_group.command("check")
@_FOLDER
@click.option(
    "--vectors", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Run a file of test vectors only."
)
@JSON
def models_check(folder: Path, vectors: Path | None, as_json: bool) -> None:  # noqa: FBT001 -- click passes options by name
    """Check everything about the model in FOLDER; 0 only if nothing fails. With --vectors: if all of them agree."""
    if vectors is not None:
        from sidecar.commands.models_vectors import check_vectors
        from sidecar.scoring import open_folder

        sys.exit(check_vectors(open_folder(folder), vectors, as_json=as_json))
    from sidecar.commands.models_check import check

    sys.exit(check(folder, as_json=as_json))


@models_group.command("new")
@click.argument("name")
@click.option(
    "--from", "graph", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=True, help="ONNX file."
)
@click.option("--features", help="The inputs in the graph's order: age,sex,egfr.")
@click.option(
    "--models-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("models"),
    show_default=True,
    help="Where to make NAME/0.1.0.",
)
def models_new(name: str, graph: Path, **options: Any) -> None:
    """Make a folder for the model NAME from its graph, with places to fill in."""
    from sidecar.commands.models_new import new

    sys.exit(new(name, graph, **options))


@models_group.command("seal")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
def models_seal(folders: tuple[Path, ...]) -> None:
    """Write the SHA-256 of every file in the FOLDERS into their manifests: you have looked at these files."""
    from sidecar.commands.models_seal import seal

    sys.exit(max(seal(folder) for folder in folders))


@models_group.command("schema")
@click.option("--card", is_flag=True, help="That of card.toml instead.")
def models_schema(card: bool) -> None:  # noqa: FBT001 -- click passes options by name
    """Print the JSON Schema of manifest.toml, for an editor to complete and check by."""
    from sidecar.commands.models_list import schema

    sys.exit(schema(card=card))
