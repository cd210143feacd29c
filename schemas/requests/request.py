"""Prediction requests, and the grammar of ids and model references."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from inferd.schemas.errors import InvalidIdError

Scalar = float | int | bool | str | None
Output = str
"""The name of an output: one of `OUTPUTS`, or one of the model's own (`Manifest.output_names`)."""
OUTPUTS: tuple[Output, ...] = ("prediction", "probabilities", "raw", "contributions", "leaves")
"""Outputs with the same meaning for every model."""
DEFAULT_OUTPUTS: tuple[Output, ...] = ("prediction",)
OUTPUTS_MAX = 100
"""Names that a request may list."""
OUTPUT_CHARS_MAX = 256
RESERVED_NAMES = frozenset({*OUTPUTS, "row", "version", "error", "error_code", "error_message"})
"""Names that a model's own outputs cannot have: rows of results have fields of these names."""
OutputNames = Annotated[list[str], msgspec.Meta(max_length=OUTPUTS_MAX)]
"""Not yet checked."""

ID_PATTERN = r"[A-Za-z0-9._:-]{1,64}"
NAME_PATTERN = r"(?!\.+(?![A-Za-z0-9._-]))[A-Za-z0-9._-]{1,64}"
"""Names of models and aliases. Names of dots only are excluded: they have another meaning in paths and URLs."""
_ID = re.compile(ID_PATTERN, re.ASCII)
_REFERENCE = re.compile(
    rf"(?P<name>{NAME_PATTERN})(?::(?P<version>[1-9][0-9]{{0,8}})|@(?P<alias>{NAME_PATTERN}))?", re.ASCII
)


class ListRows(msgspec.Struct, frozen=True):
    """Rows of values in feature order; `single` if the request has one row that is not in a list."""

    rows: list[list[Scalar]]
    single: bool


class NamedRows(msgspec.Struct, frozen=True):
    """Rows of values by feature name; `single` if the request has one row that is not in a list."""

    rows: list[dict[str, Scalar]]
    single: bool


class TensorRows(msgspec.Struct, frozen=True):
    """A C-ordered tensor of shape (rows, features); `data` has exactly rows x features items of `dtype`."""

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
        """Parse a reference; `InvalidIdError` if `text` is not one."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise InvalidIdError(
                f"model_id {text[:80]!r}: expected name, name:version or name@alias,"
                " where a name is 1 to 64 of A-Z a-z 0-9 . _ - and not only dots"
            )
        version = match["version"]
        return cls(match["name"], int(version) if version else None, match["alias"])

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}:{self.version}"
        return self.name if self.alias is None else f"{self.name}@{self.alias}"


class PredictionRequest(msgspec.Struct, frozen=True):
    """A decoded request. `id` is None if the producer gave none; `default_id` applies then."""

    model: ModelReference
    input_data: InputData
    outputs: tuple[Output, ...] = DEFAULT_OUTPUTS
    id: str | None = None


def check_id(text: str) -> str:
    """Return `text` if it is a valid id, else raise `InvalidIdError`."""
    if not _ID.fullmatch(text):
        raise InvalidIdError(f"id {text[:80]!r}: expected 1 to 64 of A-Z a-z 0-9 . _ : -")
    return text


def check_job_id(text: str) -> str:
    """Return `text` if it is a valid job id, else raise `InvalidIdError`. Only dots would be a relative URL path."""
    if not check_id(text).strip("."):
        raise InvalidIdError(f"job id {text!r}: it must not consist of dots only")
    return text


def default_id(partition: int, offset: int) -> str:
    """The id of a request without an id, or whose id cannot be decoded."""
    return f"{partition}-{offset}"
