"""Key files: made private, refused with every fault at once, rotated in one step."""

import os

import orjson
import pytest
from click.testing import CliRunner
from joserfc.jwk import ECKey, RSAKey

from sidecar.cli import main
from sidecar.errors import Misconfigured
from sidecar.fhir.signing_keys import KEPT, RSA_BITS, load_signing_keys, new_signing_keys, rotate_signing_keys

PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "k", "oth"}


def ec(**more):
    return {**ECKey.generate_key("P-384").as_dict(private=True), "kid": "e1", **more}


def rsa(bits=2048, **more):
    return {**RSAKey.generate_key(bits).as_dict(private=True), "kid": "r1", **more}


def held(path, *keys):
    path.write_bytes(orjson.dumps({"keys": list(keys)}))
    path.chmod(0o600)
    return path


def problems(path):
    with pytest.raises(Misconfigured) as refused:
        load_signing_keys(path)
    return refused.value.problems


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
def test_a_new_file_is_its_owners_only_and_never_overwritten(tmp_path, algorithm):
    path = tmp_path / "keys.json"
    before = os.umask(0)
    try:
        keys = new_signing_keys(path, algorithm)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    (public,) = keys.public()["keys"]
    assert (public["alg"], public["use"]) == (algorithm, "sig")
    assert not PRIVATE & set(public)
    if algorithm == "RS384":
        assert keys.keys[0].key.private_key.key_size == RSA_BITS
    with pytest.raises(Misconfigured, match="never overwritten"):
        new_signing_keys(path, algorithm)
    assert load_signing_keys(path).public() == keys.public()


def test_rotating_puts_a_fresh_key_in_front_and_keeps_the_last_ones(tmp_path):
    path = tmp_path / "keys.json"
    kids = [new_signing_keys(path, "ES384").keys[0].kid]
    path.chmod(0o640)
    for algorithm in ("RS384", "ES384", "ES384"):
        keys = rotate_signing_keys(path, algorithm)
        assert keys.keys[0].algorithm == algorithm
        kids.insert(0, keys.keys[0].kid)
        assert [k.kid for k in keys.keys] == kids[:KEPT]
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["keys.json"]


def test_rotating_a_file_that_a_link_names_replaces_what_it_names(tmp_path):
    real = tmp_path / "real.json"
    new_signing_keys(real, "ES384")
    link = tmp_path / "keys.json"
    link.symlink_to(real)
    assert len(rotate_signing_keys(link, "ES384").keys) == 2
    assert link.is_symlink()


def test_a_file_that_cannot_be_rotated_stays_as_it_was(tmp_path):
    path = held(tmp_path / "keys.json", ec(crv="P-256"))
    before = path.read_bytes()
    with pytest.raises(Misconfigured, match="P-384"):
        rotate_signing_keys(path, "ES384")
    assert path.read_bytes() == before
    with pytest.raises(Misconfigured, match="no such file"):
        rotate_signing_keys(tmp_path / "none.json", "ES384")


@pytest.mark.filterwarnings("ignore:Key size")
def test_every_fault_of_every_key_is_listed_at_once(tmp_path):
    good, other = rsa(), rsa()
    p256 = ECKey.generate_key("P-256").as_dict(private=True)
    public = ECKey.generate_key("P-384").as_dict(private=False)
    path = held(
        tmp_path / "keys.json",
        rsa(1024, kid="short"),
        {**p256, "kid": "curve"},
        {**public, "kid": "public"},
        {**good, "d": other["d"], "kid": "mixed"},
        ec(kid="algorithm", alg="RS384"),
        ec(kid="use", use="enc"),
        ec(kid=""),
        ec(kid=5),
        {"kty": "oct", "k": "AAAA", "kid": "oct"},
        "text",
        ec(kid="twice"),
        ec(kid="twice"),
    )
    found = problems(path)
    for number, fault in [
        (1, "shorter than 2048"), (2, "curve must be P-384"), (3, "the private one is needed"), (4, "do not make a private key"), (5, "alg must be ES384"),
        (6, 'use must be "sig"'), (7, "needs a kid"), (8, "needs a kid"), (9, "kty must be RSA or EC"), (10, "is not an object"),
    ]:  # fmt: skip
        assert any(f"key {number}: " in p and fault in p for p in found), (number, found)
    assert any("two keys have the same kid" in p for p in found)
    assert len(found) == 11
    assert not any(str(good["d"]) in p for p in found)


@pytest.mark.filterwarnings("ignore:Key size")
@pytest.mark.parametrize("odd", [None, 5, -1.5, True, "", "\u00e9", "A" * 400, [], ["RSA"], {"a": 1}, 10**18])
@pytest.mark.parametrize("make", [ec, rsa])
def test_a_key_with_any_member_of_another_kind_is_read_or_refused_and_nothing_else(tmp_path, make, odd):
    whole = make()
    refused = set()
    for name in [*whole, "alg", "use", "key_ops", "oth"]:
        try:
            load_signing_keys(held(tmp_path / "keys.json", {**whole, name: odd}))
        except Misconfigured:
            refused.add(name)
    assert {"kty", "d"} <= refused


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644])
def test_a_file_open_to_everyone_is_refused(tmp_path, mode):
    path = held(tmp_path / "keys.json", ec())
    path.chmod(mode)
    assert "chmod 600" in problems(path)[0]


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff", b'{"keys": 5}', b'{"keys": []}', b"not JSON"])
def test_a_file_that_is_no_key_set_is_refused_with_a_sentence(tmp_path, text):
    path = tmp_path / "keys.json"
    path.write_bytes(text)
    path.chmod(0o600)
    assert "not a JWK Set" in problems(path)[0]


def test_keys_are_in_no_repr(tmp_path):
    keys = new_signing_keys(tmp_path / "keys.json", "RS384")
    shown = f"{keys!r} {keys.keys!r}"
    assert all(str(v) not in shown for v in orjson.loads((tmp_path / "keys.json").read_bytes())["keys"][0].values())


def test_the_command_makes_and_rotates_and_prints_the_public_set_alone(tmp_path):
    path, run = tmp_path / "keys.json", CliRunner().invoke
    made = run(main, ["keys", "smart", str(path), "--alg", "RS384"])
    assert made.exit_code == 0, made.output
    rotated = run(main, ["keys", "smart", str(path), "--rotate"])
    keys = orjson.loads(rotated.stdout)["keys"]
    assert [k["alg"] for k in keys] == ["ES384", "RS384"]
    assert not any(PRIVATE & set(k) for k in keys)
    assert orjson.loads(made.stdout)["keys"] == keys[1:]
    again = run(main, ["keys", "smart", str(path)])
    assert (again.exit_code, again.stdout) == (2, "")
    assert "never overwritten" in again.stderr
