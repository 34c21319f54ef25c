"""Options that several commands share."""

from pathlib import Path

import click

CONFIG = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("sidecar.toml"),
    show_default=True,
    help="Settings file.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
