"""The columns of a file beside the features of the model that is to score it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from inferd.schemas.errors import MalformedError, SchemaMismatchError
from inferd.schemas.models import NA_TEXTS, Feature, Manifest

Kind = Literal["number", "category", "label", "text"]
"""Of a feature: numbers, categories of numbers or booleans, categories of text, text."""
_INDEX_NAMES = re.compile(r"|Unnamed: \d+|__index_level_\d+__|index|rownames|row\.names", re.IGNORECASE)
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows are laid out for a model: by position where it is certain which version scores them."""

    model: str
    """What a job is opened with."""
    manifest: Manifest | None = None
    """None where the model's features are unknown."""
    by_position: bool = False

    def kind(self, name: str) -> Kind | None:
        """What the values of a column are; None where that is unknown."""
        feature = self._features.get(name)
        if feature is None:
            return None
        if feature.dtype == "text":
            return "text"
        if feature.dtype != "category":
            return "number"
        return "label" if _is_label(feature) else "category"

    def na_texts(self, name: str, given: Sequence[str] | None) -> frozenset[str]:
        """Texts that are missing values in a column. By default none that may be one of its values: of text, and of
        categories that the model file does not list, the empty field alone, unless a value is required."""
        feature = self._features.get(name)
        empty = () if feature is not None and feature.dtype == "text" and feature.required else ("",)
        if given is not None:
            return frozenset((*empty, *given))
        if feature is None or _takes_any_text(feature):
            return frozenset(empty)
        described = feature.described_categories
        return frozenset(NA_TEXTS).difference(() if described is None else described.na)

    def check_columns(self, where: str, names: Sequence[str]) -> None:
        """`MalformedError` where a name comes twice, `SchemaMismatchError` where every row would be refused."""
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

    def rows(self, names: Sequence[str], columns: Sequence[Sequence[Any]], count: int) -> list[Any]:
        """Rows of columns of `count` values each."""
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
        if index := [name for name in unknown if _INDEX_NAMES.fullmatch(name)]:
            return (
                f"Leave out {_quoted(index)}, which looks like the index of a data frame, with"
                f" {_skipping(index)}, or write the file without it: index=False, row.names=FALSE"
            )
        if unknown and all(re.fullmatch(r"[0-9eE+.-]+", name) for name in unknown):
            return "The first line must have the names of the columns"
        return f"Leave out columns that are no features: {_skipping(unknown)}" if unknown else "Add what is missing"


def _is_label(feature: Feature) -> bool:
    described = feature.described_categories
    return described is not None and described.kind in ("text", "any")


def _takes_any_text(feature: Feature) -> bool:
    described = feature.described_categories
    return feature.dtype == "text" or (described is not None and described.kind == "any")


def _quoted(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(repr(name[:80]) for name in names[:5]) + more


def _skipping(names: Sequence[str]) -> str:
    return " ".join(f"--skip-column {name[:80]!r}" for name in names[:5])
