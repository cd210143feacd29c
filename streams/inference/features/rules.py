"""Rules for the values of features, compiled from a manifest: for a single value, and for a whole matrix."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import SchemaMismatchError
from inferd.schemas.models import (
    DType,
    Feature,
    Manifest,
)
from inferd.schemas.requests import Scalar
from inferd.streams.inference.inputs import Matrix

INTEGER_MAX = 2**53 - 1
"""Integers of greater magnitude are not all representable in float64."""
_PYTHON_TYPES: dict[DType, type[bool | int]] = {"int64": int, "bool": bool}
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The rules for one feature's values in the matrix, where missing is NaN and a category is its code."""

    name: str
    dtype: DType
    low: float
    high: float
    must: bool
    """Missing values are rejected."""
    default: float
    """The replacement of a missing value; NaN if it stays missing."""
    omissible: bool
    """The feature may be absent from named rows, and from positional rows in another order."""
    codes: dict[Scalar, float]
    """Codes of the categories."""
    bools: frozenset[float]
    """Codes of those that are booleans, because True and 1 are the same key."""

    def code(self, value: Scalar) -> float | None:
        """The code of a category, NaN for a missing one, None for an unknown one."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return math.nan
        code = self.codes.get(value)
        return code if isinstance(value, bool) == (code in self.bools) else None

    def values(self, column: Matrix) -> list[Scalar]:
        """The values of a column of the matrix, float64 (rows,); None if missing."""
        categories = list(self.codes)
        typed = _PYTHON_TYPES.get(self.dtype, float)
        of_code = (lambda code: categories[int(code)]) if self.dtype == "category" else typed
        return [None if math.isnan(value) else of_code(value) for value in column.tolist()]


def check_names(manifest: Manifest) -> None:
    """Raises `SchemaMismatchError` if there is no feature, a repeated one, or a default for an unknown one."""
    names = [feature.name for feature in manifest.features]
    if not names:
        raise SchemaMismatchError("manifest: no features")
    reject_repeats("features", names)
    if manifest.preprocess is not None:
        reject_unknown("preprocess.defaults", manifest.preprocess.defaults, names)


def reject_repeats(what: str, names: Sequence[str]) -> None:
    """Raises `SchemaMismatchError` if a name is repeated in `what` of a manifest."""
    if len(set(names)) < len(names):
        repeated = Counter(names).most_common(1)[0][0]
        raise SchemaMismatchError(f"manifest: {what} names {repeated[:80]!r} twice")


def reject_unknown(what: str, given: Sequence[str] | dict[str, Scalar], names: Sequence[str]) -> None:
    """Raises `SchemaMismatchError` if `what` of a manifest names an unknown feature."""
    known = frozenset(names)
    if unknown := [name for name in given if name not in known]:
        raise SchemaMismatchError(f"manifest: {what} names {unknown[0][:80]!r}, which is not a feature")


def compile_column(feature: Feature, defaults: dict[str, Scalar]) -> Column:
    """The column of a numeric feature; `SchemaMismatchError` if the manifest contradicts itself."""
    low, high = _bounds(feature)
    codes, bools = _codes(feature)
    has_default = feature.name in defaults
    column = Column(
        feature.name,
        feature.dtype,
        low,
        high,
        feature.required is True,
        math.nan,
        feature.required is False or has_default,
        codes,
        bools,
    )
    if not has_default:
        return column
    if column.must:
        raise _contradiction(feature, "is required, and has a default")
    return _with_default(column, feature, defaults[feature.name])


def _with_default(column: Column, feature: Feature, value: Scalar) -> Column:
    default: float | None = None
    if column.dtype == "category":
        default = column.code(value)
    elif isinstance(value, (int, float)):
        default = float(value)
    if default is None or math.isnan(default) or problem_of(column, default):
        raise _contradiction(feature, "has a default that it does not allow")
    if column.dtype == "float32":
        default = _as_float32(default)
    return replace(column, default=default)


def _codes(feature: Feature) -> tuple[dict[Scalar, float], frozenset[float]]:
    categories = feature.categories or []
    if (feature.dtype == "category") != (feature.categories is not None):
        raise _contradiction(feature, "has dtype category without categories, or categories without the dtype")
    codes: dict[Scalar, float] = {value: float(code) for code, value in enumerate(categories)}
    if len(codes) < len(categories):
        raise _contradiction(feature, "has the same category twice")
    return codes, frozenset(code for value, code in codes.items() if isinstance(value, bool))


def _bounds(feature: Feature) -> tuple[float, float]:
    low = -math.inf if feature.min is None else float(feature.min)
    high = math.inf if feature.max is None else float(feature.max)
    given = [bound for bound in (feature.min, feature.max) if bound is not None]
    if given and feature.dtype == "category":
        raise _contradiction(feature, "is a category, and has a min or max")
    if not all(map(math.isfinite, given)) or low > high:
        raise _contradiction(feature, "has a min or max that is not finite, or a min above its max")
    if feature.dtype == "int64" and not all(bound == math.floor(bound) for bound in given):
        raise _contradiction(feature, "is int64, and has a min or max that is not an integer")
    return (_as_float32(low), _as_float32(high)) if feature.dtype == "float32" else (low, high)


def _contradiction(feature: Feature, what: str) -> SchemaMismatchError:
    return SchemaMismatchError(f"manifest: feature {feature.name[:80]!r} {what}")


def _as_float32(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def problem_of(column: Column, value: float) -> str | None:
    """The rule that a value of the matrix breaks, in words that do not reveal the value; None if it is valid."""
    if math.isnan(value):
        return "is missing, and required" if column.must else None
    if math.isinf(value):
        return "is infinite"
    if column.dtype == "float32" and math.isinf(_as_float32(value)):
        return "is beyond float32"
    if column.dtype == "int64" and not (abs(value) <= INTEGER_MAX and value == math.floor(value)):
        return "is not an integer between -(2**53 - 1) and 2**53 - 1"
    if column.dtype == "bool" and value not in (0.0, 1.0):
        return "is neither true nor false (1 nor 0)"
    if value < column.low:
        return f"is below its minimum of {column.low:g}"
    return f"is above its maximum of {column.high:g}" if value > column.high else None


class ValueRules:
    """The rules of all columns, applied to whole matrices."""

    def __init__(self, columns: Sequence[Column], *, clip: bool) -> None:
        # With `clip`, a value out of range is not an error.
        self._columns = [replace(c, low=-math.inf, high=math.inf) for c in columns] if clip else columns
        self._must = _indexes(columns, [c.must for c in columns])
        self._defaults = _indexes(columns, [not math.isnan(c.default) for c in columns])
        self._default = np.array([columns[i].default for i in self._defaults])
        self._float32 = _indexes(columns, [c.dtype == "float32" for c in columns])
        self._int64 = _indexes(columns, [c.dtype == "int64" for c in columns])
        self._bool = _indexes(columns, [c.dtype == "bool" for c in columns])
        self._bounded = _indexes(columns, [c.low > -math.inf or c.high < math.inf for c in columns])
        self._low = np.array([columns[i].low for i in self._bounded])
        self._high = np.array([columns[i].high for i in self._bounded])
        self._clip = clip
        groups = (self._must, self._defaults, self._float32, self._int64, self._bool, self._bounded)
        self.only_finite = not any(len(group) for group in groups)
        """Whether only infinite values are rejected, and no value is changed."""

    def apply(self, matrix: Matrix) -> NDArray[np.bool_] | None:
        """Fills in defaults, rounds and clips in place. Returns bool (rows,), True for rows that break a rule; None if
        none does."""
        finite = np.isfinite(matrix)
        all_finite = bool(finite.all())
        if self.only_finite and all_finite:
            return None
        bad = np.zeros(len(matrix), np.bool_)
        if not all_finite:
            bad |= np.isinf(matrix).any(axis=1)
        if not self.only_finite:
            self._fill(matrix)
            self._round(matrix, bad)
            self._check(matrix, bad)
            self._bound(matrix, bad)
        return bad if bad.any() else None

    def first_problem(self, row: NDArray[np.float64]) -> tuple[str, str]:
        """The name of the first feature of an invalid row that breaks a rule, and the problem."""
        for column, value in zip(self._columns, row.tolist(), strict=True):
            if problem := problem_of(column, value):
                return column.name, problem
        raise AssertionError("no feature of the rejected row breaks a rule")

    def _fill(self, matrix: Matrix) -> None:
        if len(self._defaults):
            part = matrix[:, self._defaults]
            matrix[:, self._defaults] = np.where(np.isnan(part), self._default, part)

    def _round(self, matrix: Matrix, bad: NDArray[np.bool_]) -> None:
        if len(self._float32):
            part = matrix if len(self._float32) == matrix.shape[1] else matrix[:, self._float32]
            with np.errstate(over="ignore"):
                rounded = part.astype(np.float32)
            beyond = np.isinf(rounded)
            if beyond.any():
                bad |= beyond.any(axis=1)
            np.copyto(part, rounded, where=~beyond)
            if part is not matrix:
                matrix[:, self._float32] = part

    def _check(self, matrix: Matrix, bad: NDArray[np.bool_]) -> None:
        if len(self._must):
            bad |= np.isnan(matrix[:, self._must]).any(axis=1)
        if len(self._int64):
            part = matrix[:, self._int64]
            bad |= ((np.abs(part) > INTEGER_MAX) | ((part != np.floor(part)) & ~np.isnan(part))).any(axis=1)
        if len(self._bool):
            part = matrix[:, self._bool]
            bad |= ~((part == 0.0) | (part == 1.0) | np.isnan(part)).all(axis=1)

    def _bound(self, matrix: Matrix, bad: NDArray[np.bool_]) -> None:
        if not len(self._bounded):
            return
        part = matrix[:, self._bounded]
        if not self._clip:
            bad |= ((part < self._low) | (part > self._high)).any(axis=1)
            return
        # Invalid rows are not clipped, so that the error can describe the original value. Not by `np.clip`: whether it
        # replaces -0.0 by a bound of 0.0 depends on the number of rows.
        clipped = np.where(part < self._low, self._low, np.where(part > self._high, self._high, part))
        matrix[:, self._bounded] = np.where(bad[:, None], part, clipped)


def _indexes(columns: Sequence[Column], chosen: list[bool]) -> NDArray[np.intp]:
    return np.flatnonzero(np.array(chosen, bool)) if len(columns) else np.zeros(0, np.intp)
