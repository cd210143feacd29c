"""Outputs of a graph by name: which are offered, and that each equals ONNX Runtime's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from inferd.schemas.codec import decode_result
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InvalidValueError, SchemaMismatchError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests import Prediction
from inferd.streams.inference import Scorer, ServedModel, TrialLimits, load_model, manifest_of, read_model
from inferd.streams.models.trial import TrialCase, try_models
from tests.fixtures.scoring import Fetched, catalog_of, score
from tests.unit.streams.inference.formats.onnx.onnx_models import converted, graph, tensor

FLOAT, INT64, BOOL, DOUBLE, FLOAT16 = (
    TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE, TensorProto.FLOAT16
)  # fmt: skip
ROWS = [[0.1, -2.5, 3.75], [1e30, 0.0, -1.0], [-7.0, 2.5, 1 / 3]]


def cast(output: str, kind: int) -> Any:
    return helper.make_node("Cast", ["x"], [output], to=kind)


def several(*, first: str = "score", extra: Any = ()) -> bytes:
    """Outputs of every type and shape, none of them with the name of inferd's default output."""
    axes = helper.make_tensor("axes", INT64, [1], [2])
    index = helper.make_tensor("index", INT64, [1], [0])
    zero = helper.make_tensor("zero", FLOAT, [1], [0.0])
    nodes = [
        helper.make_node("Gather", ["x", "index"], [first], axis=1),
        helper.make_node("Unsqueeze", ["x", "axes"], ["cube:0"]),
        helper.make_node("Greater", ["x", "zero"], ["positive"]),
        cast("wide", DOUBLE),
        cast("half", FLOAT16),
        cast("raw", FLOAT),
        cast("row", FLOAT),
        cast("unknown width", FLOAT),
        cast("one row", FLOAT),
        *(cast(each.name, FLOAT) for each in extra),
    ]
    outputs = [
        tensor(first, FLOAT, 1),
        helper.make_tensor_value_info("cube:0", FLOAT, ["n", 3, 1]),
        tensor("positive", BOOL, 3),
        tensor("wide", DOUBLE, 3),
        tensor("half", FLOAT16, 3),
        tensor("raw", FLOAT, 3),
        tensor("row", FLOAT, 3),
        tensor("unknown width", FLOAT, None),
        helper.make_tensor_value_info("one row", FLOAT, [1, 3]),
        *extra,
    ]
    return bytes(graph(nodes, [tensor("x", FLOAT, 3)], outputs, [axes, index, zero]).SerializeToString())


OWN = ["score", "cube:0", "positive", "wide", "half"]


def served(content: bytes, folder: Path, **fields: Any) -> ServedModel:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return load_model(path, manifest_of(content, "m", 1, fields))


def theirs(content: bytes, output: str, rows: list[list[float]]) -> Any:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (values,) = session.run([output], {session.get_inputs()[0].name: np.array(rows, np.float32)})
    return values


