"""The batch kernel beside the reader in Python, its twin."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inferd.streams.inference import BatchKernel, library
from tests.fuzz import batch_kernel
from tests.fuzz.tree_kernel import Guarded


class Mistaken(BatchKernel):
    """A kernel that moves one column of the last record by one."""

    column = ""

    def scan_into(self, columns: NDArray[np.void], *arguments: Any) -> bool:
        read = super().scan_into(columns, *arguments)
        if read:
            columns[self.column][-1] += 1
        return read


@pytest.mark.usefixtures("built")
def test_the_kernel_equals_the_reader_without_access_out_of_bounds() -> None:
    assert batch_kernel.fuzz_batch_kernel(60, seed=1, rounds=2_000).startswith("batch kernel: ")


@pytest.mark.parametrize("column", ["offset", "timestamp", "key_at", "key_length", "value_at", "value_length"])
@pytest.mark.usefixtures("built")
def test_seeded_mistakes_are_found(column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mistaken, "column", column)
    with pytest.raises(AssertionError):
        compare_often(Mistaken(library()))


def compare_often(kernel: BatchKernel) -> None:
    rng, guarded = random.Random(1), Guarded()
    try:
        for _ in range(200):
            batch_kernel.compare_once(rng, guarded, kernel)
    finally:
        guarded.release()
