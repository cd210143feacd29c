"""Fixtures of the streams' tests."""

from __future__ import annotations

from tests.fixtures.models import followed

__all__ = ["followed"]
