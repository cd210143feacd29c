"""LightGBM's models in the tree kernel: which it scores, and that a difference is detected before a model is served."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import lightgbm
import numpy as np
import pytest

from inferd.streams.inference import kernels_fault, kernels_in_use, use_kernels
from inferd.streams.inference.formats.lightgbm import kernel
from inferd.streams.inference.formats.lightgbm.kernel import adversarial_rows, probe_model
from inferd.streams.inference.formats.lightgbm.model_file import read_model_file
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from inferd.streams.inference.kernels import Ending, Trees, UnavailableError, pack
from tests.unit.streams.inference.trained_models import KINDS, Trained

Train = Callable[[str], Trained]


@pytest.fixture
def switched_on() -> Iterator[None]:
    before = kernels_in_use()
    use_kernels(True)
    if (fault := kernels_fault()) is not None:
        use_kernels(before)
        pytest.skip(f"compiled kernels: {fault}")
    yield
    use_kernels(before)


def fault_of(text: bytes) -> str | None:
    return LightGBMRuntime(text).kernel_fault


@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize("name", KINDS)
def test_the_kernel_scores_all_models_without_linear_trees(trained: Train, name: str) -> None:
    expected = "it has linear trees" if name.startswith("linear") else None
    assert fault_of(trained(name).text) == expected


@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize("name", ["binary", "int_coded", "rf_multiclass", "zero_as_missing"])
def test_adversarial_rows_equal_booster_predict_in_batches_of_any_size(trained: Train, name: str) -> None:
    model = trained(name)
    runtime = LightGBMRuntime(model.text)
    trees = Trees.joined(read_model_file(model.text).trees)
    (rows,) = adversarial_rows(trees, runtime.n_features)
    for size in (1, 7, 8, 63, 64, 65, len(rows)):
        arrays = runtime.predict(rows[:size], ("prediction", "raw"))
        for output, raw in (("prediction", False), ("raw", True)):
            expected = model.booster.predict(rows[:size], raw_score=raw, num_threads=1)
            assert arrays[output].tobytes() == expected.tobytes()


def test_every_threshold_is_tried_on_either_side(trained: Train) -> None:
    trees = Trees.joined(read_model_file(trained("deep").text).trees)
    (rows,) = adversarial_rows(trees, 6)
    for feature in np.unique(trees.feature).tolist():
        cuts = trees.threshold[trees.feature == feature]
        wanted = np.concatenate((cuts, np.nextafter(cuts, np.inf)))
        assert set(wanted.tolist()) <= set(rows[:, feature].tolist())


@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize(
    ("attribute", "wrong", "reason"),
    [
        ("_ending", lambda _file: Ending("sigmoid", 1.0000000000000002), "its predictions differ"),
        ("_ending", lambda _file: Ending(rounds=3), "its predictions differ"),
    ],
)
def test_a_wrong_transform_leaves_the_model_to_the_library(
    trained: Train, monkeypatch: pytest.MonkeyPatch, attribute: str, wrong: Any, reason: str
) -> None:
    model = trained("binary")
    fault_of(model.text)  # the functions are compared once per process
    monkeypatch.setattr(kernel, attribute, wrong)
    runtime = LightGBMRuntime(model.text)
    assert reason in (runtime.kernel_fault or "")
    assert runtime.predict(model.rows, ("prediction",))["prediction"].tobytes() == model.expected().tobytes()


@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize("column", ["value", "threshold", "kind", "left"])
def test_a_wrong_tree_leaves_the_model_to_the_library(
    trained: Train, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    model = trained("zero_as_missing")
    fault_of(model.text)

    def wrong_pack(trees: Trees, *sizes: int) -> Any:
        changed = getattr(trees, column).copy()
        if column == "left":
            return pack(dataclasses.replace(trees, left=trees.right, right=trees.left), *sizes)
        wrong = {"threshold": np.nextafter(changed[0], np.inf), "value": changed[0] + 1e-9, "kind": int(changed[0]) ^ 2}
        changed[0] = wrong[column]
        return pack(dataclasses.replace(trees, **{column: changed}), *sizes)

    monkeypatch.setattr(kernel, "pack", wrong_pack)
    runtime = LightGBMRuntime(model.text)
    assert runtime.kernel_fault == "its sums differ from those of the library"
    assert runtime.predict(model.rows, ("prediction",))["prediction"].tobytes() == model.expected().tobytes()


@pytest.mark.usefixtures("switched_on")
def test_another_exp_leaves_all_models_to_the_library(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_functions_differ", lambda _open: "poisson of a model made for this differs")
    assert fault_of(trained("regression").text) == "poisson of a model made for this differs"


@pytest.mark.usefixtures("switched_on")
def test_without_kernels_the_library_scores_with_the_same_bytes(trained: Train) -> None:
    model = trained("multiclass")
    on = LightGBMRuntime(model.text)
    use_kernels(False)
    off = LightGBMRuntime(model.text)
    assert (on.kernel_fault, off.kernel_fault) == (None, "they are switched off")
    for output in ("prediction", "probabilities", "raw"):
        assert (
            on.predict(model.rows, (output,))[output].tobytes() == off.predict(model.rows, (output,))[output].tobytes()
        )


def test_the_probe_model_spreads_its_leaves_over_the_range_of_exp() -> None:
    booster = lightgbm.Booster(model_str=probe_model("poisson").decode())
    found = np.asarray(booster.predict(np.arange(1024.0)[:, None], num_threads=1))
    assert len(np.unique(found)) > 900
    assert found.min() < 1e-200
    assert found.max() > 1e200


def test_kernels_that_are_missing_are_named(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise UnavailableError("they were not built when inferd was installed")

    monkeypatch.setattr(kernel, "library", missing)
    monkeypatch.setattr(kernel, "_functions_differ", lambda _open: None)
    assert fault_of(trained("binary").text) == "they were not built when inferd was installed"
