"""Compares the columns of a file with the features of the model that scores it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from inferd.schemas.errors import MalformedError, SchemaMismatchError
from inferd.schemas.models import NA_TEXTS, Feature, Manifest

Kind = Literal["number", "category", "label", "text"]
"""Type of a feature: number, category of numbers or booleans, category of text, text."""
_INDEX_NAMES = re.compile(r"|Unnamed: \d+|__index_level_\d+__|index|rownames|row\.names", re.IGNORECASE)
_SEPARATORS = (" ", "\t", ";", "|", ":")
_BLANKS = re.compile(r"\s+")
SHOWN_COLUMNS_MAX = 20


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows are sent: by position if it is certain which version scores them, else by name."""

    model: str
    """The model reference that a job is opened with."""
    manifest: Manifest | None = None
    """None if the model's features are unknown."""
    by_position: bool = False

    def kind(self, name: str) -> Kind | None:
        """The type of a column; None if it is unknown."""
        feature = self._features.get(name)
        if feature is None:
            return None
        if feature.dtype == "text":
            return "text"
        if feature.dtype != "category":
            return "number"
        return "label" if _is_label(feature) else "category"

    def na_texts(self, name: str, given: Sequence[str] | None) -> frozenset[str]:
        """Texts that mean missing in a column. By default they exclude possible values: for text, and for categories
        that the model file does not list, only the empty field is missing (not even that if a text is required)."""
        feature = self._features.get(name)
        empty = () if feature is not None and feature.dtype == "text" and feature.required else ("",)
        if given is not None:
            return frozenset((*empty, *given))
        if feature is None or _takes_any_text(feature):
            return frozenset(empty)
        described = feature.described_categories
        return frozenset(NA_TEXTS).difference(() if described is None else described.na)

    def check_columns(self, where: str, names: Sequence[str]) -> None:
        """Raises `MalformedError` for a repeated name, and `SchemaMismatchError` if every row would be rejected."""
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise MalformedError(f"{where}: more than one column is named {_quoted(repeated)}")
        if self.manifest is None:
            return
        unknown = [name for name in names if name not in self._features]
        missing = [name for name in self._features if name not in names and not self._may_be_left_out(name)]
        if unknown or missing:
            both = (("missing", missing), ("unknown", unknown))
            parts = [f"{what} {_quoted(names)}" for what, names in both if names]
            raise SchemaMismatchError(
                f"{where} does not have the columns of {self.manifest.model_id}:{self.manifest.version}:"
                f" {', '.join(parts)}. {self._hint(unknown, missing)}"
            )

    @staticmethod
    def kept(where: str, names: Sequence[str], skipped: Sequence[str]) -> list[int]:
        """Places of the columns that are not skipped; `SchemaMismatchError` if a skipped one does not exist."""
        if unknown := [name for name in skipped if name not in names]:
            raise SchemaMismatchError(
                f"{where} has no column {_quoted(unknown)}, which --skip-column names; its columns are"
                f" {_quoted(names, SHOWN_COLUMNS_MAX)}"
            )
        return [place for place, name in enumerate(names) if name not in skipped]

    def rows(self, names: Sequence[str], columns: Sequence[Sequence[Any]], count: int) -> list[Any]:
        """Rows from columns of `count` values each."""
        if self.manifest is None or not self.by_position:
            return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        place_of = {name: place for place, name in enumerate(names)}
        nothing: Sequence[Any] = [None] * count
        places = [place_of.get(name) for name in self._features]
        ordered = [nothing if place is None else columns[place] for place in places]
        return list(zip(*ordered, strict=True))

    @property
    def _features(self) -> dict[str, Feature]:
        return {} if self.manifest is None else {feature.name: feature for feature in self.manifest.features}

    def _may_be_left_out(self, name: str) -> bool:
        assert self.manifest is not None
        preprocess = self.manifest.preprocess
        return self._features[name].required is False or (preprocess is not None and name in preprocess.defaults)

    def _hint(self, unknown: Sequence[str], missing: Sequence[str]) -> str:
        for name in unknown:
            for other in missing:
                if name.strip() == other or _BLANKS.sub("_", name) == other:
                    return f"Rename the column {name!r} to {other!r}" + (
                        "" if name.strip() == other else ": LightGBM writes _ for blanks in names"
                    )
        for separator in _SEPARATORS:
            parts = {part.strip('"') for name in unknown for part in name.split(separator)}
            if len(missing) > 1 and parts.issuperset(missing):
                return f"The names look separated by {separator!r}: --delimiter {separator!r}"
        if index := [name for name in unknown if _INDEX_NAMES.fullmatch(name)]:
            return (
                f"Skip {_quoted(index)}, which looks like the index of a data frame, with"
                f" {_skipping(index)}, or write the file without it: index=False, row.names=FALSE"
            )
        if unknown and all(re.fullmatch(r"[0-9eE+.-]+", name) for name in unknown):
            return "The first line must have the column names"
        return f"Skip columns that are not features: {_skipping(unknown)}" if unknown else "Add the missing columns"


def _is_label(feature: Feature) -> bool:
    described = feature.described_categories
    return described is not None and described.kind in ("text", "any")


def _takes_any_text(feature: Feature) -> bool:
    described = feature.described_categories
    return feature.dtype == "text" or (described is not None and described.kind == "any")


def _quoted(names: Sequence[str], names_max: int = 5) -> str:
    more = f" and {len(names) - names_max} more" if len(names) > names_max else ""
    return ", ".join(repr(name[:80]) for name in names[:names_max]) + more


def _skipping(names: Sequence[str]) -> str:
    return " ".join(f"--skip-column {name[:80]!r}" for name in names[:5])
