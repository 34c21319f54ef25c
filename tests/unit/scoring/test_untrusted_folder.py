"""A malicious model folder is refused, with a reason, before anything outside it is opened."""

import hashlib
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, load_model_from_string, numpy_helper

from sidecar.errors import Misconfigured
from sidecar.scoring import load_model
from tests.unit.chart import REPO
from tests.unit.opaque import classifier, install, wrapped

# By its absolute path, and of nobody else: what all processes read would be touched by any of them.
BAIT = Path(tempfile.mkdtemp(prefix="bait-")) / "outside.bin"
BAIT.write_bytes(b"outside")
OUTSIDE = "outside.bin"
WATCHED = Path(__file__).with_name("watched.py")


def external(tensor, location):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "32")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def weights():
    return numpy_helper.from_array(np.zeros((4, 2), dtype=np.float32), "weights")


def matmul(tensor):
    return wrapped([helper.make_node("MatMul", ["features", "weights"], ["probabilities"])], initializer=[tensor])


def in_branch(tensor):
    """The tensor is a Constant in a branch of an If, two graphs down."""
    shape = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, ["N", 2])
    inner = [
        helper.make_node("Constant", [], ["w"], value=tensor),
        helper.make_node("MatMul", ["features", "w"], ["chosen"]),
    ]
    deep = helper.make_node("If", ["yes"], ["chosen"], then_branch=helper.make_graph(inner, "a", [], [shape]), else_branch=helper.make_graph(inner, "b", [], [shape]))  # fmt: skip
    outer = helper.make_graph([deep], "c", [], [shape])
    yes = numpy_helper.from_array(np.array(True), "yes")
    node = helper.make_node("If", ["yes"], ["probabilities"], then_branch=outer, else_branch=outer)
    return wrapped([node], initializer=[yes])


def edited(change):
    model = load_model_from_string(classifier())
    change(model)
    return model.SerializeToString()


def sparse(model):
    made = model.graph.sparse_initializer.add()
    made.values.CopyFrom(external(numpy_helper.from_array(np.ones(1, dtype=np.float32), "s"), "../outside.bin"))
    made.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, dtype=np.int64), "i"))
    made.dims.extend([4])


def function(model):
    node = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(helper.make_function("local", "F", ["x"], ["y"], [node], [helper.make_opsetid("", 17)]))


def training(model):
    model.training_info.add().algorithm.node.add().op_type = "Identity"


def foreign(model):
    model.graph.node[0].domain = "com.evil"


def imported(model):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def overloaded(model):
    model.graph.node[0].overload = "other"


RANDOM = helper.make_node("RandomUniformLike", ["features"], ["probabilities"])
LOOP = helper.make_node("Loop", ["", ""], ["probabilities"], body=helper.make_graph([], "body", [], []))
GRAPHS = {
    "a tensor beside the folder": (matmul(external(weights(), "../outside.bin")), "lies in another file"),
    "a tensor by its absolute path": (matmul(external(weights(), str(BAIT))), "lies in another file"),
    "a tensor in a subgraph": (in_branch(external(weights(), "../../outside.bin")), "lies in another file"),
    "a sparse tensor": (edited(sparse), "lies in another file"),
    "an operator of another domain": (edited(foreign), "operators that are not ONNX's own ('com.evil')"),
    "a set of operators that is only imported": (edited(imported), "operators that are not ONNX's own ('com.microsoft')"),
    "a function": (edited(function), "functions of its own"),
    "an overload": (edited(overloaded), "calls a function of the file's own"),
    "a training part": (edited(training), "a training part"),
    "chance": (wrapped([RANDOM], initializer=[]), "gives another answer each time"),
    "a loop": (wrapped([LOOP], initializer=[]), "need never end"),
    "the runtime's own format": (b"\x1c\0\0\0ORTM" + bytes(64), "the runtime's own format"),
    "a pickle by the graph's name": (pickle.dumps({"model": [1.0]}), "refused unopened"),
    "a part that is not defined": (classifier() + b"\xfa\x07\x04evil", "ONNX does not define (field 127 of ModelProto)"),
    "a cut file": (classifier()[:-3], "ends in the middle"),
    "a location told as a flag": (classifier() + b"\x3a\x06\x2a\x04\x72\x02\x01\x01", "another kind than ONNX defines"),
}  # fmt: skip


def pinned(folder, **files):
    """Add files and name them in the manifest, as somebody would who wants them in."""
    path = folder / "manifest.toml"
    lines = "".join(f'"{name}" = "{sha256}"\n' for name, sha256 in files.items())
    path.write_text(path.read_text() + f"\n[files]\n{lines}")


def add(folder, name, content):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def a_link(folder):
    (folder / "notes.txt").symlink_to("../../outside.bin")
    pinned(folder, **{"notes.txt": hashlib.sha256(b"outside").hexdigest()})


