"""What can be fuzzed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tests.fuzz.mutators import Shape


@dataclass(frozen=True)
class Target:
    """One decoder, or one way through several.

    `run` raises a `ModelServingError` where it refuses its input, and anything else where something is wrong; what it
    returns names the outcome if it is a text. Of `seeds` some are good and some are bad.
    """

    name: str
    shape: Shape
    run: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    fresh: Callable[[Random], bytes] | None = None
    """Makes up another seed."""
    weight: float = 1.0
    """Its share of the inputs, against others: less for what is slow."""
