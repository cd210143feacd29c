"""A file or standard input as lines: gzip is decompressed, and text is decoded strictly."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from inferd.daemon.row_files.foreign import START_BYTES, describe_foreign
from inferd.schemas.codecs import BYTE_ORDER_MARK, printable
from inferd.schemas.errors import MalformedError, TooLargeError

T = TypeVar("T")
LINE_BYTES_MAX = 64 * 1_048_576
"""Maximum size of a decompressed line: it bounds memory for any file."""
GZIP = b"\x1f\x8b"
_MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
          (codecs.BOM_UTF16_BE, "utf-16"), (BYTE_ORDER_MARK, "utf-8"))  # fmt: skip


@contextmanager
def open_source(given: str, stdin: BinaryIO) -> Iterator[Any]:
    """The bytes of a file, or of standard input (`-`), decompressed if they are gzip; has `peek` and `readline`."""
    if given != "-":
        with named(given):
            file = Path(given).open("rb")  # noqa: SIM115  # errors raised while using it are not converted
        with file:
            yield _expanded(file, given)
    elif isinstance(stdin, io.BufferedReader):
        yield _expanded(stdin, "standard input")
    else:
        yield _expanded(io.BufferedReader(io.BytesIO(stdin.read())), "standard input")


def _expanded(file: io.BufferedReader, where: str) -> Any:
    start = file.peek(START_BYTES)[:START_BYTES]
    if (foreign := describe_foreign(start)) is not None:
        raise MalformedError(f"{where} is {foreign}")
    return gzip.GzipFile(fileobj=file) if start.startswith(GZIP) else file


@contextmanager
def named(where: str) -> Iterator[None]:
    """Converts exceptions raised while reading to a `MalformedError` that names the file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MalformedError(f"{where}: the gzip file is damaged or cut off: {error}") from error
    except csv.Error as error:
        raise MalformedError(f"{where}: {error}") from error
    except UnicodeError as error:
        raise MalformedError(f"{where}: {error}; give the encoding of the file with --encoding") from error
    except OSError as error:
        raise MalformedError(f"{where} cannot be read: {printable(error.strerror or str(error))}") from error


def each_named(where: str, items: Iterable[T]) -> Iterator[T]:
    """Yields `items`; converts exceptions as `named` does."""
    with named(where):
        yield from items


def text_lines(source: Any, encoding: str | None, where: str) -> Iterator[str]:
    """Lines with their ends. Without `encoding`, the byte order mark decides, or UTF-8."""
    chosen = encoding or _marked(source) or "utf-8"
    if "\n".encode(chosen).endswith(b"\n") and codecs.lookup(chosen).name not in ("utf-16-be", "utf-32-be"):
        return _decoded_lines(source, chosen, where)
    return _wide_lines(source, chosen, where)


def utf8_lines(source: Any, encoding: str | None, where: str) -> Iterator[bytes]:
    """Like `text_lines`, encoded as UTF-8; UTF-8 input is passed through."""
    chosen = encoding or _marked(source) or "utf-8"
    if codecs.lookup(chosen).name not in ("utf-8", "utf-8-sig"):
        return (line.encode() for line in text_lines(source, chosen, where))
    return _without_mark(_byte_lines(source, where))


def _marked(source: Any) -> str | None:
    start = source.peek(4)[:4]
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), None)


def _without_mark(lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield line.removeprefix(BYTE_ORDER_MARK)
        break
    yield from lines


def _byte_lines(source: Any, where: str) -> Iterator[bytes]:
    number = 0
    while line := source.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise _too_long(where, number)
        yield line


def _decoded_lines(source: Any, encoding: str, where: str) -> Iterator[str]:
    strip_mark = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    lines = _byte_lines(source, where)
    for number, line in enumerate(_without_mark(lines) if strip_mark else lines, 1):
        try:
            text = line.decode("utf-8" if strip_mark else encoding)
        except UnicodeDecodeError as error:
            raise MalformedError(
                f"{where}, line {number}: byte 0x{line[error.start]:02x} is not {encoding}; give the encoding of the"
                " file with --encoding, such as cp1252 or utf-16"
            ) from None
        if "\0" in text:
            raise MalformedError(f"{where}, line {number}: a zero byte; for UTF-16 give --encoding utf-16-le")
        if "\r" in text[:-2]:
            yield from io.StringIO(text, newline="")
        else:
            yield text


def _wide_lines(source: Any, encoding: str, where: str) -> Iterator[str]:
    """Lines in an encoding whose newline is not the single byte of `\\n`."""
    text = io.TextIOWrapper(source, encoding, newline="")
    try:
        number = 0
        while line := text.readline(LINE_BYTES_MAX + 1):
            number += 1
            if len(line) > LINE_BYTES_MAX:
                raise _too_long(where, number)
            yield line.removeprefix("\ufeff") if number == 1 else line
    finally:
        text.detach()


def _too_long(where: str, number: int) -> TooLargeError:
    return TooLargeError(f"{where}, line {number}: more than {LINE_BYTES_MAX:,} bytes; write one row per line")
