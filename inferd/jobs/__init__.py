"""Batch jobs of the client: packs rows into messages, and reads chunk results in row order."""

from inferd.jobs.jobs import JobOptions, Jobs, OnProgress, SubmitProgress, new_job_id
from inferd.jobs.packing import BLOCK_ROWS, MESSAGE_BYTES_MAX, PackedRows, Packer
from inferd.jobs.results import JobRow, rows_of

__all__ = [
    "BLOCK_ROWS",
    "MESSAGE_BYTES_MAX",
    "JobOptions",
    "JobRow",
    "Jobs",
    "OnProgress",
    "PackedRows",
    "Packer",
    "SubmitProgress",
    "new_job_id",
    "rows_of",
]
