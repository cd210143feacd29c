"""Columns that are not numbers: text, and categories that the model takes unencoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from numpy.typing import NDArray

from inferd.schemas.errors import SchemaMismatchError
from inferd.schemas.models import Category, Feature
from inferd.schemas.requests import Scalar
from inferd.streams.inference.features.file_feature import FileFeature

_INTEGER_BITS_MAX: Final = 64


class UnfitValueError(ValueError):
    """The value is invalid; the message says why, and does not reveal the value."""


@dataclass(frozen=True, slots=True, eq=False)
class ValueColumn:
    """The rules for one feature's values. In the table, text is a str, a category is itself, and missing is None."""

    name: str
    must: bool
    """Missing values are rejected."""
    omissible: bool
    """The feature may be absent from named rows, and from positional rows in another order."""
    default: Category | None
    """The value of missing ones; None if they stay missing."""
    is_text: bool
    known: dict[tuple[bool, Category], Category] | None
    """The categories by themselves; None if any text is one."""
    takes_unknown: bool
    unknown_is_missing: bool

    def value(self, given: Scalar) -> Category | None:
        """The value in the table; `UnfitValueError` if the column does not accept it."""
        if given is not None and not (isinstance(given, float) and math.isnan(given)):
            value = self._text(given) if self.is_text else self._category(given)
            if value is not None:
                return value
        if self.must:
            raise UnfitValueError("is missing, and required")
        return self.default

    def values(self, column: NDArray[Any]) -> list[Scalar]:
        """The values of a column of the table, object (rows,); None if missing."""
        values: list[Scalar] = column.tolist()
        return values

    def _text(self, given: Category) -> str:
        if isinstance(given, str):
            return given
        raise UnfitValueError(f"is a {'boolean' if isinstance(given, bool) else 'number'} where text is expected")

    def _category(self, given: Category) -> Category | None:
        """The category as the model knows it; None if it is unknown and unknown categories count as missing."""
        if self.known is None:
            return _any_category(given)
        found = self.known.get((isinstance(given, bool), given))
        if found is not None:
            return found
        if self.unknown_is_missing:
            return None
        if self.takes_unknown:
            return _unknown_category(given, list(self.known.values()))
        raise UnfitValueError(f"is not one of its {len(self.known)} categories")


def compile_value_column(
    feature: Feature, in_file: FileFeature, defaults: dict[str, Scalar], *, unknown_is_missing: bool
) -> ValueColumn:
    """The column of a feature that is not a number; `SchemaMismatchError` if the manifest contradicts itself."""
    known = None
    if feature.categories is not None:
        known = {(isinstance(value, bool), value): value for value in feature.categories}
    column = ValueColumn(
        feature.name,
        feature.required is True,
        feature.required is False or feature.name in defaults,
        None,
        feature.dtype == "text",
        known,
        in_file.unknown,
        unknown_is_missing,
    )
    return column if feature.name not in defaults else _with_default(column, defaults[feature.name])


def _with_default(column: ValueColumn, given: Scalar) -> ValueColumn:
    where = f"manifest: feature {column.name[:80]!r}"
    if column.must:
        raise SchemaMismatchError(f"{where} is required, and has a default")
    try:
        default = column.value(given)
    except UnfitValueError as error:
        raise SchemaMismatchError(f"{where} has a default that {error}") from None
    if default is None:
        raise SchemaMismatchError(f"{where} has a default that it does not allow")
    return replace(column, default=default)


def _any_category(given: Category) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise UnfitValueError("is neither text nor an integer, as its categories are")


def _unknown_category(given: Category, known: Sequence[Category]) -> Category:
    """A category that is not in `known`, converted to their type: 7.0 becomes 7 among integers."""
    kinds = {type(value) for value in known}
    if isinstance(given, bool | str):
        if type(given) in kinds:
            return given
    elif int in kinds and given == given // 1 and int(given).bit_length() <= _INTEGER_BITS_MAX:
        return int(given)
    elif float in kinds and math.isfinite(given):
        return float(given)
    raise UnfitValueError("is of another type than its categories")
