"""Small LightGBM models for fuzz targets: a plain one, and one whose manifest uses every rule."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from inferd.schemas.models import Alias, SplitShare
from inferd.streams.inference.catalog import ModelCatalog
from inferd.streams.inference.loading import load_model
from inferd.streams.inference.manifests import manifest_of
from tests.fixtures.scoring import catalog_of

QUICK: dict[str, Any] = {
    "verbosity": -1,
    "num_leaves": 5,
    "min_data_in_leaf": 5,
    "num_threads": 1,
    "seed": 7,
    "deterministic": True,
}
RULES: dict[str, Any] = {
    "features": [
        {"name": "Column_0", "dtype": "float64", "min": -10.0, "max": 10.0, "required": True},
        {"name": "Column_1", "dtype": "category", "categories": ["AA", "UA", "é", 7, True]},
        {"name": "Column_2", "dtype": "int64", "required": False},
        {"name": "Column_3", "dtype": "float32"},
    ],
    "preprocess": {"order": ["Column_3", "Column_1", "Column_0", "Column_2"], "defaults": {"Column_2": 3}},
    "postprocess": {"labels": ["on time", "late"], "threshold": 0.4},
}


@cache
def model_files() -> list[bytes]:
    """One model file of each kind that the reader distinguishes, and some invalid ones."""
    good = [_train({}), _train({"categorical_feature": [1]}), _train({"num_class": 3, "objective": "multiclass"})]
    good.append(_train({"linear_tree": True, "objective": "regression"}))
    return [*good, good[0][:400], good[0] + b"tail", b"tree\n", good[0].replace(b"num_leaves=5", b"num_leaves=500000")]


def _train(parameters: dict[str, Any]) -> bytes:
    random = np.random.default_rng(3)
    rows = random.normal(size=(200, 4))
    rows[:, 1] = random.integers(0, 5, 200)
    label = (rows[:, 0] > 0).astype(float) + (rows[:, 3] > 1)
    if parameters.get("objective") is None:
        label = np.minimum(label, 1)
    chosen = {**QUICK, "objective": "binary", **parameters}
    codes = chosen.pop("categorical_feature", "auto")
    text: str = lightgbm.train(chosen, lightgbm.Dataset(rows, label, categorical_feature=codes), 3).model_to_string()
    return text.encode()


@cache
def served_models() -> ModelCatalog:
    """Two loaded models: `plain`, with float features, and `ruled`. `plain` has two versions, between which
    `plain@canary` splits."""
    plain, coded, other, *_ = model_files()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.txt"
        served = []
        for name, version, content, rules in (
            ("plain", 1, plain, {}), ("plain", 2, other, {}), ("ruled", 1, coded, RULES),
        ):  # fmt: skip
            path.write_bytes(content)
            served.append(load_model(path, manifest_of(content, name, version, rules)))
    catalog = catalog_of(*served)
    catalog.put_alias("plain", "champion", Alias(1))
    catalog.put_alias("plain", "canary", Alias(split=[SplitShare(1, 1), SplitShare(2, 1)]))
    return catalog
