"""Rows of a file for the baseline of a model. Columns that are not features, such as the label, are left out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inferd.daemon.row_files import FileOptions, Layout, format_of, open_row_file
from inferd.schemas.errors import InferenceError
from inferd.schemas.models import Manifest


@dataclass(frozen=True, slots=True)
class _AnyColumns(Layout):
    """Further columns are allowed."""

    def check_columns(self, where: str, names: Sequence[str]) -> None:
        """See `Layout`, for the columns that are features."""
        assert self.manifest is not None
        known = {feature.name for feature in self.manifest.features}
        Layout.check_columns(self, where, [name for name in names if name in known])


def baseline_rows(path: Path, manifest: Manifest) -> Iterator[Any]:
    """The rows of a CSV, NDJSON or Parquet file: lists in the order of the features, or dicts.

    `SchemaMismatchError` if a feature is missing. Rows that cannot be read are left out.
    """
    options = FileOptions()
    if format_of(path) == "parquet":
        options = replace(options, skip_columns=tuple(_further_columns(path, manifest)))
    layout = _AnyColumns(f"{manifest.model_id}:{manifest.version}", manifest, by_position=True)
    with open_row_file(str(path), options, layout, sys.stdin.buffer) as file:
        for block in file.blocks:
            rows = block if isinstance(block, list) else block.tolist()
            yield from (row for row in rows if not isinstance(row, InferenceError))


def _further_columns(path: Path, manifest: Manifest) -> list[str]:
    """Columns of types that are not read may be among them."""
    import pyarrow.parquet

    known = {feature.name for feature in manifest.features}
    try:
        names = pyarrow.parquet.read_schema(path).names
    except (OSError, pyarrow.ArrowException):
        return []  # reading the file says why
    return [name for name in names if name not in known]
