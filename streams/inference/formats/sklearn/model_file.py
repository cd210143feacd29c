"""Reads and checks `.skops` files without scikit-learn.

The format is that of `skops.io.dump`: a zip archive with `schema.json`, which describes the objects, and numpy arrays.
The library imports any types that a file names, recurses to any depth, and decompresses any size; compiled code then
trusts the arrays. All of this is checked here first.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferd.schemas.errors import MalformedError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import ClassLabel
from inferd.streams.inference.formats.sklearn.archive import Archive
from inferd.streams.inference.formats.sklearn.arrays import check_arrays
from inferd.streams.inference.formats.sklearn.columns import WRAPPED, ColumnUses
from inferd.streams.inference.formats.sklearn.nodes import Node, Object, Reader, read_schema
from inferd.streams.inference.model_format import ModelFile

NAME = "sklearn"
BEGINS = "the zip archive of a scikit-learn model (save one with skops.io.dump)"
_MAGIC, _LAST_MEMBER, _TAIL_BYTES = b"PK\x03\x04", b"schema.json", 256
_DELEGATED = ("best_estimator_", "estimator_", "regressor_", "estimator")
"""Attributes of an estimator that wraps the one that predicts."""
_OUTLIERS = frozenset({"EllipticEnvelope", "IsolationForest", "LocalOutlierFactor", "OneClassSVM", "SGDOneClassSVM"})
_CLUSTERS = {
    "AffinityPropagation": "cluster_centers_",
    "BisectingKMeans": "cluster_centers_",
    "KMeans": "cluster_centers_",
    "MeanShift": "cluster_centers_",
    "MiniBatchKMeans": "cluster_centers_",
    "BayesianGaussianMixture": "means_",
    "GaussianMixture": "means_",
}
_TARGET_ARRAYS = ("coef_", "dual_coef_")
"""Of regressors for several targets: one row of coefficients for each."""
_TARGET_COLUMNS = ("_y", "_y_train", "y_train_")


@dataclass(frozen=True, kw_only=True)
class SklearnFile(ModelFile):
    """A model file that passed `read_model_file`."""

    types: frozenset[str]
    """The full names of all types in it, each of which is allowed."""
    types_allowed: tuple[str, ...]
    """Types that the operator allows, besides those of the libraries."""
    library: str | None
    """The version of scikit-learn that saved it; None if it names none."""
    reads_text: bool
    """Whether the model takes a list of texts in place of a table."""
    none: frozenset[int]
    """Columns whose missing value is None, not NaN."""


def sniff(content: bytes) -> bool:
    """Whether `content` is a zip archive that ends with the schema, which skops writes last."""
    return content.startswith(_MAGIC) and _LAST_MEMBER in content[-_TAIL_BYTES:]


def read_model_file(content: bytes, limits: Limits = DEFAULT_LIMITS) -> SklearnFile:
    """Reads and checks a `.skops` file; `MalformedError`, `TooDeepError` or `TooLargeError` say what is wrong."""
    if not content.startswith(_MAGIC):
        raise MalformedError(f"model file: does not begin with {BEGINS}; pickles are not accepted")
    archive = Archive(content, limits.artifact_bytes_max)
    root, types = read_schema(archive, limits)
    try:
        check_arrays(root, archive)
        return _described(content, root, types, Reader(archive), limits)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise MalformedError(f"model file: schema.json is damaged ({type(error).__name__})") from None


def _described(content: bytes, root: Node, types: frozenset[str], reader: Reader, limits: Limits) -> SklearnFile:
    model = reader.object(root)
    if model is None:
        raise MalformedError(f"model file: contains a {root['__class__']!s:.80}: a fitted estimator is expected")
    facts = _Facts(reader)
    uses, names = facts.uses(model), facts.names(model)
    if not uses:
        raise MalformedError(f"model file: {model.name} does not say how many features it has: is it fitted?")
    if len(uses) > limits.features_max:
        raise TooLargeError(f"model file: {len(uses)} features: at most {limits.features_max} are allowed")
    features = tuple(use.feature(name) for use, name in zip(uses, names or _default_names(uses), strict=True))
    if len({feature.name for feature in features}) < len(features):
        raise MalformedError("model file: feature_names_in_ repeats a name")
    classes = facts.classes(model)
    return SklearnFile(
        runtime=NAME,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        features=features,
        named=bool(names),
        classes=classes,
        outputs_per_row=facts.targets(model) if not classes else (1 if len(classes) <= 2 else len(classes)),
        objective=model.name if model.name != "Pipeline" else facts.last(model).name,
        types=types,
        types_allowed=limits.types_allowed,
        library=_version(reader.value(model.get("_sklearn_version"))),
        reads_text=facts.first(model) is None,
        none=frozenset(place for place, use in enumerate(uses) if use.none),
    )


def _version(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _default_names(uses: list[Any]) -> list[str]:
    return ["text"] if len(uses) == 1 and uses[0].dtype == "text" else [f"x{place}" for place in range(len(uses))]


class _Facts:
    """Facts from the attributes of a fitted estimator, or of the estimators that it contains."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._columns = ColumnUses(reader)

    def uses(self, model: Object) -> list[Any]:
        first = self.first(model)
        if first is None:
            return self._columns.of(model, 1)
        count = self._reader.value(first.get("n_features_in_"))
        return self._columns.of(model, count) if type(count) is int and 0 < count <= 1_000_000 else []

    def names(self, model: Object) -> list[str]:
        first = self.first(model)
        names = [] if first is None else self._reader.values(first.get("feature_names_in_"))
        return [str(name) for name in names]

    def first(self, model: Object) -> Object | None:
        """The estimator that reads the features and knows their number; None if it reads text."""
        found: Object | None = model
        for _ in range(100):
            if found is None or found.get("n_features_in_") is not None:
                return found
            inner = self._inner(found)
            if inner is None:
                return None if found.name.endswith("Vectorizer") else found
            found = inner
        return found

    def _inner(self, found: Object) -> Object | None:
        if found.name == "Pipeline":
            return next((step for step in self._columns.steps(found) if step is not None), None)
        return next(iter(self._columns.wrapped(found)), None)

    def last(self, model: Object) -> Object:
        """The estimator that predicts."""
        found = model
        for _ in range(100):
            steps = self._columns.steps(found) if found.name == "Pipeline" else []
            inner = steps[-1] if steps else self._delegate(found)
            if inner is None:
                return found
            found = inner
        return found

    def _delegate(self, found: Object) -> Object | None:
        place = WRAPPED.get(found.name)
        return self._reader.object(found.get(place)) if place in _DELEGATED else None

    def classes(self, model: Object) -> tuple[ClassLabel, ...]:
        """The labels that `predict` returns; empty if it returns numbers."""
        last = self.last(model)
        if last.name in _OUTLIERS:
            return (-1, 1)
        if last.name in _CLUSTERS:
            return tuple(range(len(self._reader.value(last.get(_CLUSTERS[last.name])))))
        labels = self._reader.values(last.get("classes_"))
        if any(isinstance(each, np.ndarray | list) for each in labels):
            return ()
        if not all(isinstance(each, str | int | float | bool) for each in labels):
            raise MalformedError(f"model file: {last.name} has class labels that are neither text nor numbers")
        return tuple(labels)

    def targets(self, model: Object) -> int:
        """The number of values that `predict` returns per row."""
        last = self.last(model)
        outputs = self._reader.value(last.get("n_outputs_"))
        if type(outputs) is int:
            return outputs
        if last.name.startswith(("MultiOutput", "RegressorChain", "ClassifierChain")):
            return len(self._columns.objects(last.get("estimators_")))
        for name in _TARGET_ARRAYS:
            array = self._reader.value(last.get(name))
            if isinstance(array, np.ndarray) and array.ndim == 2:
                return int(array.shape[1 if name == "dual_coef_" else 0])
        for name in _TARGET_COLUMNS:
            array = self._reader.value(last.get(name))
            if isinstance(array, np.ndarray) and array.ndim == 2:
                return int(array.shape[1])
        return 1
