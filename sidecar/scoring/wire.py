"""What an ONNX file holds, looked at before the runtime opens it. Pure.

A graph is data of somebody else. The file is walked as protobuf, every message of it, in every subgraph: a tensor whose
data lies in another file, an operator or a type that is not ONNX's own, a function or a training part in which such
could hide, an operator that gives another answer each time or need never end, and whatever is not in the format's
definition, refuse it. Nothing is executed, and no path in it is looked at.

https://github.com/onnx/onnx/blob/main/onnx/onnx-ml.proto; https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Mapping
from typing import Final

DOMAINS: Final = frozenset({b"", b"ai.onnx", b"ai.onnx.ml"})
MAX_DEPTH = 64
MAX_FIELDS = 20_000_000
_RANDOM = frozenset(
    {b"RandomNormal", b"RandomNormalLike", b"RandomUniform", b"RandomUniformLike", b"Multinomial", b"Bernoulli"}
)
_ENDLESS = frozenset({b"Loop"})

VARINT, FIXED64, BYTES, FIXED32 = "varint", "fixed64", "bytes", "fixed32"
_WIRE_TYPES: Final = {VARINT: 0, FIXED64: 1, BYTES: 2, FIXED32: 5}
_WIDTHS: Final = {1: 8, 5: 4}
FORMAT: Final[Mapping[str, Mapping[int, str]]] = {
    "ModelProto": {
        1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: "GraphProto", 8: "OperatorSetIdProto",
        14: "StringStringEntryProto", 20: "TrainingInfoProto", 25: "FunctionProto", 26: "DeviceConfigurationProto",
    },
    "GraphProto": {
        1: "NodeProto", 2: BYTES, 5: "TensorProto", 10: BYTES, 11: "ValueInfoProto", 12: "ValueInfoProto",
        13: "ValueInfoProto", 14: "TensorAnnotation", 15: "SparseTensorProto", 16: "StringStringEntryProto",
    },
    "NodeProto": {
        1: BYTES, 2: BYTES, 3: BYTES, 4: BYTES, 5: "AttributeProto", 6: BYTES, 7: BYTES, 8: BYTES,
        9: "StringStringEntryProto", 10: "NodeDeviceConfigurationProto",
    },
    "AttributeProto": {
        1: BYTES, 2: FIXED32, 3: VARINT, 4: BYTES, 5: "TensorProto", 6: "GraphProto", 7: FIXED32, 8: VARINT, 9: BYTES,
        10: "TensorProto", 11: "GraphProto", 13: BYTES, 14: "TypeProto", 15: "TypeProto", 20: VARINT, 21: BYTES,
        22: "SparseTensorProto", 23: "SparseTensorProto",
    },
    "TensorProto": {
        1: VARINT, 2: VARINT, 3: "TensorProto.Segment", 4: FIXED32, 5: VARINT, 6: BYTES, 7: VARINT, 8: BYTES, 9: BYTES,
        10: FIXED64, 11: VARINT, 12: BYTES, 13: "StringStringEntryProto", 14: VARINT, 16: "StringStringEntryProto",
    },
    "TensorProto.Segment": {1: VARINT, 2: VARINT},
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto", 3: VARINT},
    "ValueInfoProto": {1: BYTES, 2: "TypeProto", 3: BYTES, 4: "StringStringEntryProto"},
    "TypeProto": {
        1: "TypeProto.Tensor", 4: "TypeProto.Sequence", 5: "TypeProto.Map", 6: BYTES, 7: "TypeProto.Opaque",
        8: "TypeProto.SparseTensor", 9: "TypeProto.Optional",
    },
    "TypeProto.Tensor": {1: VARINT, 2: "TensorShapeProto"},
    "TypeProto.SparseTensor": {1: VARINT, 2: "TensorShapeProto"},
    "TypeProto.Sequence": {1: "TypeProto"},
    "TypeProto.Optional": {1: "TypeProto"},
    "TypeProto.Map": {1: VARINT, 2: "TypeProto"},
    "TypeProto.Opaque": {1: BYTES, 2: BYTES},
    "TensorShapeProto": {1: "TensorShapeProto.Dimension"},
    "TensorShapeProto.Dimension": {1: VARINT, 2: BYTES, 3: BYTES},
    "TensorAnnotation": {1: BYTES, 2: "StringStringEntryProto"},
    "StringStringEntryProto": {1: BYTES, 2: BYTES},
    "OperatorSetIdProto": {1: BYTES, 2: VARINT},
    "TrainingInfoProto": {
        1: "GraphProto", 2: "GraphProto", 3: "StringStringEntryProto", 4: "StringStringEntryProto",
    },
    "FunctionProto": {
        1: BYTES, 4: BYTES, 5: BYTES, 6: BYTES, 7: "NodeProto", 8: BYTES, 9: "OperatorSetIdProto", 10: BYTES,
        11: "AttributeProto", 12: "ValueInfoProto", 13: BYTES, 14: "StringStringEntryProto",
    },
    "DeviceConfigurationProto": {1: BYTES, 2: VARINT, 3: BYTES},
    "NodeDeviceConfigurationProto": {1: BYTES, 2: "ShardingSpecProto", 3: VARINT},
    "ShardingSpecProto": {1: BYTES, 2: VARINT, 3: "IntIntListEntryProto", 4: "ShardedDimProto"},
    "IntIntListEntryProto": {1: VARINT, 2: VARINT},
    "ShardedDimProto": {1: VARINT, 2: "SimpleShardedDimProto"},
    "SimpleShardedDimProto": {1: VARINT, 2: BYTES, 3: VARINT},
}  # fmt: skip
"""The messages of ONNX 1.23, by field number; a test holds them against the format's own definition."""