def asked(model: ServedModel, codec: Codec, **fields: Any) -> Any:
    """The decoded result of one request for the model `m`."""
    scorer = Scorer(catalog_of(model), DEFAULT_LIMITS)
    value = codec.encode({"id": "r", "model_id": "m", **fields})
    (answer,) = score(scorer, [Fetched(value, headers=[codec.header])]).values
    result = decode_result(answer, codec)
    loaded = json.loads(answer) if codec is JSON else msgpack.unpackb(answer)
    assert set(loaded) <= {"id", "model_id", "version", "digest", "prediction", "raw", "outputs", "error"}
    return result


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=str)
def test_each_output_equals_the_librarys(codec: Codec, tmp_path: Path) -> None:
    content = several()
    model = served(content, tmp_path)
    assert model.manifest.output_names == OWN
    rows = [[1e4, -2.5, 3.75], *ROWS[2:]]  # within float16
    names = ["prediction", "raw", *OWN]
    for shuffled in (names, names[::-1]):
        result = asked(model, codec, input_data=rows, outputs=shuffled)
        assert isinstance(result, Prediction), result
        assert set(result.outputs) == set(names)
        for name in [*OWN, "raw"]:
            expected = theirs(content, name, rows)
            values = np.array(result.outputs[name])
            assert values.shape == expected.shape
            assert values.astype(expected.dtype).tobytes() == expected.tobytes()
        assert result.outputs["prediction"] == theirs(content, "score", rows).ravel().tolist()
    single = asked(model, codec, input_data=rows[0], outputs=["cube:0"])
    assert single.outputs == {"cube:0": theirs(content, "cube:0", rows[:1])[0].tolist()}


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=str)
def test_the_error_for_an_unknown_output_lists_the_known_ones(codec: Codec, tmp_path: Path) -> None:
    model = served(several(), tmp_path)
    for name in ("nope", "row", "unknown width", "one row", "leaves", "Score"):
        failure = asked(model, codec, input_data=ROWS[0], outputs=["score", name])
        said = f"outputs: m:1 (objective regressor) has no output {name!r}; it has prediction, raw, {', '.join(OWN)}"
        assert (failure.code, failure.message) == ("invalid_value", said)
        with pytest.raises(InvalidValueError, match="it has prediction"):
            model.check_outputs([name])


def test_the_default_is_the_output_named_prediction_or_the_first(tmp_path: Path) -> None:
    named = several(extra=[tensor("prediction", FLOAT, 3)])
    assert asked(served(named, tmp_path), JSON, input_data=ROWS[0]).outputs["prediction"] == pytest.approx(ROWS[0])
    assert read_model(named).outputs_per_row == 3
    assert read_model(named).output_names == tuple(OWN), "prediction is requested under that name"
    assert asked(served(several(), tmp_path), JSON, input_data=ROWS[0]).outputs == {"prediction": np.float32(0.1)}


@pytest.mark.parametrize("zipmap", [True, False])
def test_outputs_of_a_classifier_by_name(zipmap: bool, tmp_path: Path) -> None:
    content = converted("forest", zipmap=zipmap)
    model = served(content, tmp_path)
    label, probabilities = ("output_label", "output_probability") if zipmap else ("label", "probabilities")
    assert model.manifest.output_names == ([label, probabilities] if zipmap else [label])
    row = [0.5, -1.0, 0.25, 2.0]
    outputs = asked(model, MSGPACK, input_data=[row], outputs=["prediction", label]).outputs
    assert outputs == {"prediction": outputs[label], label: theirs(content, label, [row]).tolist()}
    array = model.runtime.predict(np.array([row, row]), (probabilities, "probabilities"))
    assert array[probabilities].tolist() == array["probabilities"].tolist()
    assert array["probabilities"].shape == (2, 2)


def test_own_outputs_of_a_version_with_a_cache_are_not_cached(tmp_path: Path) -> None:
    model = served(several(), tmp_path, cache={"ttl_s": 60.0, "max_entries": 100})
    assert asked(model, JSON, input_data=ROWS[0], outputs=["wide"]).outputs["wide"] == pytest.approx(ROWS[0])


def test_a_manifest_that_names_other_outputs_is_rejected() -> None:
    with pytest.raises(SchemaMismatchError, match=r"output_names is .'other'., in the model file it is"):
        manifest_of(several(), "m", 1, {"output_names": ["other"]})


def test_an_output_of_an_undeclared_shape_fails_the_trial() -> None:
    bounds = [helper.make_tensor(name, INT64, [1], [value]) for name, value in (("from", 0), ("to", 1), ("axis", 0))]
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Slice", ["x", "from", "to", "axis"], ["first row"]),
    ]
    outputs = [tensor("y", FLOAT, 3), tensor("first row", FLOAT, 3)]
    content = bytes(graph(nodes, [tensor("x", FLOAT, 3)], outputs, bounds).SerializeToString())
    (verdict,) = try_models([TrialCase(content)], TrialLimits(start_s=600))
    assert not verdict.ok
    assert "the graph gives 'first row' of shape (1, 3) for 2 rows: expected (3,) a row" in (verdict.reason or "")
