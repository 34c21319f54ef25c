"""`.ci/run` on machines that lack something: what it installs, and what it says. Every command is a small script."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "run"
TOOLS = ("bash", "dirname", "touch", "cat", "chmod")
PARTS = {
    "make": "make", "git": "git", "python3-venv": "python3", "maven": "mvn", "nodejs": "node", "npm": "npm", "postgresql": "initdb",
    "chromium": "chromium", "default-jdk-headless": "javac java",
}  # fmt: skip
SAYS = {"java": 'openjdk version "21.0.4" 2024-07-16', "node": "v18.20.4"}
APT = """#!/bin/bash
echo "$*" >> {log}
[ "$1" = install ] || exit 0
package="${{!#}}"
[ -f {shelf}/"$package" ] || exit 100
for command in $(cat {shelf}/"$package"); do cat {shelf}/bin-$command > {path}/$command; chmod +x {path}/$command; done
"""


@dataclass
class Machine:
    """A PATH, and what apt could add to it."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "path"

    def put(self, *commands: str, **texts: str) -> None:
        for name in commands:
            shutil.copy(self.folder / "shelf" / f"bin-{name}", self.path / name)
        for name, text in texts.items():
            self.script(self.path / name, text)

    def script(self, file: Path, text: str) -> None:
        file.write_text(text)
        file.chmod(0o755)

    def run(self, user: int = 0) -> subprocess.CompletedProcess[str]:
        self.put(id=f"#!/bin/bash\necho {user}\n")
        env = {"PATH": str(self.path), "HOME": str(self.folder)}
        return subprocess.run([SCRIPT], env=env, capture_output=True, text=True, timeout=60, check=False)

    @property
    def asked(self) -> list[str]:
        log = self.folder / "apt.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def machine(tmp_path):
    """A clean machine; every part is on apt's shelf but openjdk-17-jdk-headless."""
    found, shelf = Machine(tmp_path), tmp_path / "shelf"
    shelf.mkdir()
    found.path.mkdir()
    for tool in TOOLS:
        found.path.joinpath(tool).symlink_to(str(shutil.which(tool)))
    found.path.joinpath("env").symlink_to(str(shutil.which("env")))
    for package, commands in PARTS.items():
        shelf.joinpath(package).write_text(commands)
        for name in commands.split():
            text = f"#!/bin/bash\necho '{SAYS.get(name, name)}' \"$*\"\n"
            found.script(shelf / f"bin-{name}", text)
    found.script(found.path / "apt-get", APT.format(log=tmp_path / "apt.log", shelf=shelf, path=found.path))
    return found


EVERYTHING = [name for commands in PARTS.values() for name in commands.split()]


def test_where_everything_is_there_apt_is_not_touched(machine):
    machine.put(*EVERYTHING)
    for user in (0, 1000):
        ran = machine.run(user)
        assert (ran.returncode, ran.stdout) == (0, "make check\n"), ran.stderr
    assert machine.asked == []


def test_on_a_clean_machine_every_part_is_installed_and_one_that_is_not_known_stops_none(machine):
    machine.put("initdb")
    ran = machine.run()
    assert (ran.returncode, ran.stdout) == (0, "make check\n"), ran.stderr
    assert machine.asked[0].startswith("update")
    assert sum(line.startswith("update") for line in machine.asked) == 1
    installed = [line.split()[-1] for line in machine.asked[1:]]
    assert set(installed) == {*PARTS, "openjdk-17-jdk-headless"} - {"postgresql"}


def test_what_is_too_old_and_cannot_be_renewed_is_named_and_nothing_is_checked(machine):
    machine.put(*EVERYTHING, node="#!/bin/bash\necho v16.20.0\n")
    (machine.folder / "shelf" / "nodejs").unlink()
    ran = machine.run()
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines()[-1].endswith("(java 17, node 18): nodejs")


def test_who_is_not_root_hears_of_everything_that_is_missing(machine):
    machine.put("make", "git", "python3", "node", "npm", "initdb", "chromium")
    ran = machine.run(1000)
    assert ran.returncode == 1
    assert machine.asked == []
    assert "not root" in ran.stderr
    assert "openjdk-17-jdk-headless" in ran.stderr
    assert "maven" in ran.stderr
    assert "postgresql" not in ran.stderr
