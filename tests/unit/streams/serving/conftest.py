"""A model of five features in a file, and a manager over an empty store."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from numpy.typing import NDArray

from inferd.streams.serving.model_manager import ModelManager

FEATURES = 5
FAST: dict[str, Any] = {"verbosity": -1, "num_leaves": 7, "min_data_in_leaf": 5, "num_threads": 1, "seed": 7}


@cache
def booster(kind: str = "binary", rounds: int = 3) -> Any:
    rows = matrix(200)
    label = (rows[:, 0] + rows[:, 1] > 0).astype(np.float64) if kind == "binary" else rows[:, 0] * 2
    return lightgbm.train({**FAST, "objective": kind}, lightgbm.Dataset(rows, label), rounds)


def matrix(rows: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(rows, FEATURES))


def expected(rows: Any, kind: str = "binary", rounds: int = 3) -> list[float]:
    predicted: list[float] = booster(kind, rounds).predict(np.asarray(rows, np.float64), num_threads=1).tolist()
    return predicted


SaveModel = Callable[..., Path]


@pytest.fixture
def save_model(tmp_path: Path) -> SaveModel:
    """Writes a model file with the given objective and number of rounds."""

    def save(kind: str = "binary", rounds: int = 3) -> Path:
        path = tmp_path / f"{kind}-{rounds}.txt"
        booster(kind, rounds).save_model(path)
        return path

    return save


@pytest.fixture
def manager(tmp_path: Path) -> ModelManager:
    return ModelManager(tmp_path / "store")


@pytest.fixture
def served(manager: ModelManager, save_model: SaveModel) -> ModelManager:
    """A manager with `churn`, version 1, without a trial."""
    manager.register("churn", save_model(), trial=False)
    manager._directory.passed_trial(manager.list()[0])
    return manager
