"""Reading a table of training data: what is wrong with it is said, without a value of it."""

import gzip

import numpy as np
import pytest

from sidecar.training import BadData, read_table

GOOD = "who|n|more\np1|1.5|x\np2|NaN|y\np3||z\n"


def read(path, content, *, zipped=False):
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    return read_table(path, "|", text=["who"], numbers=["n"])


@pytest.mark.parametrize("zipped", [False, True])
def test_plain_and_zipped_give_the_wanted_columns_and_nothing_is_not_a_number(tmp_path, zipped):
    found = read(tmp_path / ("t.psv.gz" if zipped else "t.psv"), GOOD, zipped=zipped)
    assert (found.rows, found.text) == (3, {"who": ["p1", "p2", "p3"]})
    assert np.array_equal(found.numbers["n"], [1.5, np.nan, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        ("who|n\n", "a header and no rows"),
        ("who,n\np1,2\n", "divided by a comma, and must be by a vertical bar"),
        ("who|m\np1|2\n", "lacks the column n"),
        ("whose|n\np1|2\n", 'lacks the column who; is "whose" meant to be who?'),
        ("who|n\np1|2|3\n", "line 2 has 3 fields, the header 2"),
        ("who|n\np1|2\np2|Miller\n", "line 3, column n: is not a number"),
        (b"who|n\np\xff|2\n", "is not text in UTF-8"),
        (gzip.compress(b"who|n\np1|2\n"), "a gzipped file must be called .gz"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, said):
    with pytest.raises(BadData) as found:
        read(tmp_path / "t.psv", content)
    assert said in str(found.value)
    assert "Miller" not in str(found.value)


def test_what_is_called_gz_and_is_none_or_was_cut_off_is_said(tmp_path):
    path = tmp_path / "t.psv.gz"
    for raw in (b"who|n\np1|2\n", gzip.compress(b"who|n\n" + b"p1|2\n" * 1000)[:-20]):
        path.write_bytes(raw)
        with pytest.raises(BadData, match="no whole gzip file"):
            read_table(path, "|", text=["who"], numbers=["n"])


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(BadData, match="cannot be read"):
        read_table(tmp_path / "none.psv", "|", text=["who"], numbers=["n"])
