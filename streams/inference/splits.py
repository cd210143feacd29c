"""Chooses the version of a split for each routing key: the record key, or else the request id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.models import SplitShare
from inferd.streams.inference.kernels import key_digests


def versions_of(split: Sequence[SplitShare], keys: Sequence[bytes] | Sequence[str]) -> NDArray[np.int64]:
    """The version of the share that each key falls into: int64 (keys,). A key in a str is ASCII.

    The digest of a key is a point in [0, total weight); the shares follow each other there in their order. Every worker
    computes the same point bit for bit: the operations and their order are part of the contract.
    """
    points = key_digests(keys).astype(np.float64)
    points /= 2.0**64
    points *= sum(share.weight for share in split)
    places = np.zeros(len(keys), np.intp)
    for share in split[:-1]:
        points -= share.weight
        places += points >= 0
    return np.array([share.version for share in split]).take(places)
