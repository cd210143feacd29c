"""A record to be produced."""

from __future__ import annotations

Outgoing = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]
"""Key, value and headers; aiokafka requires headers to be a list."""
