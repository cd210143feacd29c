"""Sends predictions to where they wait for their labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka import TopicPartition

from inferd.schemas.labels import TO_LABEL_BYTES_MAX, Scores, ToLabel, encode_to_label
from inferd.schemas.models import Manifest
from inferd.schemas.monitoring import WINDOW_S, Task
from inferd.streams.inference import Outcome, ScoredRows, format_named
from inferd.streams.kafka import Destinations, Outgoing, partition_of_key
from inferd.streams.lane import OutputBatch
from inferd.streams.recording import LateRecords, Part


class PredictionsToLabel:
    """Writes the predictions of a micro-batch to `to-label`, with the results of their partition. Predictions over HTTP
    wait for the next output of any partition, and are lost if the worker ends before that."""

    def __init__(self, topic: str, used: Callable[[], int], destinations: Destinations) -> None:
        """`used`: how many partitions are used."""
        self.topic = topic
        self._used = used
        self._destinations = destinations
        self._late = LateRecords()

    def outputs(self, _number: int) -> Iterable[TopicPartition]:
        return (TopicPartition(self.topic, number) for number in range(self._used()))

    def add(self, parts: Sequence[Part], outcome: Outcome, now_ms: int) -> None:
        part_of = {index: part for part in parts for index in part.span}
        for scored in outcome.scored:
            found = scores_of(scored)
            if found is None:
                continue
            task, classes, scores = found
            postprocess = scored.model.manifest.postprocess
            threshold = postprocess.threshold if postprocess is not None and postprocess.threshold is not None else 0.5
            for index, given, rows in zip(scored.indexes.tolist(), scored.ids, scored.spans(), strict=True):
                if index not in part_of or index in outcome.failures or not all_finite(scores[rows]):
                    continue
                if (headers := outcome.headers.get(index)) is not None and headers.row_errors:
                    continue  # rows may be missing, and a label has one value for each
                part = part_of[index]
                request_id = given or part.default_id(index)
                choice = outcome.variants.choice(index)
                prediction = ToLabel(
                    request_id, scored.model.manifest.model_id, scored.model.manifest.version,
                    now_ms // 1000 // WINDOW_S, choice.variant, choice.revision, task, classes, scores[rows], threshold,
                    choice.alias,
                )  # fmt: skip
                self._send(part.output, request_id.encode(), encode_to_label(prediction))

    def add_late(self, _number: int, output: OutputBatch) -> None:
        for key, value, _ in self._late.take():
            self._send(output, key or b"", value or b"")

    def _send(self, output: OutputBatch | None, key: bytes, value: bytes) -> None:
        """A prediction that is too large gets no label: its request does not fail."""
        outgoing: Outgoing = (key, value, [])
        if len(value) > TO_LABEL_BYTES_MAX or self._destinations.rejection(self.topic, outgoing) is not None:
            return
        if output is None:
            self._late.add(outgoing)
        else:
            output.tally.bytes_out += len(value)
            output.add(self.topic, partition_of_key(key, self._used()), outgoing)


def all_finite(scores: Scores) -> bool:
    """Whether all scores of a request are finite numbers."""
    return all(math.isfinite(each) if not isinstance(each, list) else all(map(math.isfinite, each)) for each in scores)


def scores_of(scored: ScoredRows) -> tuple[Task, list[Any] | None, Scores] | None:
    """What the model predicts, its class labels if they are not 0, 1, …, and the score of each row. None for models of
    several numbers, and if the requests asked for nothing that has a score."""
    manifest, arrays = scored.model.manifest, scored.arrays
    classes = _classes(manifest)
    probabilities = arrays.get("probabilities")
    if manifest.classes is not None and probabilities is not None:
        if probabilities.shape[1] == 2:
            return "binary", classes, probabilities[:, 1].tolist()
        return "classes", classes, probabilities.tolist()
    prediction = arrays.get("prediction")
    if prediction is None:
        return None
    if manifest.classes is not None:
        return "classes", classes, prediction.tolist()
    count = format_named(manifest.runtime).class_count(manifest.objective, manifest.outputs or 1)
    if prediction.ndim == 2:
        return ("classes", classes, prediction.tolist()) if count > 1 else None
    if count == 2:
        return "binary", classes, prediction.tolist()
    return ("classes", classes, prediction.astype(int).tolist()) if count else ("number", None, prediction.tolist())


def _classes(manifest: Manifest) -> list[Any] | None:
    given = manifest.postprocess.labels if manifest.postprocess is not None else None
    found = given or manifest.classes
    return None if found is None or list(found) == list(range(len(found))) else list(found)
