"""The walk over an ONNX file knows its whole format, reads what is good, and no bytes make it fail but with a reason."""

import contextlib
import random

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import load_model_from_string, onnx_ml_pb2

from sidecar.scoring.wire import BYTES, FIXED32, FIXED64, FORMAT, VARINT, Malformed, objections
from tests.unit.chart import REPO
from tests.unit.opaque import classifier

KINDS = {
    FieldDescriptor.TYPE_FLOAT: FIXED32, FieldDescriptor.TYPE_DOUBLE: FIXED64, FieldDescriptor.TYPE_STRING: BYTES,
    FieldDescriptor.TYPE_BYTES: BYTES,
}  # fmt: skip


def definition():
    """The format as the ONNX library has it."""
    found, waiting = {}, list(onnx_ml_pb2.DESCRIPTOR.message_types_by_name.values())
    while waiting:
        message = waiting.pop()
        waiting += message.nested_types
        found[message.full_name.removeprefix("onnx.")] = {
            f.number: f.message_type.full_name.removeprefix("onnx.") if f.message_type else KINDS.get(f.type, VARINT)
            for f in message.fields
        }
    return found


def test_the_format_is_the_one_that_onnx_defines():
    assert {kind: dict(fields) for kind, fields in FORMAT.items()} == definition()


@pytest.mark.parametrize("path", sorted(REPO.glob("models/*/*/*.onnx")), ids=lambda p: p.parts[-3])
def test_nothing_is_objected_to_a_shipped_graph(path):
    assert objections(path.read_bytes()) == []


def test_nothing_is_objected_to_a_classifier_of_trees_in_either_encoding():
    packed = load_model_from_string(classifier())
    assert objections(packed.SerializeToString()) == []


GOOD = classifier()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8), st.integers(0, 8))
def test_changed_bytes_are_read_or_refused_and_never_fail_otherwise(at, said, cut):
    content = GOOD[:at] + said + GOOD[at + cut :]
    with contextlib.suppress(Malformed):
        assert all(reason.isprintable() for reason in objections(content))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    with contextlib.suppress(Malformed):
        objections(content)


def test_messages_within_messages_end():
    deep = b""
    for _ in range(200):  # GraphProto.node.attribute.g, again and again
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            size, length = len(deep), b""
            while size > 127:
                length, size = length + bytes([size & 127 | 128]), size >> 7
            deep = tag + length + bytes([size]) + deep
    with pytest.raises(Malformed, match="nested more than 64 deep"):
        objections(b"\x3a" + _size(deep) + deep)


def _size(content):
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return length + bytes([size])


def test_a_part_that_comes_again_is_looked_at_again():
    """Protobuf merges a message that comes twice: the second graph counts as much as the first."""
    evil = load_model_from_string(GOOD)
    evil.ClearField("opset_import")
    evil.graph.node[0].domain = "com.evil"
    seed = random.randrange(2**32)
    order = [GOOD, evil.SerializeToString()]
    random.Random(seed).shuffle(order)
    assert objections(b"".join(order)) == ["it uses operators that are not ONNX's own ('com.evil')"], seed
