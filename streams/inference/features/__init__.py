"""Rows to matrices: layout, types, ranges and categories of features, checked."""

from inferd.streams.inference.features.categories import CategoryLists, Values
from inferd.streams.inference.features.job_rows import is_row, plain_rows, scorable_rows
from inferd.streams.inference.features.matrix import FeatureSchema
from inferd.streams.inference.features.rules import refuse_repeats, refuse_unknown
from inferd.streams.inference.features.vectorised import gather, valid_ids

__all__ = [
    "CategoryLists",
    "FeatureSchema",
    "Values",
    "gather",
    "is_row",
    "plain_rows",
    "refuse_repeats",
    "refuse_unknown",
    "scorable_rows",
    "valid_ids",
]
