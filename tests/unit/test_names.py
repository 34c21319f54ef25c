"""The project speaks of itself alone, in names that say something."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_locks_carry_hashes_and_no_address():
    for name in (f for f in TRACKED if f.endswith(".lock")):
        lock = (ROOT / name).read_text()
        assert "--hash=sha256:" in lock
        assert not re.search(r"https?://|--index|--find-links", lock)


def test_no_file_is_larger_than_one_and_a_half_megabytes():
    assert [f for f in TRACKED if (ROOT / f).is_file() and (ROOT / f).stat().st_size > 1_500_000] == []


def test_no_module_is_named_after_nothing():
    empty = re.compile(r"(^|[_/])(manager|helpers?|utils?|common|misc|base|processor)(_|\.py$|/)")
    assert [f for f in TRACKED if f.endswith(".py") and empty.search(f)] == []


def test_no_source_file_is_longer_than_four_hundred_lines():
    sources = [f for f in TRACKED if f.startswith("sidecar/") and f.endswith(".py") and (ROOT / f).is_file()]
    assert [f for f in sources if (ROOT / f).read_text().count("\n") > 400] == []
