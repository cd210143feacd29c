"""The registry of model formats, with a toy format besides those of the package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from inferd.schemas.errors import MalformedError, SchemaMismatchError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import Feature
from inferd.streams.inference import (
    DEFAULT_TRIAL_LIMITS,
    FileFeature,
    ModelFormat,
    all_formats,
    format_named,
    load_model,
    manifest_of,
    read_model,
    register,
    unregister,
)
from inferd.streams.models.trial.process import CaseFile, Verdict, judge
from inferd.streams.serving import ModelManager, RealtimePredictor
from tests.fixtures.toy_format import TOY, numbers_of, toy_file
from tests.unit.streams.inference.trained_models import Trained

MODEL = toy_file([FileFeature(name=name) for name in "abc"])


@pytest.fixture
def toy_format() -> Iterator[ModelFormat]:
    register(TOY)
    yield TOY
    unregister("toy")


@pytest.mark.usefixtures("toy_format")
def test_a_registered_format_is_deployed_tried_loaded_and_predicts(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(MODEL)
    manifest = manifest_of(MODEL, "m", 1)
    assert (manifest.runtime, manifest.features) == ("toy", [Feature("a"), Feature("b"), Feature("c")])
    assert judge(CaseFile(str(path), manifest), DEFAULT_TRIAL_LIMITS) == (Verdict(True, None, 1), False)
    served = load_model(path, manifest)
    rows = np.array([[1.0, 2.0, 4.0], [0.5, np.nan, 1.0]])
    assert served.runtime.predict(rows, ("prediction",))["prediction"].tolist() == numbers_of(rows).tolist()


@pytest.mark.usefixtures("toy_format")
def test_a_registered_format_serves_in_a_script(tmp_path: Path) -> None:
    manager = ModelManager(tmp_path)
    # The trial's subprocess only has the formats of the package.
    assert manager.register("m", MODEL, trial=False).runtime == "toy"
    manager.catalog.passed_trial(manager.list()[0])  # type: ignore[attr-defined]
    answer = RealtimePredictor(model_manager=manager).predict(model_id="m", input_data={"a": 1, "b": 2, "c": 4})
    assert answer == numbers_of(np.array([[1.0, 2.0, 4.0]]))[0]


@pytest.mark.usefixtures("toy_format")
def test_the_file_names_its_format(trained: Callable[[str], Trained]) -> None:
    assert read_model(MODEL).runtime == "toy"
    assert read_model(trained("binary").text).runtime == "lightgbm"
    assert {"lightgbm", "onnx", "sklearn", "toy"} <= {each.name for each in all_formats()}


@pytest.mark.usefixtures("toy_format")
def test_a_manifest_of_another_format_than_its_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(MODEL)
    manifest = manifest_of(MODEL, "m", 1)
    with pytest.raises(MalformedError, match="does not begin with the line 'tree'"):
        load_model(path, msgspec.structs.replace(manifest, runtime="lightgbm"))
    with pytest.raises(SchemaMismatchError, match="runtime is 'lightgbm'"):
        manifest_of(MODEL, "total", 1, {"runtime": "lightgbm"})


@pytest.mark.parametrize("name", ["pickle", "toy", "", "LightGBM"])
def test_an_unknown_format_is_rejected_by_name(name: str) -> None:
    with pytest.raises(MalformedError, match=rf"runtime is '{name}'; known are lightgbm"):
        format_named(name)


@pytest.mark.parametrize("content", [b"TOY a", b"tre"])
def test_a_file_of_no_known_format_is_rejected(content: bytes) -> None:
    with pytest.raises(MalformedError, match=r"does not begin with the line 'tree'.*pickles are not accepted"):
        read_model(content)


def test_the_size_of_a_file_is_checked_before_it_is_read() -> None:
    with pytest.raises(TooLargeError, match="at most 10"):
        read_model(b"x" * 11, Limits(artifact_bytes_max=10))


def test_an_unknown_runtime_fails_its_trial(trained: Callable[[str], Trained], tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(trained("binary").text)
    manifest = msgspec.structs.replace(manifest_of(trained("binary").text, "m", 1), runtime="unheard")
    verdict, _ = judge(CaseFile(str(path), manifest), DEFAULT_TRIAL_LIMITS)
    assert verdict.reason is not None
    assert verdict.reason.startswith("manifest: runtime is 'unheard'; known are lightgbm")


@pytest.mark.usefixtures("toy_format")
def test_a_name_is_registered_once() -> None:
    register(TOY)
    with pytest.raises(ValueError, match="'toy' is registered already"):
        register(ModelFormat(**{**{name: getattr(TOY, name) for name in TOY.__slots__}, "begins": "other"}))


def test_every_format_recognises_its_files(trained: Callable[[str], Trained]) -> None:
    text = trained("binary").text
    for variant in (text, b"\xef\xbb\xbf" + text, text.replace(b"\n", b"\r\n")):
        assert read_model(variant, DEFAULT_LIMITS).runtime == "lightgbm"
