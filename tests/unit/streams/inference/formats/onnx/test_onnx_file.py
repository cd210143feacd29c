"""Damaged or malicious ONNX files: rejected before ONNX Runtime reads them, or in the trial."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from inferd.schemas.errors import InferenceError, MalformedError, TooDeepError, TooLargeError
from inferd.schemas.limits import Limits
from inferd.streams.inference import TrialLimits, read_model
from inferd.streams.inference.formats.onnx.graph import Operator, _read_attribute
from inferd.streams.inference.formats.onnx.protobuf import packed_integers
from inferd.streams.models.trial import TrialCase, try_models
from tests.unit.streams.inference.formats.onnx.onnx_models import converted, doubled, graph, tensor

X, Y = tensor("x", TensorProto.FLOAT, 3), tensor("y", TensorProto.FLOAT, 3)


def with_node(kind: str, domain: str = "", **attributes: Any) -> bytes:
    node = helper.make_node(kind, ["x"], ["y"], domain=domain, **attributes)
    return bytes(graph([node], [X], [Y]).SerializeToString())


def with_constant(constant: Any) -> bytes:
    node = helper.make_node("Add", ["x", "c"], ["y"])
    return bytes(graph([node], [X], [Y], [constant]).SerializeToString())


def external() -> bytes:
    constant = numpy_helper.from_array(np.ones(3, np.float32), "c")
    constant.ClearField("raw_data")
    constant.data_location = TensorProto.EXTERNAL
    entry = constant.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    return with_constant(constant)


def huge() -> bytes:
    constant = numpy_helper.from_array(np.ones(3, np.float32), "c")
    del constant.dims[:]
    constant.dims.extend([2**31, 2**31])
    return with_constant(constant)


def claimed() -> bytes:
    constant = numpy_helper.from_array(np.ones(3, np.float32), "c")
    del constant.dims[:]
    constant.dims.extend([1_000_000])
    return with_constant(constant)


def nested(depth: int) -> bytes:
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "inner", [], [Y])
    for _ in range(depth):
        inner = helper.make_graph(
            [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], "g", [], [Y]
        )
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    return bytes(graph([node], [X], [Y]).SerializeToString())


def of_opset(version: int) -> bytes:
    model = ModelProto.FromString(doubled())
    model.opset_import[0].version = version
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("content", "error", "problem"),
    [
        (
            with_node("Anything", "com.example"),
            MalformedError,
            "operator 'Anything' is of the custom domain 'com.example'",
        ),
        (with_node("RandomUniformLike"), MalformedError, "operator 'RandomUniformLike' is not supported"),
        (with_node("Loop"), MalformedError, "operator 'Loop' is not supported"),
        (external(), MalformedError, "keeps data in another file"),
        (huge(), TooLargeError, "constant 'c' claims the shape"),
        (claimed(), MalformedError, "constant 'c' has 3 values, and claims the shape"),
        (nested(3), TooDeepError, "has a graph within an operator"),
        (of_opset(99), MalformedError, "opset 99 of domain 'ai.onnx': 7 to 26 are supported"),
        (of_opset(1), MalformedError, "opset 1 of domain"),
        (doubled()[:-9], MalformedError, "model file"),
        (b"\x08\x08\x12" + b"\xff" * 20, MalformedError, "damaged number"),
    ],
    ids=["domain", "random", "loop", "external", "huge", "claimed", "nested", "new", "old", "cut", "varint"],
)
def test_a_hostile_graph_is_rejected(content: bytes, error: type[InferenceError], problem: str) -> None:
    with pytest.raises(error, match=problem):
        read_model(content, runtime="onnx")


def test_the_number_of_features_is_bounded() -> None:
    with pytest.raises(TooLargeError, match="3 features: at most 2"):
        read_model(doubled(), Limits(features_max=2))


@pytest.mark.parametrize("content", [b"", b"\x80\x05", b"\x08\x01\x12\x00", b"PK\x03\x04"])
def test_other_files_are_rejected(content: bytes) -> None:
    with pytest.raises(MalformedError, match="does not begin with the protocol buffer of an ONNX model"):
        read_model(content, runtime="onnx")


def test_packed_integers() -> None:
    values = [0, 1, 127, 128, 300, 2**31, 2**63 - 1, -1, -(2**63)]
    packed = helper.make_tensor("t", TensorProto.INT64, [len(values)], values).SerializeToString()
    start = packed.index(b"\x3a") + 2  # tag of int64_data, and its length in one byte
    assert packed_integers(memoryview(packed)[start : start + packed[start - 1]]).tolist() == values


def test_long_lists_of_numbers_are_read_as_short_ones() -> None:
    chance = random.Random(3)
    integers = [chance.choice([0, 1, 127, 128, -1, 2**63 - 1, -(2**63), chance.getrandbits(40)]) for _ in range(30_000)]
    floats = [chance.random() for _ in range(30_000)]
    for values in (integers, floats, integers[:16], integers[:17]):
        message = helper.make_attribute("a", values).SerializeToString()
        operator = Operator()
        _read_attribute(memoryview(message), operator)
        assert operator.integers.get("a", floats) == values


def test_mutants_end_no_trial() -> None:
    count = int(os.environ.get("MUTANTS", "500")) // 2
    chance, contents = random.Random(7), list[bytes]()
    for name in ("forest", "columns"):
        for _ in range(count):
            damaged = bytearray(converted(name))
            for _change in range(chance.randint(1, 6)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            cut = chance.randrange(len(damaged)) if chance.random() < 0.1 else len(damaged)
            contents.append(bytes(damaged[:cut]))
    verdicts = try_models([TrialCase(content) for content in contents], TrialLimits(start_s=600))
    assert len(verdicts) == 2 * count
    assert 0 < sum(verdict.ok for verdict in verdicts) < 2 * count
