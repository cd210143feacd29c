"""Models for the tests of this folder, trained once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.unit.inference.trained_models import PandasTrained, Trained, train, train_on_frame


@pytest.fixture(scope="session")
def trained() -> Callable[[str], Trained]:
    """Gives the model of a name in `KINDS`."""
    return cache(train)


@pytest.fixture(scope="session")
def pandas_trained() -> PandasTrained:
    return train_on_frame()
