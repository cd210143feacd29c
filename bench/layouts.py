"""Layouts of requests and results, as producers write them and loops by hand read them. Does not import LightGBM."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

import msgpack
import msgspec

FEATURES: Final = 30
NAMES: Final = tuple(f"Column_{number}" for number in range(FEATURES))
"""LightGBM's own names of the features."""
Headers = tuple[tuple[str, str | bytes | None], ...]
_BY_NAME = itemgetter(*NAMES)


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout: `input_data` of a row, and the encoding of requests and results."""

    name: str
    title: str
    headers: Headers
    """Of each request."""
    input_data: Callable[[Sequence[Any]], Any]
    """Of the values of a row."""
    values: Callable[[Any], Sequence[Any]]
    """The values of a row again, from its `input_data`."""
    write: Callable[[Any], bytes]
    """Encodes a request as its producer does."""
    decode: Callable[[Any], Any]
    encode: Callable[[Any], bytes]
    """Encodes a result."""


LAYOUTS: Final = {
    layout.name: layout
    for layout in (
        Layout(
            name="list-msgpack",
            title="a list of 30 float64, msgpack, about 320 bytes",
            headers=(),
            input_data=list,
            values=lambda data: data,
            write=msgpack.packb,
            decode=msgpack.unpackb,
            encode=msgpack.packb,
        ),
        Layout(
            name="named-json",
            title="30 float64 by name, JSON as json.dumps writes it, about 1,100 bytes",
            headers=(("content-type", b"application/json"),),
            input_data=lambda row: dict(zip(NAMES, row, strict=True)),
            values=_BY_NAME,
            write=lambda request: json.dumps(request).encode(),
            decode=msgspec.json.decode,
            encode=msgspec.json.encode,
        ),
    )
}
DEFAULT: Final = "list-msgpack"
