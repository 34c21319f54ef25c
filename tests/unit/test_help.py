"""`--help` helps: each command says what it does, and examples stand on lines of their own."""

import click
import pytest
from click.testing import CliRunner

from sidecar.cli import main


def commands(command: click.Command, *path: str):
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, *path, name)


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_every_command_and_option_is_explained(path):
    done = CliRunner().invoke(main, [*path, "--help"])
    assert done.exit_code == 0
    assert "\\b" not in done.output
    inner = main
    for name in path:
        inner = inner.commands[name]
    assert inner.help
    assert not [p.name for p in inner.params if isinstance(p, click.Option) and not (p.help or p.hidden)]


def test_the_examples_of_the_first_help_stand_on_lines_of_their_own():
    said = CliRunner().invoke(main, ["--help"]).output.splitlines()
    assert [line for line in said if line.strip().startswith("Try it:")]
    assert [line for line in said if line.strip().startswith("Score a file:")]
