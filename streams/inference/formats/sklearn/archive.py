"""The zip archive of a `.skops` file: its members with size limits, and the numpy arrays in it."""

from __future__ import annotations

import io
import zipfile
import zlib
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import MalformedError, TooLargeError

SCHEMA = "schema.json"
SCHEMA_BYTES_MAX = 128 * 1_048_576
_MEMBERS_MAX = 100_000
_DIMENSIONS_MAX = 32
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


class Archive:
    """The members of a zip file. Their total size is checked before any of them is decompressed."""

    def __init__(self, content: bytes, bytes_max: int, name: str = "model file") -> None:
        """`MalformedError` if it is not a zip file, `TooLargeError` above `bytes_max` of decompressed content."""
        self._name = name
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise MalformedError(f"{name}: is not a zip file: {error}") from None
        self._bytes_max = bytes_max
        self.names = self._checked(self._zip.infolist())

    def _checked(self, members: list[zipfile.ZipInfo]) -> frozenset[str]:
        if len(members) > _MEMBERS_MAX:
            raise TooLargeError(f"{self._name}: {len(members)} members: at most {_MEMBERS_MAX} are allowed")
        if (size := sum(member.file_size for member in members)) > self._bytes_max:
            raise TooLargeError(f"{self._name}: {size} bytes decompressed: at most {self._bytes_max} are allowed")
        for member in members:
            if member.flag_bits & _ENCRYPTED or member.compress_type not in _COMPRESSIONS:
                raise MalformedError(f"{self._name}: member {member.filename[:80]!r} is neither stored nor deflated")
        names = frozenset(member.filename for member in members)
        if len(names) < len(members):
            raise MalformedError(f"{self._name}: has a member twice")
        return names

    def read(self, member: str) -> bytes:
        """The bytes of a member, with its checksum verified."""
        if member not in self.names:
            raise MalformedError(f"{self._name}: has no member {member[:80]!r}")
        try:
            return self._zip.read(member)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, NotImplementedError) as error:
            raise MalformedError(f"{self._name}: member {member[:80]!r} is damaged: {error}") from None

    def array(self, member: str) -> NDArray[Any]:
        """The array in a `.npy` member."""
        return read_array(self.read(member), f"{self._name}: member {member[:80]!r}")

    def nested(self, member: str) -> Archive:
        """The zip archive in a member."""
        return Archive(self.read(member), self._bytes_max, f"{self._name}: member {member[:80]!r}")


def read_array(content: bytes, name: str) -> NDArray[Any]:
    """Reads the bytes of a `.npy` file; checks that their number matches the header."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = _HEADERS[version]
        shape, fortran, dtype = read_header(file)
    except Exception as error:  # noqa: BLE001  # its header is Python's syntax, read by numpy and `tokenize`
        raise MalformedError(f"{name} has a damaged array header: {error}") from None
    if dtype.hasobject:
        raise MalformedError(f"{name} is an array of Python objects, which only a pickle can hold")
    if len(shape) > _DIMENSIONS_MAX or any(type(length) is not int or length < 0 for length in shape):
        raise MalformedError(f"{name} has the shape {shape!r:.80}")
    data = memoryview(content)[file.tell() :]
    if prod(shape) * dtype.itemsize != len(data):
        raise MalformedError(f"{name} has {len(data)} bytes, and claims the shape {shape!r:.80} of {dtype}")
    if not dtype.itemsize:
        return np.zeros(shape, dtype) if prod(shape) <= len(content) else _reject_empty(name)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _reject_empty(name: str) -> NDArray[Any]:
    raise MalformedError(f"{name} has more values than bytes")


_HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
