"""Parses the sections after the trees of a LightGBM text model: importances, training parameters, pandas categories."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from inferd.schemas.errors import MalformedError
from inferd.streams.inference.features import Values

_IMPORTANCE = re.compile(r".+=[0-9]+", re.DOTALL)
_IMPORTANCES = ("feature_importances:", "feature importances:")
_PARAMETER = re.compile(r"\[(?P<name>[a-z_0-9]+): (?P<value>.*)\]")
_COLUMNS = re.compile(r"[0-9]{1,9}(?:,[0-9]{1,9})*")
_CATEGORIES = "pandas_categorical:"
_decode_categories = msgspec.json.Decoder(list[list[str | int | float | bool]] | None).decode


@dataclass(frozen=True, slots=True)
class Tail:
    """`pandas_categorical`: the values of each pandas category column, in feature order."""

    pandas_categorical: tuple[Values, ...]
    categorical_columns: frozenset[int]
    """Columns listed in the parameter `categorical_feature`."""
    linear: bool


def read_tail(content: bytes, start: int) -> Tail:
    """Parses the part of a model file after its trees, which end at `start`. Raises `MalformedError`."""
    lines = _lines(content, start)
    sections: dict[str, list[str]] = {}
    while lines:
        title = lines.pop(0)
        if title in sections:
            raise MalformedError(f"model file: section {title!r} is repeated")
        sections[title] = _section(title, lines)
    parameters = _parameters(sections.get("parameters:", []))
    if (linear := parameters.get("linear_tree", "0")) not in ("0", "1"):
        raise MalformedError(f"model file: parameter linear_tree is {linear[:20]!r}: expected 0 or 1")
    return Tail(
        _categories(sections.get(_CATEGORIES, ["null"])[0]),
        _columns(parameters.get("categorical_feature", "")),
        linear == "1",
    )


def _lines(content: bytes, start: int) -> list[str]:
    try:
        lines = [line for line in content[start:].decode("utf-8").split("\n") if line]
    except UnicodeDecodeError as error:
        raise MalformedError(f"model file: not UTF-8 at byte {start + error.start}") from None
    # Versions before 2.2 wrote the importances right after the trees, and no end of the parameters.
    if lines and lines[0] in _IMPORTANCES:
        lines = _with_end_of_parameters(lines)
    elif lines[:1] == ["end of trees"]:
        lines = lines[1:]
    else:
        raise MalformedError("model file: 'end of trees' does not follow the last tree (is the file cut off?)")
    # Title and value are on the same line: split them.
    if lines and lines[-1].startswith(_CATEGORIES):
        lines[-1:] = [_CATEGORIES, lines[-1].removeprefix(_CATEGORIES)]
    return lines


def _with_end_of_parameters(lines: list[str]) -> list[str]:
    if "parameters:" not in lines or "end of parameters" in lines:
        return lines
    end = lines.index("parameters:") + 1
    while end < len(lines) and _PARAMETER.fullmatch(lines[end]):
        end += 1
    return [*lines[:end], "end of parameters", *lines[end:]]


def _section(title: str, lines: list[str]) -> list[str]:
    """Removes the lines of the section `title` from the front of `lines`, and returns them."""
    if title in _IMPORTANCES:
        count = 0
        while count < len(lines) and _IMPORTANCE.fullmatch(lines[count]):
            count += 1
        return _take(lines, count)
    if title in ("parameters:", "parser:"):
        end = f"end of {title[:-1]}"
        if end not in lines:
            raise MalformedError(f"model file: {end!r} is missing (is the file cut off?)")
        return _take(lines, lines.index(end) + 1)[:-1]
    if title == _CATEGORIES:
        return _take(lines, 1)
    raise MalformedError(f"model file: line {title[:40]!r} after the trees is unknown")


def _take(lines: list[str], count: int) -> list[str]:
    taken = lines[:count]
    del lines[:count]
    return taken


def _parameters(lines: list[str]) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for line in lines:
        match = _PARAMETER.fullmatch(line)
        if match is None or match["name"] in parameters:
            raise MalformedError(f"model file: parameter line {line[:40]!r} is not [name: value], or is repeated")
        parameters[match["name"]] = match["value"]
    return parameters


def _columns(value: str) -> frozenset[int]:
    """Column numbers. Names, which LightGBM's command line also accepts, are ignored: the splits identify such
    columns."""
    return frozenset(map(int, value.split(","))) if _COLUMNS.fullmatch(value) else frozenset()


def _categories(text: str) -> tuple[Values, ...]:
    try:
        lists = _decode_categories(text.encode())
    except msgspec.DecodeError as error:
        raise MalformedError(f"model file: pandas_categorical is not lists of categories: {error}") from None
    return tuple(map(tuple, lists or []))
