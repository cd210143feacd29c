"""From a manifest and a file to a loaded version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from inferd.schemas.errors import InferenceError, SchemaMismatchError
from inferd.schemas.models.model import Feature
from inferd.schemas.requests.request import Output
from inferd.streams.inference.formats.lightgbm import format as lightgbm_format
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from inferd.streams.inference.inputs import Inputs
from inferd.streams.inference.loading import load_model
from inferd.streams.inference.manifests import manifest_of
from inferd.streams.inference.runtime import Arrays
from tests.unit.streams.inference.trained_models import Trained

Train = Callable[[str], Trained]


@pytest.fixture
def path(trained: Train, tmp_path: Path) -> Path:
    file = tmp_path / "a.model"
    file.write_bytes(trained("multiclass").text)
    return file


def test_a_loaded_model_predicts_like_the_trained_one_and_has_its_metadata(trained: Train, path: Path) -> None:
    model = trained("multiclass")
    complete = manifest_of(model.text, "m", 3)
    bare = msgspec.structs.replace(complete, features=[], objective=None, outputs=None)
    served = load_model(path, bare)
    assert served.manifest == complete, "omitted fields of the manifest are read from the file"
    assert served.features.n_features == 6
    predicted = served.runtime.predict(model.rows, ("probabilities",))["probabilities"]
    assert predicted.tolist() == model.expected().tolist()


def test_it_is_warmed_up_before_the_first_request(trained: Train, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    class Counting(LightGBMRuntime):
        def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
            rows.append(len(inputs))
            return super().predict(inputs, outputs)

    monkeypatch.setattr(lightgbm_format, "LightGBMRuntime", Counting)
    load_model(path, manifest_of(trained("multiclass").text, "m", 1))
    assert rows[0] == 1


def test_a_manifest_of_another_model_is_rejected(trained: Train, path: Path) -> None:
    with pytest.raises(SchemaMismatchError, match="sha256"):
        load_model(path, manifest_of(trained("binary").text, "m", 1))


def test_a_manifest_that_contradicts_its_model_is_rejected(trained: Train, path: Path) -> None:
    manifest = manifest_of(trained("multiclass").text, "m", 1)
    with pytest.raises(SchemaMismatchError, match="'other'"):
        load_model(path, msgspec.structs.replace(manifest, features=[Feature("other")]))


def test_a_file_that_is_not_a_model_is_rejected(trained: Train, path: Path) -> None:
    manifest = manifest_of(trained("multiclass").text, "m", 1)
    path.write_bytes(b"tree\nnothing")
    with pytest.raises(InferenceError):
        load_model(path, manifest)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        load_model(path, manifest)
