"""A model's folder, read as what it is: files of somebody else.

Nothing is opened before the whole folder has been looked at: a link, a device, a pipe, a file of a kind that has no
place here (a pickle, a library) or too many bytes refuse it. Then each file is read once, without following links, and
only the bytes whose SHA-256 is the manifest's are used. A file that the manifest does not name refuses the folder.
The manifest itself is pinned by its digest, which every assessment carries.

Bytecode that Python left in `__pycache__` of a listed script is passed over: nothing of ours reads or runs it.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sidecar import toml
from sidecar.errors import Misconfigured
from sidecar.manifest.card import UNFILLED
from sidecar.manifest.declaration import Manifest, with_sets

MANIFEST = "manifest.toml"
KINDS = (".csv", ".json", ".md", ".onnx", ".py", ".toml", ".txt")
"""What may be in a folder: a graph, and text. Scripts are for people: the sidecar runs none."""
MAX_FILES = 1000
MAX_DEPTH = 3
MAX_GRAPH_BYTES = 200 * 1024 * 1024
MAX_TEXT_BYTES = 32 * 1024 * 1024
MAX_MANIFEST_BYTES = 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}")
_BYTECODE = re.compile(r"([A-Za-z0-9_]+)\.[a-z]+-[0-9]+(\.opt-[12])?\.pyc")
_ODD = {
    stat.S_ISLNK: "is a link, and a model's files lie in its folder",
    stat.S_ISFIFO: "is a pipe",
    stat.S_ISSOCK: "is a socket",
    stat.S_ISCHR: "is a device",
    stat.S_ISBLK: "is a device",
}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What was read: the manifest, its own digest, and every verified file by its name in the folder."""

    path: Path
    manifest: Manifest
    digest: str
    files: Mapping[str, bytes]


def read_folder(folder: Path) -> ModelFolder:
    """Look through `models/<name>/<version>`, read it, and verify every file in it.

    Raises:
        Misconfigured: everything that is wrong with it at once, as far as it may be looked at.
    """
    folder = absolute(folder)
    with _Opened(folder) as opened:
        names = opened.names()
        raw = opened.read(MANIFEST, MAX_MANIFEST_BYTES)
        path = folder / MANIFEST
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise Misconfigured([f"{path}: is not text in UTF-8"]) from None
        if left := unfilled(text):
            raise Misconfigured([f"{path}:{line}: still to be filled in: {key}" for line, key in left])
        manifest = toml.parse(text, str(path), Manifest)
        if (folder.parent.name, folder.name) != (manifest.name, manifest.version):
            raise Misconfigured([f"{path}: says {manifest.name} {manifest.version}, the folder says otherwise"])
        files = _verified(opened, names, manifest)
    manifest = with_sets(manifest, path, files)
    return ModelFolder(folder, manifest, hashlib.sha256(raw).hexdigest(), files)


def absolute(folder: Path) -> Path:
    """The folder's path: links are followed up to the folder of all models, and not from there on."""
    given = Path(os.path.abspath(folder))  # noqa: PTH100 -- resolve() would follow a link that the folder itself is
    root = given.parents[1] if len(given.parents) > 1 else given
    return root.resolve() / given.parent.name / given.name


def unfilled(text: str) -> list[tuple[int, str]]:
    """The places of a scaffold that its author has not filled in: the line, and what stands there."""
    lines = enumerate(text.splitlines(), 1)
    return [(number, line.strip()) for number, line in lines if UNFILLED in line.partition("#")[0]]


def files_in(folder: Path) -> tuple[str, ...]:
    """The names of a folder's files but the manifest, after a look at each and before any is opened.

    Raises:
        Misconfigured: everything in it that must not be there.
    """
    with _Opened(absolute(folder)) as opened:
        return tuple(name for name in opened.names() if name != MANIFEST)


def read_file(folder: Path, name: str) -> bytes:
    """The bytes of one file of a folder, read once and without following links.

    Raises:
        Misconfigured: it is none, cannot be read, or is too large.
    """
    with _Opened(absolute(folder)) as opened:
        return opened.read(name, _limit(name))


def _verified(opened: "_Opened", names: tuple[str, ...], manifest: Manifest) -> dict[str, bytes]:
    found, problems = dict[str, bytes](), list[str]()
    # A value set that is not in the folder is one that ships with the sidecar.
    own_sets = {f"valuesets/{name}.toml": sha256 for name, sha256 in manifest.valuesets.items()}
    pinned = {**manifest.pinned, **{name: sha256 for name, sha256 in own_sets.items() if name in names}}
    for name in names:
        if name not in pinned and name != MANIFEST:
            problems.append(
                f"{opened.folder / name}: the manifest does not list it; delete it, or review it and run "
                f"`sidecar models seal {opened.folder}`"
            )
    for name, sha256 in pinned.items():
        try:
            content = opened.read(name, _limit(name))
        except Misconfigured as error:
            problems += error.problems
            continue
        actual = hashlib.sha256(content).hexdigest()
        if actual != sha256:
            problems.append(
                f"{opened.folder / name}: SHA-256 is {actual}, its manifest says {sha256}: not the reviewed file"
            )
        elif not name.endswith(".onnx") and not _is_text(content):
            problems.append(f"{opened.folder / name}: is not text in UTF-8, as its name says")
        found[name] = content
    if problems:
        raise Misconfigured(problems)
    return found


