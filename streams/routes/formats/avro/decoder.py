"""Decodes the values at some places of Avro records, and skips the rest.

The schema is compiled to a tree of functions, one for each type. Each takes the bytes, a position and the list of
values, and returns the position after its type. Unlike fastavro, which is the reference in the tests, it survives
records that claim more items than their bytes can hold, and records that are nested very deep.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import TypeAlias

from inferd.schemas.errors import InferenceError, MalformedError, SchemaMismatchError, TooDeepError
from inferd.streams.routes.formats.avro.paths import Place, converted, fits, is_value, needs_conversion
from inferd.streams.routes.formats.avro.schema import (
    Array,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Type,
    Union,
    describe,
    is_empty,
)
from inferd.streams.routes.formats.format import Value

Step: TypeAlias = Callable[[bytes, int, list[Value]], int]
VARINT_BYTES_MAX = 10
NULL, DOUBLE = Primitive("null"), Primitive("double")
_FLOAT, _DOUBLE = Struct("<f"), Struct("<d")


class _BrokenError(Exception):
    """The bytes are not of the schema."""


class AvroDecoder:
    """Decodes the values at `places` of a writer's records."""

    def __init__(self, schema: Record, places: Sequence[Place]) -> None:
        wanted = _Wanted()
        for slot, place in enumerate(places):
            wanted.add(place.steps, slot, place)
        self._read = _Compiler().step(schema, wanted)
        self._empty: list[Value] = [None] * len(places)

    def decode(self, value: bytes, start: int) -> list[Value] | InferenceError:
        """The values of the record from `start` to the end of the bytes; None where one is null or missing."""
        values = self._empty.copy()
        try:
            end = self._read(value, start, values)
        except InferenceError as error:
            return error
        except RecursionError:
            return TooDeepError("record: it is nested too deep")
        except (_BrokenError, LookupError, UnicodeDecodeError, ArithmeticError, struct.error):
            end = len(value) + 1
        if end > len(value):
            return MalformedError("record: the value ends within a field, or is not of its schema")
        return values if end == len(value) else MalformedError(f"record: {len(value) - end} bytes follow its end")


class _Wanted:
    """What is wanted of a type: its own value in some slots, and what is below it."""

    def __init__(self) -> None:
        self.below: dict[str | int, _Wanted] = {}
        self.slots: list[tuple[int, Place]] = []

    def add(self, steps: Sequence[str | int], slot: int, place: Place) -> None:
        if not steps:
            self.slots.append((slot, place))
            return
        self.below.setdefault(steps[0], _Wanted()).add(steps[1:], slot, place)


class _Compiler:
    """Makes the functions of one schema. Those that only skip a named type are made once."""

    def __init__(self) -> None:
        self._skips: dict[str, Step] = {}

    def step(self, schema: Type, wanted: _Wanted | None) -> Step:
        """Reads what is wanted of a type, and skips the rest."""
        if not isinstance(schema, Union):
            return self._branch(schema, wanted)
        if wanted is not None and (slot := _slot_of_double(schema, wanted)) is not None:
            return _double_or_null(slot, schema.branches.index(NULL))
        return _union([self._branch(branch, wanted) for branch in schema.branches])

    def _branch(self, schema: Type, wanted: _Wanted | None) -> Step:
        if wanted is None or schema == NULL:
            return self._skip(schema)
        if wanted.slots:
            _, place = wanted.slots[0]
            if wanted.below or not is_value(schema) or not fits(schema, place.expected):
                return _failing(f"record: it has {describe(schema)} where a path ends")
            return _leaf(schema, wanted.slots)
        if isinstance(schema, Record):
            return _sequence([self.step(each.type, wanted.below.get(each.names[0])) for each in schema.fields])
        if isinstance(schema, Map) and not is_empty(schema.values):
            below = {str(name).encode(): self.step(schema.values, each) for name, each in wanted.below.items()}
            return _map(self.step(schema.values, None), below)
        if isinstance(schema, Array) and not is_empty(schema.items):
            indexes = {step: each for step, each in wanted.below.items() if isinstance(step, int)}
            items = {step: self.step(schema.items, each) for step, each in indexes.items()}
            return _array(self.step(schema.items, None), items)
        if isinstance(schema, Map | Array):
            return self._skip(schema)
        return _failing(f"record: it has {describe(schema)} where a path continues")

    def _skip(self, schema: Type) -> Step:
        if isinstance(schema, Union):
            return self._skip_union(schema)
        if isinstance(schema, Array):
            return _array(self._skip(schema.items), {}, empty=is_empty(schema.items))
        if isinstance(schema, Map):
            return _map(self._skip(schema.values), {})
        if isinstance(schema, Record):
            return self._skip_record(schema)
        if isinstance(schema, Enum):
            return _skip_varint
        if isinstance(schema, Fixed):
            return _skip_bytes(schema.size)
        return _SKIPS[schema.kind]

    def _skip_union(self, schema: Union) -> Step:
        sizes = [_SIZES.get(branch.kind) if isinstance(branch, Primitive) else None for branch in schema.branches]
        if None in sizes or len(sizes) > 64:
            return _union([self._skip(branch) for branch in schema.branches])
        ends = {2 * number: 1 + size for number, size in enumerate(sizes) if size is not None}
        return lambda data, at, _values: at + ends[data[at]]

    def _skip_record(self, schema: Record) -> Step:
        if schema.name not in self._skips:
            steps: list[Step] = []  # filled below: a type within itself finds the function that is made here
            self._skips[schema.name] = _sequence(steps)
            steps += [self._skip(each.type) for each in schema.fields]
        return self._skips[schema.name]


