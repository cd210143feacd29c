"""The registry of model formats, and a format that is defined here alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest

from inferd.schemas.errors import MalformedError, SchemaMismatchError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import Feature
from inferd.schemas.requests import Output
from inferd.streams.inference import (
    DEFAULT_TRIAL_LIMITS,
    Arrays,
    FileFeature,
    Inputs,
    ModelFile,
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
from tests.unit.streams.inference.trained_models import Trained

MODEL = b"SUM a b c"


@dataclass(frozen=True)
class SumRuntime:
    """Predicts the sum of a row; a missing value counts as 0."""

    feature_names: tuple[str, ...]
    outputs_per_row: int = 1
    objective: str | None = None

    @property
    def n_features(self) -> int:
        return len(self.feature_names)

    def supports(self, output: Output) -> bool:
        return output == "prediction"

    def values_per_row(self, output: Output) -> int:
        return 1

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        assert isinstance(inputs, np.ndarray)
        return {output: np.nansum(inputs, axis=1) for output in outputs}

    def close(self) -> None:
        pass


def _read(content: bytes, limits: Limits) -> ModelFile:
    names = tuple(content.decode().split()[1:])
    if not 1 <= len(names) <= limits.features_max:
        raise MalformedError(f"model file: {len(names)} features")
    features = tuple(FileFeature(name=name) for name in names)
    return ModelFile(runtime="sum", sha256=hashlib.sha256(content).hexdigest(), size=len(content), features=features)


SUM = ModelFormat(
    name="sum",
    begins="SUM",
    sniff=lambda content: content.startswith(b"SUM "),
    read=_read,
    load=lambda content, file, threads: SumRuntime(file.feature_names),
    load_library=lambda: None,
    library_version=lambda: "1",
)


@pytest.fixture
def sum_format() -> Iterator[ModelFormat]:
    register(SUM)
    yield SUM
    unregister("sum")


@pytest.mark.usefixtures("sum_format")
def test_a_registered_format_is_deployed_tried_loaded_and_predicts(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(MODEL)
    manifest = manifest_of(MODEL, "total", 1)
    assert (manifest.runtime, manifest.features) == ("sum", [Feature("a"), Feature("b"), Feature("c")])
    assert judge(CaseFile(str(path), manifest), DEFAULT_TRIAL_LIMITS) == (Verdict(True, None, 1), False)
    served = load_model(path, manifest)
    rows = np.array([[1.0, 2.0, 4.0], [0.5, np.nan, 1.0]])
    assert served.runtime.predict(rows, ("prediction",))["prediction"].tolist() == [7.0, 1.5]


@pytest.mark.usefixtures("sum_format")
def test_a_registered_format_serves_in_a_script(tmp_path: Path) -> None:
    manager = ModelManager(tmp_path)
    # The trial's subprocess knows the formats of the package alone.
    assert manager.register("total", MODEL, trial=False).runtime == "sum"
    manager.catalog.passed_trial(manager.list()[0])  # type: ignore[attr-defined]
    answer = RealtimePredictor(model_manager=manager).predict(model_id="total", input_data={"a": 1, "b": 2, "c": 4})
    assert answer == 7.0


@pytest.mark.usefixtures("sum_format")
def test_the_file_names_its_format(trained: Callable[[str], Trained]) -> None:
    assert read_model(MODEL).runtime == "sum"
    assert read_model(trained("binary").text).runtime == "lightgbm"
    assert {"lightgbm", "onnx", "sklearn", "sum"} <= {each.name for each in all_formats()}


@pytest.mark.usefixtures("sum_format")
def test_a_manifest_of_another_format_than_its_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(MODEL)
    manifest = manifest_of(MODEL, "total", 1)
    with pytest.raises(MalformedError, match="does not begin with the line 'tree'"):
        load_model(path, msgspec.structs.replace(manifest, runtime="lightgbm"))
    with pytest.raises(SchemaMismatchError, match="runtime is 'lightgbm'"):
        manifest_of(MODEL, "total", 1, {"runtime": "lightgbm"})


@pytest.mark.parametrize("name", ["pickle", "sum", "", "LightGBM"])
def test_an_unknown_format_is_refused_by_name(name: str) -> None:
    with pytest.raises(MalformedError, match=rf"runtime is '{name}'; known are lightgbm"):
        format_named(name)


@pytest.mark.parametrize("content", [b"SUM a", b"tre"])
def test_a_file_of_no_known_format_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedError, match=r"does not begin with the line 'tree'.*pickles are not accepted"):
        read_model(content)


def test_the_size_of_a_file_is_bounded_before_it_is_read() -> None:
    with pytest.raises(TooLargeError, match="at most 10"):
        read_model(b"x" * 11, Limits(artifact_bytes_max=10))


def test_an_unknown_runtime_fails_its_trial(trained: Callable[[str], Trained], tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(trained("binary").text)
    manifest = msgspec.structs.replace(manifest_of(trained("binary").text, "m", 1), runtime="unheard")
    verdict, _ = judge(CaseFile(str(path), manifest), DEFAULT_TRIAL_LIMITS)
    assert verdict.reason is not None
    assert verdict.reason.startswith("manifest: runtime is 'unheard'; known are lightgbm")


@pytest.mark.usefixtures("sum_format")
def test_a_name_is_registered_once() -> None:
    register(SUM)
    with pytest.raises(ValueError, match="'sum' is registered already"):
        register(ModelFormat(**{**{name: getattr(SUM, name) for name in SUM.__slots__}, "begins": "other"}))


def test_every_format_recognises_what_it_reads(trained: Callable[[str], Trained]) -> None:
    text = trained("binary").text
    for variant in (text, b"\xef\xbb\xbf" + text, text.replace(b"\n", b"\r\n")):
        assert read_model(variant, DEFAULT_LIMITS).runtime == "lightgbm"
