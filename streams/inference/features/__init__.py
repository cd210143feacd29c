"""Converts rows to matrices and tables; checks layout, types, ranges and categories of features."""

from inferd.streams.inference.features.categories import CategoryLists
from inferd.streams.inference.features.file_feature import FileFeature, Values
from inferd.streams.inference.features.job_rows import is_row, plain_rows, scorable_rows
from inferd.streams.inference.features.matrix import ENCODINGS, FeatureSchema
from inferd.streams.inference.features.rules import reject_repeats, reject_unknown
from inferd.streams.inference.features.samples import sample_inputs, varied_inputs
from inferd.streams.inference.features.vectorised import ID_BYTES, valid_ids

__all__ = [
    "ENCODINGS",
    "ID_BYTES",
    "CategoryLists",
    "FeatureSchema",
    "FileFeature",
    "Values",
    "is_row",
    "plain_rows",
    "reject_repeats",
    "reject_unknown",
    "sample_inputs",
    "scorable_rows",
    "valid_ids",
    "varied_inputs",
]
