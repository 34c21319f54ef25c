"""Campaigns can be interrupted and gone on with."""

import asyncio
import json
import os
import signal

from tests.campaigns.runs import INTERRUPTED, Row, arguments, carry_out, merged


def options(*given):
    return arguments("tests.campaigns.example", "An example.").parse_args([*given])


def campaign(seen, *, interrupt_at=None, fail_at=None):
    async def one(run):
        seen.append((run.number, run.seed))
        assert run.folder.is_dir()
        if run.number == interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)
        ok = run.number != fail_at
        return {"ok": ok, "events": 10, "problems": [] if ok else ["lost one"]}

    return one


def test_an_interrupted_campaign_shows_what_it_found_and_goes_on_from_there(tmp_path, capsys):
    state, first, second = tmp_path / "new" / "state", [], []

    assert carry_out(Row("example", 4), campaign(first, interrupt_at=2), options("--state", str(state))) == INTERRUPTED
    so_far = capsys.readouterr().out
    assert carry_out(Row("example", 4), campaign(second), options("--state", str(state))) == 0

    assert "example: so far held, 2 of 4 runs" in so_far
    assert "events 20" in so_far
    assert second == [(2, first[0][1] + 2), (3, first[0][1] + 3)]
    assert "example: held, 4 of 4 runs" in capsys.readouterr().out


def test_a_run_that_failed_is_run_again_and_fails_the_campaign_until_it_holds(tmp_path, capsys):
    state, seen = str(tmp_path / "state"), []

    assert carry_out(Row("example", 3), campaign([], fail_at=1), options("--state", state, "--seed", "7")) == 1
    out = capsys.readouterr().out
    assert "seed 8: lost one" in out
    assert "example: 1 FAILED, 3 of 3 runs, seed 7" in out
    assert carry_out(Row("example", 3), campaign(seen), options("--state", state, "--seed", "7")) == 0
    assert seen == [(1, 8)]


def test_another_seed_or_other_settings_start_anew(tmp_path):
    state, seen = str(tmp_path / "state"), []
    assert carry_out(Row("example", 1, {"rung": "put"}), campaign(seen), options("--state", state, "--seed", "1")) == 0
    assert carry_out(Row("example", 1, {"rung": "put"}), campaign(seen), options("--state", state, "--seed", "2")) == 0
    assert carry_out(Row("example", 1, {"rung": "no"}), campaign(seen), options("--state", state, "--seed", "1")) == 0
    assert len(seen) == 3


def test_a_line_cut_by_a_kill_costs_its_run_and_no_other(tmp_path):
    state, seen = tmp_path / "state", []
    assert carry_out(Row("example", 2), campaign([]), options("--state", str(state), "--seed", "1")) == 0
    state.write_text(state.read_text()[:-20])
    assert carry_out(Row("example", 2), campaign(seen), options("--state", str(state), "--seed", "1")) == 0
    assert seen == [(1, 2)]
    seen.clear()
    assert carry_out(Row("example", 2), campaign(seen), options("--state", str(state), "--seed", "1")) == 0
    assert seen == []


def test_a_run_that_does_not_come_to_its_end_fails_and_the_others_go_on(capsys):
    async def one(run):
        if run.number == 0:
            raise TimeoutError("too slow")
        return {"ok": True, "problems": []}

    assert carry_out(Row("example", 3), one, options("--json", "--seed", "5")) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == ["seed 5: did not come to its end: TimeoutError: too slow"]
    assert [run["ok"] for run in found["runs"]] == [False, True, True]


def test_figures_of_several_runs_are_added_up_or_compared_as_their_names_say():
    runs = [
        {"lost": 1, "recovery_max_s": 2.0, "recovery_p50_s": 1.0, "kills": {"any": 1}, "rung": "put", "ok": True},
        {
            "lost": 0,
            "recovery_max_s": 5.0,
            "recovery_p50_s": 3.0,
            "kills": {"any": 2, "at": 1},
            "rung": "put",
            "ok": True,
        },
    ]
    assert merged(runs) == {
        "lost": 1, "recovery_max_s": 5.0, "recovery_p50_s": 2.0, "kills": {"any": 3, "at": 1}, "rung": "put",
    }  # fmt: skip
