"""Files that LightGBM loads but no longer writes in this form: each is served with LightGBM's own predictions."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest

from inferd.schemas.errors import TooLargeError
from inferd.schemas.limits import Limits
from inferd.streams.inference.formats.lightgbm import objectives
from inferd.streams.inference.formats.lightgbm.model_file import read_model_file
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from inferd.streams.inference.manifests import manifest_of
from inferd.streams.inference.trial_limits import TrialLimits
from inferd.streams.models.trial.trial import TrialCase, try_models
from tests.unit.streams.inference.trained_models import FAST, PandasTrained, Trained, matrix

Train = Callable[[str], Trained]
ROWS = matrix(3, 40)


def with_sizes(text: bytes) -> bytes:
    sizes = [len(block) for block in re.findall(rb"Tree=\d+\n.*?\n\n\n", text, re.DOTALL)]
    return re.sub(rb"^tree_sizes=.*", b"tree_sizes=" + b" ".join(b"%d" % s for s in sizes), text, flags=re.MULTILINE)


def edited(text: bytes, pattern: bytes, replacement: bytes) -> bytes:
    changed, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert count == 1, pattern
    return with_sizes(changed)


def served(text: bytes) -> Any:
    """The predictions, after all earlier checks."""
    manifest_of(text, "m", 1)
    return LightGBMRuntime(text).predict(ROWS, ("prediction",))["prediction"]


def by_lightgbm(text: bytes) -> Any:
    return lightgbm.Booster(model_str=text.decode()).predict(ROWS, num_threads=1)


STRTOD = ["-nan(ind)", "nan", "-nan", "NaN", "inf", "-inf", "Infinity", "INF", "1.#INF", "-1.#IND", "1.#QNAN", "+1.5", ".5", "5.", "1E5", "1e999", "1.5e+010"]  # fmt: skip  # noqa: E501
ATOF = ["nan", "-NaN", "inf", "-INF", "Infinity", "na", "NULL", "+1.5", ".5", "5.", "1E5", "1.5e+010"]


@pytest.mark.parametrize(
    ("field", "spelling"),
    [(field, spelling) for field in ("leaf_weight", "leaf_value", "threshold") for spelling in STRTOD]
    + [(field, each) for field in ("split_gain", "internal_value", "internal_weight", "shrinkage") for each in ATOF],
)
def test_numbers_as_any_platform_spells_them(trained: Train, field: str, spelling: str) -> None:
    pattern = rb"^(%s=)\S+" % field.encode()
    text = edited(trained("regression").text, pattern, rb"\g<1>" + spelling.encode())
    assert np.array_equal(served(text), by_lightgbm(text), equal_nan=True)


@pytest.mark.parametrize("alias", ["xentropy", "mean_squared_error", "mse", "l2", "rmse", "mae", "l1", "xentlambda", "mape", "xendcg", "xe_ndcg_mart", "none", "null", "na"])  # fmt: skip  # noqa: E501
def test_aliases_of_objectives(trained: Train, alias: str) -> None:
    text = edited(trained("regression").text, rb"^objective=.*", b"objective=" + alias.encode())
    assert np.array_equal(served(text), by_lightgbm(text))
    name = objectives.canonical(alias)
    assert read_model_file(text).objective == (None if name == "custom" else name)
    assert manifest_of(text, "m", 1, {"objective": alias} if name != "custom" else None).outputs == 1


def test_line_ends_and_byte_order_marks(pandas_trained: PandasTrained, trained: Train) -> None:
    for text in (trained("binary").text, trained("int_coded").text, pandas_trained.text):
        windows = text.replace(b"\n", b"\r\n")
        for variant in (windows, codecs.BOM_UTF8 + text, codecs.BOM_UTF8 + windows, text.replace(b"\n", b"\r\n", 9)):
            assert read_model_file(variant).categories == read_model_file(text).categories
            assert read_model_file(variant).size == len(variant)
            matrix_of = np.zeros((3, len(read_model_file(text).feature_names)))
            expected = LightGBMRuntime(text).predict(matrix_of, ("prediction", "leaves"))
            found = LightGBMRuntime(variant).predict(matrix_of, ("prediction", "leaves"))
            assert all(np.array_equal(found[output], expected[output]) for output in expected)


def _of_version_2_1(text: bytes) -> bytes:
    """2.0.12 to 2.1: no end of the trees and of the parameters, fewer fields."""
    text = (
        text.replace(b"version=v4", b"version=v2").replace(b"end of trees\n", b"").replace(b"end of parameters\n", b"")
    )
    return text.replace(b"feature_importances:", b"feature importances:")


def _of_version_2_0(text: bytes) -> bytes:
    """2.0.5 to 2.0.11: besides, neither a version nor sizes of trees."""
    text = re.sub(rb"^(?:version|tree_sizes)=.*\n", b"", _of_version_2_1(text), flags=re.MULTILINE)
    text = re.sub(rb"\nparameters:\n(?:\[.*\n)*", b"", text)
    return text.replace(b"\nfeature_names=", b"\nboost_from_average\nfeature_names=")


@pytest.mark.parametrize("earlier", [_of_version_2_1, _of_version_2_0])
@pytest.mark.parametrize("name", ["binary", "multiclass", "int_coded", "one_leaf"])
def test_files_of_earlier_versions(trained: Train, earlier: Callable[[bytes], bytes], name: str) -> None:
    plain = re.sub(rb"^(?:is_linear|leaf_weight|internal_weight)=.*\n", b"", trained(name).text, flags=re.MULTILINE)
    text = earlier(with_sizes(plain))
    assert text != plain
    assert read_model_file(text).tree_count == read_model_file(trained(name).text).tree_count
    assert np.array_equal(served(text), by_lightgbm(text))
    assert np.array_equal(served(text), by_lightgbm(trained(name).text))


NAMES = ["price\u00a0eur", "a\tb", "地域\u3000名", "x\u2028y", "a=b", "e\u0301", "\u200bz", "a\x0bb", "a\x1cb", "'q'", "tree", "😀", "-", "a/b%c", "x" * 3_000]  # fmt: skip  # noqa: E501


def test_names_that_lightgbm_takes() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({name: random.normal(size=200) for name in NAMES})
    text = lightgbm.train(
        {**FAST, "objective": "regression"}, lightgbm.Dataset(frame, frame.sum(axis=1)), 9
    ).model_to_string()
    assert manifest_of(text.encode(), "m", 1).features[0].name == NAMES[0]
    assert read_model_file(text.encode()).feature_names == tuple(NAMES)


def _wide(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).normal(size=(60, 10_500))
    path = tmp_path / "wide.txt"
    lightgbm.train({**FAST, "objective": "regression"}, lightgbm.Dataset(x, x[:, 0]), 1).save_model(path)
    return path


def test_raised_limits_hold_in_trials(tmp_path: Path) -> None:
    path = _wide(tmp_path)
    text, raised = path.read_bytes(), Limits(features_max=20_000)
    with pytest.raises(TooLargeError, match="at most 10000"):
        manifest_of(text, "m", 1)
    manifest = manifest_of(text, "m", 1, limits=raised)
    small = Limits(features_max=20_000, artifact_bytes_max=1_000)
    for limits, reason in ((raised, None), (Limits(), "at most 10000"), (small, "at most 1000 are allowed")):
        (verdict,) = try_models([TrialCase(path, manifest)], TrialLimits(sizes=limits))
        assert verdict.ok == (reason is None)
        assert (reason or "") in (verdict.reason or "")
