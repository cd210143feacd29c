"""The interface of a model format: recognises, checks and loads its files.

`read` derives the inputs of a file (`ModelFile.features`) and its outputs (`classes`, `outputs_per_row`, `objective`)
without the library. The manifest adds facts that the file lacks. `load` gets the completed `ModelFile` and returns a
`ModelRuntime`, which scores a float64 matrix if all features are numbers, and a `Table` otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from inferd.schemas.limits import Limits
from inferd.schemas.models import ClassLabel
from inferd.streams.inference.features import CategoryLists, FileFeature, Values
from inferd.streams.inference.runtime import ModelRuntime

_NO_LISTS = CategoryLists((), (), frozenset())


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """The facts of a model file whose structure was checked. A format may subclass it to pass more to its `load`."""

    runtime: str
    """The name of the format."""
    sha256: str
    size: int
    features: tuple[FileFeature, ...]
    """The input columns, in order. Empty only if `named` is False and the file does not say how many there are."""
    named: bool = True
    """Whether the file names its features. If not, `features` have default names, and a manifest may rename all."""
    classes: tuple[ClassLabel, ...] = ()
    """The class labels, if `prediction` is a label: the runtime predicts indexes into them. Empty if it is a number."""
    outputs_per_row: int = 1
    """Values a row of `raw`: 1, the number of classes, or the number of targets."""
    output_names: tuple[str, ...] = ()
    """The model's own outputs, for which requests may ask by name: none of `RESERVED_NAMES`."""
    objective: str | None = None
    """None for custom objectives, which are not in the file."""
    category_lists: CategoryLists = _NO_LISTS
    """Lists of categories of which the file does not say to which feature they belong."""

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def categories(self) -> Mapping[str, Values] | None:
        """The categories by feature, in the order of their codes; None if the file does not determine the features."""
        return self.placed_categories(())

    def placed_categories(self, others: Iterable[str]) -> Mapping[str, Values] | None:
        """Like `categories`, if the features `others` are known to have no categories."""
        own = {feature.name: feature.categories for feature in self.features if feature.categories is not None}
        columns = {name: column for column, name in enumerate(self.feature_names)}
        placed = self.category_lists.place(frozenset(columns[name] for name in others if name in columns))
        if placed is None:
            return None
        return own | {self.feature_names[column]: values for column, values in placed.items()}


def _no_alias(objective: str) -> str:
    return objective


def _no_classes(_objective: str | None, _outputs_per_row: int) -> int:
    return 0


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
    """(content, what `read` returned, completed from the manifest, threads of one prediction) -> the loaded model."""
    load_library: Callable[[], object]
    """Loads the library; `ServerError` with the remedy if it cannot be loaded."""
    library_version: Callable[[], str]
    """Part of the cache's keys: another version may sum in another order."""
    class_count: Callable[[str | None, int], int] = _no_classes
    """(objective, outputs per row) -> number of classes of a file without `classes`; 0 if the outputs are no
    probabilities."""
    equal_zeros: bool = False
    """Whether the answers of every model for 0.0 and -0.0 are the same, so that they share an entry of the prediction
    cache."""
    canonical_objective: Callable[[str], str] = _no_alias
    """The library's own name of an objective, which may be given by an alias."""
