"""Files that are not models of a known format: each is recognised, and the error has a remedy."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression

from inferd.schemas.errors import MalformedError
from inferd.streams.inference import foreign_folder, read_model
from tests.unit.streams.inference.formats.catboost.catboost_models import train as catboost_model
from tests.unit.streams.inference.formats.xgboost.xgboost_models import train as xgboost_model

ROWS = np.random.default_rng(1).normal(size=(60, 2))
LABELS = (ROWS[:, 0] > 0).astype(int)


@cache
def sklearn_model() -> Any:
    return LogisticRegression().fit(ROWS, LABELS)


@cache
def lightgbm_model() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=2, verbosity=-1, n_jobs=1).fit(ROWS, LABELS)


def written(write: Callable[[str], object]) -> bytes:
    """The bytes that `write` writes to a file."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write(f"{folder}/file")
        return Path(folder, "file").read_bytes()


def joblib_file(compress: Any = 0) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(sklearn_model(), buffer, compress=compress)
    return buffer.getvalue()


def zip_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


def numpy_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, ROWS)
    return buffer.getvalue()


def hdf5() -> bytes:
    return b"\x89HDF\r\n\x1a\n" + bytes(64)


FILES: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "nothing": (lambda: b"", "empty", "save the model again"),
    "pickle": (lambda: pickle.dumps(sklearn_model()), "a pickle", "skops.io.dump"),
    "old_pickle": (lambda: pickle.dumps(sklearn_model(), protocol=0), "a pickle", "skops.io.dump"),
    "pickle_of_lightgbm": (lambda: pickle.dumps(lightgbm_model()), "a pickle", "booster.save_model('model.txt')"),
    "pickle_of_xgboost": (lambda: pickle.dumps(xgboost_model("binary").booster), "a pickle", "save_model('model.ubj')"),
    "pickle_of_catboost": (lambda: pickle.dumps(catboost_model("rmse").model), "a pickle", "save_model('model.cbm')"),
    "joblib": (joblib_file, "a pickle", "skops.io.dump"),
    "joblib_zlib": (lambda: joblib_file(3), "zlib", "skops.io.dump"),
    "joblib_gzip": (lambda: joblib_file(("gzip", 3)), "gzip", "skops.io.dump"),
    "lightgbm_data": (
        lambda: written(lambda path: lightgbm.Dataset(ROWS, LABELS, params={"verbosity": -1}).save_binary(path)),
        "a LightGBM binary data set",
        "save_model('model.txt')",
    ),
    "lightgbm_json": (lambda: json.dumps(lightgbm_model().booster_.dump_model()).encode(), "dump_model", "model.txt"),
    "xgboost_data": (
        lambda: written(lambda path: xgboost.DMatrix(ROWS, LABELS).save_binary(path)),
        "an XGBoost binary DMatrix",
        "save_model('model.ubj')",
    ),
    "xgboost_old": (lambda: b"binf" + bytes(200), "XGBoost 3.1 removed", "save_model('model.ubj')"),
    "xgboost_dump": (
        lambda: written(lambda path: xgboost_model("binary").booster.dump_model(path, dump_format="json")),
        "an XGBoost dump of trees",
        "save_model('model.ubj')",
    ),
    "xgboost_text": (
        lambda: written(xgboost_model("binary").booster.dump_model),
        "an XGBoost dump of trees",
        "save_model('model.ubj')",
    ),
    "catboost_json": (
        lambda: written(lambda path: catboost_model("rmse").model.save_model(path, format="json")),
        "a CatBoost model in JSON",
        "save_model('model.cbm')",
    ),
    "mlmodel": (lambda: b"artifact_path: model\nflavors:\n  python_function:\n", "an MLflow MLmodel", "next to it"),
    "pmml": (lambda: b'<?xml version="1.0"?>\n<PMML version="4.4" xmlns="http://x"/>', "PMML", "ONNX"),
    "html": (lambda: b"\n<!DOCTYPE html>\n<html><title>Sign in</title></html>", "an HTML page", "download it again"),
    "lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a Git LFS pointer", "git lfs pull"),
    "torch": (lambda: zip_of(archive__data_dot_pkl=b"x", archive__version=b"3"), "a PyTorch file", "torch.onnx.export"),
    "old_torch": (lambda: pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2), "a PyTorch file", "torch.onnx.export"),
    "keras": (lambda: zip_of(config_dot_json=b"{}", model_dot_weights_dot_h5=b"x"), "a Keras file", "ONNX"),
    "hdf5": (hdf5, "an HDF5 (Keras) file", "ONNX"),
    "tensorflow": (lambda: b"\x08\x01\x12\x80\x01" + bytes(128), "a TensorFlow SavedModel", "ONNX"),
    "lite": (lambda: b"\x1c\0\0\0TFL3" + bytes(32), "a TensorFlow Lite file", "ONNX"),
    "safetensors": (lambda: (16).to_bytes(8, "little") + b'{"a":{"dtype":0}}', "a safetensors file", "ONNX"),
    "zip": (lambda: zip_of(readme=b"hello"), "a zip archive", "unpack it"),
    "mlflow_zip": (lambda: zip_of(model__MLmodel=b"x"), "an MLflow model in a zip archive", "unpack it"),
    "broken_zip": (lambda: zip_of(readme=b"hello")[:20], "a zip archive", "unpack it"),
    "gzip": (lambda: gzip.compress(xgboost_model("binary").content), "gzip", "gunzip it"),
    "xz": (lambda: lzma.compress(b"model"), "compressed", "unpack it"),
    "bz2": (lambda: bz2.compress(b"model"), "compressed", "unpack it"),
    "zlib": (lambda: zlib.compress(b"model"), "zlib", "skops"),
    "parquet": (
        lambda: written(lambda path: pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path)),
        "a file of data",
        "deploy the model file",
    ),
    "numpy": (numpy_file, "a file of data", "deploy the model file"),
    "library": (lambda: b"\x7fELF\x02\x01\x01" + bytes(64), "a compiled library", "made from"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_foreign_file_is_recognised_with_a_remedy(name: str) -> None:
    make, what, remedy = FILES[name]
    with pytest.raises(MalformedError) as rejection:
        read_model(make())
    assert rejection.value.message.startswith("model file: ")
    assert what in rejection.value.message
    assert remedy in rejection.value.message


def test_the_error_of_an_unknown_file_describes_model_files() -> None:
    with pytest.raises(MalformedError, match=r"'tree' of a LightGBM.*XGBoost.*CBM1"):
        read_model(b"age,city\n41,Oslo\n")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["MLmodel", "model.ubj", "conda.yaml"], "an MLflow model folder: deploy the model file in it"),
        (["saved_model.pb", "variables"], "a TensorFlow SavedModel folder"),
        (["metadata", "data"], "a Spark ML folder"),
        (["readme.md"], "a folder: name the model file in it"),
        ([], "a folder"),
    ],
)
def test_folders(names: list[str], what: str) -> None:
    assert foreign_folder(names).startswith(what)
