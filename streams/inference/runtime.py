"""The protocol of a model runtime: rows in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.requests import Output
from inferd.streams.inference.inputs import Inputs

Arrays = dict[Output, NDArray[Any]]


class ModelRuntime(Protocol):
    """One loaded model version.

    `predict` is thread-safe and keeps no state between calls. After `close` it raises `ModelNotReadyError`; running
    calls complete normally.

    An attribute `batching = False` declares that a row may have other bits in a batch: `predict` then gets one row at a
    time (`row_by_row.py`). Without the attribute, the bits of rows alone and in a batch are compared before a version
    serves.
    """

    @property
    def n_features(self) -> int:
        """Number of input columns."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the input columns, in order."""

    @property
    def outputs_per_row(self) -> int:
        """Values per row of `raw`: 1, the number of classes, or the number of targets."""

    @property
    def objective(self) -> str | None:
        """The training objective, without its parameters; None if the model file has none."""

    def supports(self, output: Output) -> bool:
        """Whether `predict` can compute `output`."""

    def values_per_row(self, output: Output) -> int:
        """Values per row of `output`, which bounds the memory of `predict`: for `leaves` the number of trees, for
        `contributions` classes x (features + 1)."""

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        """The arrays of `outputs` for at least one row: float64 (rows, features), C-contiguous, NaN where missing; or a
        `Table` if some features of the model file are not numbers.

        `prediction`: for a file with `classes` int32 (rows,), indexes into them (`label_codes`); otherwise float64
        (rows,) or (rows, values per row). `raw`: float64 of the same two shapes. `probabilities`: float64 (rows,
        classes), in the order of `classes`. `contributions`: float64 (rows, features + 1) or (rows, outputs_per_row,
        features + 1), the expected value last. `leaves`: int32 (rows, trees). The model's own outputs: (rows, …) of
        float64, integers, booleans or texts.

        Raises `InvalidValueError` for an output that the model does not have, `SchemaMismatchError` for a width other
        than `n_features`, `ModelNotReadyError` after `close`, `InternalError` if the library fails.
        """

    def close(self) -> None:
        """Frees the model once running calls have ended. Repeated calls have no effect."""


def check_outputs(runtime: ModelRuntime, outputs: Iterable[Output], why_not: Callable[[Output], str]) -> None:
    """Raises `InvalidValueError`, with the reason `why_not`, if the runtime cannot compute one of the outputs."""
    for output in outputs:
        if not runtime.supports(output):
            raise InvalidValueError(f"outputs: {output!r} is not available: {why_not(output)}")


def label_codes(labels: Sequence[Any] | NDArray[Any], classes: Sequence[Any]) -> NDArray[np.int32]:
    """The index in `classes` of each predicted label: int32 (rows,). `KeyError` for an unknown label."""
    places = {label: place for place, label in enumerate(classes)}
    plain = labels.tolist() if isinstance(labels, np.ndarray) else labels
    return np.fromiter((places[label] for label in plain), np.int32, len(plain))


class Accelerated(Protocol):
    """A runtime that scores with a compiled kernel if possible."""

    @property
    def kernel_fault(self) -> str | None:
        """Why the model is scored by the format's library; None if the kernel scores it."""


def accelerated(runtime: object) -> Accelerated | None:
    """The runtime if it is `Accelerated`, else None. `isinstance` of a protocol would take 20 µs, for each model of
    each snapshot."""
    return cast(Accelerated, runtime) if hasattr(runtime, "kernel_fault") else None
