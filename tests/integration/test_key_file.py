"""The key ring's file: what is taken, and what is refused with a sentence that repeats no key."""

import base64
import hashlib
import os
import stat
import subprocess
import sys

import pytest

from sidecar.errors import Misconfigured
from sidecar.store import load_keys, new_keys
from sidecar.store.keyfile import KEY_BYTES, fresh_key, only_one, read_keys, replace_keys


def key(seed):
    """Bytes that look random and are the same in every run."""
    return hashlib.sha256(seed.encode()).digest()


def said(raw):
    return base64.b64encode(raw).decode()


GOOD, FINE, MORE = (said(key(seed)) for seed in ("good", "fine", "more"))


def ring(folder, *, lookup=GOOD, active=1, keys=None, mode=0o600, more=""):
    path = folder / "ring.toml"
    path.unlink(missing_ok=True)
    table = "\n".join(f'{kid} = "{one}"' for kid, one in ({"1": FINE} if keys is None else keys).items())
    path.write_text(f'lookup = "{lookup}"\nactive = {active}\n{more}[keys]\n{table}\n')
    path.chmod(mode)
    return path


def problems(path):
    with pytest.raises(Misconfigured) as refused:
        load_keys(path)
    return refused.value.problems


def test_a_good_key_ring_is_taken(tmp_path):
    load_keys(ring(tmp_path))


def test_ten_thousand_random_keys_are_none_of_them_refused(tmp_path):
    for _ in range(40):
        keys = {str(n): said(fresh_key()) for n in range(1, 256)}
        assert len(read_keys(ring(tmp_path, lookup=said(fresh_key()), keys=keys)).keys) == 255


