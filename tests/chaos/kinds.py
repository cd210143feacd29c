"""Kinds of requests: how to make them, and how to verify their results. Each kind of load is a class."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import lightgbm
import msgpack
import numpy as np

from tests.fixtures.poison import POISON, Poison
from tests.fixtures.workers import TrainedModel

N_FEATURES, N_ROWS = 10, 1_000
POISON_BYTES_MAX = 12_000
ROLLED = "rolled"
"""The model of rollouts."""
BAD_CODES = frozenset({"schema_mismatch", "internal"})
"""Of requests that a bad version of `ROLLED` fails."""
LEAVING_CODES = frozenset({"model_not_found", "version_not_found", "model_not_ready"})
Headers = list[tuple[str, str | bytes | None]]


@dataclass(frozen=True)
class Request:
    """The record of a request."""

    value: bytes | None
    headers: Headers


class Kind(Protocol):
    """One kind of requests; `choice` selects one of them."""

    @property
    def share(self) -> float:
        """Share of the load."""

    def choose(self, rng: random.Random) -> int: ...

    def request(self, choice: int) -> Request: ...

    def fault(self, choice: int, answer: Mapping[str, Any]) -> str | None:
        """Describes what is wrong with a result; None if it is right."""

    def variant(self, answer: Mapping[str, Any]) -> str:
        """What may differ between answers to the same request: the version of the model. Others have the same bytes."""

    def letter(self, choice: int) -> Request | None:
        """The expected dead letter, if any."""


@dataclass(frozen=True)
class Rows:
    """A row for a model: expects the prediction of the version that the result names."""

    model: str
    expected: Mapping[str, Sequence[float]]
    """The prediction of each row, by digest."""
    rows: Sequence[Sequence[float]]
    share: float = 0.9
    codes: frozenset[str] = frozenset()
    """Error codes that are allowed, too."""

    def choose(self, rng: random.Random) -> int:
        return rng.randrange(len(self.rows))

    def request(self, choice: int) -> Request:
        body = {"id": f"q{choice}", "model_id": self.model, "input_data": self.rows[choice]}
        return Request(bytes(msgpack.packb(body)), [])

    def fault(self, choice: int, answer: Mapping[str, Any]) -> str | None:
        if "error" in answer:
            code = answer["error"]["code"]
            return None if code in self.codes else f"the error {code} instead of a prediction"
        by_digest = self.expected.get(answer["digest"])
        if by_digest is None:
            return f"a digest that no model has: {answer['digest'][:12]}"
        right = by_digest[choice]
        return None if answer["prediction"] == right else f"{answer['prediction']} instead of {right}"

    def variant(self, answer: Mapping[str, Any]) -> str:
        return str(answer.get("digest", ""))

    def letter(self, choice: int) -> Request | None:
        return None


class RolledRows:
    """Rows for a model that is rolled out: a bad version fails them, and those that met one are counted."""

    share = 0.06

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.answered = self.met = 0
        """Requests that were answered since it was reset, and those that a bad version has answered or failed."""
        self.bad: set[str] = set()
        """Digests of versions that predict something else."""
        self.first_met_s: float | None = None
        """Unix time of the first since it was reset."""

    def reset(self) -> None:
        self.answered = self.met = 0
        self.first_met_s = None

    def choose(self, rng: random.Random) -> int:
        return self._rows.choose(rng)

    def request(self, choice: int) -> Request:
        return self._rows.request(choice)

    def fault(self, choice: int, answer: Mapping[str, Any]) -> str | None:
        self.answered += 1
        failed = answer.get("error", {}).get("code") in BAD_CODES
        if failed or answer.get("digest") in self.bad:
            self.met += 1
            self.first_met_s = self.first_met_s or time.time()
            return None
        return self._rows.fault(choice, answer)

    def variant(self, answer: Mapping[str, Any]) -> str:
        return str(answer.get("error")) if "error" in answer else self._rows.variant(answer)

    def letter(self, choice: int) -> Request | None:
        return None


class PoisonRecords:
    """Records that cannot be decoded or scored: expects one typed error each."""

    share = 0.04

    def __init__(self) -> None:
        self._records: list[Poison] = [p for p in POISON if len(p.value or b"") <= POISON_BYTES_MAX]

    def choose(self, rng: random.Random) -> int:
        return rng.randrange(len(self._records))

    def request(self, choice: int) -> Request:
        poison = self._records[choice]
        return Request(poison.value, list(poison.headers))

    def fault(self, choice: int, answer: Mapping[str, Any]) -> str | None:
        poison = self._records[choice]
        code = answer.get("error", {}).get("code")
        return None if code == poison.code else f"{code} instead of {poison.code} for {poison.name!r}"

    def variant(self, answer: Mapping[str, Any]) -> str:
        return ""

    def letter(self, choice: int) -> Request | None:
        return self.request(choice) if self._records[choice].dead_letter else None


def trained(seed: int) -> TrainedModel:
    """A small binary model, different for each seed."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(1_000, N_FEATURES))
    target = (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(int)
    parameters = {"objective": "binary", "num_leaves": 15, "verbose": -1, "num_threads": 1, "deterministic": True}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, target), 20)
    return TrainedModel(booster, booster.model_to_string().encode(), N_FEATURES)


def usual_kinds(models: Sequence[TrainedModel]) -> list[Kind]:
    """Rows for `demo`, whose versions change, rows for `side`, which is sometimes removed, and poison records."""
    rows = np.random.default_rng(7).normal(size=(N_ROWS, N_FEATURES))
    expected = {model.manifest().sha256: model.booster.predict(rows).tolist() for model in models}
    as_lists = rows.tolist()
    return [
        Rows("demo", expected, as_lists, share=0.84),
        Rows("side", expected, as_lists, share=0.06, codes=LEAVING_CODES),
        RolledRows(Rows(ROLLED, expected, as_lists)),
        PoisonRecords(),
    ]


def decoded(value: bytes) -> Any:
    """The fields of a result."""
    return json.loads(value) if value[:1] == b"{" else msgpack.unpackb(value)
