"""The interface of a model format: how its files are recognised, checked and loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from inferd.schemas.limits import Limits
from inferd.streams.inference.features import CategoryLists, Values
from inferd.streams.inference.runtime import ModelRuntime

_NO_LISTS = CategoryLists((), (), frozenset())


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model file whose structure was checked. A format may subclass it to keep more for its `load`."""

    runtime: str
    """The name of the format."""
    sha256: str
    size: int
    feature_names: tuple[str, ...]
    outputs_per_row: int = 1
    objective: str | None = None
    """None for custom objectives, which are not in the file."""
    categorical: frozenset[str] = frozenset()
    """Features that are split by sets of integer codes."""
    category_lists: CategoryLists = _NO_LISTS
    """The values of features that were pandas categories in training."""

    @cached_property
    def categories(self) -> Mapping[str, Values] | None:
        """The values by feature, in the order of their codes; None if the file does not determine the features."""
        return self.placed_categories(())

    def placed_categories(self, others: Iterable[str]) -> Mapping[str, Values] | None:
        """Like `categories`, if the features `others` are known to have no categories."""
        columns = {name: column for column, name in enumerate(self.feature_names)}
        placed = self.category_lists.place(frozenset(columns[name] for name in others if name in columns))
        return None if placed is None else {self.feature_names[column]: values for column, values in placed.items()}


def _no_alias(objective: str) -> str:
    return objective


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFormat:
    """One format of model files."""

    name: str
    """`runtime` in manifests."""
    begins: str
    """A description of how its files begin, for the error about a file of an unknown format."""
    sniff: Callable[[bytes], bool]
    """Whether a file is of this format, from its first bytes."""
    read: Callable[[bytes, Limits], ModelFile]
    """Checks a file without the library. Raises `MalformedError` or `TooLargeError`."""
    load: Callable[[bytes, ModelFile, int], ModelRuntime]
    """(content, what `read` returned, threads of one prediction) -> the loaded model."""
    load_library: Callable[[], object]
    """Loads the library; `ServerError` with the remedy if it cannot be loaded."""
    library_version: Callable[[], str]
    """Part of the cache's keys: another version may sum in another order."""
    class_count: Callable[[str | None, int], int]
    """(objective, outputs per row) -> number of classes; 0 if the outputs are no probabilities."""
    canonical_objective: Callable[[str], str] = _no_alias
    """The library's own name of an objective, which may be given by an alias."""
