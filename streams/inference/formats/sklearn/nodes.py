"""The node tree in the `schema.json` of a `.skops` file: checked, and read as plain values.

Each node has a kind (`__loader__`), a type (`__module__`, `__class__`), and content. skops walks the tree recursively
and imports the types, so depth and types are checked first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from inferd.schemas.errors import MalformedError, TooDeepError, TooLargeError
from inferd.schemas.limits import Limits
from inferd.streams.inference.formats.sklearn.archive import SCHEMA, SCHEMA_BYTES_MAX, Archive
from inferd.streams.inference.formats.sklearn.types import is_allowed

Node = dict[str, Any]
DEPTH_MAX = 300
"""Containers of the JSON within each other: two for each node. skops recurses over them."""
_LOADER = "__loader__"


@dataclass(frozen=True, slots=True)
class Object:
    """An object of a class, with its attributes."""

    name: str
    """Its class, without the module."""
    module: str
    attributes: Mapping[str, Node]

    def get(self, name: str) -> Node | None:
        """The node of an attribute; None if there is none."""
        return self.attributes.get(name)


def read_schema(archive: Archive, limits: Limits) -> tuple[Node, frozenset[str]]:
    """The root node, and the full names of all types in the tree.

    `MalformedError`, `TooDeepError` or `TooLargeError` say what is wrong, and name a type that is not allowed.
    """
    content = archive.read(SCHEMA)
    if len(content) > SCHEMA_BYTES_MAX:
        raise TooLargeError(f"model file: {SCHEMA} has {len(content)} bytes: at most {SCHEMA_BYTES_MAX} are allowed")
    try:
        root = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise MalformedError(f"model file: {SCHEMA} is not JSON: {error}") from None
    if not isinstance(root, dict) or type(root.get("protocol")) is not int or _LOADER not in root:
        raise MalformedError(f"model file: {SCHEMA} is not that of skops (save a model with skops.io.dump)")
    return root, frozenset(_checked_types(root, limits.types_allowed))


def _checked_types(root: Node, more: tuple[str, ...]) -> Iterator[str]:
    waiting: list[tuple[Any, int]] = [(root, 1)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH_MAX:
            raise TooDeepError(f"model file: {SCHEMA} is nested deeper than {DEPTH_MAX} levels")
        if isinstance(value, dict):
            if _LOADER in value and (named := _check_node(value)) not in seen:
                seen.add(named)
                yield _allowed(*named, more)
            waiting += [(each, depth + 1) for each in value.values() if isinstance(each, dict | list)]
        else:
            waiting += [(each, depth + 1) for each in value if isinstance(each, dict | list)]


def _check_node(node: Node) -> tuple[str, str]:
    """The kind of a node and its type."""
    loader, module, name = node[_LOADER], node.get("__module__"), node.get("__class__")
    if not (isinstance(loader, str) and isinstance(module, str) and isinstance(name, str)):
        raise MalformedError(f"model file: {SCHEMA} has a node without a type")
    if loader == "JsonNode":
        # The type is irrelevant: the value is JSON.
        return loader, "builtins.str"
    return loader, f"{module}.{name}"


def _allowed(loader: str, name: str, more: tuple[str, ...]) -> str:
    if loader in ("JsonNode", "CachedNode") or is_allowed(loader, name, more):
        return name
    raise MalformedError(
        f"model file: names {name[:120]!r} ({loader[:40]}), which is not a type of numpy, scipy or scikit-learn that "
        "models need: train without it, or allow it by INFERD_MODEL_TYPES_ALLOWED if you trust its code"
    )


class Reader:
    """Reads nodes as plain values. The result is None for unexpected kinds: whether they are valid is left to the
    library."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def value(self, node: Node | None) -> Any:
        """str, int, float, bool, None, or a list of nodes; the name of a type or function; an array; or an `Object`."""
        match None if node is None else node[_LOADER]:
            case "JsonNode":
                return _json(node["content"])  # type: ignore[index]
            case "ListNode" | "TupleNode" | "SetNode":
                return [each for each in node["content"] if isinstance(each, dict)]  # type: ignore[index]
            case "NdArrayNode":
                return self._array(node)  # type: ignore[arg-type]
            case "ObjectNode":
                return self.object(node)
            case "TypeNode" | "FunctionNode":
                return f"{node['__module__']}.{node['__class__']}"  # type: ignore[index]
        return None

    def object(self, node: Node | None) -> Object | None:
        """The object of a node; None if it is not an object."""
        if node is None or node[_LOADER] != "ObjectNode":
            return None
        return Object(node["__class__"], node["__module__"], self.mapping(node.get("content")))

    def mapping(self, node: Node | None) -> Mapping[str, Node]:
        """The nodes of a dictionary by key; empty if it is not a dictionary."""
        if node is None or node[_LOADER] != "DictNode" or not isinstance(node["content"], dict):
            return {}
        return {key: each for key, each in node["content"].items() if isinstance(each, dict) and _LOADER in each}

    def values(self, node: Node | None) -> list[Any]:
        """The values of a list or a one-dimensional array; empty if it is neither."""
        found = self.value(node)
        if isinstance(found, np.ndarray):
            return list(found.tolist()) if found.ndim == 1 else []
        return [self.value(each) for each in found] if isinstance(found, list) else []

    def length(self, node: Node | None) -> int:
        """The length of a list; 0 if it is not a list."""
        found = self.value(node)
        return len(found) if isinstance(found, list) else 0

    def _array(self, node: Node) -> Any:
        if node.get("type") == "numpy":
            return self._archive.array(str(node.get("file")))
        content = node.get("content")
        if not isinstance(content, list):
            return None
        values = np.empty(len(content), dtype=object)
        for place, each in enumerate(content):
            values[place] = self.value(each) if isinstance(each, dict) and _LOADER in each else None
        return values


def _json(content: Any) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, TypeError, RecursionError, ValueError):
        # Python's JSON also has NaN and infinities.
        return {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}.get(str(content))
