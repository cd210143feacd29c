"""The JSON or UBJSON document of an XGBoost model, with typed access to its parts. Each error names the part."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import MalformedError
from inferd.streams.inference.formats.xgboost.ubjson import decode_ubjson

_JSON_BEGINS = re.compile(rb"\s*\{\s*[\"}]")
_FIRST_KEY = re.compile(rb"\s*\{(?:\s*\"|L\0{7}.)(?P<key>learner|version|Config|Model)[\"{\[S#]", re.DOTALL)
_SPECIAL_NUMBER = re.compile(rb"[:,\[]\s*-?(?:NaN|Infinity)")
_NATURAL = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)

Ints = NDArray[np.int64]


def first_key(content: bytes) -> bytes | None:
    """The first key of an XGBoost document, read from its first bytes; None for other content."""
    match = _FIRST_KEY.match(content)
    return match["key"] if match else None


def decode(content: bytes) -> Part:
    """The whole document; `MalformedError` if it is damaged. The trees of a JSON document are decoded one by one."""
    document = _decode_json(content) if _JSON_BEGINS.match(content) else decode_ubjson(content)
    return Part(document, "")


def _decode_json(content: bytes) -> Any:
    try:
        if _SPECIAL_NUMBER.search(content):
            return json.loads(content)
        return msgspec.json.decode(content)
    except RecursionError:
        raise MalformedError("model file: JSON that is nested too deep") from None
    except (ValueError, msgspec.DecodeError) as error:
        raise MalformedError(f"model file: not JSON: {error}") from None


class Part:
    """A value in the document, and its path."""

    def __init__(self, value: Any, where: str) -> None:
        self.value = value
        self.where = where

    def fail(self, what: str) -> NoReturn:
        raise MalformedError(f"model file: {self.where or 'the document'} {what}")

    def has(self, name: str) -> bool:
        """Whether this is an object with the key `name`."""
        return isinstance(self.value, Mapping) and name in self.value

    def __getitem__(self, name: str) -> Part:
        if not self.has(name):
            self.fail(f"has no {name}")
        return Part(self.value[name], f"{self.where}.{name}".lstrip("."))

    def items(self) -> list[Part]:
        """The parts of an array."""
        if not isinstance(self.value, list | np.ndarray):
            self.fail("is not an array")
        return [Part(value, f"{self.where}[{place}]") for place, value in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            self.fail("is not text")
        return str(self.value)

    def texts(self) -> tuple[str, ...]:
        return tuple(part.text() for part in self.items())

    def natural(self) -> int:
        """A non-negative integer, which XGBoost writes as text."""
        value = self.value
        if isinstance(value, str) and _NATURAL.fullmatch(value):
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        return self.fail(f"is {str(value)[:20]!r}: expected a whole number")

    def ints(self) -> Ints:
        """An array of integers or booleans."""
        values = self._numbers()
        if values.dtype.kind not in "iub" and len(values):
            self.fail("has numbers that are not integers")
        return values.astype(np.int64)

    def floats(self) -> NDArray[np.float64]:
        """An array of numbers."""
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
            return self._numbers().astype(np.float64)

    def numbers(self) -> list[int | float]:
        """An array of numbers, as integers or floats as in the document."""
        values: list[int | float] = self._numbers().tolist()
        return values

    def _numbers(self) -> NDArray[Any]:
        if not isinstance(self.value, list | np.ndarray):
            self.fail("is not an array")
        try:
            values = np.asarray(self.value)
        except (ValueError, OverflowError):
            self.fail("is not an array of numbers")
        if values.ndim != 1 or (len(values) and values.dtype.kind not in "iubf"):
            self.fail("is not an array of numbers")
        return values
