"""The search for leaks finds what it must: each form of each kind of value, anywhere, and nothing where nothing is."""

import base64
import contextlib
import hashlib
import os
import random
import re
import sqlite3
import sys
from urllib.parse import quote, quote_plus

import pytest

from tests.campaigns.leaks import ENCODINGS, PORTION, Canary, Searcher
from tests.campaigns.planted import Planter
from tests.campaigns.planted_store import Sqlite

SEED = int(os.environ.get("SIDECAR_SEED") or int.from_bytes(os.urandom(4)))
KINDS = ("words", "name", "id", "digits", "instant", "date", "decimal", "address", "mail", "blob", "token", "code")


@pytest.fixture(scope="module")
def planted():
    sys.stdout.write(f"SIDECAR_SEED={SEED}\n")
    planter = Planter(random.Random(SEED))
    for kind in KINDS:
        for n in range(20):
            getattr(planter, kind)(f"{kind}.{n}")
    return planter.canaries


@pytest.fixture(scope="module")
def searcher(planted):
    return Searcher(planted)


def separated(text: str) -> str:
    return "] , [".join(c for c in text if c.isalnum())


def forms(canary: Canary) -> dict[str, list[bytes]]:
    """Each encoding as somebody else would write it, not as the searcher computes it."""
    core, value = canary.core.encode(), canary.value.encode()
    digits = "".join(c for c in canary.core if c.isdigit())
    words = [w for w in re.split(r"[-@.: ]", canary.core) if w.isalpha()]
    found = {
        "exact": [core],
        "casefolded": [canary.core.upper().encode(), canary.core.swapcase().encode()],
        "base64": [
            encode(b"x" * before + core + b"y" * 3)
            for before in range(3)
            for encode in (base64.b64encode, base64.urlsafe_b64encode)
        ],
        "url": [
            "".join(f"%{b:02x}" for b in core).encode(),
            quote("".join(f"%{b:02X}" for b in core)).encode(),
            quote(canary.core + " ?", safe="").encode(),
            quote_plus(canary.core + " ?").encode(),
        ],
        "hash": [
            form
            for name in ("md5", "sha1", "sha256")
            for h in [hashlib.new(name, value)]
            for form in (h.digest(), h.hexdigest().encode(), h.hexdigest().upper().encode())
        ],
        "split": [separated(canary.core).encode(), *(w.encode() for w in words if len(w) >= 8)],
        "digits": [" / ".join(digits).encode(), digits.encode()],
    }
    if len(digits) < 14:
        del found["digits"]
        if not any(c.isalpha() for c in canary.core):
            del found["split"]
    return found


def test_every_form_of_every_kind_of_value_is_found_wherever_it_lies(planted, searcher):
    rng = random.Random(SEED)
    seen = set()
    for canary in planted:
        for encoding, written in forms(canary).items():
            for leak in written:
                data = rng.randbytes(rng.randrange(200)) + b"\0" + leak + b"\0" + rng.randbytes(rng.randrange(200))
                hits = searcher.search("noise", data)
                assert canary.path in {h.path for h in hits}, (encoding, leak)
                seen |= {h.encoding for h in hits}
    assert seen == set(ENCODINGS)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_hit_says_the_place_the_path_and_the_encoding(searcher, planted, encoding):
    canary = next(c for c in planted if c.path.startswith("id."))
    hits = searcher.search("the log", forms(canary)[encoding][0])
    assert {(h.place, h.path) for h in hits} == {("the log", canary.path)}
    assert encoding in {h.encoding for h in hits}


def test_what_lies_across_two_portions_is_found(searcher, planted):
    canary = planted[0]
    for written in forms(canary).values():
        leak = written[0]
        for cut in range(1, len(leak), 3):
            pieces = [b"\0" * (PORTION - cut), leak[:cut], leak[cut:], b"\0" * 100]
            assert searcher.search("stream", pieces), cut
            assert searcher.search("block", b"".join(pieces)), cut


def test_nothing_is_found_in_noise_of_any_alphabet(searcher):
    rng = random.Random(SEED)
    raw = rng.randbytes(3 * PORTION)
    text = b"".join(b"%d.%d " % (rng.getrandbits(53), rng.getrandbits(31)) for _ in range(50_000))
    for noise in (raw, raw.hex().encode(), base64.b64encode(raw), text):
        assert searcher.search("noise", noise) == set()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_leak_in_a_database_is_found_in_its_table_its_file_its_log_and_its_backup(
    searcher, planted, tmp_path, encoding
):
    canary = next(c for c in planted if c.path.startswith("id."))
    leak = forms(canary)[encoding][0]
    database = Sqlite(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / "sidecar.db", isolation_level=None)) as own:
        own.execute("PRAGMA journal_mode = WAL")
        own.execute("CREATE TABLE event (id, said)")
        own.execute("INSERT INTO event VALUES (1, ?)", [leak if encoding == "hash" else leak.decode()])
        log = database.log()
        database.back_up()
    hits = {h for place, data in database.places() for h in searcher.search(place, data)} | searcher.search("log", log)
    assert {h.place for h in hits if h.encoding == encoding} == {
        "table event",
        "file sidecar.db",
        "file backup.db",
        "log",
    }
    assert {h.path for h in hits} == {canary.path}


def test_a_value_of_which_one_word_leaked_is_found(searcher, planted):
    canary = next(c for c in planted if c.path.startswith("name."))
    (*_, family) = canary.core.split()
    (hit,) = searcher.search("log", f"no such patient: Dr {family}!".encode())
    assert (hit.path, hit.encoding) == (canary.path, "split")
