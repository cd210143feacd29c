"""Tensors of the Open Inference Protocol against numpy and Triton's own helpers; requests and responses."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor, triton_to_np_dtype

from inferd.schemas.errors import InferenceError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import Feature, FileCategories, Manifest, Postprocess
from inferd.schemas.open_inference import (
    InferenceRequest,
    RequestedOutput,
    decode_request,
    encode_response,
    model_metadata,
    wire_request,
)
from inferd.schemas.open_inference.datatypes import FORMATS, binary_of_values, values_of_binary, values_of_json
from inferd.schemas.requests import Prediction

numbers = st.sampled_from(sorted(set(FORMATS) - {"BOOL"}))


def array_of(datatype: str) -> st.SearchStrategy[Any]:
    return numpy_st.arrays(np.dtype(triton_to_np_dtype(datatype)), st.integers(0, 20))


@given(st.data(), st.sampled_from(sorted(FORMATS)))
def test_binary_values_are_those_of_numpy(data: st.DataObject, datatype: str) -> None:
    array = data.draw(array_of(datatype))
    values = values_of_binary("x", datatype, array.tobytes(), array.size)
    assert np.array(values, array.dtype).tobytes() == array.tobytes() or np.isnan(array).any()
    assert binary_of_values(datatype, array.tolist()) == array.tobytes() or np.isnan(array).any()


@given(st.data(), st.sampled_from(["FP16", "FP32", "FP64"]))
def test_numbers_in_json_are_rounded_as_numpy_rounds_them(data: st.DataObject, datatype: str) -> None:
    bound = float(np.finfo(triton_to_np_dtype(datatype)).max)
    sent = data.draw(st.lists(st.floats(-bound, bound) | st.integers(-1000, 1000)))
    expected = np.array(sent, np.float64).astype(triton_to_np_dtype(datatype)).astype(np.float64)
    assert np.array(values_of_json("x", datatype, sent), np.float64).tobytes() == expected.tobytes()


@given(st.lists(st.text()))
def test_strings_are_those_of_triton(texts: list[str]) -> None:
    array = np.array(texts, dtype=object)
    sent = serialize_byte_tensor(array)
    data = sent.item() if sent.size else b""
    assert values_of_binary("x", "BYTES", data, len(texts)) == texts
    assert [text.decode() for text in deserialize_bytes_tensor(binary_of_values("BYTES", texts))] == texts


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("FP64", "1"), ("FP64", True), ("FP64", []), ("FP64", 10**400), ("FP32", 3.5e38), ("FP16", 65_520),
        ("INT64", 1.0), ("INT64", True), ("INT64", 2**63), ("INT8", 128), ("UINT8", -1), ("BOOL", 1), ("BYTES", 1),
    ],
)  # fmt: skip
def test_a_value_of_a_wrong_datatype_is_rejected_with_its_index(datatype: str, value: Any) -> None:
    good = {"BYTES": "a", "BOOL": True}.get(datatype, 1)
    with pytest.raises(InferenceError) as caught:
        values_of_json("age", datatype, [None, good, value])
    assert caught.value.code == "invalid_value"
    assert caught.value.message.startswith(f"tensor 'age', item 2: {str(value)[:10] if value != '1' else chr(39)}")


def test_null_is_missing() -> None:
    assert values_of_json("x", "FP32", [0.5, None, 2]) == [0.5, None, 2.0]
    assert values_of_json("x", "INT64", [None, 2]) == [None, 2]


# ---------------------------------------------------------------------------------------------------------- requests


def wired(request: Any, binary: bytes = b"", limits: Limits = DEFAULT_LIMITS) -> Any:
    """The request of ours for one of the protocol."""
    text = json.dumps(request).encode()
    decoded, rest = decode_request(text + binary, len(text) if binary else None, limits)
    return msgspec.msgpack.decode(wire_request(decoded, rest, "m", "i", limits))


def tensor(name: str = "x", shape: Any = (2,), datatype: str = "FP64", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "datatype": datatype, **more}


def test_tensors_of_one_feature_become_rows_by_name() -> None:
    inputs = [tensor("a", data=[1, 2.5]), tensor("b", (2, 1), "BYTES", data=[["x"], [None]])]
    assert wired({"inputs": inputs, "outputs": [{"name": "raw"}]}) == {
        "id": "i", "model_id": "m", "input_data": [{"a": 1.0, "b": "x"}, {"a": 2.5, "b": None}], "outputs": ["raw"],
    }  # fmt: skip


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_a_matrix_becomes_rows_by_position(data: Any) -> None:
    assert wired({"inputs": [tensor(shape=(2, 2), data=data)]})["input_data"] == [[1.0, 2.0], [3.0, 4.0]]


def test_a_matrix_of_one_column_is_marked_by_its_content_type() -> None:
    as_matrix = tensor(shape=(2, 1), data=[1, 2], parameters={"content_type": "np"})
    assert wired({"inputs": [as_matrix]})["input_data"] == [[1.0], [2.0]]
    assert wired({"inputs": [tensor(shape=(2, 1), data=[1, 2])]})["input_data"] == [{"x": 1.0}, {"x": 2.0}]


def test_binary_tensors_follow_in_order() -> None:
    matrix = np.array([[1.5, 2], [3, 4]])
    sent = wired({"inputs": [tensor(shape=(2, 2), parameters={"binary_data_size": 32})]}, matrix.tobytes())
    assert sent["input_data"] == {"dtype": "<f8", "shape": [2, 2], "data": matrix.tobytes()}
    columns = [
        tensor("a", datatype="INT8", parameters={"binary_data_size": 2}),
        tensor("b", data=[7, 8]),
        tensor("c", datatype="BYTES", parameters={"binary_data_size": 9}),
    ]
    sent = wired({"inputs": columns}, b"\x01\xff" + b"\x01\x00\x00\x00z" + b"\x00\x00\x00\x00")
    assert sent["input_data"] == [{"a": 1, "b": 7.0, "c": "z"}, {"a": -1, "b": 8.0, "c": ""}]


SIZED = {"binary_data_size": 16}
BAD: dict[str, tuple[Any, bytes, str, str]] = {
    "no JSON": ("{", b"", "malformed", "body"),
    "no inputs": ({"inputs": []}, b"", "schema_mismatch", "a tensor for each feature"),
    "unknown datatype": ({"inputs": [tensor(datatype="FP128", data=[1, 2])]}, b"", "invalid_value", "FP128"),
    "three dimensions": ({"inputs": [tensor(shape=(1, 1, 2), data=[1, 2])]}, b"", "invalid_value", "[1, 1, 2]"),
    "no dimension": ({"inputs": [tensor(shape=(), data=[1])]}, b"", "invalid_value", "shape []"),
    "negative": ({"inputs": [tensor(shape=(-1,), data=[1])]}, b"", "invalid_value", "shape [-1]"),
    "too many rows": ({"inputs": [tensor(shape=(10**9,), data=[])]}, b"", "too_large", "at most"),
    "too few items": ({"inputs": [tensor(data=[1])]}, b"", "malformed", "1 items, but the shape [2] has 2"),
    "no data": ({"inputs": [tensor()]}, b"", "malformed", "either data or binary_data_size"),
    "both": ({"inputs": [tensor(data=[1, 2], parameters=SIZED)]}, b"1" * 16, "malformed", "either data or"),
    "too few bytes": ({"inputs": [tensor(parameters=SIZED)]}, b"1" * 15, "malformed", "15 bytes"),
    "bytes left over": ({"inputs": [tensor(data=[1, 2])]}, b"1", "malformed", "1 bytes follow"),
    "wrong size": (
        {"inputs": [tensor(parameters={"binary_data_size": 15})]}, b"1" * 15, "malformed", "2 items of FP64 take 16",
    ),
    "negative size": ({"inputs": [tensor(parameters={"binary_data_size": -1})]}, b"1", "malformed", "-1"),
    "half a string": (
        {"inputs": [tensor(datatype="BYTES", parameters={"binary_data_size": 6})]}, b"\x05\x00\x00\x00ab", "malformed",
        "ends within a string",
    ),
    "not UTF-8": (
        {"inputs": [tensor(shape=(1,), datatype="BYTES", parameters={"binary_data_size": 5})]}, b"\x01\x00\x00\x00\xff",
        "invalid_value", "not UTF-8",
    ),
    "no boolean": (
        {"inputs": [tensor(shape=(1,), datatype="BOOL", parameters={"binary_data_size": 1})]}, b"\x02",
        "invalid_value", "neither 0 nor 1",
    ),
    "other rows": (
        {"inputs": [tensor("a", data=[1, 2]), tensor("b", (3,), data=[1, 2, 3])]}, b"", "schema_mismatch", "'b'",
    ),
    "a matrix among columns": (
        {"inputs": [tensor("a", data=[1, 2]), tensor("b", (2, 2), data=[1, 2, 3, 4])]}, b"", "schema_mismatch", "'b'",
    ),
    "a name twice": ({"inputs": [tensor(data=[1, 2]), tensor(data=[1, 2])]}, b"", "malformed", "twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_rejected(name: str) -> None:
    request, binary, code, said = BAD[name]
    with pytest.raises(InferenceError) as caught:
        wired(request, binary)
    assert (caught.value.code, said in caught.value.message) == (code, True), caught.value.message


def test_a_request_nested_too_deep_is_rejected() -> None:
    with pytest.raises(InferenceError) as caught:
        decode_request(b'{"inputs":' + b"[" * 100_000, None, DEFAULT_LIMITS)
    assert caught.value.code == "too_deep"


# --------------------------------------------------------------------------------------------------------- responses


def answered(outputs: dict[str, Any], request: InferenceRequest | None = None) -> tuple[dict[str, Any], bytes]:
    asked = request or InferenceRequest(inputs=[], id="mine")
    body, length = encode_response(Prediction("i", "m", 3, "sha256:ab", outputs), asked)
    return json.loads(body[:length]), body[length:] if length is not None else b""


def test_a_result_becomes_tensors() -> None:
    outputs = {
        "prediction": [0.1, math.nan], "probabilities": [[0.25, 0.75], [1.0, 0.0]], "leaves": [[1, 2], [3, 4]],
        "label": ["a", "b"], "member": [True, False], "mixed": [1, 0.5], "ragged": [[1], []],
    }  # fmt: skip
    said, _ = answered(outputs)
    assert (said["model_name"], said["model_version"], said["id"]) == ("m", "3", "mine")
    assert {each["name"]: (each["datatype"], each["shape"], each["data"]) for each in said["outputs"]} == {
        "prediction": ("FP64", [2], [0.1, None]), "probabilities": ("FP64", [2, 2], [0.25, 0.75, 1.0, 0.0]),
        "leaves": ("INT64", [2, 2], [1, 2, 3, 4]), "label": ("BYTES", [2], ["a", "b"]),
        "member": ("BOOL", [2], [True, False]), "mixed": ("FP64", [2], [1, 0.5]),
        "ragged": ("BYTES", [2], ["[1]", "[]"]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("everything", "single", "binary"),
    [(None, True, True), (True, None, True), (True, False, False), (None, None, False), (False, True, True)],
)
def test_outputs_are_binary_if_requested(everything: bool | None, single: bool | None, binary: bool) -> None:
    request = InferenceRequest(
        inputs=[],
        parameters={} if everything is None else {"binary_data_output": everything},
        outputs=[RequestedOutput(name="prediction", parameters={} if single is None else {"binary_data": single})],
    )
    said, rest = answered({"prediction": [0.1, 0.2]}, request)
    (output,) = said["outputs"]
    assert rest == (np.array([0.1, 0.2]).tobytes() if binary else b"")
    assert output.get("parameters") == ({"binary_data_size": 16} if binary else None)


def manifest(features: list[Feature] | None = None, **fields: Any) -> Manifest:
    return Manifest("m", 2, "lightgbm", "ab" * 32, 1, features or [], **fields)


def test_metadata_names_datatypes() -> None:
    features = [
        Feature("a"), Feature("b", "float32"), Feature("c", "int64"), Feature("d", "bool"), Feature("e", "text"),
        Feature("f", "category", ["x"]), Feature("g", "category", file_categories=FileCategories("integer", 9)),
    ]  # fmt: skip
    said = model_metadata(manifest(features), [1, 2])
    assert [each.datatype for each in said.inputs] == ["FP64", "FP32", "INT64", "BOOL", "BYTES", "BYTES", "INT64"]
    assert said.versions == ["1", "2"]


@pytest.mark.parametrize(
    ("fields", "datatype", "shape"),
    [
        ({}, "FP64", [-1]),
        ({"outputs": 3}, "FP64", [-1, 3]),
        ({"classes": ["a", "b"]}, "BYTES", [-1]),
        ({"classes": [0, 1], "outputs": 2}, "INT64", [-1]),
        ({"postprocess": Postprocess(labels=["a", "b"])}, "BYTES", [-1]),
        ({"postprocess": Postprocess(threshold=0.5)}, "INT64", [-1]),
        ({"postprocess": Postprocess(labels=["a", "b"], top_k=2)}, "BYTES", [-1, 2]),
    ],
)
def test_metadata_describe_the_prediction(fields: dict[str, Any], datatype: str, shape: list[int]) -> None:
    (output,) = model_metadata(manifest(**fields), [2]).outputs
    assert (output.name, output.datatype, output.shape) == ("prediction", datatype, shape)
