"""docs/models.md and docs/lifecycle.md list all fields, and their examples work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pandas as pd
import pytest

from inferd import ModelManager, RealtimePredictor
from inferd.schemas.models.model import (
    Alias,
    CacheSpec,
    Feature,
    Manifest,
    Postprocess,
    Preprocess,
    SplitShare,
)
from inferd.streams.inference.splits import versions_of

PAGE = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
LIFECYCLE = (Path(__file__).parents[1] / "docs" / "lifecycle.md").read_text(encoding="utf-8")
JSON: list[str] = re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
PROGRAMS: list[str] = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("struct", [Manifest, Feature, Preprocess, Postprocess, CacheSpec])
def test_the_page_lists_every_field(struct: type[msgspec.Struct]) -> None:
    assert unlisted(struct, PAGE) == set()


@pytest.mark.parametrize("struct", [Alias, SplitShare])
def test_the_page_of_aliases_lists_every_field(struct: type[msgspec.Struct]) -> None:
    assert unlisted(struct, LIFECYCLE) == set()


def unlisted(struct: type[msgspec.Struct], page: str) -> set[str]:
    return {field for field in struct.__struct_fields__ if not re.search(rf'[`"]{field}[`"]', page)}


def test_programs_find_the_version_of_a_key_as_workers_do() -> None:
    (program,) = [
        text for text in re.findall(r"^```python\n(.*?)^```", LIFECYCLE, re.DOTALL | re.MULTILINE) if "blake2b" in text
    ]
    names: dict[str, Any] = {}
    exec(program, names)
    keys = [b"customer-%d" % number for number in range(500)]
    split = [SplitShare(3, 90.0), SplitShare(4, 7.5), SplitShare(1, 2.5)]
    shares = [(share.version, share.weight) for share in split]
    assert versions_of(split, keys).tolist() == [names["version_of"](key, shares) for key in keys]


def test_the_manifest_on_the_page_works_as_described(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "age": random.integers(18, 90, 400),
            "plan": pd.Categorical(random.choice(["basic", "pro"], 400)),
            "calls": random.poisson(2, 400),
        }
    )
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(rows, rows.calls > 2), 20)
    manager = ModelManager(tmp_path)
    (text,) = JSON
    manager.register("churn", booster.model_to_string().encode(), **json.loads(text))
    predictor = RealtimePredictor(manager)
    assert predictor.predict("churn", {"plan": "basic", "age": 41, "calls": 9}) == "leaves"
    assert predictor.predict("churn", ["basic", 41, 9]) == "leaves", "the order of positional rows"
    assert predictor.predict("churn", {"plan": "basic", "age": 41}) == "stays", "a default"
    assert predictor.predict("churn", ["gold", 400, 9]) == "leaves", "an unknown category, and a clipped number"


def test_the_example_of_saving_onnx_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(2).normal(size=(80, 3)).astype(np.float32)
    classifier = LogisticRegression().fit(rows, np.where(rows[:, 0] > 0, "bug", "question"))
    (program,) = [text for text in PROGRAMS if "skl2onnx" in text]
    names: dict[str, Any] = {}
    exec(program, names)
    monkeypatch.chdir(tmp_path)
    names["save_onnx"](classifier, 3)
    manager = ModelManager(tmp_path / "models")
    manager.register("tickets", "tickets.onnx")
    answers = RealtimePredictor(manager).predict_outputs("tickets", rows[:9], ["prediction", "output_label"])
    assert answers["prediction"] == answers["output_label"] == classifier.predict(rows[:9]).tolist()


def test_the_example_for_class_names_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(2).normal(size=(300, 3))
    classes, numbers = np.unique(np.array(["question", "bug", "praise"])[rows.argmax(axis=1)], return_inverse=True)
    options = {"objective": "multiclass", "num_class": 3, "verbose": -1}
    # The attributes of a trained LGBMClassifier; the class itself needs scikit-learn.
    classifier = SimpleNamespace(
        booster_=lightgbm.train(options, lightgbm.Dataset(rows, numbers), 15), classes_=classes
    )
    (program,) = [text for text in PROGRAMS if "LGBMClassifier" in text]
    names: dict[str, Any] = {}
    exec(program.replace("from lightgbm import LGBMClassifier", "LGBMClassifier = object"), names)
    monkeypatch.chdir(tmp_path)
    names["save"](classifier)
    manager = ModelManager(tmp_path / "models")
    manager.register("tickets", "tickets.txt", **json.loads((tmp_path / "manifest.json").read_text()))
    answers = RealtimePredictor(manager).predict("tickets", rows[:50])
    assert answers == classes[np.asarray(classifier.booster_.predict(rows[:50])).argmax(axis=1)].tolist()
