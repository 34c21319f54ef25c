"""A folder of models of a test's own: NEWS2 in as many versions as wanted, which all say the same."""

import shutil
from pathlib import Path

from sidecar.fleet import shipped

DECIDED = {"who": "Dr A", "why": "tests"}


def models(folder: Path, *versions: str) -> Path:
    """`folder/models` with NEWS2 1.0.0 and these."""
    root = folder / "models"
    shutil.copytree(shipped("models") / "news2", root / "news2")
    for version in versions:
        add(root, version)
    return root


def add(root: Path, version: str) -> None:
    """One more."""
    made = root / "news2" / version
    shutil.copytree(root / "news2" / "1.0.0", made)
    manifest = made / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('version = "1.0.0"', f'version = "{version}"'))


def use(config: Path, root: Path) -> None:
    """Let the settings name that folder."""
    config.write_text(f'models_dir = "{root}"\n{config.read_text()}')