_NEVER: Final = {
    ("ModelProto", 20): "it holds a training part",
    ("ModelProto", 25): "it holds functions of its own; export it with them inlined",
    ("NodeProto", 8): "a node calls a function of the file's own",
    ("AttributeProto", 21): "an attribute is that of a function",
    ("TensorProto", 13): "a tensor's data lies in another file; export it in one file",
    ("TypeProto", 7): "it has values of a type that is not ONNX's",
}


class Malformed(Exception):
    """The bytes are no ONNX file of a form that is read here; the message says what is wrong."""


def objections(content: bytes) -> list[str]:
    """Why the runtime must not be given `content`, each reason once; empty when there is none.

    Raises:
        Malformed: it cannot be read to its end, so nothing is known of what it holds.
    """
    if content[4:8] == b"ORTM":
        raise Malformed("it is in the runtime's own format; give the ONNX file that it was made from")
    if not content:
        raise Malformed("it is empty")
    return _Walk(content).run()


class _Walk:
    """One pass over a file, message by message."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._found: dict[str, None] = {}
        self._fields = 0

    def run(self) -> list[str]:
        waiting = [("ModelProto", 0, len(self._content), 0)]
        graphs = 0
        while waiting:
            kind, start, end, depth = waiting.pop()
            graphs += kind == "GraphProto"
            if depth > MAX_DEPTH:
                raise Malformed(f"its messages are nested more than {MAX_DEPTH} deep")
            waiting += [(below, at, to, depth + 1) for below, at, to in self._message(kind, start, end)]
        if not graphs:
            raise Malformed("it holds no graph")
        return list(self._found)

    def _message(self, kind: str, at: int, end: int) -> list[tuple[str, int, int]]:
        """Look at the fields of one message; the messages in it, each with where it begins and ends."""
        known = FORMAT[kind]
        inside: list[tuple[str, int, int]] = []
        while at < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise Malformed(f"it has more than {MAX_FIELDS} parts")
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            holds = known.get(number)
            if holds is None:
                raise Malformed(f"it has a part that ONNX does not define (field {number} of {kind})")
            value, start, at = self._value(wire, at, end)
            if not _fits(kind, number, holds, wire):
                raise Malformed(f"field {number} of {kind} is of another kind than ONNX defines")
            if (kind, number) in _NEVER:
                self._found[_NEVER[kind, number]] = None
            if holds in FORMAT:
                inside.append((holds, start, at))
            else:
                self._look(kind, number, value, start, at)
        return inside

    def _value(self, wire: int, at: int, end: int) -> tuple[int, int, int]:
        """A field's number, if it is one of varying length; where its bytes begin and end."""
        value, start = 0, at
        if wire == 0:
            value, at = self._varint(at, end)
        elif wire == 2:
            length, start = self._varint(at, end)
            at = start + length
        else:
            at += _WIDTHS.get(wire, end)
        if at > end:
            raise Malformed("it ends in the middle of a part")
        return value, start, at

    def _look(self, kind: str, number: int, value: int, start: int, end: int) -> None:
        """What a single value may not be."""
        if kind == "TensorProto" and number == 14 and value:
            self._found[_NEVER["TensorProto", 13]] = None
        elif (kind, number) in {("NodeProto", 7), ("OperatorSetIdProto", 1)}:
            domain = self._content[start:end]
            if domain not in DOMAINS:
                self._found[f"it uses operators that are not ONNX's own ({_shown(domain)})"] = None
        elif kind == "NodeProto" and number == 4:
            name = self._content[start:end]
            if name in _RANDOM:
                self._found[f"{_shown(name)} gives another answer each time, and a score must be the same again"] = None
            if name in _ENDLESS:
                self._found[f"{_shown(name)} need never end"] = None

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        if at < end and self._content[at] < 128:
            return self._content[at], at + 1
        value = shift = 0
        while at < end and shift < 70:
            byte = self._content[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
        raise Malformed("it ends in the middle of a part")


def _fits(kind: str, number: int, holds: str, wire: int) -> bool:
    """Whether a field comes as what it holds comes. Numbers may be packed, many in one part, as bytes."""
    if holds in FORMAT:
        return wire == 2
    return wire == _WIRE_TYPES[holds] or (wire == 2 and (kind, number) != ("TensorProto", 14))


def _shown(name: bytes) -> str:
    return ascii(name[:60].decode("latin-1"))