def _limit(name: str) -> int:
    return MAX_GRAPH_BYTES if name.endswith(".onnx") else MAX_TEXT_BYTES


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


class _Opened:
    """A folder held open, so that what is looked at and what is read is the same one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fd = -1

    def __enter__(self) -> Self:
        name, version = self.folder.parent.name, self.folder.name
        if not (name and version):
            raise Misconfigured([f"{self.folder}: is no folder of a model: models/NAME/VERSION"])
        try:
            root = os.open(self.folder.parents[1], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._fd = _down(root, (name, version))
            finally:
                os.close(root)
        except OSError as error:
            raise Misconfigured([f"{self.folder}: is no folder, or a link ({type(error).__name__})"]) from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def names(self) -> tuple[str, ...]:
        """Every file, by its path in the folder.

        Raises:
            Misconfigured: what must not be there, all of it.
        """
        problems: list[str] = []
        found: list[str] = []
        try:
            for name, problem in self._walk(self._fd, ""):
                if problem is None:
                    found.append(name)
                else:
                    problems.append(f"{self.folder / name}: {problem}")
                if len(found) + len(problems) > MAX_FILES:
                    problems.append(f"{self.folder}: more than {MAX_FILES} files")
                    break
        except OSError as error:
            problems.append(f"{self.folder}: changed while it was looked at ({type(error).__name__})")
        if problems:
            raise Misconfigured(problems)
        return tuple(sorted(found))

    def _walk(self, fd: int, inside: str) -> Iterator[tuple[str, str | None]]:
        """Every file below, with what is wrong with it, from its entry alone: nothing but folders is opened."""
        with os.scandir(fd) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            name, status = f"{inside}{entry.name}", entry.stat(follow_symlinks=False)
            shown = name if name.isprintable() else ascii(name)
            if stat.S_ISDIR(status.st_mode):
                if entry.name == "__pycache__":
                    yield from self._bytecode(fd, inside)
                elif _NAME.fullmatch(entry.name) is None or name.count("/") + 2 > MAX_DEPTH:
                    yield shown, "is a folder that has no place here"
                else:
                    below = _down(fd, (entry.name,))
                    try:
                        yield from self._walk(below, f"{name}/")
                    finally:
                        os.close(below)
            else:
                yield shown, _trouble(entry.name, status)

    def _bytecode(self, fd: int, inside: str) -> Iterator[tuple[str, str | None]]:
        scripts = set(os.listdir(fd))
        below = _down(fd, ("__pycache__",))
        try:
            with os.scandir(below) as entries:
                for entry in entries:
                    match = _BYTECODE.fullmatch(entry.name)
                    plain = match and f"{match.group(1)}.py" in scripts and entry.is_file(follow_symlinks=False)
                    if not plain:
                        yield f"{inside}__pycache__/{entry.name}", "is no bytecode of a script here"
        finally:
            os.close(below)

    def read(self, name: str, limit: int) -> bytes:
        """A file's bytes, read once; a link that took the place of the file since it was looked at is not followed.

        Raises:
            Misconfigured: it cannot be read, is no file, or is larger than `limit`.
        """
        *folders, last = name.split("/")
        if {"", ".", ".."} & {*folders, last}:
            raise Misconfigured([f"{self.folder}: {name} is no name of a file in the folder"])
        try:
            below = _down(self._fd, tuple(folders))
            try:
                fd = os.open(last, _FILE, dir_fd=below)
            finally:
                os.close(below)
            with os.fdopen(fd, "rb") as file:
                status = os.fstat(file.fileno())
                trouble = None if stat.S_ISREG(status.st_mode) else "is no file"
                content = b"" if trouble else file.read(limit + 1)
        except OSError as error:
            raise Misconfigured([f"{self.folder / name}: cannot be read ({type(error).__name__})"]) from None
        if len(content) > limit:
            trouble = f"larger than {limit} bytes"
        if trouble:
            raise Misconfigured([f"{self.folder / name}: {trouble}"])
        return content


def _trouble(name: str, status: os.stat_result) -> str | None:
    """What is wrong with an entry that is no folder; None if it may be read."""
    odd = next((why for is_one, why in _ODD.items() if is_one(status.st_mode)), None)
    if odd is not None or not stat.S_ISREG(status.st_mode):
        return odd or "is no file"
    if _NAME.fullmatch(name) is None:
        return "has a name that a model's file cannot have"
    if not name.endswith(KINDS):
        return f"is of a kind that has no place here: only {', '.join(KINDS)}"
    limit = MAX_MANIFEST_BYTES if name == MANIFEST else _limit(name)
    return f"larger than {limit} bytes" if status.st_size > limit else None


def _down(fd: int, names: tuple[str, ...]) -> int:
    """A descriptor of the folder below `fd`, no step of which is a link. The caller closes it."""
    current = os.dup(fd)
    for name in names:
        try:
            below = os.open(name, _DIRECTORY, dir_fd=current)
        finally:
            os.close(current)
        current = below
    return current
