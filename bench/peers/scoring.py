"""The same scoring for each peer that takes many requests at once: decode, one matrix, one predict, encode."""

from __future__ import annotations

from collections.abc import Iterable

from bench.layouts import LAYOUTS
from bench.libraries import LIBRARIES
from bench.peers.routed import RoutedScorer
from bench.peers.task import PeerTask


class Scorer:
    """The model and the layout of a task."""

    def __init__(self, task: PeerTask) -> None:
        self._version, self._digest = task.version, task.digest
        self._layout = LAYOUTS[task.layout]
        self._predict = LIBRARIES[task.library](task.model_path)
        self._routed = None if task.record_format is None else RoutedScorer(task, task.record_format)

    def results(self, values: Iterable[bytes]) -> list[bytes]:
        """The encoded results of encoded requests, in their order; at least one."""
        if self._routed is not None:
            return self._routed.results(values)
        layout = self._layout
        requests = [layout.decode(value) for value in values]
        predictions = self._predict([layout.values(request["input_data"]) for request in requests])
        return [
            layout.encode(
                {
                    "id": request["id"],
                    "model_id": request["model_id"],
                    "version": self._version,
                    "digest": self._digest,
                    "prediction": prediction,
                }
            )
            for request, prediction in zip(requests, predictions, strict=True)
        ]
