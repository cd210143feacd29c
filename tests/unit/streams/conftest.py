"""Fixtures for the tests of streams; models are trained once per session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.fixtures.models import followed
from tests.unit.streams.inference.trained_models import PandasTrained, Trained, train, train_on_frame

__all__ = ["followed"]


@pytest.fixture(scope="session")
def trained() -> Callable[[str], Trained]:
    """Returns the model with a name in `KINDS`."""
    return cache(train)


@pytest.fixture(scope="session")
def pandas_trained() -> PandasTrained:
    return train_on_frame()
