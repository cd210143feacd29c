"""What a package needs to add a model format (`docs/customise.md`)."""

from inferd.schemas.errors import InternalError, InvalidValueError, MalformedError, TooLargeError
from inferd.schemas.limits import Limits
from inferd.schemas.requests import Output
from inferd.streams.inference import (
    Arrays,
    FileFeature,
    Inputs,
    Matrix,
    ModelFile,
    ModelFormat,
    ModelRuntime,
    Table,
    label_codes,
)

__all__ = [
    "Arrays",
    "FileFeature",
    "Inputs",
    "InternalError",
    "InvalidValueError",
    "Limits",
    "MalformedError",
    "Matrix",
    "ModelFile",
    "ModelFormat",
    "ModelRuntime",
    "Output",
    "Table",
    "TooLargeError",
    "label_codes",
]
