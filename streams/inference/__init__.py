"""Scoring, pure and synchronous: no asyncio, no clock, no environment. The only I/O is the disposable trial process."""

from inferd.streams.inference.catalog import ModelCatalog, ServedModel, State, Version
from inferd.streams.inference.disagreement import TOLERANCE, disagreements
from inferd.streams.inference.encoded_headers import EncodedHeaders
from inferd.streams.inference.features import FeatureSchema, FileFeature
from inferd.streams.inference.foreign_files import foreign_folder
from inferd.streams.inference.inputs import Inputs, Matrix, Table, concatenate, rows_as_bytes
from inferd.streams.inference.kernels import (
    RECORD,
    BatchKernel,
    BinCounter,
    HeaderParts,
    Library,
    RecordKernel,
    RecordParts,
    UnavailableError,
    crc32c,
    equal_spans,
    kernels_fault,
    kernels_in_use,
    key_digests,
    library,
    use_kernels,
)
from inferd.streams.inference.loading import load_model, load_runtime
from inferd.streams.inference.manifest_features import complete_file
from inferd.streams.inference.manifests import manifest_of, reconcile
from inferd.streams.inference.micro_batch import Group, MicroBatch, internal_error
from inferd.streams.inference.model_format import ModelFile, ModelFormat
from inferd.streams.inference.needed_versions import NeededVersions
from inferd.streams.inference.outcome import CACHE_HIT, CACHE_MISS, Members, Outcome
from inferd.streams.inference.own_models import OwnRuntime, own_version
from inferd.streams.inference.postprocess import compile_postprocess
from inferd.streams.inference.prediction_costs import PredictionCosts
from inferd.streams.inference.record_block import (
    BlockRecord,
    RecordBlock,
    joined_records,
    record_keys,
    record_timestamps,
    record_values,
)
from inferd.streams.inference.registry import (
    FormatReport,
    all_formats,
    describe_formats,
    format_named,
    is_format,
    read_model,
    recognise,
    register,
    unregister,
)
from inferd.streams.inference.row_by_row import is_equal_alone, scores_batches
from inferd.streams.inference.runtime import Arrays, ModelRuntime, accelerated, label_codes
from inferd.streams.inference.scored_rows import ScoredRows
from inferd.streams.inference.scoring import UNDECODABLE, OnStep, Scorer
from inferd.streams.inference.shadow_marks import Shadows, ShadowTarget
from inferd.streams.inference.spans import Spans
from inferd.streams.inference.trial_limits import DEFAULT_TRIAL_LIMITS, TrialLimits
from inferd.streams.inference.user_code import Ask, AskRows, PinnedModelId, plain_value
from inferd.streams.inference.variants import AliasChoice, AliasHeaders, alias_choice, alias_headers
from inferd.streams.inference.work import Record, Work, halve

__all__ = [
    "CACHE_HIT",
    "CACHE_MISS",
    "DEFAULT_TRIAL_LIMITS",
    "RECORD",
    "TOLERANCE",
    "UNDECODABLE",
    "AliasChoice",
    "AliasHeaders",
    "Arrays",
    "Ask",
    "AskRows",
    "BatchKernel",
    "BinCounter",
    "BlockRecord",
    "EncodedHeaders",
    "FeatureSchema",
    "FileFeature",
    "FormatReport",
    "Group",
    "HeaderParts",
    "Inputs",
    "Library",
    "Matrix",
    "Members",
    "MicroBatch",
    "ModelCatalog",
    "ModelFile",
    "ModelFormat",
    "ModelRuntime",
    "NeededVersions",
    "OnStep",
    "Outcome",
    "OwnRuntime",
    "PinnedModelId",
    "PredictionCosts",
    "Record",
    "RecordBlock",
    "RecordKernel",
    "RecordParts",
    "ScoredRows",
    "Scorer",
    "ServedModel",
    "ShadowTarget",
    "Shadows",
    "Spans",
    "State",
    "Table",
    "TrialLimits",
    "UnavailableError",
    "Version",
    "Work",
    "accelerated",
    "alias_choice",
    "alias_headers",
    "all_formats",
    "compile_postprocess",
    "complete_file",
    "concatenate",
    "crc32c",
    "describe_formats",
    "disagreements",
    "equal_spans",
    "foreign_folder",
    "format_named",
    "halve",
    "internal_error",
    "is_equal_alone",
    "is_format",
    "joined_records",
    "kernels_fault",
    "kernels_in_use",
    "key_digests",
    "label_codes",
    "library",
    "load_model",
    "load_runtime",
    "manifest_of",
    "own_version",
    "plain_value",
    "read_model",
    "recognise",
    "reconcile",
    "record_keys",
    "record_timestamps",
    "record_values",
    "register",
    "rows_as_bytes",
    "scores_batches",
    "unregister",
    "use_kernels",
]
