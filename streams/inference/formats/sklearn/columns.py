"""Derives the kind of value of each input column of a fitted estimator, from the attributes in its file.

The file does not contain dtypes of columns. They follow from the estimators that read a column: an encoder has the
categories of its columns, a vectorizer reads text, and all others read numbers. Whether missing values are allowed
depends on all steps that a column passes: an imputer replaces them, a scaler keeps them, a linear model rejects them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from inferd.schemas.errors import MalformedError
from inferd.schemas.models import DType
from inferd.streams.inference.features import FileFeature, Values
from inferd.streams.inference.formats.sklearn.nodes import Node, Object, Reader

FLOAT32_BOUND = math.nextafter(2.0**128 - 2.0**103, 0.0)
"""The greatest float64 that does not round to infinity as float32."""
_VECTORIZERS = frozenset({"CountVectorizer", "HashingVectorizer", "TfidfVectorizer"})
_ENCODERS = frozenset({"OneHotEncoder", "OrdinalEncoder", "TargetEncoder"})
_IMPUTERS = frozenset({"IterativeImputer", "KNNImputer", "SimpleImputer"})
_SCALERS = frozenset(
    {
        "FunctionTransformer", "MaxAbsScaler", "MinMaxScaler", "PowerTransformer", "QuantileTransformer",
        "RobustScaler", "StandardScaler",
    }
)  # fmt: skip
"""Transformers that keep their columns, and hand missing values on."""
_TREES = frozenset(
    {
        "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor",
        "ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor",
        "IsolationForest",
    }
)  # fmt: skip
"""Estimators that take missing values, and narrow numbers to float32."""
_NARROWING = _TREES | {"GradientBoostingClassifier", "GradientBoostingRegressor"}
_HIST = frozenset({"HistGradientBoostingClassifier", "HistGradientBoostingRegressor"})
WRAPPED = {
    "BaggingClassifier": "estimators_",
    "BaggingRegressor": "estimators_",
    "CalibratedClassifierCV": "calibrated_classifiers_",
    "FeatureUnion": "transformer_list",
    "FixedThresholdClassifier": "estimator_",
    "FrozenEstimator": "estimator",
    "GridSearchCV": "best_estimator_",
    "HalvingGridSearchCV": "best_estimator_",
    "HalvingRandomSearchCV": "best_estimator_",
    "MultiOutputClassifier": "estimators_",
    "MultiOutputRegressor": "estimators_",
    "OneVsRestClassifier": "estimators_",
    "RandomizedSearchCV": "best_estimator_",
    "StackingClassifier": "estimators_",
    "StackingRegressor": "estimators_",
    "TransformedTargetRegressor": "regressor_",
    "TunedThresholdClassifierCV": "estimator_",
    "VotingClassifier": "estimators_",
    "VotingRegressor": "estimators_",
    "_CalibratedClassifier": "estimator",
}
"""Estimators that hand their columns to others as they are, and where these are."""


@dataclass(frozen=True, slots=True)
class Use:
    """The requirements for one column."""

    dtype: DType = "float64"
    fixed: bool = False
    missing: bool = False
    narrow: bool = False
    """Whether a number beyond float32 is rejected."""
    categories: Values | None = None
    unknown: bool = False
    none: bool = False
    """Whether None is the missing value; NaN otherwise."""

    def feature(self, name: str) -> FileFeature:
        """The feature of this column."""
        bounded = self.narrow and self.dtype in ("float64", "float32")
        return FileFeature(
            name=name,
            dtype=self.dtype,
            fixed=self.fixed,
            missing=self.missing,
            categories=self.categories,
            unknown=self.unknown,
            min=-FLOAT32_BOUND if bounded else None,
            max=FLOAT32_BOUND if bounded else None,
        )

    def __and__(self, other: Use) -> Use:
        """The requirements for a column that two estimators read."""
        kind, plain = (self, other) if self.fixed or self.dtype != "float64" else (other, self)
        return replace(
            kind,
            missing=self.missing and other.missing,
            narrow=self.narrow or other.narrow,
            unknown=kind.unknown and (plain.categories is None or plain.unknown),
        )


UNUSED = Use(missing=True)
_TEXT = Use("text", fixed=True)


class ColumnUses:
    """Derives the requirements for columns."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def of(self, found: Object | None, columns: int, then: Use = UNUSED) -> list[Use]:
        """The requirements of an estimator for `columns` columns; `then`: those of the next step for its output."""
        if found is None:
            return [then] * columns
        if found.name in _VECTORIZERS:
            self._reject_files(found)
            return [_TEXT] * columns
        if found.name in _ENCODERS:
            return self._encoded(found, columns)
        if found.name == "Pipeline" or found.name in _SCALERS or found.name in _IMPUTERS:
            return self._pipeline(self.steps(found) if found.name == "Pipeline" else [found], columns, then)
        if found.name == "ColumnTransformer":
            return self._column_transformer(found, columns, then)
        if found.name in _HIST:
            return self._hist(found, columns)
        if inner := self.wrapped(found):
            return _merged([self.of(each, columns, then) for each in inner])
        return [_final_use(found)] * columns

    def steps(self, pipeline: Object) -> list[Object | None]:
        """The steps of a pipeline; None for a step without effect."""
        pairs = [self._reader.value(step) for step in self._reader.value(pipeline.get("steps")) or ()]
        return [self._reader.object(pair[1]) for pair in pairs if isinstance(pair, list) and len(pair) == 2]

    def wrapped(self, found: Object) -> list[Object]:
        """The nested estimators that get the columns of `found` unchanged."""
        place = WRAPPED.get(found.name)
        return [] if place is None else self.objects(found.get(place))

    def objects(self, node: Node | None) -> list[Object]:
        """The estimators in an attribute: a single one, a list, or a list of (name, estimator) pairs."""
        value = self._reader.value(node)
        if isinstance(value, Object):
            return [value]
        found: list[Object] = []
        for each in value if isinstance(value, list) else ():
            inner = self._reader.value(each)
            last = self._reader.value(inner[-1]) if isinstance(inner, list) and inner else inner
            found += [last] if isinstance(last, Object) else []
        return found

    def _reject_files(self, vectorizer: Object) -> None:
        """Rejects a vectorizer that reads files: it would open any file that a request names."""
        if (kind := self._reader.value(vectorizer.get("input"))) != "content":
            raise MalformedError(f"model file: {vectorizer.name} reads files (input={kind!r:.20}): use input='content'")

    def _pipeline(self, steps: Sequence[Object | None], columns: int, then: Use) -> list[Use]:
        if not steps:
            return [then] * columns
        first, rest = steps[0], steps[1:]
        if first is None or first.name in _SCALERS:
            return self._pipeline(rest, columns, then)
        if first.name in _IMPUTERS:
            return [self._imputed(first, place, use) for place, use in enumerate(self._pipeline(rest, columns, then))]
        return self.of(first, columns, self._pipeline(rest, 1, then)[0] if rest else then)

    def _imputed(self, imputer: Object, place: int, use: Use) -> Use:
        """A column of an imputer. Its fill value shows whether the column is text."""
        filled = self._reader.values(imputer.get("statistics_"))
        if place < len(filled) and isinstance(filled[place], str) and use.dtype == "float64":
            use = Use("category", unknown=True)
        token = self._reader.value(imputer.get("missing_values"))
        takes = token is None or (isinstance(token, float) and math.isnan(token))
        return replace(use, missing=use.missing or takes, none=token is None)

    def _column_transformer(self, found: Object, columns: int, then: Use) -> list[Use]:
        indexes = self._reader.mapping(found.get("_transformer_to_input_indices"))
        uses: list[Use | None] = [None] * columns
        for triple in self._reader.value(found.get("transformers_")) or ():
            parts = self._reader.value(triple)
            name, what = self._reader.value(parts[0]), self._reader.value(parts[1])
            if what == "drop":
                continue
            places = [place for place in self._reader.values(indexes.get(str(name))) if place in range(columns)]
            of_part = self.of(what if isinstance(what, Object) else None, len(places), then)
            for place, use in zip(places, of_part, strict=True):
                before = uses[place]
                uses[place] = use if before is None else before & use
        return [UNUSED if use is None else use for use in uses]

    def _encoded(self, encoder: Object, columns: int) -> list[Use]:
        lists = self._reader.value(encoder.get("categories_"))
        handling = self._reader.value(encoder.get("handle_unknown"))
        unknown = encoder.name == "TargetEncoder" or handling != "error"
        found = [_of_categories(self._reader.values(each), unknown=unknown) for each in lists or ()]
        return found if len(found) == columns else [Use()] * columns

    def _hist(self, found: Object, columns: int) -> list[Use]:
        """The columns of histogram gradient boosting, whose preprocessor encodes categorical ones."""
        number = Use(missing=True)
        preprocessor = self._reader.object(found.get("_preprocessor"))
        if preprocessor is None:
            return [number] * columns
        uses = self._column_transformer(preprocessor, columns, number)
        return [replace(use, missing=True, unknown=use.categories is not None) for use in uses]


def _merged(uses: Sequence[Sequence[Use]]) -> list[Use]:
    merged = list(uses[0])
    for more in uses[1:]:
        merged = [one & other for one, other in zip(merged, more, strict=True)]
    return merged


def _final_use(found: Object) -> Use:
    return Use(missing=found.name in _TREES, narrow=found.name in _NARROWING)


def _of_categories(values: Sequence[Any], *, unknown: bool) -> Use:
    """A column of an encoder: numeric if the categories are numbers and unknown ones are allowed, otherwise a
    category."""
    missing = any(_is_missing(value) for value in values)
    known = tuple(value for value in values if not _is_missing(value))
    kinds = {type(value) for value in known}
    none = any(value is None for value in values)
    if unknown and kinds and kinds <= {int, float}:
        return Use("int64" if kinds == {int} else "float64", missing=True)
    if not kinds <= {int, float, str, bool}:
        return Use(missing=unknown or missing)
    return Use("category", fixed=True, missing=missing or unknown, categories=known, unknown=unknown, none=none)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
