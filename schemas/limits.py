"""All limits on input, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on input. Each is checked before memory is allocated for what it limits."""

    message_bytes_max: int = 1_048_576
    result_bytes_max: int = 1_000_000
    """Value of one result. With key and headers it stays below Kafka's default `max.message.bytes`."""
    key_bytes_max: int = 24_576
    """Key of a request. Its result has the same key, so key, headers and `result_bytes_max` must fit in one record."""
    batch_expanded_bytes_max: int = 64 * 1_048_576
    """A compressed record batch after decompression; each record has its own limit."""
    rows_max: int = 10_000
    features_max: int = 10_000
    values_max: int = 250_000
    """Rows x features of one request."""
    depth_max: int = 16
    id_chars_max: int = 64
    string_chars_max: int = 65_536
    """One text or category in a row."""
    headers_max: int = 64
    header_bytes_max: int = 4_096
    """Name and value of one header together."""
    artifact_bytes_max: int = 512 * 1_048_576
    artifact_part_bytes_max: int = 512 * 1_024
    types_allowed: tuple[str, ...] = ()
    """Types that a `.skops` file may name, besides those of numpy, scipy and scikit-learn."""
    manifest_bytes_max: int = 1_000_000
    job_rows_max: int = 20_000_000
    """Rows of one job."""
    job_messages_max: int = 16_384
    """`rows` messages of one job. Each adds some bytes to the job's state, which is one record."""
    job_message_rows_max: int = 100_000
    """Rows in one message of a job; `message_bytes_max` also limits its bytes."""
    job_chunks_max: int = 32_768
    """Chunks of one job. Each adds some bytes to the job's state."""
    job_chunk_rows: int = 1_024
    """Default rows per chunk."""
    job_chunk_rows_max: int = 4_096
    """Highest `chunk_rows` of a job. Results of larger chunks could exceed `result_bytes_max`."""
    job_chunk_bytes_max: int = 900_000
    """Largest rows that are embedded in a chunk; a chunk with more bytes refers to the source message instead."""
    job_attempts_max: int = 16
    """Retries of one job."""
    job_labels_max: int = 16
    job_open_max_s: float = 86_400.0
    """Default deadline: a job without one must receive all of its messages within this time after the first."""
    job_deadline_grace_s: float = 60.0
    """How long dispatched chunks may take beyond the deadline of their job."""
    job_retention_s: float = 7 * 86_400.0
    """How long results can be read, counted from the job's first message; at most the retention of the topics."""
    jobs_open_max: int = 100
    """Jobs of one tenant that have not ended, per partition of `jobs`."""
    jobs_rows_max: int = 100_000_000
    """Total rows of these jobs."""
    jobs_bytes_max: int = 64 * 1_073_741_824
    """Total bytes of the messages of these jobs."""

    @property
    def dead_letter_bytes_max(self) -> int:
        """Record size limit of `dead-letters`: a rejected record of twice the allowed size plus the error headers."""
        return 2 * self.message_bytes_max + 65_536


DEFAULT_LIMITS = Limits()
LARGEST_JOB_LIMITS = Limits(
    message_bytes_max=2**31 - 1,
    job_messages_max=16_384,
    job_message_rows_max=1_000_000,
    job_labels_max=1_000,
)
"""The highest limits for job messages that a worker's settings allow. No worker accepts more."""
