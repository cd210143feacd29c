"""Arrays of a runtime -> the values of a result, as the manifest's `postprocess` says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.models import Manifest
from schemas.requests import Output
from streams.inference.runtime import Arrays


class Postprocessor:
    """What one model version does with what its runtime computed; immutable, for any thread."""

    def needed(self, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
        """What the runtime must compute so that `outputs` can be given (labels need no more than `prediction`)."""
        raise NotImplementedError

    def check(self, arrays: Arrays) -> NDArray[np.bool_] | None:
        """(rows,) True for rows with a value that is not finite, which no result may carry; None when there are none."""
        raise NotImplementedError

    def columns(self, arrays: Arrays, outputs: tuple[Output, ...]) -> dict[Output, list[Any]]:
        """For each of `outputs`, in that order, one JSON-able value a row: `columns[output][row]`."""
        raise NotImplementedError

    def values(self, arrays: Arrays, outputs: tuple[Output, ...], rows: slice, *, single: bool) -> dict[str, Any]:
        """What `Prediction.outputs` is for one request that had `rows` of the batch: a value, or a list where not `single`."""
        raise NotImplementedError


def compile_postprocess(manifest: Manifest) -> Postprocessor:
    """The postprocessor of a version; `InvalidValueError` for what its objective does not allow."""
    raise NotImplementedError
