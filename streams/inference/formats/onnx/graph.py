"""Reads an ONNX model: graph, operators, tensors and types, checked while they are read.

The messages are those of `onnx.proto` of the ONNX specification. Declared sizes are compared with the bytes in the file
before memory is allocated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from inferd.schemas.errors import MalformedError, TooDeepError, TooLargeError
from inferd.streams.inference.formats.onnx.operators import OPERATORS, OPSETS, canonical_domain
from inferd.streams.inference.formats.onnx.protobuf import (
    BYTES,
    FIXED32,
    FIXED64,
    INTEGERS,
    VARINT,
    Field,
    fields,
    packed_integers,
    signed,
    text,
)

FLOAT, INT32, INT64, STRING, BOOL, DOUBLE = 1, 6, 7, 8, 9, 11
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
ITEM_KINDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13})
"""Types of elements that results can have: numbers, booleans, texts."""
_TYPED_DATA = {4: 4, 10: 8}
"""Field of a tensor -> bytes of a value, of packed float_data and double_data."""
_EXTERNAL = 1
_NODES_MAX, _NAMES_MAX, _DIMENSIONS_MAX, _TENSOR_VALUES_MAX = 20_000, 1_000, 16, 2**31
_IR_VERSIONS = range(3, 15)
_IR_VERSION, _GRAPH, _OPSET, _DESCRIPTIONS = 1, 7, 8, frozenset({2, 3, 4, 5, 6, 14})
_WHOLE_MODEL = {
    20: "is for training: export it for inference",
    25: "has local functions: convert it without them",
}
_STRINGS, _INTEGERS, _TENSORS, _GRAPHS, _OTHER_ATTRIBUTES = 9, 8, (5, 10), (6, 11), frozenset({2, 3, 4, 7, 13, 20})
_TEXTS, _RAW, _PACKED_INTEGERS, _EXTERNAL_DATA, _DATA_LOCATION = 6, 9, (5, 7), 13, 14


@dataclass(frozen=True, slots=True)
class Tensor:
    """A constant: its name, type and shape."""

    name: str
    kind: int
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """An input or an output. `kind`: the element type; 0 if it is not a tensor."""

    name: str
    kind: int
    dims: tuple[int | None, ...]
    maps: bool = False
    """Whether it is a sequence of maps, as ZipMap makes."""


@dataclass(slots=True)
class Operator:
    """A node of the graph, with the attributes that describe the model."""

    kind: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    strings: dict[str, list[str]] = field(default_factory=dict)
    integers: dict[str, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Graph:
    """The main graph."""

    operators: list[Operator] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)


def read_graph(content: bytes) -> Graph:
    """Reads the graph of an ONNX model; `MalformedError`, `TooDeepError` or `TooLargeError` say what is wrong."""
    graph: Graph | None = None
    opsets: dict[str, int] = {}
    ir_version = 0
    for each in fields(memoryview(content)):
        if (each.number, each.wire) == (_IR_VERSION, VARINT):
            ir_version = each.integer
        elif (each.number, each.wire) == (_OPSET, BYTES):
            _read_opset(each.content, opsets)
        elif (each.number, each.wire) == (_GRAPH, BYTES) and graph is None:
            graph = _read_main(each.content)
        elif each.number not in _DESCRIPTIONS:
            _reject(_WHOLE_MODEL.get(each.number, f"has an unknown or repeated field {each.number}"))
    if ir_version not in _IR_VERSIONS:
        _reject(f"ir_version is {ir_version}: known are {_IR_VERSIONS[0]} to {_IR_VERSIONS[-1]}")
    if graph is None or not graph.inputs or not graph.outputs:
        _reject("has no graph with inputs and outputs")
    _check_operators(graph, opsets)
    return graph


def _read_opset(message: memoryview, opsets: dict[str, int]) -> None:
    domain, version = "", 0
    for each in fields(message):
        if each.number == 1:
            domain = text(each)
        elif each.number == 2:
            version = each.integer
    domain = canonical_domain(domain)
    # Converters may import a domain twice, in different versions: the highest counts.
    opsets[domain] = max(version, opsets.get(domain, 0))


def _check_operators(graph: Graph, opsets: dict[str, int]) -> None:
    for operator in graph.operators:
        known = OPERATORS.get(operator.domain)
        if known is None:
            _reject(f"operator {operator.kind[:80]!r} is of the custom domain {operator.domain[:80]!r}")
        if operator.kind not in known:
            _reject(f"operator {operator.kind[:80]!r} is not supported: docs/models.md lists those that are")
        if operator.domain not in opsets:
            _reject(f"does not import the operators of domain {operator.domain!r}")
        low, high = OPSETS[operator.domain]
        if not low <= opsets[operator.domain] <= high:
            version = opsets[operator.domain]
            _reject(f"opset {version} of domain {operator.domain or 'ai.onnx'!r}: {low} to {high} are supported")


def _read_main(message: memoryview) -> Graph:
    graph = Graph()
    for each in _of_bytes(message, "graph"):
        match each.number:
            case 1:
                graph.operators.append(_read_operator(each.content))
                if len(graph.operators) > _NODES_MAX:
                    raise TooLargeError(f"model file: more than {_NODES_MAX} operators")
            case 5:
                tensor = _read_tensor(each.content)
                graph.constants[tensor.name] = tensor
            case 11:
                graph.inputs.append(_read_value(each.content))
            case 12:
                graph.outputs.append(_read_value(each.content))
            case 2 | 10 | 13 | 14 | 16:
                pass
            case 15:
                _reject("has sparse constants")
            case _:
                _reject(f"graph has an unknown field {each.number}")
        if len(graph.inputs) > _NAMES_MAX * 10 or len(graph.outputs) > _NAMES_MAX:
            raise TooLargeError("model file: too many inputs or outputs")
    # In files of old versions, constants are also listed as inputs.
    graph.inputs = [value for value in graph.inputs if value.name not in graph.constants]
    return graph


def _read_operator(message: memoryview) -> Operator:
    operator = Operator()
    for each in _of_bytes(message, "operator"):
        match each.number:
            case 1:
                operator.inputs.append(text(each))
            case 2:
                operator.outputs.append(text(each))
            case 4:
                operator.kind = text(each)
            case 5:
                _read_attribute(each.content, operator)
            case 7:
                operator.domain = canonical_domain(text(each))
            case 3 | 6 | 9:
                pass
            case _:
                _reject(f"operator has an unknown field {each.number}")
    return operator


def _read_attribute(message: memoryview, operator: Operator) -> None:
    """Keeps lists of texts and integers, such as class labels; checks tensors, and rejects subgraphs."""
    name, strings, integers = "", list[str](), list[int]()
    for each in fields(message):
        if each.number == 1:
            name = text(each)
        elif each.number in _GRAPHS:
            raise TooDeepError("model file: has a graph within an operator (If, Loop, Scan): at most one graph")
        elif each.number in _TENSORS and each.wire == BYTES:
            _read_tensor(each.content)
        elif each.number == _STRINGS:
            strings.append(text(each))
        elif each.number == _INTEGERS:
            integers += _integers(each)
        elif each.number not in _OTHER_ATTRIBUTES:
            _reject(f"attribute {name[:80]!r} has an unsupported field {each.number}")
    if strings:
        operator.strings[name] = strings
    if integers:
        operator.integers[name] = integers


def _integers(each: Field) -> list[int]:
    """Reads one integer, or several packed ones."""
    if each.wire == INTEGERS:
        return list(np.frombuffer(each.content, np.int64).tolist())
    if each.wire == BYTES:
        return list(packed_integers(each.content).tolist())
    if each.wire != VARINT:
        _reject(f"field {each.number} is not an integer")
    return [signed(each.integer)]


@dataclass(slots=True)
class _TensorParts:
    """The fields of a tensor read so far, and the size of its data."""

    name: str = ""
    kind: int = 0
    dims: list[int] = field(default_factory=list)
    raw_bytes: int = 0
    values: int = 0

    def take(self, each: Field) -> None:
        match each.number, each.wire:
            case 1, _:
                self.dims += _integers(each)
            case 2, 0:
                self.kind = each.integer
            case 8, 2:
                self.name = text(each)
            case 12, 2:
                pass
            case _:
                self.take_data(each)
        if len(self.dims) > _DIMENSIONS_MAX:
            raise TooLargeError(f"model file: constant {self.name[:80]!r} has more than {_DIMENSIONS_MAX} dimensions")

    def take_data(self, each: Field) -> None:
        if each.number == _EXTERNAL_DATA or (each.number == _DATA_LOCATION and each.integer == _EXTERNAL):
            _reject("keeps data in another file (external data): save it as one file")
        if each.number == _RAW and each.wire == BYTES:
            self.raw_bytes += len(each.content)
        elif each.number == _TEXTS and each.wire == BYTES:
            self.values += 1
        elif each.number in _TYPED_DATA and each.wire in (BYTES, FIXED32, FIXED64):
            self.values += len(each.content) // _TYPED_DATA[each.number]
        elif each.number in _PACKED_INTEGERS:
            self.values += len(_integers(each))
        elif each.number != _DATA_LOCATION:
            _reject(f"constant {self.name[:80]!r} has an unsupported field {each.number}")


def _read_tensor(message: memoryview) -> Tensor:
    parts = _TensorParts()
    for each in fields(message):
        parts.take(each)
    tensor = Tensor(parts.name, parts.kind, tuple(parts.dims))
    _check_size(tensor, parts.raw_bytes, parts.values)
    return tensor


def _check_size(tensor: Tensor, size: int, values: int) -> None:
    """Checks that the shape matches `size` bytes of raw data, or `values` values."""
    claimed = 1
    for length in tensor.dims:
        claimed *= max(length, 0) if length >= 0 else _TENSOR_VALUES_MAX
        if claimed > _TENSOR_VALUES_MAX:
            raise TooLargeError(f"model file: constant {tensor.name[:80]!r} claims the shape {tensor.dims!r:.80}")
    if tensor.kind != STRING and tensor.kind not in _ITEM_BYTES:
        _reject(f"constant {tensor.name[:80]!r} is of the unsupported type {tensor.kind}")
    has = size // _ITEM_BYTES[tensor.kind] if size and tensor.kind != STRING else values
    if has != claimed or (size and tensor.kind != STRING and size % _ITEM_BYTES[tensor.kind]):
        _reject(f"constant {tensor.name[:80]!r} has {has} values, and claims the shape {tensor.dims!r:.80}")


def _read_value(message: memoryview) -> Value:
    name, value = "", None
    for each in _of_bytes(message, "input or output"):
        if each.number == 1:
            name = text(each)
        elif each.number == 2:
            value = _read_type(each.content)
    kind, dims, maps = value or (0, (), False)
    return Value(name, kind, dims, maps)


def _read_type(message: memoryview) -> tuple[int, tuple[int | None, ...], bool]:
    """The element type, the dimensions, and whether it is a sequence of maps."""
    for each in _of_bytes(message, "type"):
        if each.number == 1:
            return (*_read_tensor_type(each.content), False)
        if each.number == 4:
            return 0, (), True
    return 0, (), False


def _read_tensor_type(message: memoryview) -> tuple[int, tuple[int | None, ...]]:
    kind, dims = 0, list[int | None]()
    for each in fields(message):
        if (each.number, each.wire) == (1, VARINT):
            kind = each.integer
        elif (each.number, each.wire) == (2, BYTES):
            dims = [_read_dimension(dim.content) for dim in _of_bytes(each.content, "shape") if dim.number == 1]
    return kind, tuple(dims)


def _read_dimension(message: memoryview) -> int | None:
    """The length of a dimension; None if it is not fixed."""
    for each in fields(message):
        if (each.number, each.wire) == (1, VARINT):
            return signed(each.integer) if signed(each.integer) >= 0 else None
    return None


def _of_bytes(message: memoryview, what: str) -> Iterator[Field]:
    for each in fields(message):
        if each.wire != BYTES:
            _reject(f"{what} has a number in field {each.number}")
        yield each


def _reject(what: str) -> NoReturn:
    raise MalformedError(f"model file: {what}")
