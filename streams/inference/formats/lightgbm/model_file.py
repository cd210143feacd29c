"""Reads and checks LightGBM text models without the library.

On a damaged file the library writes out of bounds, aborts, or never returns. So every count, index and shape that it
relies on is checked here first; it can load and traverse any file that passes. The format is that of
`SaveModelToString` in LightGBM's `gbdt_model_text.cpp` and `Tree::ToString` in `tree.cpp`: a header, one block per
tree, and a tail.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from inferd.schemas.errors import MalformedError, TooLargeError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.streams.inference.features import CategoryLists, FileFeature
from inferd.streams.inference.formats.lightgbm import objectives
from inferd.streams.inference.formats.lightgbm.model_tail import Tail, read_tail
from inferd.streams.inference.formats.lightgbm.model_text import plain_text
from inferd.streams.inference.formats.lightgbm.model_trees import Splits, check_trees, parse_tree
from inferd.streams.inference.kernels import Trees
from inferd.streams.inference.model_format import ModelFile

NAME = "lightgbm"
BEGINS = "the line 'tree' of a LightGBM text model (save one with Booster.save_model)"
_FIRST_LINE, _SNIFFED_BYTES = b"tree\n", 16
_VERSIONS = ("v2", "v3", "v4")
_REQUIRED = ("num_class", "label_index", "max_feature_idx", "feature_names", "feature_infos")
_OPTIONAL = (
    "version", "num_tree_per_iteration", "objective", "average_output", "boost_from_average", "monotone_constraints",
    "tree_sizes",
)  # fmt: skip
_FLAGS = ("average_output", "boost_from_average")
"""Header lines without a value."""
_NATURAL = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)
_OBJECTIVE_PARAMETER = re.compile(r"[a-z_]+(?::-?[0-9.]+(?:e[+-]?[0-9]+)?)?", re.ASCII)
_TREE_START = re.compile(rb"\nTree=")
_TAIL_START = re.compile(rb"\n(?:end of trees|feature[ _]importances:)\n")
_TREES_TEXT_MAX = 4 * 1_048_576


@dataclass(frozen=True, kw_only=True)
class LightGBMFile(ModelFile):
    """A model file that passed `read_model_file`."""

    tree_count: int
    linear: bool
    """Whether any tree has linear leaves: such models have no contributions."""
    objective_parameters: tuple[str, ...]
    """What follows the objective's name, such as `sigmoid:1`."""
    average_output: bool
    """Whether trees are averaged (random forests), not added."""
    trees: tuple[Trees, ...] = field(compare=False, repr=False)
    """All trees, in parts."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of features, of outputs per row, and of trees."""
        return len(self.feature_names), self.outputs_per_row, self.tree_count


def sniff(content: bytes) -> bool:
    """Whether `content` is a LightGBM text model, from its first line."""
    return plain_text(content[:_SNIFFED_BYTES]).startswith(_FIRST_LINE)


def read_model_file(content: bytes, limits: Limits = DEFAULT_LIMITS) -> LightGBMFile:
    """Reads and checks a LightGBM text model; `MalformedError` or `TooLargeError` say what is wrong and where."""
    text = plain_text(content)
    first_tree = _first_tree(text)
    header = _Header.parse(text[:first_tree], limits)
    ends = _tree_ends(text, first_tree, header.tree_sizes)
    if (len(ends) - 1) % header.outputs_per_row:
        raise MalformedError(
            f"model file: {len(ends) - 1} trees are not a multiple of {header.outputs_per_row} a round"
        )
    splits, trees = _check_all_trees(text, ends, header)
    tail = read_tail(text, ends[-1])
    codes = splits.by_category | _columns(tail, header.feature_names)
    names = header.feature_names
    return LightGBMFile(
        runtime=NAME,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        objective=header.objective,
        outputs_per_row=header.outputs_per_row,
        features=tuple(_feature(name, is_code=column in codes) for column, name in enumerate(names)),
        tree_count=len(ends) - 1,
        linear=splits.linear or tail.linear,
        objective_parameters=header.objective_parameters,
        average_output=header.average_output,
        trees=trees,
        category_lists=CategoryLists(tail.pandas_categorical, header.feature_infos, codes, splits.at_fractions),
    )


def _feature(name: str, *, is_code: bool) -> FileFeature:
    """A column. The model treats it as numeric; a manifest may override that."""
    return FileFeature(name=name, dtype="int64" if is_code else "float64", fixed=False, coded=True)


def _first_tree(content: bytes) -> int:
    if not content.startswith(_FIRST_LINE):
        raise MalformedError(f"model file: does not begin with {BEGINS}; pickles are not accepted")
    # The library takes the file as a C string, and would stop reading at a zero byte.
    if b"\0" in content:
        raise MalformedError(f"model file: NUL byte at {content.index(0)}")
    place = content.find(b"\nTree=")
    if place < 0:
        raise MalformedError("model file: has no trees")
    return place + 1


def _tree_ends(text: bytes, first_tree: int, sizes: tuple[int, ...] | None) -> list[int]:
    """The position of the first tree and the end of the last one. Versions before 2.0.12 wrote no sizes."""
    if sizes is not None:
        return list(accumulate(sizes, initial=first_tree))
    starts = [match.start() + 1 for match in _TREE_START.finditer(text, first_tree - 1)]
    end = _TAIL_START.search(text, starts[-1])
    return [*starts, len(text) if end is None else end.start() + 1]


