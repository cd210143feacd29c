"""Model manifests and aliases as frozen values, and the record keys that place them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from inferd.schemas.errors import InvalidIdError, MalformedError
from inferd.schemas.requests import NAME_PATTERN, Scalar

DType = Literal["float64", "float32", "int64", "bool", "category"]
_VERSION_KEY = re.compile(rf"(?P<name>{NAME_PATTERN})/(?P<version>[1-9][0-9]{{0,8}})", re.ASCII)
_ALIAS_KEY = re.compile(rf"(?P<name>{NAME_PATTERN})@(?P<alias>{NAME_PATTERN})", re.ASCII)
_ARTIFACT_KEY = re.compile(r"(?P<sha256>[0-9a-f]{64})/(?P<part>0|[1-9][0-9]{0,5})", re.ASCII)
SHA256_PATTERN = "^[0-9a-f]{64}$"


Category = str | float | int | bool
CategoryKind = Literal["text", "boolean", "integer", "number", "mixed"]
FIRST_CATEGORIES, FIRST_CATEGORY_CHARS_MAX = 5, 64
_INTEGER_MAX = 2**63 - 1
NA_TEXTS = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None", "NaN", "nan")
"""What R, pandas, Excel and databases write for a missing value."""


class FileCategories(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the categories are that the model file holds: a manifest describes them and does not repeat them.

    `first`: some of the first ones, without long ones. `na`: those of `NA_TEXTS` that are categories, and so no missing
    values in files of rows.
    """

    kind: CategoryKind
    count: int
    first: list[Category] = []
    na: list[str] = []

    def describes(self, values: Sequence[Category]) -> bool:
        """Whether these are the categories. `na` may differ: another release may have other `NA_TEXTS`."""
        of_values = FileCategories.of(values)
        return (self.kind, self.count, self.first) == (of_values.kind, of_values.count, of_values.first)

    @classmethod
    def of(cls, values: Sequence[Category]) -> FileCategories:
        """The description of `values`."""
        first = [value for value in values[:FIRST_CATEGORIES] if _is_short(value)]
        return cls(_kind_of(values), len(values), first, [text for text in NA_TEXTS if text in values])


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One input column.

    `required`: None, a named row must name it but may give null (missing); True, null and NaN are refused too;
    False, it may be left out. `categories` are the values of a `category` feature in the order of their codes: left
    out, they are those of the model file, which a deploy describes in `file_categories`.
    """

    name: str
    dtype: DType = "float64"
    categories: list[Category] | None = None
    min: float | None = None
    max: float | None = None
    required: bool | None = None
    file_categories: FileCategories | None = None

    @property
    def described_categories(self) -> FileCategories | None:
        """What the categories are, wherever they are kept; None for other features, and where nothing is said."""
        return self.file_categories if self.categories is None else FileCategories.of(self.categories)


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is done to a row before it is scored.

    `order`: the order in which positional rows give the features (default: the model's own). `defaults`: values
    for features that are left out or null. `unknown_category` and `out_of_range`: refuse the row (`error`), or
    score it with the value missing or clipped.
    """

    order: list[str] | None = None
    defaults: dict[str, Scalar] = {}
    unknown_category: Literal["error", "missing"] = "error"
    out_of_range: Literal["error", "clip"] = "error"


class Postprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is done to `prediction` after scoring.

    `labels`: names of the classes in order; the prediction becomes the label of the likeliest class (of binary
    models: of probability >= `threshold`, default 0.5). `threshold` alone gives 0 or 1. `top_k`: the k likeliest
    classes as `[{"label", "probability"}]`.
    """

    labels: list[str] | None = None
    threshold: float | None = None
    top_k: int | None = None


class CacheSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The prediction cache of one version."""

    ttl_s: float
    max_entries: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One version of a model: which bytes it is, what goes in and what comes out."""

    model_id: str
    version: int
    runtime: Literal["lightgbm"]
    sha256: str
    size: int
    features: list[Feature]
    objective: str | None = None
    outputs: int | None = None
    """Values per row of `raw`: 1, the number of classes, or the number of targets."""
    preprocess: Preprocess | None = None
    postprocess: Postprocess | None = None
    cache: CacheSpec | None = None
    warmup: list[Any] | None = None
    """Rows that are scored once before the version serves."""
    labels: dict[str, str] | None = None
    created_at: str | None = None


class SplitShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The share `weight` (of the sum of all) of requests that one version answers."""

    version: int
    weight: float


class Alias(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where `name@alias` leads: one `version`, or a weighted `split`; `shadow` versions score without answering."""

    version: int | None = None
    split: list[SplitShare] | None = None
    shadow: list[int] | None = None


class VersionKey(msgspec.Struct, frozen=True):
    """`<model id>/<version>` on `models`."""

    model_id: str
    version: int

    def __str__(self) -> str:
        return f"{self.model_id}/{self.version}"


class AliasKey(msgspec.Struct, frozen=True):
    """`<model id>@<alias>` on `models`."""

    model_id: str
    alias: str

    def __str__(self) -> str:
        return f"{self.model_id}@{self.alias}"


class ArtifactKey(msgspec.Struct, frozen=True):
    """`<sha256>/<part>` on `model-artifacts`."""

    sha256: str
    part: int

    def __str__(self) -> str:
        return f"{self.sha256}/{self.part}"


def _is_short(value: Category) -> bool:
    if isinstance(value, str):
        return len(value) <= FIRST_CATEGORY_CHARS_MAX
    return isinstance(value, float) or abs(value) <= _INTEGER_MAX


def _kind_of(values: Sequence[Category]) -> CategoryKind:
    types = {type(value) for value in values}
    if types <= {str}:
        return "text"
    if types == {bool}:
        return "boolean"
    if types == {int}:
        return "integer"
    return "number" if types <= {int, float} else "mixed"


def parse_model_key(key: bytes | None) -> VersionKey | AliasKey:
    """The key of a `models` record; `MalformedError` where it is neither a version's nor an alias's."""
    text = _text(key)
    if match := _VERSION_KEY.fullmatch(text):
        return VersionKey(match["name"], int(match["version"]))
    if match := _ALIAS_KEY.fullmatch(text):
        return AliasKey(match["name"], match["alias"])
    raise MalformedError(f"key {text[:80]!r} of a models record: expected <model id>/<version> or <model id>@<alias>")


def parse_artifact_key(key: bytes | None) -> ArtifactKey:
    """The key of a `model-artifacts` record; `MalformedError` where it is none."""
    text = _text(key)
    if match := _ARTIFACT_KEY.fullmatch(text):
        return ArtifactKey(match["sha256"], int(match["part"]))
    raise MalformedError(f"key {text[:80]!r} of a model-artifacts record: expected <sha256>/<part>")


def check_model_name(text: str) -> str:
    """`text` if it can name a model or an alias, else `InvalidIdError`."""
    if not re.fullmatch(NAME_PATTERN, text, re.ASCII):
        raise InvalidIdError(f"model name {text[:80]!r}: allowed are 1 to 64 of A-Z a-z 0-9 . _ - and not dots alone")
    return text


def _text(key: bytes | None) -> str:
    return (key or b"").decode("utf-8", "backslashreplace")
