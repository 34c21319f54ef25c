"""A folder of models of a test's own: NEWS2 in as many versions as wanted, which all say the same, each with a card."""

import contextlib
import io
import shutil
from pathlib import Path

from sidecar.commands.models_seal import seal
from sidecar.fleet import shipped
from sidecar.manifest.attributes import ATTRIBUTES

DECIDED = {"who": "Dr A", "why": "tests"}
CARD = "card.toml"


def models(folder: Path, *versions: str) -> Path:
    """`folder/models` with NEWS2 1.0.0 and these."""
    root = folder / "models"
    for version in ("1.0.0", *versions):
        add(root, version)
    return root


def add(root: Path, version: str) -> None:
    """One more."""
    made = root / "news2" / version
    shutil.copytree(shipped("models") / "news2" / "1.0.0", made)
    manifest = made / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('version = "1.0.0"', f'version = "{version}"'))
    carded(made)


def carded(folder: Path) -> None:
    """Give a version's folder a whole card, and pin what is in it."""
    (folder / CARD).write_text(card(folder.name, folder.parent.name))
    sealed(folder)


def sealed(folder: Path) -> None:
    """Pin the folder's files as they are."""
    with contextlib.redirect_stdout(io.StringIO()):
        seal(folder)


def card(version: str, model: str = "news2") -> str:
    """A card that says everything it must."""
    lines = [
        f'schema = 1\nmodel = "{model}"', f'version = "{version}"', 'measurable_objective = "x"', 'responder = "x"',
        '[[hazards]]\nhazard = "x"\nharm = "x"\ncontrol = "x"',
    ]  # fmt: skip
    lines += [f'[attributes.{name}]\nstatus = "provided"\ntext = "x"' for name in ATTRIBUTES]
    return "\n".join(lines) + "\n"


def use(config: Path, root: Path) -> None:
    """Let the settings name that folder."""
    config.write_text(f'models_dir = "{root}"\n{config.read_text()}')
