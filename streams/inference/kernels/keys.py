"""Digests of routing keys, which choose the versions of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.kernels.compiled import UnavailableError, library
from inferd.streams.inference.spans import AsciiTexts, Spans

DIGEST_BYTES = 8
Keys = Sequence[bytes] | Sequence[str]
"""A str has ASCII alone. Spans have no nulls."""


def key_digests(keys: Keys) -> NDArray[np.uint64]:
    """The BLAKE2b digest of 8 bytes of each key, as a big-endian integer: uint64 (keys,)."""
    try:
        kernels = library()
    except UnavailableError:
        joined = b"".join([hashlib.blake2b(_bytes(key), digest_size=DIGEST_BYTES).digest() for key in keys])
        return np.frombuffer(joined, ">u8").astype(np.uint64)
    spans, digests = _spans(keys), np.empty(len(keys), np.uint64)
    if len(keys) and not (spans.starts.min() >= 0 and (spans.ends >= spans.starts).all()):
        raise ValueError("keys: spans without nulls are expected")
    if len(keys) and spans.ends.max() > len(spans.content):
        raise ValueError("keys outside of their content")
    kernels.hash_keys(
        spans.content, len(spans.content), spans.starts.ctypes.data, spans.ends.ctypes.data, len(keys),
        digests.ctypes.data, kernels.version,
    )  # fmt: skip
    return digests


def _spans(keys: Keys) -> Spans:
    if isinstance(keys, AsciiTexts):
        return keys.spans
    return Spans.of([key.encode() for key in keys] if len(keys) and isinstance(keys[0], str) else keys)  # type: ignore[union-attr,arg-type]


def _bytes(key: bytes | str) -> bytes:
    return key.encode() if isinstance(key, str) else key
