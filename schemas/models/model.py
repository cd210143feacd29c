"""Model manifests, aliases and the keys of their records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from uuid import uuid4

import msgspec

from inferd.schemas.errors import InvalidIdError, MalformedError
from inferd.schemas.models.pause import PauseKey
from inferd.schemas.requests import NAME_PATTERN, Scalar

DType = Literal["float64", "float32", "int64", "bool", "category", "text"]
_VERSION_KEY = re.compile(rf"(?P<name>{NAME_PATTERN})/(?P<version>[1-9][0-9]{{0,8}})", re.ASCII)
_ALIAS_KEY = re.compile(rf"(?P<name>{NAME_PATTERN})@(?P<alias>{NAME_PATTERN})", re.ASCII)
_ID = r"(?P<id>[0-9a-f]{32})"
_CLAIM_KEY = re.compile(rf"{_VERSION_KEY.pattern}#{_ID}", re.ASCII)
_ALIAS_CHANGE_KEY = re.compile(rf"{_ALIAS_KEY.pattern}#{_ID}", re.ASCII)
_BASELINE_KEY = re.compile(rf"{_VERSION_KEY.pattern}#(?P<source>baseline|learned)", re.ASCII)
_PAUSE_KEY = re.compile(rf"!pause/(?P<kind>model|route)/(?P<name>{NAME_PATTERN})", re.ASCII)
_LEASE_KEY = re.compile(rf"(?P<sha256>[0-9a-f]{{64}})(?P<kind>[#!]){_ID}", re.ASCII)
_ARTIFACT_KEY = re.compile(r"(?P<sha256>[0-9a-f]{64})/(?P<part>0|[1-9][0-9]{0,5})", re.ASCII)
SHA256_PATTERN = "^[0-9a-f]{64}$"
RUNTIME_PATTERN = "^[a-z][a-z0-9_]{0,31}$"


Category = str | float | int | bool
ClassLabel = str | float | int | bool
CategoryKind = Literal["text", "boolean", "integer", "number", "mixed", "any"]
FIRST_CATEGORIES, FIRST_CATEGORY_CHARS_MAX = 5, 64
_INTEGER_MAX = 2**63 - 1
NA_TEXTS = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None", "NaN", "nan")
"""Texts that R, pandas, Excel and databases write for a missing value."""


class FileCategories(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A description of the categories in the model file, so that a manifest does not need to repeat them.

    `first`: short ones among the first `FIRST_CATEGORIES`. `na`: those of `NA_TEXTS` that are categories; in files of
    rows they are values, not missing values. Of kind `any`, any text is a category, and the file lists none.
    """

    kind: CategoryKind
    count: int
    first: list[Category] = []
    na: list[str] = []

    def describes(self, values: Sequence[Category]) -> bool:
        """Whether `values` match this description. `na` is not compared: releases may differ in `NA_TEXTS`."""
        of_values = FileCategories.of(values)
        return (self.kind, self.count, self.first) == (of_values.kind, of_values.count, of_values.first)

    @classmethod
    def of(cls, values: Sequence[Category]) -> FileCategories:
        """The description of `values`."""
        first = [value for value in values[:FIRST_CATEGORIES] if _is_short(value)]
        return cls(_kind_of(values), len(values), first, [text for text in NA_TEXTS if text in values])


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One input column.

    `required`: None: a named row must name the feature, but its value may be null (missing). True: null and NaN are
    rejected too. False: the feature may be omitted. `categories` are the values of a `category` feature in the order of
    their codes. If omitted, those of the model file are used, and a deploy describes them in `file_categories`.
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
        """The description of the categories, from either field; None if the manifest has neither."""
        return self.file_categories if self.categories is None else FileCategories.of(self.categories)


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Preprocessing of a row before it is scored.

    `order`: the order of features in positional rows (default: that of the model). `defaults`: values of features that
    are omitted or null. `unknown_category` and `out_of_range`: reject the row (`error`), or score it with the value
    missing or clipped.
    """

    order: list[str] | None = None
    defaults: dict[str, Scalar] = {}
    unknown_category: Literal["error", "missing"] = "error"
    out_of_range: Literal["error", "clip"] = "error"


class Postprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Postprocessing of `prediction`.

    `labels`: names of the classes in order; the prediction becomes the label of the most probable class (binary models:
    of the second class if its probability is >= `threshold`, default 0.5). `threshold` without labels gives 0 or 1.
    `top_k`: the k most probable classes as `[{"label", "probability"}]`.
    """

    labels: list[str] | None = None
    threshold: float | None = None
    top_k: int | None = None


class CacheSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The prediction cache of one version."""

    ttl_s: float
    max_entries: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One version of a model: its file, input features and outputs."""

    model_id: str
    version: int
    runtime: Annotated[str, msgspec.Meta(pattern=RUNTIME_PATTERN)]
    """Name of the model format."""
    sha256: str
    size: int
    features: list[Feature]
    objective: str | None = None
    outputs: int | None = None
    """Values per row of `raw`: 1, the number of classes, or the number of targets."""
    output_names: list[str] | None = None
    """The model's own outputs, which requests may ask for by name; None if it has none."""
    classes: list[ClassLabel] | None = None
    """The class labels of the model file, in the order of `probabilities`; None if it has none."""
    batching: bool = True
    """False: rows are scored one by one, because a batch would change the bits of some predictions."""
    preprocess: Preprocess | None = None
    postprocess: Postprocess | None = None
    cache: CacheSpec | None = None
    warmup: list[Any] | None = None
    """Rows that are scored once before the version serves."""
    labels: dict[str, str] | None = None
    created_at: str | None = None


class SplitShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version of a split; its share of requests is `weight` divided by the sum of all weights."""

    version: int
    weight: float


class AliasTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an alias points at: one `version` or a weighted `split`. `shadow` versions score without answering."""

    version: int | None = None
    split: list[SplitShare] | None = None
    shadow: list[int] | None = None


class AliasRevision(AliasTarget, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One change of an alias: its target since then, when it was changed, and by whom."""

    revision: int = 0
    """Increases by one with each change. 0: a record of a program that does not count."""
    changed_at: str | None = None
    """UTC, ISO 8601."""
    changed_by: str | None = None
    restores: int | None = None
    """The revision whose target a rollback restored."""
    removed: bool = False
    """The alias was removed; it has no target."""


class Alias(AliasRevision, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An alias: its newest revision, and earlier ones."""

    history: list[AliasRevision] | None = None
    """Earlier revisions, newest first; at most `HISTORY_MAX` are kept."""


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


class AliasChangeKey(msgspec.Struct, frozen=True):
    """`<model id>@<alias>#<id>` on `models`: a change of an alias; see `AliasLog`."""

    model_id: str
    alias: str
    id: str

    @classmethod
    def new(cls, key: AliasKey) -> AliasChangeKey:
        """A key that no other change has."""
        return cls(key.model_id, key.alias, uuid4().hex)

    @property
    def alias_key(self) -> AliasKey:
        """The key of the alias."""
        return AliasKey(self.model_id, self.alias)

    def __str__(self) -> str:
        return f"{self.model_id}@{self.alias}#{self.id}"


class ClaimKey(msgspec.Struct, frozen=True):
    """`<model id>/<version>#<id>` on `models`: claims the version for the manifest in the value.

    The first claim in the log determines the content of the version permanently. As each claim has its own key,
    compaction keeps the first one. A client deletes its claim only if an earlier one has won.
    """

    model_id: str
    version: int
    id: str

    @classmethod
    def new(cls, key: VersionKey) -> ClaimKey:
        """A key that no other claim has."""
        return cls(key.model_id, key.version, uuid4().hex)

    @property
    def version_key(self) -> VersionKey:
        """The key of the claimed version."""
        return VersionKey(self.model_id, self.version)

    def __str__(self) -> str:
        return f"{self.model_id}/{self.version}#{self.id}"


class LeaseKey(msgspec.Struct, frozen=True):
    """`<sha256>#<id>` on `models`: the artifact of the manifest in the value must not be collected yet.

    `<sha256>!<id>`, with `collecting`: a client is collecting the artifact, and no client may send it meanwhile.
    """

    sha256: str
    id: str
    collecting: bool = False

    @classmethod
    def new(cls, sha256: str, *, collecting: bool = False) -> LeaseKey:
        """A key that no other lease has."""
        return cls(sha256, uuid4().hex, collecting)

    def __str__(self) -> str:
        return f"{self.sha256}{'!' if self.collecting else '#'}{self.id}"


class BaselineKey(msgspec.Struct, frozen=True):
    """`<model id>/<version>#baseline` on `models`: the baseline that was given for a version; see `Baseline`.

    `<model id>/<version>#learned`, with `learned`: one of the first rows that workers scored.
    """

    model_id: str
    version: int
    learned: bool = False

    @property
    def version_key(self) -> VersionKey:
        """The key of the version."""
        return VersionKey(self.model_id, self.version)

    def __str__(self) -> str:
        return f"{self.version_key}#{'learned' if self.learned else 'baseline'}"


ModelKey = VersionKey | AliasKey | AliasChangeKey | ClaimKey | BaselineKey | LeaseKey | PauseKey


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


def parse_model_key(key: bytes | None) -> ModelKey:
    """Parse the key of a `models` record; `MalformedError` if it is not a `ModelKey`."""
    text = _text(key)
    if match := _VERSION_KEY.fullmatch(text):
        return VersionKey(match["name"], int(match["version"]))
    if match := _ALIAS_KEY.fullmatch(text):
        return AliasKey(match["name"], match["alias"])
    if match := _ALIAS_CHANGE_KEY.fullmatch(text):
        return AliasChangeKey(match["name"], match["alias"], match["id"])
    if match := _CLAIM_KEY.fullmatch(text):
        return ClaimKey(match["name"], int(match["version"]), match["id"])
    if match := _BASELINE_KEY.fullmatch(text):
        return BaselineKey(match["name"], int(match["version"]), match["source"] == "learned")
    if match := _LEASE_KEY.fullmatch(text):
        return LeaseKey(match["sha256"], match["id"], match["kind"] == "!")
    if match := _PAUSE_KEY.fullmatch(text):
        return PauseKey("route" if match["kind"] == "route" else "model", match["name"])
    raise MalformedError(f"key {text[:80]!r} of a models record: expected <model id>/<version> or <model id>@<alias>")


def parse_artifact_key(key: bytes | None) -> ArtifactKey:
    """Parse the key of a `model-artifacts` record; `MalformedError` if it is invalid."""
    text = _text(key)
    if match := _ARTIFACT_KEY.fullmatch(text):
        return ArtifactKey(match["sha256"], int(match["part"]))
    raise MalformedError(f"key {text[:80]!r} of a model-artifacts record: expected <sha256>/<part>")


def same_content(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests differ at most in the time of the deploy."""
    return msgspec.structs.replace(one, created_at=None) == msgspec.structs.replace(other, created_at=None)


def check_model_name(text: str) -> str:
    """Return `text` if it is a valid name of a model or an alias, else raise `InvalidIdError`."""
    if not re.fullmatch(NAME_PATTERN, text, re.ASCII):
        raise InvalidIdError(f"model name {text[:80]!r}: expected 1 to 64 of A-Z a-z 0-9 . _ -, not only dots")
    return text


def _text(key: bytes | None) -> str:
    return (key or b"").decode("utf-8", "backslashreplace")
