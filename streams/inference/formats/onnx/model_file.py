"""Reads the facts of an ONNX model without ONNX Runtime: input columns, class labels and outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from inferd.schemas.errors import MalformedError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import ClassLabel, DType
from inferd.schemas.requests import OUTPUT_CHARS_MAX, RESERVED_NAMES
from inferd.streams.inference.features import FileFeature
from inferd.streams.inference.formats.onnx.graph import (
    BOOL,
    DOUBLE,
    FLOAT,
    INT32,
    INT64,
    ITEM_KINDS,
    STRING,
    Graph,
    Operator,
    Value,
    read_graph,
)
from inferd.streams.inference.formats.onnx.operators import BY_ROW, CLASSIFIERS, HAND_ON, TAKE_MISSING, TREES
from inferd.streams.inference.model_format import ModelFile

NAME = "onnx"
BEGINS = "the protocol buffer of an ONNX model"
_IR_TAG, _IR_VERSIONS, _NEXT_TAGS = 0x08, range(3, 32), frozenset({0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42})
_DTYPES: dict[int, DType] = {
    FLOAT: "float32", DOUBLE: "float64", INT64: "int64", INT32: "int64", BOOL: "bool", STRING: "text"
}  # fmt: skip
_INT32_MIN, _INT32_MAX = -(2.0**31), 2.0**31 - 1
_ROW_DIMENSIONS_MAX = 3
"""Of an output: what results can nest."""
_SAME_COLUMNS = frozenset({"Cast", "Identity", "Imputer", "Scaler"})
_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


@dataclass(frozen=True, slots=True)
class Input:
    """An input of the graph; its columns are consecutive features."""

    name: str
    kind: int
    columns: int
    flat: bool
    """Whether it has one dimension, that of rows."""


@dataclass(frozen=True, kw_only=True)
class OnnxFile(ModelFile):
    """A model file that passed `read_model_file`."""

    inputs: tuple[Input, ...]
    tensors: tuple[Value, ...]
    """The outputs of the graph that requests may ask for by their names."""
    prediction: str
    """The output that is the prediction: labels if there are classes, numbers otherwise."""
    probabilities: str | None
    """The output of probabilities; None if the graph has none."""
    labelled: bool
    """Whether `prediction` is a label."""
    by_row: bool
    """Whether each operator computes each row independently."""


def sniff(content: bytes) -> bool:
    """Whether `content` starts like the protocol buffer of an ONNX model, with `ir_version`."""
    head = content[:3]
    return len(head) == 3 and head[0] == _IR_TAG and head[1] in _IR_VERSIONS and head[2] in _NEXT_TAGS


def read_model_file(content: bytes, limits: Limits = DEFAULT_LIMITS) -> OnnxFile:
    """Reads and checks an ONNX model; `MalformedError`, `TooDeepError` or `TooLargeError` say what is wrong."""
    if not sniff(content):
        raise MalformedError(f"model file: does not begin with {BEGINS}; pickles are not accepted")
    graph = read_graph(content)
    inputs = _inputs(graph, limits)
    _check_trees(graph, {each.name: each.columns for each in inputs})
    labels, probabilities = _outputs(graph)
    classes = _classes(graph) if labels is not None else ()
    probabilities = probabilities if classes else None
    prediction = labels or next((value for value in graph.outputs if value.name == "prediction"), graph.outputs[0])
    tensors = tuple(value for value in graph.outputs if value is probabilities or _has_fixed_rows(value))
    takes_missing = {value.name: _takes_missing(graph, value.name) for value in graph.inputs}
    features = tuple(
        _feature(name, each.kind, missing=takes_missing[each.name])
        for each in inputs
        for name in _names(each, alone=len(inputs) == 1)
    )
    if len({feature.name for feature in features}) < len(features):
        raise MalformedError("model file: two inputs have columns of one name")
    return OnnxFile(
        runtime=NAME,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        features=features,
        named=len(inputs) > 1 or len(features) == 1,
        classes=classes,
        outputs_per_row=1 if labels is not None else _width(prediction),
        output_names=tuple(value.name for value in tensors if value.name not in RESERVED_NAMES),
        objective="classifier" if labels is not None else "regressor",
        inputs=inputs,
        tensors=tensors,
        prediction=prediction.name,
        probabilities=None if probabilities is None else probabilities.name,
        labelled=labels is not None,
        by_row=all(operator.kind in BY_ROW for operator in graph.operators),
    )


def _inputs(graph: Graph, limits: Limits) -> tuple[Input, ...]:
    inputs = tuple(_input(value) for value in graph.inputs)
    if (count := sum(each.columns for each in inputs)) > limits.features_max:
        raise TooLargeError(f"model file: {count} features: at most {limits.features_max} are allowed")
    return inputs


def _input(value: Value) -> Input:
    what = f"model file: input {value.name[:80]!r}"
    if value.kind not in _DTYPES:
        raise MalformedError(
            f"{what} is of the unsupported type {value.kind}: float, double, int32, int64, bool, string"
        )
    if len(value.dims) not in (1, 2) or value.dims[0] not in (None, 0):
        raise MalformedError(f"{what} has the shape {value.dims!r:.80}: expected any number of rows (None, columns)")
    if len(value.dims) == 1:
        return Input(value.name, value.kind, 1, flat=True)
    if not value.dims[1]:
        raise MalformedError(f"{what} does not say how many columns it has: convert it with a fixed number")
    return Input(value.name, value.kind, value.dims[1], flat=False)


def _names(each: Input, *, alone: bool) -> list[str]:
    if each.columns == 1:
        return [each.name]
    return [f"x{place}" if alone else f"{each.name}_{place}" for place in range(each.columns)]


def _feature(name: str, kind: int, *, missing: bool) -> FileFeature:
    bounds = (_INT32_MIN, _INT32_MAX) if kind == INT32 else (None, None)
    may_miss = missing and kind in (FLOAT, DOUBLE)
    return FileFeature(name=name, dtype=_DTYPES[kind], missing=may_miss, min=bounds[0], max=bounds[1])


def _outputs(graph: Graph) -> tuple[Value | None, Value | None]:
    """The outputs with labels and with probabilities, for a classifier."""
    classifies = any(operator.kind in CLASSIFIERS for operator in graph.operators)
    labels = next((value for value in graph.outputs if value.kind in (INT64, STRING)), None)
    if labels is None or not (classifies or labels.kind == STRING or len(graph.outputs) == 2):
        return None, None
    others = [value for value in graph.outputs if value is not labels and (value.maps or value.kind in (FLOAT, DOUBLE))]
    return labels, others[0] if len(others) == 1 else None


def _classes(graph: Graph) -> tuple[ClassLabel, ...]:
    """The class labels, which classifiers and ZipMap have; empty if no operator has them, or they differ."""
    found: set[tuple[ClassLabel, ...]] = set()
    for operator in _last_classifiers(graph.operators):
        for name in _LABELS:
            values: Sequence[ClassLabel] = operator.strings.get(name) or operator.integers.get(name) or ()
            if values:
                found.add(tuple(values))
    return next(iter(found)) if len(found) == 1 else ()


def _last_classifiers(operators: list[Operator]) -> list[Operator]:
    maps = [operator for operator in operators if operator.kind == "ZipMap"]
    return maps or [operator for operator in operators if operator.kind in CLASSIFIERS]


def _width(prediction: Value) -> int:
    """The number of values that a regressor predicts per row."""
    dims = prediction.dims
    return dims[1] or 1 if len(dims) == 2 else 1


def _has_fixed_rows(value: Value) -> bool:
    """Whether an output is a tensor with any number of rows of a fixed shape, and a name that requests can contain."""
    rows, *shape = value.dims or (1,)
    fits = rows in (None, 0) and len(shape) <= _ROW_DIMENSIONS_MAX and all(shape)
    return fits and value.kind in ITEM_KINDS and 1 <= len(value.name) <= OUTPUT_CHARS_MAX


def _check_trees(graph: Graph, columns: dict[str, int]) -> None:
    """`MalformedError` if trees use a column that does not exist: ONNX Runtime would read beyond the row."""
    made = {output: operator for operator in graph.operators for output in operator.outputs}
    for operator in graph.operators:
        indexes = operator.integers.get("nodes_featureids", []) if operator.kind in TREES else []
        width = _columns_of(operator.inputs[0], columns, made) if operator.inputs else None
        if indexes and (min(indexes) < 0 or (width is not None and max(indexes) >= width)):
            raise MalformedError(f"model file: {operator.kind} reads column {max(indexes)} of {width}")


def _columns_of(name: str, columns: dict[str, int], made: dict[str, Operator]) -> int | None:
    """The number of columns of a value; None if an earlier operator may change it."""
    for _ in range(len(made) + 1):
        if name in columns:
            return columns[name]
        operator = made.get(name)
        if operator is None or operator.kind not in _SAME_COLUMNS or not operator.inputs:
            return None
        name = operator.inputs[0]
    return None


def _takes_missing(graph: Graph, name: str) -> bool:
    """Whether every operator that a missing value can reach accepts it."""
    reached, waiting = {name}, [name]
    while waiting:
        current = waiting.pop()
        for operator in graph.operators:
            if current not in operator.inputs or operator.kind in TAKE_MISSING:
                continue
            if operator.kind in TREES:
                continue
            if operator.kind not in HAND_ON:
                return False
            waiting += [output for output in operator.outputs if output not in reached]
            reached.update(operator.outputs)
    return not reached & {value.name for value in graph.outputs}
