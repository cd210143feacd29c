"""Compiled kernels that read rows and score trees. If they are missing or disabled, the typed decoder and the libraries
of the model formats do the same work."""

from inferd.streams.inference.kernels.batches import RECORD, BatchKernel, crc32c
from inferd.streams.inference.kernels.compiled import (
    Library,
    UnavailableError,
    kernels_fault,
    kernels_in_use,
    library,
    library_in,
    use_kernels,
)
from inferd.streams.inference.kernels.envelopes import EnvelopeKernel, PlainRequests, ReadRows, split_rows
from inferd.streams.inference.kernels.forest import Forest, Trees, UnsupportedError, pack
from inferd.streams.inference.kernels.headers import SplitHeaders, split_headers
from inferd.streams.inference.kernels.histograms import BinCounter
from inferd.streams.inference.kernels.keys import key_digests
from inferd.streams.inference.kernels.records import RecordKernel
from inferd.streams.inference.kernels.results import (
    HeaderParts,
    RecordParts,
    equal_spans,
    join_results,
)
from inferd.streams.inference.kernels.rows import Encoding, RowKernel, RowSchema
from inferd.streams.inference.kernels.trees import Ending, Transform, TreeKernel

__all__ = [
    "RECORD",
    "BatchKernel",
    "BinCounter",
    "Encoding",
    "Ending",
    "EnvelopeKernel",
    "Forest",
    "HeaderParts",
    "Library",
    "PlainRequests",
    "ReadRows",
    "RecordKernel",
    "RecordParts",
    "RowKernel",
    "RowSchema",
    "SplitHeaders",
    "Transform",
    "TreeKernel",
    "Trees",
    "UnavailableError",
    "UnsupportedError",
    "crc32c",
    "equal_spans",
    "join_results",
    "kernels_fault",
    "kernels_in_use",
    "key_digests",
    "library",
    "library_in",
    "pack",
    "split_headers",
    "split_rows",
    "use_kernels",
]
