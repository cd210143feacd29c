"""Skips the tests of the kernels if they are not built."""

from __future__ import annotations

import pytest

from inferd.streams.inference import kernels_fault


@pytest.fixture
def built() -> None:
    if (fault := kernels_fault()) is not None:
        pytest.skip(f"compiled kernels: {fault}")
