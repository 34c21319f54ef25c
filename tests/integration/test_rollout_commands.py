"""`sidecar models …`: with a serving process through its door, without one from the database."""

import asyncio
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest

from sidecar.settings import admin_socket, load
from tests.harness import house, now, observation_set, open_store, until, write_site
from tests.versions import CARD, card, models, sealed, use


def run(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sidecar", "models", *words, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def said(config: Path, *words: str):
    done = run(config, *words, "--json")
    assert done.returncode == 0, done.stderr
    return orjson.loads(done.stdout)


SIGNED = ("--who", "Dr A", "--why", "because")


@pytest.fixture
def site(tmp_path) -> Path:
    """The settings of a site whose server does not run; its database is there."""
    config = write_site(tmp_path, "http://127.0.0.1:1/fhir", promoted=False)
    use(config, models(tmp_path, "2.0.0"))
    with open_store(tmp_path):
        return config


def test_every_transition_is_recorded_with_who_why_and_evidence_and_shown_as_text_and_json(site):
    said(site, "shadow", "news2", "--version", "1.0.0", *SIGNED)
    said(site, "promote", "news2", "--version", "1.0.0", "--evidence", "minutes 7", "--override", "a trial", *SIGNED)
    found = said(site, "which", "news2")["models"]["news2"]
    assert found["champion"]["version"] == "1.0.0"
    assert len(found["champion"]["digest"]) == 64
    entries = said(site, "history")
    assert [(e["what"], e["who"], e["why"]) for e in entries] == [
        ("shadow", "Dr A", "because"), ("promote", "Dr A", "because")
    ]  # fmt: skip
    assert (entries[1]["evidence"], entries[1]["override"]) == ("minutes 7", "a trial")
    text = run(site, "history").stdout
    assert "promote news2 1.0.0" in text
    assert "the log is as it was written" in text


def test_a_version_that_never_ran_in_shadow_is_not_promoted_unless_somebody_says_why_not(site):
    done = run(site, "promote", "news2", "--version", "2.0.0", *SIGNED)
    assert done.returncode == 2
    assert "no results from shadow" in done.stderr
    done = run(site, "canary", "news2", "--version", "2.0.0", "--percent", "5", *SIGNED)
    assert done.returncode == 2
    assert said(site, "history") == []
    assert said(site, "promote", "news2", "--version", "2.0.0", "--override", "a trial", *SIGNED)["done"]["number"] == 1


def test_who_and_why_are_required_and_cannot_be_empty(site):
    assert run(site, "rollback", "news2", "--why", "because").returncode == 2
    done = run(site, "stop-writes", "--who", " ", "--why", "because")
    assert done.returncode == 2
    assert "who and why must be said" in done.stderr


def test_which_answers_for_a_moment_of_the_past(site):
    said(site, "promote", "news2", "--version", "1.0.0", "--override", "x", *SIGNED)
    then = said(site, "which")["at"]
    said(site, "promote", "news2", "--version", "2.0.0", "--override", "x", *SIGNED)
    assert said(site, "which", "news2", "--at", then)["models"]["news2"]["champion"]["version"] == "1.0.0"
    assert said(site, "which", "news2")["models"]["news2"]["champion"]["version"] == "2.0.0"
    assert said(site, "which", "news2", "--at", "2020-01-01T00:00:00+00:00")["models"]["news2"]["champion"] is None
    assert "say the offset" in run(site, "which", "--at", "2026-01-01T00:00:00").stderr


def test_a_folder_that_changed_under_its_version_is_refused(site):
    said(site, "shadow", "news2", "--version", "1.0.0", *SIGNED)
    manifest = site.parent / "models" / "news2" / "1.0.0" / "manifest.toml"
    manifest.write_text(manifest.read_text() + "\n# changed\n")
    done = run(site, "promote", "news2", "--version", "1.0.0", "--override", "x", *SIGNED)
    assert done.returncode == 2
    assert "a changed model needs a new version" in done.stderr


def test_stop_writes_works_while_a_model_folder_is_broken(site):
    shutil.rmtree(site.parent / "models")
    assert said(site, "stop-writes", *SIGNED)["stopped"] is True
    assert said(site, "which")["stopped"] is True
    assert said(site, "allow-writes", *SIGNED)["stopped"] is False


def test_a_model_or_version_that_is_not_there_is_refused_with_what_there_is(site):
    assert "they run: news2" in run(site, "suspend", "news3", *SIGNED).stderr
    assert "versions there: 1.0.0, 2.0.0" in run(site, "shadow", "news2", "--version", "3.0.0", *SIGNED).stderr


def test_what_is_said_on_many_lines_is_refused(site):
    assert "on one line" in run(site, "stop-writes", "--who", "Dr A", "--why", "one\ntwo").stderr


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--who", "MRN 1234567"),
        ("--why", "born 1950-05-04"),
        ("--evidence", "seen on 04.05.1950"),
        ("--override", "died 5/4/50"),
        ("--why", "of 4 May 1950"),
        ("--evidence", "123-45-6789"),
    ],
)
def test_what_looks_like_a_date_or_a_number_of_a_person_is_refused_and_not_repeated(site, option, text):
    said_ = {"--who": "Dr A", "--why": "because", option: text}
    done = run(site, "promote", "news2", "--version", "1.0.0", *(part for pair in said_.items() for part in pair))
    assert done.returncode != 0
    assert f"{option[2:]}: no whole date" in done.stderr
    assert text not in done.stderr
    assert text not in run(site, "history", "--json").stdout


