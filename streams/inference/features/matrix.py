"""Converts the rows of a request to the matrix or table that a runtime takes."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError, InvalidValueError, SchemaMismatchError
from inferd.schemas.limits import Limits
from inferd.schemas.models import Category, Feature, Manifest, Preprocess
from inferd.schemas.requests import (
    InputData,
    ListRows,
    Scalar,
    TensorRows,
    decode_input_data,
)
from inferd.streams.inference.features.file_feature import FileFeature
from inferd.streams.inference.features.rules import (
    Column,
    ValueRules,
    check_names,
    compile_column,
    reject_repeats,
    reject_unknown,
)
from inferd.streams.inference.features.value_columns import UnfitValueError, ValueColumn, compile_value_column
from inferd.streams.inference.features.vectorised import gather
from inferd.streams.inference.inputs import Inputs, Matrix, Table, concatenate
from inferd.streams.inference.kernels import (
    Encoding,
    ReadRows,
    RecordKernel,
    RowKernel,
    RowSchema,
    UnavailableError,
    library,
)

_NAMES_SHOWN = 5
_SUMMED_MAX = 256
_ROWS_TOGETHER = 64
ENCODINGS: dict[Codec, Encoding] = {MSGPACK: "msgpack", JSON: "json"}
"""Codecs that the compiled kernels read."""


class FeatureSchema:
    """The features of one model version, compiled once from its manifest. Immutable and thread-safe.

    None and NaN are missing values. They are replaced by the feature's default if it has one, rejected if `required` is
    true, and NaN otherwise. Booleans are 1 and 0. float32 features are rounded to float32, like their training data.
    int64 features take integers of magnitude below 2**53. Categories are converted to their codes. Infinite values are
    always rejected. Text, and categories that the model takes unencoded, are in a table beside the numbers.
    """

    def __init__(self, manifest: Manifest, in_file: Sequence[FileFeature] = ()) -> None:
        """`in_file`: the features of the model file, in the order of the manifest's; without them, all are numeric.

        Raises `SchemaMismatchError` if the manifest contradicts itself.
        """
        preprocess = manifest.preprocess or Preprocess()
        check_names(manifest)
        described = (manifest.features, preprocess, list(in_file))
        self.identity = hashlib.sha256(msgspec.msgpack.encode(described)).digest()
        """Equal for schemas that read the same rows alike."""
        self._alone = _described_alone(manifest.features, in_file, preprocess)
        """By name of a feature: equal for schemas that read its values alike."""
        self._all = _compile(manifest.features, in_file, preprocess)
        self.columns = tuple(self._all)
        """The rules of every feature, in order."""
        self._columns = [column for column in self._all if isinstance(column, Column)]
        self._rules = ValueRules(self._columns, clip=preprocess.out_of_range == "clip")
        self.feature_names = tuple(column.name for column in self._all)
        self.n_features = len(self._all)
        self._names = frozenset(self.feature_names)
        self._by_name = _getter(self.feature_names)
        self._is_number = tuple(isinstance(column, Column) for column in self._all)
        self._value_columns = [(place, c) for place, c in enumerate(self._all) if isinstance(c, ValueColumn)]
        self._has_values = bool(self._value_columns)
        categorical = [place for place, column in enumerate(self._columns) if column.dtype == "category"]
        # If all categories are text, no two of them are equal as dictionary keys, so that a look-up suffices.
        text = {place for place in categorical if all(isinstance(c, str) for c in self._columns[place].codes)}
        self._text_categories = [(place, self._columns[place].codes) for place in categorical if place in text]
        self._other_categories = [place for place in categorical if place not in text]
        self._unknown_is_missing = preprocess.unknown_category == "missing"
        order = self.feature_names if preprocess.order is None else tuple(preprocess.order)
        self._width = len(order)
        self._reorder = None if order == self.feature_names else self._compile_order(order)
        self.plain = not categorical and self._reorder is None and not self._has_values
        """Whether a positional row of float64 is its row of the matrix, once `apply` has passed it."""
        self.kernel = None if self._has_values else self._row_kernel(order)
        """Reads rows of requests that are all numbers; None without compiled kernels."""

    def places_in(self, other: FeatureSchema) -> NDArray[np.intp] | None:
        """intp (features,): the columns of these features in a matrix that `other` has read; None if it does not have
        all of them, or reads one differently. Tables have places only if all features are equal."""
        if self.identity == other.identity:
            return np.arange(self.n_features)
        if self._has_values or other._has_values:
            return None
        places = {name: place for place, name in enumerate(other.feature_names)}
        if any(other._alone.get(name) != self._alone[name] for name in self.feature_names):
            return None
        return np.array([places[name] for name in self.feature_names], np.intp)

    def inputs(self, rows: InputData) -> Inputs:
        """A new array, float64 (rows, features), C-contiguous; a table if some features are not numbers.

        Raises `SchemaMismatchError` for a wrong number of values, and unknown or missing features; `InvalidValueError`
        for an invalid value. Messages name row and feature, and do not reveal the value.
        """
        if isinstance(rows, TensorRows):
            return self._of_tensor(rows)
        if isinstance(rows, ListRows):
            return self._of_rows(self._positional(rows.rows))
        return self._of_rows([self._named(row, index) for index, row in enumerate(rows.rows)])

    def of_values(self, rows: Sequence[list[Scalar]]) -> Inputs:
        """Like `inputs`, for rows of the values of all features in the order of `feature_names`; None is missing.
        Modifies the lists."""
        return self._of_rows(rows)

    def values(self, inputs: Inputs) -> dict[str, list[Scalar]]:
        """By feature, the value of each row of `inputs`: categories instead of their codes, and None if missing."""
        columns = inputs.columns() if isinstance(inputs, Table) else inputs.T
        return {rule.name: rule.values(column) for rule, column in zip(self._all, columns, strict=True)}

    def gather(
        self, codec: Codec, rows: Sequence[bytes], limits: Limits, read: ReadRows | None = None
    ) -> tuple[Inputs, NDArray[np.bool_]]:
        """Converts encoded `input_data` of one row each on the fast path: the inputs, equal to those of `inputs`, and
        bool (rows,), which rows these are. The other rows, and all errors, are left to `inputs`.

        `read`: the rows as a kernel has read them already; ignored if it is another one than `kernel_for`.
        """
        if self._has_values:
            return self._tables(codec, rows, limits)
        if read is not None and read.kernel is self.kernel_for(codec, limits):
            return self._valid(*read.rows())
        return self._valid(*self._read(codec, rows, limits))

    def kernel_for(self, codec: Codec, limits: Limits) -> RowKernel | None:
        """The kernel that reads rows in a codec, within limits; None if none does."""
        kernel = self.kernel
        if kernel is None or codec not in ENCODINGS or not self._within(limits):
            return None
        return kernel if kernel.text_bytes_max <= limits.string_chars_max else None

    def _within(self, limits: Limits) -> bool:
        return self.n_features <= min(limits.features_max, limits.values_max)

    def _tables(self, codec: Codec, rows: Sequence[bytes], limits: Limits) -> tuple[Inputs, NDArray[np.bool_]]:
        """Decodes a few rows at a time: if one of them is invalid, the typed decoder rejects all that are decoded
        together."""
        found, fits = [self.no_inputs()], np.zeros(len(rows), np.bool_)
        for first in range(0, len(rows), _ROWS_TOGETHER):
            part = slice(first, first + _ROWS_TOGETHER)
            table = self._together(codec, rows[part], limits)
            if table is not None:
                found.append(table)
                fits[part] = True
        return concatenate(found), fits

    def _together(self, codec: Codec, rows: Sequence[bytes], limits: Limits) -> Inputs | None:
        try:
            given = decode_input_data(codec.join(rows), codec, limits)
            # If the values are scalars, joining them would make them one row.
            return None if isinstance(given, TensorRows) or given.single else self.inputs(given)
        except InferenceError:
            return None

    def record_kernel(self, paths: Sequence[Sequence[str]], rejected: str | None) -> RecordKernel | None:
        """Reads the features from records in which they are at `paths`, names in maps, in the order of `feature_names`.
        It does not read records with the field `rejected`.

        None without compiled kernels, or if they cannot read these features or paths.
        """
        if self._has_values:
            return None
        try:
            return RecordKernel(library(), self._row_schema((), ()), paths, rejected)
        except (UnavailableError, ValueError):
            return None

    def of_records(
        self, kernel: RecordKernel, codec: Codec, records: Sequence[bytes]
    ) -> tuple[Matrix, NDArray[np.bool_]]:
        """Like `of_values`, for the records that the kernel can read and whose values are valid: their rows; and bool
        (records,), which records these are."""
        return self._valid(*kernel.read(ENCODINGS[codec], records))

    def _valid(self, matrix: Matrix, fits: NDArray[np.bool_]) -> tuple[Matrix, NDArray[np.bool_]]:
        """The rows that obey the rules, which are applied; `fits`: which rows of the input are in `matrix`."""
        rejected = self._rules.apply(matrix) if len(matrix) else None
        if rejected is not None:
            matrix = np.ascontiguousarray(matrix[~rejected])
            fits[fits] = ~rejected
        return matrix, fits

    def _read(self, codec: Codec, rows: Sequence[bytes], limits: Limits) -> tuple[Matrix, NDArray[np.bool_]]:
        if (kernel := self.kernel_for(codec, limits)) is not None:
            return kernel.read(ENCODINGS[codec], rows)
        if self.plain and codec is MSGPACK and self._within(limits):
            return gather(rows, self.n_features)
        return np.empty((0, self.n_features)), np.zeros(len(rows), np.bool_)

    def _row_kernel(self, order: tuple[str, ...]) -> RowKernel | None:
        places = {name: place for place, name in enumerate(self.feature_names)}
        omissible = [column.omissible for column in self._columns]
        try:
            return RowKernel(library(), self._row_schema(omissible, [places[name] for name in order]))
        except UnavailableError:
            return None

    def _row_schema(self, omissible: Sequence[bool], order: Sequence[int]) -> RowSchema:
        categories = {place: c.codes for place, c in enumerate(self._columns) if c.dtype == "category"}
        return RowSchema(self.feature_names, omissible, categories, order, self._unknown_is_missing)

    def no_inputs(self) -> Inputs:
        """Inputs without rows."""
        return self._of_rows([])

    def apply(self, matrix: Matrix) -> NDArray[np.bool_] | None:
        """Applies the rules to float64 rows (n, features) in place, as `inputs` does. Only for features that are all
        numbers.

        Returns bool (n,), True for rows that `inputs` rejects; None if there are none. To get its error, pass the
        original row to `inputs`.
        """
        return self._rules.apply(matrix)

    def _of_tensor(self, tensor: TensorRows) -> Inputs:
        values = np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape)
        if not self.plain:
            return self._of_rows(self._positional(values.tolist()))
        if values.shape[1] != self._width:
            raise _wrong_width(0, values.shape[1], self._width)
        return self._ruled(values.astype(np.float64))

    def _of_rows(self, rows: Sequence[list[Any]]) -> Inputs:
        """The matrix or table of rows in the model's order. Modifies the lists if there are categories."""
        if not self._has_values:
            return self._of_values(rows)
        if self._columns:
            numbers = self._of_values([list(compress(row, self._is_number)) for row in rows])
        else:
            numbers = np.empty((len(rows), 0))
        return Table(numbers, self._other_values(rows), self._is_number)

    def _other_values(self, rows: Sequence[list[Any]]) -> NDArray[np.object_]:
        """The values of rows that are not numbers. A column of texts alone needs no check of each value."""
        values = np.empty((len(rows), len(self._value_columns)), dtype=object)
        checked = []
        for target, (place, column) in enumerate(self._value_columns):
            given = [row[place] for row in rows]
            if column.is_text and set(map(type, given)) == {str}:
                values[:, target] = np.fromiter(given, object, len(given))
            else:
                checked.append((target, place, column))
        for index, row in enumerate(rows if checked else ()):
            for target, place, column in checked:
                values[index, target] = _value(column, row[place], index)
        return values

    def _of_values(self, rows: Sequence[list[Any]]) -> Matrix:
        """The matrix of the numeric values of rows. Modifies the lists if there are categories."""
        buffer = array("d")
        for index, values in enumerate(rows):
            for place, codes in self._text_categories:
                code = codes.get(values[place])
                values[place] = self._code(index, place, values[place]) if code is None else code
            for place in self._other_categories:
                values[place] = self._code(index, place, values[place])
            try:
                buffer.fromlist(values)
            except (TypeError, OverflowError):
                self._append(buffer, [math.nan if value is None else value for value in values], index)
        matrix = np.frombuffer(buffer, np.float64).reshape(len(rows), len(self._columns))
        # For one or two rows Python is faster than numpy. If the sum is finite, so are all values.
        few = self._rules.only_finite and len(buffer) <= _SUMMED_MAX
        if few and (math.isfinite(sum(buffer)) or not any(map(math.isinf, buffer))):
            return matrix
        return self._ruled(matrix)

    def _ruled(self, matrix: Matrix) -> Matrix:
        bad = self._rules.apply(matrix)
        if bad is None:
            return matrix
        index = int(np.argmax(bad))
        name, problem = self._rules.first_problem(matrix[index])
        raise InvalidValueError(f"row {index}, feature {_shown(name)} {problem}")

    def _positional(self, rows: Sequence[list[Scalar]]) -> Sequence[list[Scalar]]:
        """The values of rows without names, in the order of the features."""
        for index, row in enumerate(rows):
            if len(row) != self._width:
                raise _wrong_width(index, len(row), self._width)
        if self._reorder is not None:
            return [list(self._reorder([*row, None])) for row in rows]
        return rows if self.plain or self._has_values else [row.copy() for row in rows]

    def _named(self, row: Mapping[str, Scalar], index: int) -> list[Scalar]:
        try:
            values = list(self._by_name(row))
        except KeyError:
            return self._partly_named(row, index)
        return values if len(row) == self.n_features else self._partly_named(row, index)

    def _partly_named(self, row: Mapping[str, Scalar], index: int) -> list[Scalar]:
        unknown = [name for name in row if name not in self._names]
        missing = [c.name for c in self._all if c.name not in row and not c.omissible]
        if unknown or missing:
            parts = [
                f"{what} {_listed(names)}" for what, names in (("unknown", unknown), ("missing", missing)) if names
            ]
            raise SchemaMismatchError(f"row {index}, features: {'; '.join(parts)}")
        return [row.get(name) for name in self.feature_names]

    def _code(self, index: int, place: int, value: Scalar) -> float:
        code = self._columns[place].code(value)
        if code is not None:
            return code
        if self._unknown_is_missing:
            return math.nan
        column = self._columns[place]
        raise InvalidValueError(
            f"row {index}, feature {_shown(column.name)} is not one of its {len(column.codes)} categories"
        )

    def _append(self, buffer: array[float], values: list[Any], index: int) -> None:
        try:
            buffer.fromlist(values)
        except (TypeError, OverflowError):
            for column, value in zip(self._columns, values, strict=True):
                if isinstance(value, str):
                    problem = "is text where a number is expected"
                elif isinstance(value, int) and value.bit_length() >= 1_024:
                    problem = "is beyond float64"
                else:
                    continue
                raise InvalidValueError(f"row {index}, feature {_shown(column.name)} {problem}") from None
            raise

    def _compile_order(self, order: tuple[str, ...]) -> Callable[[list[Scalar]], Sequence[Scalar]]:
        """Selects the model's columns from a positional row with None appended, which stands for columns not in
        `order`."""
        reject_repeats("preprocess.order", order)
        reject_unknown("preprocess.order", order, self.feature_names)
        places = {name: place for place, name in enumerate(order)}
        if left_out := [c.name for c in self._all if c.name not in places and not c.omissible]:
            raise SchemaMismatchError(
                f"manifest: preprocess.order leaves out {_listed(left_out)}: give a default, or required: false"
            )
        return _getter([places.get(name, len(order)) for name in self.feature_names])


