"""Prediction requests as frozen values, and the grammar of ids and model references."""

from __future__ import annotations

import re
from typing import Literal, get_args

import msgspec

from inferd.schemas.errors import InvalidIdError

Scalar = float | int | bool | str | None
Output = Literal["prediction", "probabilities", "raw", "contributions", "leaves"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
DEFAULT_OUTPUTS: tuple[Output, ...] = ("prediction",)

ID_PATTERN = r"[A-Za-z0-9._:-]{1,64}"
NAME_PATTERN = r"(?!\.+(?![A-Za-z0-9._-]))[A-Za-z0-9._-]{1,64}"
"""Of models and aliases. Names of dots alone would change their meaning in a path or a URL."""
_ID = re.compile(ID_PATTERN, re.ASCII)
_REFERENCE = re.compile(
    rf"(?P<name>{NAME_PATTERN})(?::(?P<version>[1-9][0-9]{{0,8}})|@(?P<alias>{NAME_PATTERN}))?", re.ASCII
)


class ListRows(msgspec.Struct, frozen=True):
    """Rows of values in feature order; `single` where the request was one bare row."""

    rows: list[list[Scalar]]
    single: bool


class NamedRows(msgspec.Struct, frozen=True):
    """Rows of values by feature name; `single` where the request was one bare row."""

    rows: list[dict[str, Scalar]]
    single: bool


class TensorRows(msgspec.Struct, frozen=True):
    """A C-ordered tensor of shape (rows, features); `data` is checked to hold exactly that many items of `dtype`."""

    dtype: str
    shape: tuple[int, int]
    data: bytes


InputData = ListRows | NamedRows | TensorRows


class ModelReference(msgspec.Struct, frozen=True):
    """`name`, `name:version` or `name@alias`."""

    name: str
    version: int | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelReference:
        """The reference that `text` spells; `InvalidIdError` where it spells none."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise InvalidIdError(
                f"model_id {text[:80]!r}: expected name, name:version or name@alias,"
                " a name being 1 to 64 of A-Z a-z 0-9 . _ - and not dots alone"
            )
        version = match["version"]
        return cls(match["name"], int(version) if version else None, match["alias"])

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}:{self.version}"
        return self.name if self.alias is None else f"{self.name}@{self.alias}"


class PredictionRequest(msgspec.Struct, frozen=True):
    """One decoded request; `id` is None where the producer gave none (its place in the log names it then)."""

    model: ModelReference
    input_data: InputData
    outputs: tuple[Output, ...] = DEFAULT_OUTPUTS
    id: str | None = None


def check_id(text: str) -> str:
    """`text` if it is a valid id, else `InvalidIdError`."""
    if not _ID.fullmatch(text):
        raise InvalidIdError(f"id {text[:80]!r}: allowed are 1 to 64 of A-Z a-z 0-9 . _ : -")
    return text


def valid_job_id(text: str) -> str:
    """`text` if it can name a job, else `InvalidIdError`: dots alone mean another place in a URL."""
    if not check_id(text).strip("."):
        raise InvalidIdError(f"job id {text!r}: it must not be dots alone")
    return text


def default_id(partition: int, offset: int) -> str:
    """The id of a request that brought none, or whose own cannot be read."""
    return f"{partition}-{offset}"
