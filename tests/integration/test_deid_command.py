"""`sidecar deid`: files in, de-identified resources out, and what an officer may see of it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from sidecar.cli import main
from sidecar.deid import Mode, load_rules
from sidecar.store import new_keys
from sidecar.store.keyfile import fresh_key, read_keys, replace_keys

CANARY = "Zebulon"
LOINC = "http://loinc.org"


def person(number: int = 1) -> dict:
    return {
        "resourceType": "Patient", "id": f"{CANARY}-{number}", "birthDate": "1950-05-04", "gender": "male",
        "name": [{"family": CANARY}], CANARY: CANARY, "telecom": [{"value": CANARY}],
    }  # fmt: skip


def reading(number: int = 1, **more) -> dict:
    return {
        "resourceType": "Observation", "id": f"o-{CANARY}-{number}", "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "8867-4", "display": CANARY}], "text": CANARY},
        "subject": {"reference": f"Patient/{CANARY}-{number}", "display": CANARY},
        "effectiveDateTime": "2026-03-01T12:00:00Z",
        "valueQuantity": {"value": 88, "unit": CANARY, "system": "http://unitsofmeasure.org", "code": "/min"}, **more,
    }  # fmt: skip


def bundle(*resources: dict) -> dict:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}


def lines(*documents: dict) -> bytes:
    return b"".join(orjson.dumps(d) + b"\n" for d in documents)


def deid(*words: object, given: bytes | None = None):
    done = CliRunner().invoke(main, ["deid", *map(str, words)], input=given)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def out(done) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def ring(tmp_path) -> Path:
    new_keys(tmp_path / "ring.toml")
    return tmp_path / "ring.toml"


def test_a_folder_of_bundles_and_lines_comes_out_in_order_without_what_identifies(tmp_path):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "a.json").write_text(json.dumps(bundle(person(1), reading(1)), indent=1))
    (tmp_path / "deeper" / "b.ndjson").write_bytes(lines(person(2), reading(2)))
    (tmp_path / "c.txt").write_text(CANARY)
    done = deid(tmp_path)
    assert done.exit_code == 0, done.stderr
    assert [r["resourceType"] for r in out(done)] == ["Bundle", "Patient", "Observation"]
    assert CANARY.casefold() not in done.stdout.casefold()
    kept = out(done)[2]
    assert (kept["valueQuantity"]["value"], kept["code"]["coding"]) == (88, [{"system": LOINC, "code": "8867-4"}])
    assert kept["subject"]["reference"] == f"Patient/{out(done)[1]['id']}"


def test_a_line_that_cannot_be_read_is_told_by_its_place_and_the_others_pass():
    given = lines(person(1)) + f'{{"{CANARY}": \n[1]\n\n'.encode() + lines(reading(1))
    done = deid("-", given=given)
    assert done.exit_code == 1
    assert [r["resourceType"] for r in out(done)] == ["Patient", "Observation"]
    assert "standard input, line 2: not valid JSON" in done.stderr
    assert "standard input, line 3: no resource" in done.stderr
    assert CANARY not in done.output


def test_no_file_is_named_unless_somebody_asks_for_it(tmp_path):
    """What a file is called is often whom it is about."""
    (tmp_path / f"a-{CANARY}").mkdir()
    (tmp_path / f"a-{CANARY}" / f"{CANARY}.json").write_text(json.dumps(person(1)))
    (tmp_path / f"b-{CANARY}.ndjson").write_bytes(lines(reading(1)) + b"{\n")
    (tmp_path / f"c-{CANARY}.json").write_text("[")
    for words in ((), ("--diff",), ("--report",), ("--html",)):
        done = deid(tmp_path, *words)
        assert done.exit_code == 1
        assert CANARY.casefold() not in done.output.casefold()
        assert "file 2, line 2: not valid JSON" in done.stderr
        assert "file 3: not valid JSON" in done.stderr
    assert "--- file 1, line 1\n" in deid(tmp_path, "--diff").stdout
    named = deid(tmp_path, "--diff", "--names")
    assert f"--- {tmp_path / f'a-{CANARY}' / f'{CANARY}.json'}, line 1\n" in named.stdout
    assert f"b-{CANARY}.ndjson, line 2: not valid JSON" in named.stderr


TWICE = [
    '{"resourceType": "Patient", "id": "x", "gender": "male", "gender": "female"}',
    '{"resourceType": "Observation", "status": "final", "status": "entered-in-error"}',
    '{"resourceType": "Observation", "status": "final", "st\\u0061tus": "entered-in-error"}',
    '{"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Patient", "active": true, "active": false}}]}',
    '{"resourceType": "Patient", "link": [{"type": "refer"}], "text": "a\\"b:c", "link": []}',
]
ONCE = [
    '{"resourceType": "Patient", "id": "a:b", "text": "x\\\\", "gender": "male"}',
    ' {"resourceType":"Patient" , "gender" :\t"male","active":true, "x":{"gender":1.50, "y":[{"gender":1e3},{"gender":[]}]}}',
    '{"resourceType": "Patient", "text": "\\":\\"\\u003a:", "gender": "male"}',
]


@pytest.mark.parametrize("written", TWICE)
def test_a_key_that_is_there_twice_leaves_its_document_out(written):
    done = deid("-", given=written.encode() + b"\n" + lines(reading(1)))
    assert (done.exit_code, [r["resourceType"] for r in out(done)]) == (1, ["Observation"])
    assert "standard input, line 1: a key is there twice" in done.stderr
    alone = deid("-", given=written.replace(", ", ",\n").encode())
    assert (alone.exit_code, alone.stdout) == (1, "")
    assert "a key is there twice" in alone.stderr


@pytest.mark.parametrize("written", ONCE)
def test_colons_and_quotes_in_texts_are_no_keys(written):
    done = deid("-", given=written.encode())
    assert (done.exit_code, len(out(done))) == (0, 1), done.stderr


def test_what_is_nested_too_deeply_to_be_written_is_not_read():
    deep = b'{"resourceType": "Patient", "x": ' + b"[" * 400 + b"]" * 400 + b"}\n"
    done = deid("-", given=deep + lines(person(1)))
    assert (done.exit_code, len(out(done))) == (1, 1)
    assert "standard input, line 1: nested too deeply" in done.stderr


def test_two_sites_have_no_token_in_common_and_one_has_its_own_again(tmp_path, ring):
    words = ("-", "--keys", ring, "--vault", tmp_path / "v")
    north, south, again = (
        out(deid(*words, "--site", site, given=lines(person(1))))[0]["id"] for site in ("north", "south", "north")
    )
    assert north == again != south
    keyed = ("-", "--keys", ring, "--mode", "keyed_pseudonyms")
    one, two = (out(deid(*keyed, "--site", site, given=lines(person(1))))[0]["id"] for site in ("north", "south"))
    assert one != two
    refused = deid(*words, "--site", "a|b", given=lines(person(1)))
    assert (refused.exit_code, refused.stdout) == (2, "")


def test_two_runs_of_one_vault_give_one_year_and_a_report_uses_up_none(tmp_path, ring):
    vault = tmp_path / "v"
    words = ("-", "--keys", ring, "--vault", vault)
    assert deid(*words, "--report", given=lines(reading(1))).exit_code == 0
    assert vault.stat().st_size == 0
    first = out(deid(*words, given=lines(reading(1))))[0]
    later = out(deid(*words, given=lines(reading(1, effectiveDateTime="2026-03-01T13:00:00Z"))))[0]
    assert first["effectiveDateTime"] == "2026"
    assert "effectiveDateTime" not in later
    assert later["_effectiveDateTime"]["extension"][0]["valueDecimal"] == 3_600
    assert b"2026-03-01" not in vault.read_bytes()


def test_a_vault_whose_lines_are_mostly_superseded_is_written_anew(tmp_path, ring):
    words = ("-", "--keys", ring, "--vault", tmp_path / "v")
    years = lines(*(reading(1, effectiveDateTime=f"{year}-03-01T12:00:00Z") for year in range(1990, 2026)))
    once = out(deid(*words, given=years))
    before = (tmp_path / "v").stat().st_size
    twice = out(deid(*words, given=years))
    assert (tmp_path / "v").stat().st_size < before / 2
    beside = [out["_effectiveDateTime"] for out in twice]
    assert beside == [out["_effectiveDateTime"] for out in once]


def test_a_refused_resource_is_told_by_its_reason_and_the_exit_code():
    done = deid("-", given=lines(reading(1, modifierExtension=[{"url": CANARY}]), reading(2)))
    assert done.exit_code == 1
    assert len(out(done)) == 1
    assert "refused: modifier:Observation.modifierExtension x 1" in done.stderr


def test_a_document_over_several_lines_is_one_document():
    done = deid("-", given=json.dumps(bundle(person(1)), indent=4).encode())
    assert (done.exit_code, len(out(done))) == (0, 1)


@pytest.mark.parametrize("form", ["--report", "--html"])
def test_the_report_counts_each_element_and_holds_no_value(form):
    done = deid("-", form, given=lines(person(1), reading(1), reading(2)))
    assert done.exit_code == 0, done.stderr
    assert CANARY.casefold() not in done.output.casefold()
    if form == "--report":
        found = json.loads(done.stdout)
        assert found["resources"] == {"Observation": 2, "Patient": 1}
        assert found["elements"]["Observation.code.text"] == {"dropped": 2}
        assert found["elements"]["Patient.name"] == {"dropped": 1}
        assert (found["mode"], found["rules"]) == ("safe_harbor_rules", load_rules(mode=Mode.SAFE_HARBOR_RULES).digest)
    else:
        assert "<td>Patient.name</td>" in done.stdout


def test_the_diff_says_what_each_rule_did_and_shows_no_value_that_goes():
    done = deid("-", "--diff", given=lines(person(1), reading(1)))
    assert "dropped      Patient.name" in done.stdout
    assert "generalised  Patient.birthDate" in done.stdout
    assert "kept         Observation.valueQuantity" in done.stdout
    assert CANARY.casefold() not in done.output.casefold()


def test_tokens_are_of_one_run_unless_a_vault_keeps_them_and_the_vault_tells_nobody(tmp_path, ring):
    vault = tmp_path / "vault"
    kept = [deid("-", "--keys", ring, "--vault", vault, given=lines(person(1))) for _ in range(2)]
    apart = [deid("-", given=lines(person(1))) for _ in range(2)]
    assert out(kept[0])[0]["id"] == out(kept[1])[0]["id"]
    assert out(apart[0])[0]["id"] != out(apart[1])[0]["id"]
    assert CANARY.encode() not in vault.read_bytes()
    assert vault.stat().st_mode & 0o077 == 0


def test_a_vault_does_not_open_with_another_ring_or_for_others(tmp_path, ring):
    vault, other = tmp_path / "vault", tmp_path / "other.toml"
    new_keys(other)
    assert deid("-", "--keys", ring, "--vault", vault, given=lines(person(1))).exit_code == 0
    before = vault.read_bytes()
    refused = deid("-", "--keys", other, "--vault", vault, given=lines(person(2)))
    assert (refused.exit_code, refused.stdout, vault.read_bytes()) == (2, "", before)
    assert "does not open with this key ring" in refused.stderr
    vault.chmod(0o644)
    assert "chmod 600" in deid("-", "--keys", ring, "--vault", vault, given=b"").stderr


def test_a_vault_turns_with_the_ring_at_its_next_use_and_keeps_its_tokens(tmp_path, ring):
    vault = tmp_path / "vault"
    first = deid("-", "--keys", ring, "--vault", vault, given=lines(person(1)))
    replace_keys(ring, read_keys(ring).grown(2, fresh_key()).turned(2))
    second = deid("-", "--keys", ring, "--vault", vault, given=lines(person(1), person(2)))
    assert vault.stat().st_mode & 0o077 == 0
    replace_keys(ring, read_keys(ring).without(1))
    third = deid("-", "--keys", ring, "--vault", vault, given=lines(person(1), person(2)))
    assert out(first)[0]["id"] == out(second)[0]["id"] == out(third)[0]["id"]
    assert out(second)[1]["id"] == out(third)[1]["id"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_vault_without_a_ring_and_a_vault_of_another_mode_are_refused(tmp_path, ring):
    assert "--keys" in deid("-", "--vault", tmp_path / "v", given=b"").stderr
    wrong = deid("-", "--vault", tmp_path / "v", "--keys", ring, "--mode", "keyed_pseudonyms", given=b"")
    assert (wrong.exit_code, (tmp_path / "v").exists()) == (2, False)


def test_keyed_tokens_and_shifts_are_the_rings(tmp_path, ring):
    other = tmp_path / "other.toml"
    new_keys(other)
    words = ("-", "--mode", "keyed_pseudonyms", "--keys")
    first, again, else_ = (deid(*words, keys, given=lines(reading(1))) for keys in (ring, ring, other))
    assert first.stdout == again.stdout != else_.stdout
    assert "2026-03-01" not in first.stdout
    assert out(first)[0]["effectiveDateTime"].endswith("T12:00:00Z")


@pytest.mark.parametrize("words", [("nowhere.json",), (".",)])
def test_what_is_not_there_is_refused_with_its_name(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = deid(*words)
    assert done.exit_code == 2
    assert words[0] in done.stderr


def test_ctrl_c_ends_it_without_a_trace_and_the_vault_holds_what_was_written(tmp_path, ring):
    command = [sys.executable, "-m", "sidecar", "deid", "-", "--keys", str(ring), "--vault", str(tmp_path / "v")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    ) as running:
        assert running.stdin is not None
        running.stdin.write(lines(person(1)))
        running.stdin.flush()
        while not (tmp_path / "v").exists() or not (tmp_path / "v").stat().st_size:
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert running.returncode not in {0, None}
    assert b"Traceback" not in said
    assert (tmp_path / "v").read_bytes().endswith(b"\n")


def test_a_resource_that_nobody_foresaw_ends_neither_the_run_nor_the_others():
    odd = {"resourceType": "Patient", "id": "x", "address": [{"use": []}], "birthDate": "9950-01-01"}
    done = deid("-", given=lines(person(1), odd, reading(1)))
    assert (done.exit_code, len(out(done))) == (0, 3)


@pytest.mark.parametrize("mode", ["keyed_pseudonyms"])
def test_a_moved_time_has_no_offset_by_which_a_clock_change_could_be_found(mode):
    both = (reading(n, effectiveDateTime=f"2025-03-0{7 + n}T08:00:00-0{6 - n}:00") for n in (1, 2))
    found = out(deid("-", "--mode", mode, given=lines(*both)))
    assert all(r["effectiveDateTime"].endswith("Z") for r in found)


def test_a_first_line_that_cannot_be_read_keeps_the_others_in():
    done = deid("-", given=b'{"resourceType": \n' + lines(person(1), reading(1)))
    assert (done.exit_code, [r["resourceType"] for r in out(done)]) == (1, ["Patient", "Observation"])
    assert "standard input, line 1: not valid JSON" in done.stderr


def test_a_vault_that_takes_no_more_ends_the_run_and_is_as_it_was(tmp_path, ring):
    vault = tmp_path / "vault"
    assert deid("-", "--keys", ring, "--vault", vault, given=lines(person(1))).exit_code == 0
    before = vault.stat().st_size
    limited = f"ulimit -f {before // 1024 + 1}; exec {sys.executable} -m sidecar deid - --keys {ring} --vault {vault}"
    given = lines(*(person(n) for n in range(2, 100)))
    done = subprocess.run(["bash", "-c", limited], check=False, input=given, capture_output=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert b"cannot be written" in done.stderr
    assert vault.read_bytes().endswith(b"\n")
    again = deid("-", "--keys", ring, "--vault", vault, given=lines(person(1)))
    assert again.exit_code == 0, again.stderr
