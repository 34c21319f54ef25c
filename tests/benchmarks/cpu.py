"""CPU time and memory of a process and all its children, from /proc: other load on the machine does not change them."""

import os
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> Iterator[int]:
    """`pid` and its descendants; those that end meanwhile are left out."""
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        yield one
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            waiting += map(int, _read(children).split())


def cpu_s(pid: int) -> float:
    """User and system seconds, of children that have ended too."""
    ticks = 0
    for one in tree(pid):
        fields = _read(Path(f"/proc/{one}/stat")).rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15])) if one == pid else sum(map(int, fields[11:13]))
    return ticks / TICKS


def rss_mib(pid: int) -> float:
    """Resident memory now, in MiB."""
    kib = 0
    for one in tree(pid):
        for line in _read(Path(f"/proc/{one}/status")).splitlines():
            if line.startswith("VmRSS:"):
                kib += int(line.split()[1])
    return kib / 1024


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
