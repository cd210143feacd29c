"""Reads rows from records of any shape with the compiled kernel: the values at paths, in JSON or MessagePack."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from inferd.streams.inference.kernels.compiled import Library
from inferd.streams.inference.kernels.rows import CompiledSchema, Entry, MatrixKernel, RowSchema, plain_text

_NAME = 3
_ROOT = 0
_STEPS_MAX = 64


class RecordKernel(MatrixKernel):
    """Reads the features of one model at paths of records."""

    def __init__(
        self, library: Library, schema: RowSchema, paths: Sequence[Sequence[str]], rejected: str | None
    ) -> None:
        """`paths`: the names on the way to each feature of the schema. A record with the field `rejected` is not read.

        `ValueError` if the paths are not those of a tree, or have names that JSON escapes.
        """
        if len(paths) != len(schema.names) or any(feature not in range(len(paths)) for feature in schema.categories):
            raise ValueError("the features of the schema disagree")
        names = _names(paths, rejected)
        nodes = len({name.owner for name in names})
        super().__init__(library.read_records, len(paths), CompiledSchema(library, schema, names), len(names), nodes)


def _names(paths: Sequence[Sequence[str]], rejected: str | None) -> list[Entry]:
    """The names of the tree of paths, as records.c wants them; `ValueError` if there is none."""
    numbers = count(_ROOT + 1)
    nodes: dict[tuple[str, ...], int] = {(): _ROOT}
    targets: dict[tuple[str, ...], float] = {}
    for feature, path in enumerate(paths):
        steps = tuple(path)
        if not 0 < len(steps) <= _STEPS_MAX or steps in targets or steps in nodes:
            raise ValueError("two features have the same path, or one is on the path of the other")
        for length in range(1, len(steps)):
            node = steps[:length]
            if node not in nodes:
                if node in targets:
                    raise ValueError("a feature is on the path of another one")
                nodes[node] = next(numbers)
                targets[node] = -nodes[node]
        targets[steps] = feature
    if rejected is not None:
        if (rejected,) in targets:
            raise ValueError("the rejected field is on the path of a feature")
        targets[rejected,] = len(paths)
    names = [Entry(-1 - nodes[steps[:-1]], _NAME, plain_text(steps[-1]), code) for steps, code in targets.items()]
    if any(name.content is None for name in names):
        raise ValueError("a name has characters that JSON escapes")
    return names
