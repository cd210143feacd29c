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
    """A categorical value, a feature name, an output name."""
    headers_max: int = 64
    header_bytes_max: int = 4_096
    """Key and value of one header together."""
    artifact_bytes_max: int = 512 * 1_048_576
    artifact_part_bytes_max: int = 512 * 1_024
    manifest_bytes_max: int = 1_000_000


DEFAULT_LIMITS = Limits()
