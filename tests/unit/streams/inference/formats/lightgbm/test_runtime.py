"""The LightGBM runtime: equal bit for bit to `Booster.predict`, from any thread."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from numpy.typing import NDArray

from inferd.schemas.errors import (
    InternalError,
    InvalidValueError,
    ModelNotReadyError,
    SchemaMismatchError,
    ServerError,
)
from inferd.schemas.requests.request import OUTPUTS, Output
from inferd.streams.inference.formats.lightgbm.c_library import Library, library_path
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from inferd.streams.inference.runtime import ModelRuntime
from tests.unit.streams.inference.trained_models import FAST, FEATURES, KINDS, Trained, matrix

Train = Callable[[str], Trained]
PARAMETER: dict[Output, dict[str, bool]] = {
    "prediction": {},
    "raw": {"raw_score": True},
    "contributions": {"pred_contrib": True},
    "leaves": {"pred_leaf": True},
}


def same_bits(ours: Any, theirs: Any) -> bool:
    return bool(ours.dtype == theirs.dtype and ours.ravel().tobytes() == theirs.ravel().tobytes())


@pytest.mark.parametrize("name", KINDS)
def test_every_output_equals_booster_predict_bit_for_bit(trained: Train, name: str) -> None:
    model = trained(name)
    runtime: ModelRuntime = LightGBMRuntime(model.text)
    outputs = tuple(output for output in OUTPUTS if runtime.supports(output))
    arrays = runtime.predict(model.rows, outputs)
    for output in set(outputs) - {"probabilities"}:
        expected = model.booster.predict(model.rows, **PARAMETER[output])
        assert same_bits(arrays[output], expected), output
        assert arrays[output].size == len(model.rows) * runtime.values_per_row(output)
    assert ("contributions" in outputs) == ("linear" not in name)
    for i, row in enumerate(model.rows):
        alone = runtime.predict(row[None, :].copy(), outputs)
        for output in outputs:
            assert same_bits(alone[output][0], arrays[output][i]), output


@pytest.mark.parametrize("name", KINDS)
def test_shapes(trained: Train, name: str) -> None:
    model = trained(name)
    runtime = LightGBMRuntime(model.text)
    outputs = tuple(output for output in OUTPUTS if runtime.supports(output))
    k = model.booster.num_model_per_iteration()
    assert (runtime.n_features, runtime.outputs_per_row) == (FEATURES, k)
    assert runtime.feature_names == tuple(model.booster.feature_name())
    for rows in (1, 2, 5):
        arrays = runtime.predict(np.ascontiguousarray(model.rows[:rows]), outputs)
        assert arrays["prediction"].shape == arrays["raw"].shape == ((rows,) if k == 1 else (rows, k))
        assert arrays["leaves"].shape == (rows, model.booster.num_trees())
        assert arrays["leaves"].dtype == np.int32
        if "contributions" in outputs:
            contributions = arrays["contributions"]
            assert contributions.shape == ((rows, FEATURES + 1) if k == 1 else (rows, k, FEATURES + 1))
            np.testing.assert_allclose(contributions.sum(axis=-1), arrays["raw"], rtol=1e-9)


@pytest.mark.parametrize("name", ["binary", "cross_entropy", "multiclass", "multiclassova"])
def test_probabilities_are_of_each_class(trained: Train, name: str) -> None:
    model = trained(name)
    arrays = LightGBMRuntime(model.text).predict(model.rows, ("probabilities", "prediction"))
    expected = model.expected()
    if expected.ndim == 1:
        expected = np.column_stack((1.0 - expected, expected))
    assert same_bits(arrays["probabilities"], expected)


@pytest.mark.parametrize("name", ["regression", "custom", "lambdarank", "cross_entropy_lambda"])
def test_no_probabilities_without_classes(trained: Train, name: str) -> None:
    runtime = LightGBMRuntime(trained(name).text)
    assert not runtime.supports("probabilities")
    with pytest.raises(InvalidValueError, match=runtime.objective or "custom"):
        runtime.predict(matrix(rows=2), ("prediction", "probabilities"))


def test_linear_trees_have_no_contributions(trained: Train) -> None:
    runtime = LightGBMRuntime(trained("linear").text)
    with pytest.raises(InvalidValueError, match="linear"):
        runtime.predict(matrix(rows=2), ("contributions",))


def test_a_file_has_the_best_iterations() -> None:
    x = matrix()
    booster = lightgbm.train({**FAST, "objective": "regression"}, lightgbm.Dataset(x, x[:, 1]), 6)
    booster.best_iteration = 4
    runtime = LightGBMRuntime(booster.model_to_string().encode())
    assert runtime.values_per_row("leaves") == 4
    assert same_bits(runtime.predict(x, ("prediction",))["prediction"], booster.predict(x))
    assert not same_bits(runtime.predict(x, ("prediction",))["prediction"], booster.predict(x, num_iteration=6))


def test_each_call_of_the_library_is_made_once(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = LightGBMRuntime(trained("binary").text)
    calls: list[str] = []
    compute = runtime._compute

    def counted(*arguments: object) -> NDArray[np.float64]:
        calls.append(str(arguments[2]))
        return compute(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(runtime, "_compute", counted)
    runtime.predict(matrix(rows=3), ("probabilities", "prediction", "raw"))
    assert calls == ["probabilities", "raw"]


def test_threads_share_a_model(trained: Train) -> None:
    model = trained("multiclass")
    runtime = LightGBMRuntime(model.text)
    expected = LightGBMRuntime(model.text).predict(model.rows, ("prediction", "contributions", "leaves"))
    start = threading.Barrier(8)

    def score(worker: int) -> bool:
        start.wait()
        for turn in range(60):
            place = (worker * 7 + turn) % (len(model.rows) - 2)
            rows = np.ascontiguousarray(model.rows[place : place + 1 + turn % 2])
            arrays = runtime.predict(rows, ("contributions", "prediction", "leaves"))
            if not all(same_bits(arrays[name], expected[name][place : place + len(rows)]) for name in arrays):
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(score, range(8)))


def test_a_closed_model_is_freed_after_its_last_call(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained("binary")
    runtime = LightGBMRuntime(model.text)
    booster = runtime._booster
    assert booster is not None
    freed: list[bool] = []
    monkeypatch.setattr(type(booster), "__del__", lambda _: freed.append(True))
    predict = booster._predict

    def close_meanwhile(*arguments: object) -> int:
        runtime.close()
        return int(predict(*arguments))

    booster._predict = close_meanwhile  # type: ignore[assignment]
    del booster
    contributions = runtime.predict(model.rows, ("contributions",))["contributions"]
    assert same_bits(contributions, model.expected(pred_contrib=True))
    assert freed == [True]
    runtime.close()
    with pytest.raises(ModelNotReadyError):
        runtime.predict(model.rows, ("prediction",))


def test_a_wrong_matrix_is_rejected_before_the_library_reads_it(trained: Train) -> None:
    runtime = LightGBMRuntime(trained("binary").text)
    with pytest.raises(SchemaMismatchError, match=r"\(2, 5\).*\(rows, 6\)"):
        runtime.predict(np.zeros((2, 5)), ("prediction",))
    with pytest.raises(SchemaMismatchError):
        runtime.predict(np.zeros(6), ("prediction",))
    with pytest.raises(InternalError, match="float32"):
        runtime.predict(np.zeros((2, 6), np.float32), ("prediction",))
    with pytest.raises(InternalError):
        runtime.predict(np.zeros((6, 2)).T, ("prediction",))


def test_the_error_has_the_librarys_message(trained: Train) -> None:
    booster = LightGBMRuntime(trained("binary").text)._booster
    assert booster is not None
    booster._n_features = 5
    with pytest.raises(InternalError, match=r"LGBM_BoosterPredictForMat: .*number of features"):
        booster.predict(np.zeros((2, 5)), 0, 2)


def test_a_file_that_is_read_differently_is_rejected(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.streams.inference.formats.lightgbm.runtime._Booster.shape", lambda _: (6, 1, 5))
    with pytest.raises(InternalError, match="LightGBM read"):
        LightGBMRuntime(trained("binary").text)


def test_one_number_of_threads_a_process() -> None:
    library = Library(library_path())
    assert library.parameters(2) == library.parameters(2)
    with pytest.raises(ServerError, match="already predicts with 2"):
        library.parameters(1)


def test_the_library_prints_nothing(trained: Train, capfd: pytest.CaptureFixture[str]) -> None:
    text = trained("huber").text.replace(b"objective=huber", b"objective=huber sqrt")
    LightGBMRuntime(text).predict(matrix(rows=2), ("prediction",))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_library_is_at_the_path_that_the_package_loads() -> None:
    # The location of the file is not documented: this test fails if a version of lightgbm moves it.
    assert Path(lightgbm.libpath._LIB._name).samefile(library_path())


def test_no_package_but_numpy_is_needed() -> None:
    code = (
        "import sys, inferd.streams.openmp as o, inferd.streams.inference.formats.lightgbm.runtime as m;"
        "o.load_openmp(); m.library(); print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"lightgbm", "pandas", "scipy", "sklearn", "asyncio"} & set(run.stdout.split())


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.streams.inference.formats.lightgbm.c_library.find_spec", lambda _: None)
    with pytest.raises(ServerError, match="pip install lightgbm"):
        library_path()
