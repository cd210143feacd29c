"""The scoring of a route, written by hand for the peers: typed decoding of the needed fields, one predict, splicing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from bench.layouts import FEATURES
from bench.libraries import LIBRARIES
from bench.peers.task import PeerTask

FIELD = "score"
FIELD_NAMES = [f"f{number}" for number in range(FEATURES)]
"""Names of the features in the object `order` of a record."""


class RoutedScorer:
    """Adds a prediction to JSON objects."""

    def __init__(self, task: PeerTask) -> None:
        order: Any = msgspec.defstruct("Order", [(name, float) for name in FIELD_NAMES], gc=False)
        record: Any = msgspec.defstruct("Record", [("order", order)], gc=False)
        self._decode = msgspec.json.Decoder(record).decode
        self._predict = LIBRARIES[task.library](task.model_path)
        self._rest = b',"model_id":"%s","version":%d}}' % (task.model_id.encode(), task.version)

    def results(self, values: Iterable[bytes]) -> list[bytes]:
        """The records with their predictions, in their order; at least one."""
        values = list(values)
        decode, astuple, encode = self._decode, msgspec.structs.astuple, msgspec.json.encode
        predictions = self._predict([astuple(decode(value).order) for value in values])
        head, rest = b',"%s":{"prediction":' % FIELD.encode(), self._rest
        return [
            value[:-1] + head + encode(prediction) + rest for value, prediction in zip(values, predictions, strict=True)
        ]