def long_at(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag integer, and the position after it."""
    byte = data[at]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at + 1
    number, shift, end = byte & 0x7F, 7, at + VARINT_BYTES_MAX
    while byte >= 0x80:
        at += 1
        if at == end:
            raise _BrokenError
        byte = data[at]
        number |= (byte & 0x7F) << shift
        shift += 7
    number &= 0xFFFF_FFFF_FFFF_FFFF
    return (number >> 1) ^ -(number & 1), at + 1


def _skip_varint(data: bytes, at: int, _values: list[Value]) -> int:
    end = at + VARINT_BYTES_MAX
    while data[at] >= 0x80:
        at += 1
        if at == end:
            raise _BrokenError
    return at + 1


def _skip_text(data: bytes, at: int, _values: list[Value]) -> int:
    size, at = long_at(data, at)
    if size < 0:
        raise _BrokenError
    return at + size


def _skip_bytes(size: int) -> Step:
    return lambda _data, at, _values: at + size


_SIZES: Mapping[str, int] = {"null": 0, "boolean": 1, "float": 4, "double": 8}
_SKIPS: Mapping[str, Step] = {
    **{kind: _skip_bytes(size) for kind, size in _SIZES.items()},
    "int": _skip_varint,
    "long": _skip_varint,
    "bytes": _skip_text,
    "string": _skip_text,
}


def _failing(message: str) -> Step:
    def fail(_data: bytes, _at: int, _values: list[Value]) -> int:
        raise SchemaMismatchError(message)

    return fail


def _sequence(steps: Sequence[Step]) -> Step:
    def read(data: bytes, at: int, values: list[Value]) -> int:
        for step in steps:
            at = step(data, at, values)
        return at

    return read


def _union(branches: Sequence[Step]) -> Step:
    of_byte = {2 * number: branch for number, branch in enumerate(branches[:64])}  # zigzag integers of one byte

    def read(data: bytes, at: int, values: list[Value]) -> int:
        branch = of_byte.get(data[at])
        if branch is not None:
            return branch(data, at + 1, values)
        number, at = long_at(data, at)
        if number < 0:
            raise _BrokenError
        return branches[number](data, at, values)

    return read


def _array(skip: Step, wanted: Mapping[int, Step], *, empty: bool = False) -> Step:
    """`empty`: its items take no bytes."""

    def read(data: bytes, at: int, values: list[Value]) -> int:
        index = 0
        while True:
            count, size, at = _block(data, at)
            if count == 0:
                return at
            if size is not None and not wanted:
                at += size
            elif not empty:
                if count > len(data) - at:
                    raise _BrokenError
                for number in range(index, index + count):
                    at = wanted.get(number, skip)(data, at, values)
            index += count

    return read


def _map(skip: Step, wanted: Mapping[bytes, Step]) -> Step:
    def read(data: bytes, at: int, values: list[Value]) -> int:
        while True:
            count, size, at = _block(data, at)
            if count == 0:
                return at
            if size is not None and not wanted:
                at += size
                continue
            if count > len(data) - at:
                raise _BrokenError
            for _ in range(count):
                size, at = long_at(data, at)
                if size < 0:
                    raise _BrokenError
                key, at = data[at : at + size], at + size
                at = wanted.get(key, skip)(data, at, values)

    return read


def _block(data: bytes, at: int) -> tuple[int, int | None, int]:
    """The number of items of a block, its size if it is given, and the position after these."""
    count, at = long_at(data, at)
    if count >= 0:
        return count, None, at
    size, at = long_at(data, at)
    if size < 0:
        raise _BrokenError
    return -count, size, at


def _leaf(schema: Type, slots: Sequence[tuple[int, Place]]) -> Step:
    """Reads a value into slots."""
    if len(slots) == 1 and not needs_conversion(slots[0][1].expected):
        slot = slots[0][0]
        if schema == DOUBLE:
            return _double(slot)
    read = _reader(schema)

    def store(data: bytes, at: int, values: list[Value]) -> int:
        value, at = read(data, at)
        for slot, place in slots:
            values[slot] = converted(value, place.expected) if place.expected is not None else value
        return at

    return store


def _slot_of_double(schema: Union, wanted: _Wanted) -> int | None:
    """The slot of a value that is a double or null, the most frequent type; None for any other."""
    if len(schema.branches) != 2 or {*schema.branches} != {NULL, DOUBLE} or wanted.below or len(wanted.slots) != 1:
        return None
    slot, place = wanted.slots[0]
    return slot if place.expected is None or {*_branches_of(place.expected)} == {NULL, DOUBLE} else None


def _branches_of(schema: Type) -> Sequence[Type]:
    return schema.branches if isinstance(schema, Union) else (schema,)


def _double_or_null(slot: int, null: int) -> Step:
    """A union of both; `null` is the number of its branch."""
    unpack, is_null, is_double = _DOUBLE.unpack_from, 2 * null, 2 - 2 * null

    def store(data: bytes, at: int, values: list[Value]) -> int:
        branch = data[at]
        if branch == is_double:
            values[slot] = unpack(data, at + 1)[0]
            return at + 9
        if branch == is_null:
            return at + 1
        raise _BrokenError

    return store


def _double(slot: int) -> Step:
    unpack = _DOUBLE.unpack_from

    def store(data: bytes, at: int, values: list[Value]) -> int:
        values[slot] = unpack(data, at)[0]
        return at + 8

    return store


_Read: TypeAlias = Callable[[bytes, int], tuple[Value, int]]


def _reader(schema: Type) -> _Read:
    if isinstance(schema, Enum):
        return _symbol(schema.symbols)
    if isinstance(schema, Fixed):
        size, number = schema.size, _uuid if schema.logical == "uuid" else _decimal(schema.scale)
        return lambda data, at: (number(_taken(data, at, size)), at + size)
    assert isinstance(schema, Primitive)
    if schema.logical == "decimal":
        return _decimal_bytes(schema.scale)
    return _READERS[schema.kind]


def _taken(data: bytes, at: int, size: int) -> bytes:
    if not 0 <= size <= len(data) - at:
        raise _BrokenError
    return data[at : at + size]


def _text(data: bytes, at: int) -> tuple[str, int]:
    size, at = long_at(data, at)
    return _taken(data, at, size).decode(), at + size


def _boolean(data: bytes, at: int) -> tuple[bool, int]:
    if data[at] > 1:
        raise _BrokenError
    return data[at] == 1, at + 1


def _int(data: bytes, at: int) -> tuple[int, int]:
    value, at = long_at(data, at)
    if not -(1 << 31) <= value < 1 << 31:
        raise _BrokenError
    return value, at


_READERS: Mapping[str, _Read] = {
    "boolean": _boolean,
    "int": _int,
    "long": long_at,
    "float": lambda data, at: (_FLOAT.unpack_from(data, at)[0], at + 4),
    "double": lambda data, at: (_DOUBLE.unpack_from(data, at)[0], at + 8),
    "string": _text,
}


def _symbol(symbols: Sequence[str]) -> _Read:
    def read(data: bytes, at: int) -> tuple[str, int]:
        number, at = long_at(data, at)
        if number < 0:
            raise _BrokenError
        return symbols[number], at

    return read


def _decimal_bytes(scale: int) -> _Read:
    number = _decimal(scale)

    def read(data: bytes, at: int) -> tuple[float, int]:
        size, at = long_at(data, at)
        return number(_taken(data, at, size)), at + size

    return read


def _decimal(scale: int) -> Callable[[bytes], float]:
    # Division of whole numbers is rounded correctly: the float64 next to the decimal.
    power = 10**scale
    return lambda digits: int.from_bytes(digits, "big", signed=True) / power


def _uuid(data: bytes) -> str:
    text = data.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