def _compile(
    features: Sequence[Feature], in_file: Sequence[FileFeature], preprocess: Preprocess
) -> list[Column | ValueColumn]:
    if not in_file:
        return [compile_column(feature, preprocess.defaults) for feature in features]
    unknown_is_missing = preprocess.unknown_category == "missing"
    return [
        compile_column(feature, preprocess.defaults)
        if of_file.is_number
        else compile_value_column(feature, of_file, preprocess.defaults, unknown_is_missing=unknown_is_missing)
        for feature, of_file in zip(features, in_file, strict=True)
    ]


def _described_alone(
    features: Sequence[Feature], in_file: Sequence[FileFeature], preprocess: Preprocess
) -> dict[str, bytes]:
    """By name of a feature, what decides how its values are read."""
    of_files: Sequence[FileFeature | None] = in_file or [None] * len(features)
    rules = preprocess.out_of_range, preprocess.unknown_category
    return {
        feature.name: msgspec.msgpack.encode((feature, preprocess.defaults.get(feature.name), rules, of_file))
        for feature, of_file in zip(features, of_files, strict=True)
    }


def _value(column: ValueColumn, given: Scalar, index: int) -> Category | None:
    try:
        return column.value(given)
    except UnfitValueError as error:
        raise InvalidValueError(f"row {index}, feature {_shown(column.name)} {error}") from None


def _getter(keys: Sequence[Any]) -> Callable[[Any], Sequence[Any]]:
    """A getter for the values of `keys` that always returns a sequence."""
    if len(keys) > 1:
        return itemgetter(*keys)
    key = keys[0]
    return lambda row: (row[key],)


def _wrong_width(index: int, got: int, expected: int) -> SchemaMismatchError:
    return SchemaMismatchError(f"row {index} has {got} features, expected {expected}")


def _shown(name: str) -> str:
    return ascii(name[:40])


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(_shown, names[:_NAMES_SHOWN]))
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
