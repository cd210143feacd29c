"""The interface of a fuzz target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tests.fuzz.mutators import Shape


@dataclass(frozen=True)
class Target:
    """One decoder, or a path through several.

    `run` raises a `ModelServingError` if it rejects its input, and any other exception for a fault. If it returns a
    text, that names the outcome. `seeds` contains valid and invalid inputs.
    """

    name: str
    shape: Shape
    run: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    fresh: Callable[[Random], bytes] | None = None
    """Generates another seed."""
    weight: float = 1.0
    """Its share of the inputs relative to other targets: smaller for slow ones."""