def a_linked_graph(folder):
    content = (folder / "model.onnx").read_bytes()
    (folder.parents[1] / OUTSIDE).write_bytes(content)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("../../outside.bin")


def a_linked_manifest(folder):
    (folder / "manifest.toml").rename(folder.parents[1] / OUTSIDE)
    (folder / "manifest.toml").symlink_to("../../outside.bin")


def a_linked_folder(folder):
    (folder / "golden").symlink_to(folder.parents[1])


def a_link_for_a_folder(folder):
    kept = folder.rename(folder.parents[1] / "elsewhere")
    folder.symlink_to(kept)


def a_pipe(folder):
    os.mkfifo(folder / "reference.json")


def a_pipe_for_a_graph(folder):
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")


def a_socket(folder):
    here = Path.cwd()
    os.chdir(folder)
    try:
        socket.socket(socket.AF_UNIX).bind("s.txt")
    finally:
        os.chdir(here)


def a_pickle(folder):
    pinned(folder, **{"scaler.pkl": add(folder, "scaler.pkl", pickle.dumps([1]))})


def a_pickle_by_another_name(folder):
    pinned(folder, **{"notes.txt": add(folder, "notes.txt", pickle.dumps([1]))})


def a_joblib(folder):
    add(folder, "model.joblib", b"x")


def a_library(folder):
    add(folder, "custom_ops.so", b"\x7fELF")


def an_unlisted_file(folder):
    add(folder, "train.py", b"print()")


def an_unlisted_file_below(folder):
    add(folder, "golden/one.json", b"{}")


def bytecode_of_nothing(folder):
    add(folder, "__pycache__/evil.cpython-311.pyc", b"x")


def a_hidden_file(folder):
    add(folder, ".env", b"x")


def a_name_with_controls(folder):
    add(folder, "\x1b[2Jx.txt", b"x")


def a_file_that_was_changed(folder):
    pinned(folder, **{"notes.txt": hashlib.sha256(b"reviewed").hexdigest()})
    add(folder, "notes.txt", b"changed")


def a_file_that_is_not_there(folder):
    pinned(folder, **{"notes.txt": hashlib.sha256(b"reviewed").hexdigest()})


def a_name_upwards(folder):
    pinned(folder, **{"../outside.bin": hashlib.sha256(b"outside").hexdigest()})


def an_absolute_name(folder):
    pinned(folder, **{str(folder.parents[1] / OUTSIDE): hashlib.sha256(b"outside").hexdigest()})


def a_graph_upwards(folder):
    path = folder / "manifest.toml"
    path.write_text(path.read_text().replace("[graph]", '[graph]\nfile = "../../outside.onnx"'))


def a_reference_upwards(folder):
    path = folder / "manifest.toml"
    digest = hashlib.sha256(b"outside").hexdigest()
    path.write_text(path.read_text().replace("[graph]", f'reference = "../../outside.json"\nreference_sha256 = "{digest}"\n[graph]', 1))  # fmt: skip


def a_huge_file(folder):
    with (folder / "notes.txt").open("wb") as file:
        file.truncate(33 * 1024 * 1024)


def a_huge_graph(folder):
    with (folder / "model.onnx").open("wb") as file:
        file.truncate(201 * 1024 * 1024)


def a_huge_manifest(folder):
    with (folder / "manifest.toml").open("ab") as file:
        file.truncate(2 * 1024 * 1024)


def folders_without_end(folder):
    (folder / "a/b/c/d").mkdir(parents=True)


def many_files(folder):
    for number in range(1001):
        (folder / f"f{number}.txt").write_bytes(b"")


FOLDERS = {
    a_link: "notes.txt: is a link", a_linked_graph: "model.onnx: is a link", a_linked_manifest: "manifest.toml: is a link",
    a_linked_folder: "golden: is a link", a_link_for_a_folder: "is no folder, or a link", a_pipe: "reference.json: is a pipe",
    a_pipe_for_a_graph: "model.onnx: is a pipe", a_socket: "s.txt: is a socket", a_pickle: "scaler.pkl: is of a kind",
    a_pickle_by_another_name: "notes.txt: is not text", a_joblib: "model.joblib: is of a kind", a_library: "custom_ops.so: is of a kind",
    an_unlisted_file: "train.py: the manifest does not list it", an_unlisted_file_below: "golden/one.json: the manifest does not list it",
    bytecode_of_nothing: "is no bytecode of a script here", a_hidden_file: ".env: has a name", a_name_with_controls: "has a name",
    a_file_that_was_changed: "not the reviewed file", a_file_that_is_not_there: "notes.txt: cannot be read",
    a_name_upwards: "files.../outside.bin", an_absolute_name: "String should match", a_graph_upwards: "graph.file", a_reference_upwards: "reference: String should match",
    a_huge_file: "notes.txt: larger than", a_huge_graph: "model.onnx: larger than", a_huge_manifest: "manifest.toml: larger than",
    folders_without_end: "is a folder that has no place here", many_files: "more than 1000 files",
}  # fmt: skip


