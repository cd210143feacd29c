"""The protocol of a model runtime: rows in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.requests import Output
from inferd.streams.inference.inputs import Inputs

Arrays = dict[Output, NDArray[Any]]


class ModelRuntime(Protocol):
    """One loaded model version.

    `predict` may be called from any thread and from several at once; it keeps nothing between calls. After `close` it
    raises `ModelNotReadyError`; calls that are running then end as they would have.

    An attribute `batching = False` says that a batch may change bits: `predict` then gets one row at a time
    (`row_by_row.py`). Without it, the bits of rows alone and in a batch are compared before a version serves.
    """

    @property
    def n_features(self) -> int:
        """Columns of the inputs."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""

    @property
    def outputs_per_row(self) -> int:
        """Values a row of `raw`: 1, the number of classes, or the number of targets."""

    @property
    def objective(self) -> str | None:
        """What the model was trained for, without its parameters; None where the model file names none."""

    def supports(self, output: Output) -> bool:
        """Whether `predict` can compute `output`."""

    def values_per_row(self, output: Output) -> int:
        """Values a row of `output`, which bounds what `predict` allocates: trees for `leaves`, classes x (features +
        1), …"""

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        """The arrays of `outputs` for rows >= 1 of inputs: float64 (rows, features), C-contiguous, NaN where missing;
        or a `Table` if some features of the model file are no numbers.

        `prediction`: of a file with `classes` int32 (rows,), indexes into them (`label_codes`); otherwise float64
        (rows,) or (rows, values a row). `raw` float64 of the latter shapes; `probabilities` float64 (rows, classes), in
        the order of `classes`; `contributions` float64 (rows, features + 1) or (rows, outputs_per_row, features + 1),
        the expected value last; `leaves` int32 (rows, trees). The model's own outputs: (rows, …) float64, or integers,
        booleans or texts.
        `InvalidValueError` for an output that this model cannot give, `SchemaMismatchError` for another width than
        `n_features`, `ModelNotReadyError` after `close`, `InternalError` where the library fails.
        """

    def close(self) -> None:
        """Frees the model, at the end of the calls that are running; more than once is the same as once."""


def check_outputs(runtime: ModelRuntime, outputs: Iterable[Output], why_not: Callable[[Output], str]) -> None:
    """`InvalidValueError` if the runtime cannot compute one of the outputs; `why_not` says why."""
    for output in outputs:
        if not runtime.supports(output):
            raise InvalidValueError(f"outputs: {output!r} is not available: {why_not(output)}")


def label_codes(labels: Sequence[Any] | NDArray[Any], classes: Sequence[Any]) -> NDArray[np.int32]:
    """The index in `classes` of each label that a library predicted: int32 (rows,). `KeyError` for an unknown one."""
    places = {label: place for place, label in enumerate(classes)}
    plain = labels.tolist() if isinstance(labels, np.ndarray) else labels
    return np.fromiter((places[label] for label in plain), np.int32, len(plain))


@runtime_checkable
class Accelerated(Protocol):
    """A runtime that scores its models by a compiled kernel where it can."""

    @property
    def kernel_fault(self) -> str | None:
        """Why the format's library scores this model; None if the kernel does."""
