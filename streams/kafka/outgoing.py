"""A record that is to be produced."""

from __future__ import annotations

Outgoing = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]
"""Key, value and headers; aiokafka takes headers as a list alone."""