def _check_all_trees(content: bytes, ends: list[int], header: _Header) -> tuple[Splits, tuple[Trees, ...]]:
    """Checks all trees, a few MB of text at a time; returns how they split on columns, and their arrays."""
    splits, parts = Splits(), list[Trees]()
    first = 0
    while first < len(ends) - 1:
        last = first + 1
        while last < len(ends) - 1 and ends[last + 1] - ends[first] <= _TREES_TEXT_MAX:
            last += 1
        trees = [parse_tree(content[ends[i] : ends[i + 1]], i) for i in range(first, last)]
        of_some, part = check_trees(trees, first, len(header.feature_names))
        splits |= of_some
        parts.append(part)
        first = last
    return splits, tuple(parts)


@dataclass(frozen=True, slots=True)
class _Header:
    objective: str | None
    objective_parameters: tuple[str, ...]
    average_output: bool
    outputs_per_row: int
    feature_names: tuple[str, ...]
    feature_infos: tuple[str, ...]
    tree_sizes: tuple[int, ...] | None

    @classmethod
    def parse(cls, header: bytes, limits: Limits) -> _Header:
        fields = _header_fields(header)
        features = _natural(fields, "max_feature_idx") + 1
        if features > limits.features_max:
            raise TooLargeError(f"model file: {features} features: at most {limits.features_max} are allowed")
        outputs = _outputs(fields)
        names = _per_feature(fields, "feature_names", features)
        if len(set(names)) < features:
            raise MalformedError("model file: feature_names repeats a name")
        if "monotone_constraints" in fields:
            _per_feature(fields, "monotone_constraints", features)
        return cls(
            *_objective(fields.get("objective"), outputs),
            "average_output" in fields,
            outputs,
            names,
            _per_feature(fields, "feature_infos", features),
            _tree_sizes(fields),
        )


def _header_fields(header: bytes) -> dict[str, str]:
    try:
        text = header.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"model file: header is not UTF-8: byte {error.start}") from None
    if "\r" in text:
        raise MalformedError("model file: carriage returns among its lines: copy it in binary mode")
    fields: dict[str, str] = {}
    for line in text.split("\n")[1:]:
        if not line:
            continue
        name, _, value = line.partition("=")
        if name in fields or name not in _REQUIRED + _OPTIONAL:
            raise MalformedError(
                f"model file: header line {name[:40]!r} is {'repeated' if name in fields else 'unknown'}"
            )
        if "=" in value and name != "feature_names":
            raise MalformedError(f"model file: header line {name!r} has two values")
        fields[name] = value
    _check_header(fields)
    return fields


def _check_header(fields: dict[str, str]) -> None:
    if missing := [name for name in _REQUIRED if name not in fields]:
        raise MalformedError(f"model file: header has no {', '.join(missing)}")
    # Versions before 2.0.12 wrote none.
    if (version := fields.get("version", _VERSIONS[0])) not in _VERSIONS:
        raise MalformedError(f"model file: version {version[:20]!r}: known are {', '.join(_VERSIONS)}")
    for flag in _FLAGS:
        if fields.get(flag):
            raise MalformedError(f"model file: header line {flag} has a value")
    _natural(fields, "label_index")


def _outputs(fields: dict[str, str]) -> int:
    classes = _natural(fields, "num_class")
    # The library allocates results by one of the two, and writes as many values as the other says.
    if classes < 1 or _natural({"num_tree_per_iteration": str(classes), **fields}, "num_tree_per_iteration") != classes:
        raise MalformedError("model file: num_class and num_tree_per_iteration differ or are 0")
    return classes


def _tree_sizes(fields: Mapping[str, str]) -> tuple[int, ...] | None:
    if "tree_sizes" not in fields:
        return None
    return tuple(_to_natural(size, "tree_sizes") for size in fields["tree_sizes"].split(" "))


def _objective(text: str | None, outputs: int) -> tuple[str | None, tuple[str, ...]]:
    """The objective's name and parameters."""
    if text is None:
        return None, ()
    # As in the library, an alias is recognised only without parameters.
    name, *parameters = objectives.canonical(text).split(" ")
    if name == "custom":
        return None, ()
    if name not in objectives.BINARY | objectives.MULTICLASS | objectives.OTHER:
        raise MalformedError(f"model file: objective {name[:40]!r} is not one that LightGBM knows")
    if not all(map(_OBJECTIVE_PARAMETER.fullmatch, parameters)) or len(set(parameters)) < len(parameters):
        raise MalformedError(f"model file: objective {name!r} has damaged parameters")
    # Softmax writes as many values as the objective has classes, into a buffer for num_class values.
    if name in objectives.MULTICLASS:
        if outputs < 2 or [p for p in parameters if p.startswith("num_class")] != [f"num_class:{outputs}"]:
            raise MalformedError(f"model file: objective {name!r} and num_class {outputs} disagree")
    elif outputs > 1:
        raise MalformedError(f"model file: objective {name!r} has one output a row, num_class says {outputs}")
    return name, tuple(parameters)


def _columns(tail: Tail, names: tuple[str, ...]) -> frozenset[int]:
    columns = tail.categorical_columns
    if columns and max(columns) >= len(names):
        raise MalformedError(f"model file: parameter categorical_feature names column {max(columns)} of {len(names)}")
    return columns


def _per_feature(fields: dict[str, str], name: str, features: int) -> tuple[str, ...]:
    values = tuple(fields[name].split(" "))
    if len(values) != features or "" in values:
        raise MalformedError(f"model file: {name} has {len(values)} values for {features} features")
    return values


def _natural(fields: Mapping[str, str], name: str) -> int:
    return _to_natural(fields[name], name)


def _to_natural(text: str, name: str) -> int:
    if not _NATURAL.fullmatch(text):
        raise MalformedError(f"model file: {name} is {text[:20]!r}: expected a whole number")
    return int(text)