SHORT = said(key("good")[:16])
KNOWN = {
    "all zero": b"\0" * KEY_BYTES,
    "all one": b"\xff" * KEY_BYTES,
    "two letters": b"ab" * 16,
    "a short key twice": key("good")[:16] * 2,
    "a word again and again": (b"changeme" * 4),
    "a word that does not fit": (b"changeme-please-" * 3)[:KEY_BYTES],
    "counting up": bytes(range(KEY_BYTES)),
    "counting down from the middle": bytes(range(200, 200 - KEY_BYTES, -1)),
    "counting in steps": bytes(n * 7 % 256 for n in range(KEY_BYTES)),
    "text": b"correct horse battery staple 123",
    "hex digits": b"0123456789abcdef0123456789ABCDEF",
    "base64 of a word": base64.b64encode(b"changeme" * 3),
    "mostly zero": b"\0" * 24 + key("good")[:8],
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_key_that_nobody_drew_at_random_is_refused_as_key_and_as_lookup(tmp_path, name):
    assert len(KNOWN[name]) == KEY_BYTES
    for changes in ({"lookup": said(KNOWN[name])}, {"keys": {"1": said(KNOWN[name])}}):
        (problem,) = problems(ring(tmp_path, **changes))
        assert "32 random bytes" in problem
        assert said(KNOWN[name]) not in problem


BAD_RINGS = {
    "open to the group": ({"mode": 0o640}, "chmod 600"),
    "writable by the group": ({"mode": 0o620}, "chmod 600"),
    "open to everyone": ({"mode": 0o604}, "chmod 600"),
    "short lookup": ({"lookup": SHORT}, "32 random bytes"),
    "short key": ({"keys": {"1": SHORT}}, "32 random bytes"),
    "key used twice": ({"keys": {"1": FINE, "2": FINE}}, "the same"),
    "key is the lookup key": ({"keys": {"1": GOOD}}, "the same"),
    "active names no key": ({"active": 2}, "active must name"),
    "active is a word": ({"active": '"1"'}, "active must name"),
    "active is true": ({"active": "true"}, "active must name"),
    "no keys": ({"keys": {}}, "active must name"),
    "id too large": ({"keys": {"1": FINE, "256": MORE}}, "1 to 255"),
    "id nought": ({"keys": {"1": FINE, "0": MORE}}, "1 to 255"),
    "id written twice": ({"keys": {"1": FINE, "01": MORE}}, "1 to 255"),
    "not base64": ({"keys": {"1": "not base64!"}}, "base64"),
    "id is a word": ({"keys": {"1": FINE, "one": MORE}}, "1 to 255"),
    "something else": ({"more": "note = 1\n"}, "'note'"),
}


@pytest.mark.parametrize("name", BAD_RINGS)
def test_a_bad_key_ring_is_refused_with_a_sentence_and_without_its_keys(tmp_path, name):
    changes, sentence = BAD_RINGS[name]
    (problem,) = problems(ring(tmp_path, **changes))
    assert sentence in problem
    assert not [one for one in (GOOD, FINE, MORE, SHORT) if one in problem]


def test_every_problem_of_a_ring_is_listed_at_once(tmp_path):
    assert len(problems(ring(tmp_path, lookup=SHORT, active=3, keys={"1": said(b"\0" * 32)}, more="note = 1\n"))) == 4


def test_a_missing_key_file_says_how_to_make_one(tmp_path):
    with pytest.raises(Misconfigured, match="sidecar keys new"):
        load_keys(tmp_path / "none.toml")


def test_a_key_file_that_is_not_toml_is_refused_with_a_sentence(tmp_path):
    path = ring(tmp_path)
    for content in (b"lookup = ", b"\xff\xfe", b"", b"keys = 3\nlookup = 4\nactive = 1"):
        path.write_bytes(content)
        with pytest.raises(Misconfigured):
            load_keys(path)


def test_a_folder_or_a_pipe_is_no_key_file(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(Misconfigured):
            load_keys(path)


def test_a_link_to_a_file_of_ones_own_is_followed_and_one_to_another_owners_is_refused(tmp_path):
    path, link = ring(tmp_path), tmp_path / "link.toml"
    link.symlink_to(path)
    load_keys(link)
    if os.geteuid() != 0:
        pytest.skip("only root can make a file that belongs to somebody else")
    os.chown(path, 65534, 65534)
    assert "another owner" in problems(link)[0]


def test_new_keys_are_readable_by_their_owner_only_and_never_overwrite(tmp_path):
    path = tmp_path / "keys.toml"
    new_keys(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    with pytest.raises(Misconfigured, match="never overwritten"):
        new_keys(path)
    assert path.read_bytes() == content


def test_new_keys_in_a_folder_that_is_not_there_are_refused_with_a_sentence(tmp_path):
    with pytest.raises(Misconfigured, match="cannot be made"):
        new_keys(tmp_path / "no" / "keys.toml")


def test_a_ring_is_replaced_as_a_whole_and_stays_where_its_link_points(tmp_path):
    path, link = ring(tmp_path), tmp_path / "link.toml"
    link.symlink_to(path)
    before = path.stat().st_ino
    replace_keys(link, read_keys(link).grown(2, key("two")).turned(2))
    assert (link.is_symlink(), stat.S_IMODE(path.stat().st_mode)) == (True, 0o600)
    assert path.stat().st_ino != before
    assert (read_keys(path).active, set(read_keys(path).keys)) == (2, {1, 2})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.toml", "ring.toml"]


def test_a_ring_prints_no_key(tmp_path):
    keys = read_keys(ring(tmp_path))
    assert repr(keys) == str(keys) == "<Keys>"


def test_one_command_at_a_time_changes_a_ring(tmp_path):
    path = ring(tmp_path)
    with only_one(path):
        with pytest.raises(Misconfigured, match="another command"), only_one(path):
            pass
        code = "import sys, pathlib; from sidecar.store.keyfile import only_one\nwith only_one(pathlib.Path(sys.argv[1])): pass"
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
        assert "another command" in done.stderr
    with only_one(path):
        pass
