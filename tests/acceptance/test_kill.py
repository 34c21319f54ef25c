"""`kill -9`, whenever it comes. The long run is `make campaign`; this is a sample of it, with a new seed each time."""

import signal
import subprocess
import sys

import pytest

from sidecar.store import SqliteStore
from tests.campaigns.kill import run
from tests.campaigns.runs import fresh_seed

KILLED_WHILE_MIGRATING = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sidecar.store import SqliteStore

left = int(sys.argv[2])

@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, *rest):
    global left
    left -= "CREATE" in statement
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

SqliteStore("sqlite:///" + sys.argv[1])
"""


def test_a_server_killed_at_any_moment_loses_no_acknowledged_event_and_writes_no_result_twice(tmp_path):
    seed = fresh_seed()
    sys.stdout.write(f"SIDECAR_SEED={seed}\n")

    report = run(8, seed, tmp_path)

    assert report.ok, report
    assert report.acknowledged > 0
    assert report.risk_assessments > 0


@pytest.mark.parametrize("tables", [1, 2, 10, 20])
def test_a_first_start_killed_while_it_makes_its_tables_does_not_stop_the_next_one(tmp_path, tables):
    path = tmp_path / "sidecar.db"
    command = [sys.executable, "-c", KILLED_WHILE_MIGRATING, str(path), str(tables)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL

    SqliteStore(f"sqlite:///{path}").close()
