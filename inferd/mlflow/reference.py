"""The URIs by which MLflow names models."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from inferd.schemas.errors import InvalidIdError

_EXPECTED = "expected models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/PATH"
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>[1-9][0-9]*)", re.ASCII)
_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)")
_LOGGED = re.compile(r"models:/(?P<model>m-[0-9a-f]+)", re.ASCII)
_RUN = re.compile(r"runs:/(?P<run>[0-9A-Za-z]+)/(?P<path>.*[^/])/*", re.ASCII)


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version of a registered model."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class RegisteredAlias:
    """An alias of a registered model."""

    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model of MLflow 3, by its id."""

    model: str


@dataclass(frozen=True, slots=True)
class RunModel:
    """A model that a run logged under a path or a name."""

    run: str
    path: str


Reference = RegisteredVersion | RegisteredAlias | LoggedModel | RunModel


def is_mlflow_uri(text: str) -> bool:
    """Whether `text` names an MLflow model rather than a file."""
    return text.startswith(("models:/", "runs:/"))


def parse_reference(uri: str) -> Reference:
    """Parses a URI; `InvalidIdError` if it has none of the known forms."""
    text = unquote(uri)
    if match := _VERSION.fullmatch(text):
        return RegisteredVersion(match["name"], int(match["version"]))
    if match := _ALIAS.fullmatch(text):
        return RegisteredAlias(match["name"], match["alias"])
    if match := _LOGGED.fullmatch(text):
        return LoggedModel(match["model"])
    if match := _RUN.fullmatch(text):
        return RunModel(match["run"], match["path"])
    raise InvalidIdError(f"{uri[:200]!r}: {_EXPECTED}. Stages are not supported: MLflow replaced them by aliases")
