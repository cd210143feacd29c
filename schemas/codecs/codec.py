"""The interface of a codec: a wire format of records, and its strict decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from inferd.schemas.errors import InferenceError
from inferd.schemas.limits import Limits

CONTENT_TYPE: Final = "content-type"
HOLE: Final = object()
"""Stands for a value that is not known yet; see `Codec.map_pieces`."""

Kind = Literal["array", "map", "scalar"]
Layout = Literal["row", "rows", "named_row", "named_rows"]
"""The kinds of an encoded `input_data`."""
Decode = Callable[[Any], Any]
_NUMBERS = {float, int}


def _no_stride(data: bytes) -> int:
    return 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Codec:
    """A wire format. Its encoded values nest: inside an array or a map a value has the same bytes as alone. So records
    are split, joined and completed without decoding their content."""

    name: str
    """Identifies it in stored state and in settings; never changes."""
    title: str
    """The name of the format in error messages."""
    content_type: str
    """The media type, without parameters."""
    binary: bool
    """Whether it has a type for bytes. Without one, bytes are base64 text."""
    non_finite: bool
    """Whether it has NaN and infinity."""
    separator: bytes
    """Bytes between the items of an array."""
    number_bytes_max: int
    """Maximum bytes of a float64 and a separator."""

    encode: Callable[[Any], bytes]
    """Encodes what msgspec encodes; `ValueError`, `TypeError` or `OverflowError` for what it cannot represent."""
    encode_sorted: Callable[[Any], bytes]
    """Like `encode`, with the keys of maps sorted."""
    decoder: Callable[[Any], Decode]
    """The strict decoder of a type; it raises one of `DECODE_ERRORS`. A `msgspec.Raw` is the encoded value."""
    kinds: Callable[[bytes], tuple[Kind, Kind]]
    """The kind of a value and of its first item, from the first bytes; `scalar` also for no item."""
    array: Callable[[int, bytes], bytes]
    """(number of items, the encoded items with separators) -> the encoded array."""
    claimed_length: Callable[[bytes], int | None]
    """The number of items that an encoded array claims to have; None for a format whose arrays claim no number.
    `ValueError` or `MalformedError` if it is not an array."""
    map_pieces: Callable[[Sequence[tuple[str, Any]]], list[bytes]]
    """The pieces between the holes of an encoded map: (key, value or `HOLE`), … -> one piece more than holes."""
    fault: Callable[[bytes, int, int, int], InferenceError | None]
    """(data, depth_max, depth, values_max) -> the structural fault, naming the byte, or None.

    `depth` is the number of containers around `data`. `TooLargeError` if the first `values_max` values have no fault
    and more follow."""
    nested_deeper: Callable[[bytes, int], bool]
    """Whether a container in the data is inside this many others; bytes after the first fault are ignored."""
    repeats_key: Callable[[bytes, int, Iterable[msgspec.Raw | str]], bool]
    """(data, keys, inner) -> whether a key of a decoded map appears twice, for decoders that keep the last one.

    `keys` is the number of decoded keys (0 if the data is not a map), `inner` are values of the map (encoded values and
    strings) whose own keys do not count.
    """
    claimed_keys: Callable[[bytes, Layout, Limits], Sequence[int] | None]
    """Checks the size of `input_data` before it is decoded, and returns the number of keys that each of its maps claims
    to have; None for a format whose maps claim no number. `TooLargeError`."""
    check_numbers: Callable[[bytes, Iterable[Sequence[Any] | Mapping[str, Any]]], None]
    """(`input_data`, its decoded rows): rejects numbers beyond float64; `InvalidValueError`."""
    mentions: Callable[[bytes, bytes], bool]
    """Whether a key (UTF-8) may be in the data; False is certain."""
    resembles: Callable[[bytes], bool]
    """Whether a record's first bytes look like this format: a hint in the error about a record of another one."""
    wide_integers: bool = True
    """Whether it has integers of more than 64 bits."""
    separates_numbers: bool = False
    """Whether an array of numbers is a byte, the numbers with separators, and a byte. An optimisation."""
    row_stride: Callable[[bytes], int] = _no_stride
    """Bytes of each row of an array, if all have the same length, else 0. An optimisation."""

    header: tuple[str, bytes] = field(init=False)
    """The content-type header of a record."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "header", (CONTENT_TYPE, self.content_type.encode()))

    def __str__(self) -> str:
        return self.name

    def join(self, items: Sequence[bytes]) -> bytes:
        """The encoded array of encoded items."""
        return self.array(len(items), self.separator.join(items))

    def encode_each(self, values: Sequence[Any]) -> list[bytes]:
        """The encoding of each value."""
        if self.separates_numbers and values and set(map(type, values)) <= _NUMBERS:
            return self.encode(values)[1:-1].split(self.separator)
        return list(map(self.encode, values))


class Decoders(dict[Codec, Decode]):
    """The decoders of one type, by codec, each made when it is first needed."""

    def __init__(self, type_: Any) -> None:
        super().__init__()
        self._type = type_

    def __missing__(self, codec: Codec) -> Decode:
        decoder = self[codec] = codec.decoder(self._type)
        return decoder
