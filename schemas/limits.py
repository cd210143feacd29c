"""Every bound on what comes from outside, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that are checked before anything is allocated for what they bound."""

    message_bytes_max: int = 1_048_576
    result_bytes_max: int = 1_000_000
    """Value of one result: with key and headers it stays below Kafka's default `max.message.bytes`."""
    key_bytes_max: int = 24_576
    """Key of a request, which its result carries, too: beside `result_bytes_max` and the headers it must find room."""
    batch_expanded_bytes_max: int = 64 * 1_048_576
    """A compressed record batch of Kafka's, expanded; its messages have their own limit."""
    rows_max: int = 10_000
    features_max: int = 10_000
    values_max: int = 250_000
    """Rows x features of one request."""
    depth_max: int = 16
    id_chars_max: int = 64
    string_chars_max: int = 1_024
    """A categorical value in a row."""
    headers_max: int = 64
    header_bytes_max: int = 4_096
    """Key and value of one header together."""
    artifact_bytes_max: int = 512 * 1_048_576
    artifact_part_bytes_max: int = 512 * 1_024
    manifest_bytes_max: int = 1_000_000
    job_rows_max: int = 20_000_000
    """Rows of one job."""
    job_messages_max: int = 16_384
    """`rows` messages of one job: each takes some bytes of its state, which is one record."""
    job_message_rows_max: int = 100_000
    """Rows of one message of a job, whose bytes `message_bytes_max` bounds besides."""
    job_chunks_max: int = 32_768
    """Chunks of one job: each takes some bytes of its state."""
    job_chunk_rows: int = 1_024
    """Rows of a chunk, where a job does not ask for another number."""
    job_chunk_rows_max: int = 4_096
    """What a job may ask for. Chunks of more rows could have results that are larger than `result_bytes_max`."""
    job_chunk_bytes_max: int = 900_000
    """Rows that a chunk carries along; of larger ones it says where to read them."""
    job_attempts_max: int = 16
    """Retries of one job."""
    job_labels_max: int = 16
    job_open_max_s: float = 86_400.0
    """A job that names no deadline must have all of its messages so long after the first one."""
    job_deadline_grace_s: float = 60.0
    """How long chunks that are on their way may take beyond the deadline of their job."""
    job_retention_s: float = 7 * 86_400.0
    """How long after its first message the results of a job can be read: no longer than Kafka keeps them."""
    jobs_open_max: int = 100
    """Jobs of one tenant that have not ended, by partition of `jobs`."""
    jobs_rows_max: int = 100_000_000
    """Rows of these jobs together."""
    jobs_bytes_max: int = 64 * 1_073_741_824
    """Bytes of their messages together."""

    @property
    def dead_letter_bytes_max(self) -> int:
        """What the topic `dead-letters` takes: a refused record of twice the allowed size, and the error's headers."""
        return 2 * self.message_bytes_max + 65_536


DEFAULT_LIMITS = Limits()
LARGEST_JOB_LIMITS = Limits(
    message_bytes_max=2**31 - 1,
    job_messages_max=16_384,
    job_message_rows_max=1_000_000,
    job_labels_max=1_000,
)
"""The most that a worker's settings allow for messages of jobs: what exceeds it, no worker reads."""
