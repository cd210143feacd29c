"""The description of one input column in a model file."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.schemas.models import Category, DType

Values = tuple[Category, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFeature:
    """One feature, in the order of the model's columns."""

    name: str
    dtype: DType = "float64"
    """Its kind: `float64` (a number), `float32` (a number that is rounded to float32, and rejected beyond its range),
    `int64`, `bool`, `category`, or `text`."""
    fixed: bool = True
    """Whether the file decides the dtype. Otherwise `dtype` is the default, and a manifest may name another one."""
    categories: Values | None = None
    """The values of a category, in the order of their codes. None if the file has none: then a category is any text,
    or an integer, which becomes its decimal text."""
    coded: bool = False
    """Whether categories are codes (0, 1, …) in the matrix. Otherwise the values themselves are in the table."""
    unknown: bool = False
    """Whether the model takes categories that are not among `categories`."""
    missing: bool = True
    """Whether the model takes missing values. If not, they are rejected unless the manifest has a default."""
    min: float | None = None
    """The least number that the model takes, such as that of a narrower integer."""
    max: float | None = None

    @property
    def is_number(self) -> bool:
        """Whether its column is in the matrix of numbers."""
        return self.dtype != "text" and (self.dtype != "category" or self.coded)
