"""The model that all peers serve, and its correct predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.layouts import FEATURES, NAMES
from bench.libraries import LIBRARIES, Predict

MODEL_VERSION = 1
TREES = 100
LEAVES = 31
TRAINING_ROWS = 8_000
SEED = 20_240_229
DEFAULT_SIZE = f"{TREES}x{LEAVES}"


@dataclass(frozen=True, slots=True)
class Size:
    """Trees of a model, leaves of each, and the parameters of LightGBM with which every tree gets that many."""

    trees: int
    leaves: int
    rows: int
    """Of the training."""
    parameters: tuple[tuple[str, float], ...] = ()


SIZES = {
    DEFAULT_SIZE: Size(TREES, LEAVES, TRAINING_ROWS),
    "500x63": Size(500, 63, 20_000, (("learning_rate", 0.02), ("min_data_in_leaf", 5))),
}
"""By name: trees x leaves."""


@dataclass(frozen=True)
class BenchModel:
    """The model file and its SHA-256."""

    path: Path
    digest: str
    library: str = "lightgbm"
    """A name of `LIBRARIES`."""

    @property
    def identity(self) -> tuple[int, str]:
        """The (version, digest) in every result."""
        return MODEL_VERSION, self.digest

    @cached_property
    def _predict(self) -> Predict:
        return LIBRARIES[self.library](str(self.path))

    def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The library's own predictions for (rows, columns): numbers or class labels (rows,)."""
        return np.asarray(self._predict(rows))

    @classmethod
    def of(cls, path: Path, library: str = "lightgbm") -> BenchModel:
        """The model in a file."""
        return cls(path, hashlib.sha256(path.read_bytes()).hexdigest(), library)


def train_model(directory: Path, size: str = DEFAULT_SIZE, categories: Sequence[str] = ()) -> BenchModel:
    """Trains a binary LightGBM model over 30 float64 features; deterministic.

    `size` is a name of `SIZES`; with `categories` the last feature is one of them.
    """
    shape = SIZES[size]
    random = np.random.default_rng(SEED)
    rows = random.normal(size=(shape.rows, FEATURES))
    signal = rows @ random.normal(size=FEATURES) + np.sin(rows[:, 0] * rows[:, 1]) * 3
    labels = signal + random.normal(size=shape.rows) > 0
    parameters = {
        "objective": "binary",
        "num_leaves": shape.leaves,
        "deterministic": True,
        "force_row_wise": True,
        "seed": SEED,
        "num_threads": 1,  # several threads wait for each other on a busy machine
        "verbosity": -1,
        **dict(shape.parameters),
    }
    data = lightgbm.Dataset(_with_categories(rows, categories) if categories else rows, labels)
    booster = lightgbm.train(parameters, data, num_boost_round=shape.trees)
    leaves = sum(int(tree["num_leaves"]) for tree in booster.dump_model()["tree_info"])
    if leaves != shape.trees * shape.leaves:
        raise BenchError(f"the model has {leaves} leaves, not {size}: training was not deterministic")
    path = directory / "model.txt"
    booster.save_model(path)
    return BenchModel.of(path)


def _with_categories(rows: NDArray[np.float64], categories: Sequence[str]) -> Any:
    """A frame whose last column is a category, each with about as many rows; LightGBM saves their names."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(NAMES))
    order = np.argsort(np.argsort(rows[:, -1])) * len(categories) // len(rows)
    frame[NAMES[-1]] = pd.Categorical.from_codes(order, list(categories))
    return frame
