"""Digests of routing keys, which choose the versions of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.kernels.compiled import UnavailableError, library

DIGEST_BYTES = 8


def key_digests(keys: Sequence[bytes] | Sequence[str]) -> NDArray[np.uint64]:
    """The BLAKE2b digest of 8 bytes of each key, as a big-endian integer: uint64 (keys,). A str has ASCII alone."""
    try:
        kernels = library()
    except UnavailableError:
        joined = b"".join([hashlib.blake2b(_bytes(key), digest_size=DIGEST_BYTES).digest() for key in keys])
        return np.frombuffer(joined, ">u8").astype(np.uint64)
    content = "".join(keys).encode() if isinstance(keys[0], str) else b"".join(keys)  # type: ignore[arg-type]
    ends = np.cumsum(np.fromiter(map(len, keys), np.int64, len(keys)))
    digests = np.empty(len(keys), np.uint64)
    kernels.hash_keys(content, ends.ctypes.data, len(keys), digests.ctypes.data, kernels.version)
    return digests


def _bytes(key: bytes | str) -> bytes:
    return key.encode() if isinstance(key, str) else key
