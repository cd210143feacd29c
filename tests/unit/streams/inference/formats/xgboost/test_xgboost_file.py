"""The facts read from an XGBoost file without the library, and the files that are rejected."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost

from inferd import ModelManager, RealtimePredictor
from inferd.schemas.errors import InternalError, InvalidValueError, MalformedError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.streams.inference import manifest_of, read_model
from inferd.streams.inference.formats.xgboost import c_library
from inferd.streams.inference.formats.xgboost.document import Part
from inferd.streams.inference.formats.xgboost.model_file import read_model_file, sniff
from inferd.streams.inference.formats.xgboost.ubjson import DEPTH_MAX, decode_ubjson
from inferd.streams.models.trial import TrialCase, try_models
from inferd.streams.models.trial import process as trial_process
from tests.unit.streams.inference.formats.xgboost.xgboost_models import FAST, FEATURES, KINDS, matrix, train


@pytest.mark.parametrize("name", KINDS)
def test_both_encodings_are_equivalent(name: str) -> None:
    binary, text = (read_model_file(train(name, encoding).content) for encoding in ("ubj", "json"))
    assert binary == replace(text, sha256=binary.sha256, size=binary.size)
    booster = train(name).booster
    assert binary.objective == KINDS[name][0]["objective"]
    assert binary.feature_names == tuple(f"f{column}" for column in range(FEATURES))
    assert binary.features[3].dtype == ("int64" if name in ("categories", "onehot") else "float32")
    assert not binary.named
    assert binary.tree_count == (0 if name.startswith("linear") else len(booster.get_dump()))


def test_names_and_types_come_from_the_file() -> None:
    names, types = ["größe", "b c", "n", "k"], ["float", "i", "int", "c"]
    data = xgboost.DMatrix(np.abs(matrix()), np.arange(200.0), feature_names=names, feature_types=types)
    content = bytes(xgboost.train(FAST, data, 1).save_raw("json"))
    file = read_model_file(content)
    assert (file.feature_names, file.named) == (tuple(names), True)
    dtypes = [feature.dtype for feature in manifest_of(content, "m", 1).features]
    assert dtypes == ["float32", "bool", "int64", "int64"]


def test_a_signalling_nan_is_a_nan() -> None:
    """Converting one raises a floating-point flag, of which NumPy warns."""
    array = np.frombuffer(struct.pack(">I", 0x7F800001), ">f4")
    assert np.isnan(Part(array, "weights").floats()).all()


def test_a_file_is_recognised_by_its_first_key() -> None:
    for encoding in ("ubj", "json"):
        content = train("binary", encoding).content
        assert sniff(content)
        assert read_model(content).runtime == "xgboost"
    indented = json.dumps(json.loads(train("binary", "json").content), indent=2).encode()
    assert sniff(indented)
    assert read_model(indented).tree_count == 4  # type: ignore[attr-defined]
    assert not any(map(sniff, (b"", b"{", b"tree\n", b'{"oblivious_trees": []}', b"\x80\x04", b"CBM1")))


def test_a_snapshot_of_a_booster_is_rejected_by_name() -> None:
    with pytest.raises(InvalidValueError, match="use save_model"):
        read_model(bytes(train("binary").booster.__getstate__()["handle"]))


CHANGES: dict[str, Callable[[Any], object]] = {
    "feature_names": lambda d: d["learner"].update(feature_names=["a", "a", "b", "c"]),
    "num_feature": lambda d: d["learner"]["learner_model_param"].update(num_feature="many"),
    "objective": lambda d: d["learner"]["objective"].update(name="reg:unheard_of"),
    "gradient_booster": lambda d: d["learner"].pop("gradient_booster"),
    "tree_info": lambda d: _model(d).update(tree_info=[0, 0, 0, 7]),
    "num_class": lambda d: d["learner"]["learner_model_param"].update(num_class="3"),
    "num_trees": lambda d: _model(d)["gbtree_model_param"].update(num_trees="5"),
    "iteration_indptr": lambda d: _model(d).update(iteration_indptr=[0, 3, 2, 4]),
    "left_children": lambda d: _tree(d)["left_children"].__setitem__(0, 99),
    "two parents": lambda d: _tree(d)["right_children"].__setitem__(0, _tree(d)["left_children"][0]),
    "another parent": lambda d: _tree(d)["parents"].__setitem__(1, 2),
    "splits a feature": lambda d: _tree(d)["split_indices"].__setitem__(0, FEATURES),
    "split_conditions": lambda d: _tree(d)["split_conditions"].pop(),
    "num_nodes": lambda d: _tree(d)["tree_param"].update(num_nodes="-1"),
}


def _model(document: Any) -> Any:
    return document["learner"]["gradient_booster"]["model"]


def _tree(document: Any) -> Any:
    return _model(document)["trees"][0]


@pytest.mark.parametrize("what", CHANGES)
def test_damage_is_named(what: str) -> None:
    document = json.loads(train("binary", "json").content)
    CHANGES[what](document)
    with pytest.raises(MalformedError) as rejection:
        read_model_file(json.dumps(document).encode())
    named = {"num_class": "3 classes", "num_trees": "4 trees", "left_children": "a child", "num_nodes": "num_nodes"}
    assert named.get(what, what) in rejection.value.message


def test_limits_and_depth() -> None:
    content = train("binary").content
    with pytest.raises(TooLargeError, match="features"):
        read_model_file(content, replace(DEFAULT_LIMITS, features_max=FEATURES - 1))
    deep = b'{"learner":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(MalformedError):
        read_model_file(deep)
    with pytest.raises(MalformedError, match="deeper"):
        decode_ubjson(b"[" * (DEPTH_MAX + 1))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "too early"),
        (b"Q", "no value"),
        (b"SL" + struct.pack(">q", 2**62) + b"x", "a length of"),
        (b"SL" + struct.pack(">q", -1), "a length of"),
        (b"SL" + struct.pack(">q", 1) + b"\xff", "UTF-8"),
        (b"[$l#L" + struct.pack(">q", 3) + b"\0" * 11, "too early"),
        (b"[$q#L", "not a type"),
        (b"[$l]", "without its length"),
        (b"Zx", "bytes follow"),
        (b"{L" + (struct.pack(">q", 1) + b"aZL") * 2, "twice"),
    ],
)
def test_damaged_ubjson(content: bytes, what: str) -> None:
    with pytest.raises(MalformedError, match=what):
        decode_ubjson(content)


def test_numbers_that_json_has_no_word_for_are_read_as_the_library_reads_them() -> None:
    document = json.loads(train("binary", "json").content)
    _tree(document)["loss_changes"][0] = float("inf")
    assert read_model_file(json.dumps(document).encode()).tree_count == 4


def test_models_of_versions_before_2_have_no_rounds_in_the_file() -> None:
    document = json.loads(train("softprob", "json").content)
    del _model(document)["iteration_indptr"], _model(document)["cats"]
    document["learner"]["learner_model_param"]["base_score"] = "5E-1"
    document["version"] = [1, 7, 6]
    content = json.dumps(document).encode()
    assert read_model_file(content).tree_count == 12
    assert try_models([TrialCase(content)])[0].ok


def test_a_missing_library_only_fails_its_own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c_library, "PACKAGE", "xgboost_that_is_not_there")
    c_library.library.cache_clear()
    content = train("binary").content
    case = trial_process.CaseFile("/dev/null", manifest_of(content, "m", 1))
    trial_process._load_libraries([case])
    with pytest.raises(InternalError, match=r"pip install 'inferd\[xgboost\]'"):
        c_library.library()


def test_categories_of_a_data_frame_are_given_by_value(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "x": random.normal(size=200),
            "town": pd.Categorical(random.choice(["a b", "oslo", "B6"], 200)),
            "gate": pd.Categorical(random.choice([3, 5, 90], 200)),
        }
    )
    label = frame.x + frame.town.cat.codes % 2 + frame.gate.cat.codes
    booster = xgboost.train({**FAST, "max_cat_to_onehot": 1}, xgboost.DMatrix(frame, label, enable_categorical=True), 6)
    for encoding in ("ubj", "json"):
        content = bytes(booster.save_raw(encoding))
        manager = ModelManager(tmp_path / encoding)
        manager.register("m", content)
        rows = frame.head(40).astype({"town": object, "gate": object}).to_dict("records")
        expected = booster.predict(xgboost.DMatrix(frame.head(40), enable_categorical=True))
        assert RealtimePredictor(manager).predict("m", rows) == expected.astype(float).tolist()
        with pytest.raises(InvalidValueError, match="not one of its 3 categories"):
            RealtimePredictor(manager).predict("m", {"x": 1.0, "town": "bergen", "gate": 3})
        with pytest.raises(InvalidValueError, match="'x' is beyond float32"):
            RealtimePredictor(manager).predict("m", {"x": 1e300, "town": "oslo", "gate": 3})


def test_categories_that_xgboost_damages_in_its_file_are_given_as_codes() -> None:
    frame = pd.DataFrame({"town": pd.Categorical(["ü", "oslo", "ü", "Ås"] * 20), "x": np.arange(80.0)})
    booster = xgboost.train(FAST, xgboost.DMatrix(frame, frame.x, enable_categorical=True), 1)
    assert [feature.dtype for feature in read_model_file(bytes(booster.save_raw("json"))).features] == [
        "int64",
        "float32",
    ]