def strays(opened, folder):
    """What was opened that is not the folder, by its name or the descriptor it is held by."""
    steps = {str(folder.parents[1]), folder.parent.name, folder.name}
    own = {"notes.txt", *(p.name for p in folder.rglob("*"))} if folder.is_dir() else set()
    allowed = {f"open {name}" for name in steps | own}
    return [
        line for line in opened if line not in allowed and not re.fullmatch(r"(os\.scandir|os\.listdir|open) \d+", line)
    ]


def good(folder):
    """A script with its bytecode and a golden Bundle, all named."""
    files = {"train.py": b"print()", "golden/a.json": b"{}"}
    pinned(folder, **{name: add(folder, name, content) for name, content in files.items()})
    add(folder, "__pycache__/train.cpython-311.pyc", b"left by a run")


CASES = {
    "good": (None, good),
    **{n: (c, None) for n, (c, _) in GRAPHS.items()},
    **{f.__name__: (None, f) for f in FOLDERS},
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Each case's folder, and what one process that loads them all in turn opened for each; last, for one read of bait."""
    folders = {}
    for name, (content, spoil) in CASES.items():
        root = tmp_path_factory.mktemp("models")
        (root / OUTSIDE).write_bytes(b"outside")
        folders[name] = install(root, content)
        if spoil:
            spoil(folders[name])
    asked = [[str(folder), [str(folder.parents[1] / OUTSIDE), str(BAIT)]] for folder in folders.values()]
    done = subprocess.run(
        [sys.executable, str(WATCHED)], input=json.dumps(asked), capture_output=True, text=True, timeout=110, check=False,
        cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *answers, seen = json.loads(done.stdout)
    return {n: (folder, said) for (n, folder), said in zip(folders.items(), answers, strict=True)}, seen


@pytest.mark.parametrize("case", GRAPHS)
def test_a_graph_that_reaches_beyond_its_bytes_is_refused_unopened(loaded, case):
    folder, seen = loaded[0][case]
    assert seen["problems"] is not None
    assert GRAPHS[case][1] in " ".join(seen["problems"])
    assert (strays(seen["opened"], folder), seen["touched"]) == ([], False)


@pytest.mark.parametrize("spoil", FOLDERS, ids=lambda spoil: spoil.__name__)
def test_a_folder_with_what_must_not_be_in_it_is_refused_by_name(loaded, spoil):
    folder, seen = loaded[0][spoil.__name__]
    assert seen["problems"] is not None
    said = " ".join(seen["problems"])
    assert FOLDERS[spoil] in said
    assert said.isprintable()
    assert (strays(seen["opened"], folder), seen["touched"]) == ([], False)


def test_a_good_folder_opens_each_of_its_own_files_once_and_nothing_else(loaded):
    folder, seen = loaded[0]["good"]
    assert seen["problems"] is None
    assert (strays(seen["opened"], folder), seen["touched"]) == ([], False)
    files = [line for line in seen["opened"] if line.endswith((".toml", ".onnx", ".py", ".json", ".pyc"))]
    assert sorted(files) == [f"open {name}" for name in ("a.json", "manifest.toml", "model.onnx", "train.py")]


def test_the_watch_sees_a_file_that_is_opened(loaded):
    (folder, _), seen = loaded[0]["good"], loaded[1]
    assert seen["touched"] is True
    assert strays(seen["opened"], folder) == [f"open {folder.parents[1] / OUTSIDE}"]


def test_everything_wrong_with_a_folder_is_said_at_once(tmp_path):
    folder = install(tmp_path)
    (tmp_path / OUTSIDE).write_bytes(b"outside")
    for spoil in (a_link, a_hidden_file, a_joblib):
        spoil(folder)
    with pytest.raises(Misconfigured) as error:
        load_model(folder)
    assert len(error.value.problems) == 3


def test_the_bytes_that_were_verified_are_the_ones_that_run(tmp_path, monkeypatch):
    """The graph is replaced right after it was opened: the reviewed one runs."""
    folder, fdopen = install(tmp_path), os.fdopen

    def swap(fd, *args):
        file = fdopen(fd, *args)
        if Path(f"/proc/self/fd/{fd}").readlink().name == "model.onnx":
            (folder / "model.onnx").rename(folder.parent / "reviewed")
            (folder / "model.onnx").write_bytes(b"another")
        return file

    monkeypatch.setattr(os, "fdopen", swap)
    assert load_model(folder).manifest.name == "early_warning"
    assert (folder / "model.onnx").read_bytes() == b"another"