def test_what_people_say_of_evidence_is_taken(site):
    said(
        site, "promote", "news2", "--version", "1.0.0", "--evidence", "validation of 2026-10, page 12345, ticket AI-4711",
        "--override", "3 sites, 2.0.0 of 10.2", *SIGNED,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["promote", "canary"])
def test_the_help_says_that_no_patient_may_be_named(site, command):
    told = " ".join(run(site, command, "--help").stdout.split())
    assert told.count("it must not name a patient") == 4


def test_a_version_whose_card_is_not_whole_is_not_promoted_whatever_somebody_says(site):
    folder = site.parent / "models" / "news2" / "2.0.0"
    (folder / CARD).write_text(card("2.0.0").replace('responder = "x"', 'responder = ""'))
    sealed(folder)
    for words in (("promote",), ("canary", "--percent", "5")):
        done = run(site, words[0], "news2", "--version", "2.0.0", *words[1:], "--override", "x", *SIGNED)
        assert done.returncode == 2
        assert "its card does not say responder" in done.stderr
    said(site, "shadow", "news2", "--version", "2.0.0", *SIGNED)


def test_nobody_can_give_the_settings_file_as_the_evidence_of_a_decision(site):
    words = ("promote", "news2", "--version", "1.0.0", "--override", "x", *SIGNED)
    done = run(site, *words, "--evidence", " settings ")
    assert done.returncode == 2
    assert "is what the settings file decided" in done.stderr
    assert said(site, "history") == []


def test_a_server_that_does_not_answer_is_no_reason_to_repeat_a_decision_unseen(site):
    door = admin_socket(load(site))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(door))
        listening.listen()
        hangs_up = threading.Thread(target=lambda: [listening.accept()[0].close() for _ in range(2)], daemon=True)
        hangs_up.start()
        done = run(site, "rollback", "news2", *SIGNED)
    assert done.returncode != 0
    assert "it may be recorded all the same: look at what stands" in done.stderr


async def test_a_serving_process_takes_what_is_asked_through_its_door(tmp_path):
    async with house(tmp_path, promoted=False, models_dir=models(tmp_path)) as served:
        config = tmp_path / "sidecar.toml"
        await served.admit("p1")
        await served.chart(observation_set("p1", now(1), c9279_1=26))
        await served.settled()
        assert served.risk_assessments() == []

        report = await asyncio.to_thread(said, config, "shadow-report", "news2")
        assert (report["results"], report["patient_days"], report["alerts"]) == (1, 1, 1)
        assert report["alerts_per_100_patient_days"] == 100.0
        done = await asyncio.to_thread(said, config, "promote", "news2", *SIGNED)
        assert done["running"] == [{"track": "news2", "version": "1.0.0", "arm": "champion"}]
        assert done["done"]["evidence"] == "shadow: 1 results in 1 patient-days, 100 alerts per 100"

        await served.chart(observation_set("p1", now(0)))
        await until(lambda: len(served.risk_assessments()) == 1)
        assert served.risk_assessments()[0]["status"] == "final"
