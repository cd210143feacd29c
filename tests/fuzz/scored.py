"""The whole way of a record through scoring as a target: a real model, good neighbours, and both decoders."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

import msgpack
import msgspec

from inferd.schemas.codec import decode_result
from inferd.schemas.codecs import JSON, MSGPACK
from inferd.schemas.requests.result import Failure
from inferd.streams.inference.outcome import Outcome
from inferd.streams.inference.scoring import Scorer
from tests.fixtures.poison import POISON
from tests.fixtures.scoring import Fetched, both, score
from tests.fuzz.checks import ACCEPTED, FindingError, check_error
from tests.fuzz.frames import pack_record, unpack_record
from tests.fuzz.target import Target
from tests.unit.schemas.mutation import request_bytes

GOOD_ROW = [0.5, 2.0, 3.0, -1.5]
NOW_MS = 1_000_000
OFFSET = 3
NEIGHBOURS = [
    msgpack.packb({"id": f"n{n}", "model_id": "plain", "input_data": [*GOOD_ROW[:3], float(n)]}) for n in range(4)
]
JSON_HEADER = (("content-type", b"application/json"),)
INPUTS: tuple[Any, ...] = (
    GOOD_ROW,
    [GOOD_ROW, [None] * 4],
    {f"Column_{n}": value for n, value in enumerate(GOOD_ROW)},
    {"Column_0": 1.0, "Column_1": "AA", "Column_3": 0.5},
    [0.5, "UA", 1.0, 7],
    [[0.5, True, 1.0, None], [0.5, 7, 11.0, 2]],
    {"dtype": "<f8", "shape": [2, 4], "data": bytes(64)},
)
OUTPUTS = (None, ["prediction"], ["prediction", "raw"], ["probabilities"], ["leaves", "contributions"])


def target() -> Target:
    return Target("scoring", "record", run, seeds, fresh, weight=0.25)


@cache
def scorers() -> tuple[Scorer, Scorer]:
    from tests.fuzz.models import served_models  # importing LightGBM takes seconds, and other targets do not need it

    return both(served_models())


def run(data: bytes) -> str:
    """Scores the record between valid ones, vectorised and typed: it gets one answer of a known type, and the
    neighbours' answers do not change."""
    value, headers, key = unpack_record(data)
    record = Fetched(value, offset=OFFSET, key=key, headers=tuple(headers))
    batch = [*NEIGHBOURS[:2], record, *NEIGHBOURS[2:]]
    fast, typed = (score(scorer, batch, now_ms=NOW_MS) for scorer in scorers())
    if list(fast.values) != list(typed.values):
        raise FindingError(f"the vectorised way says {list(fast.values)}, and the typed one {list(typed.values)}")
    if fast.faults or typed.faults:
        raise FindingError(f"a fault: {(fast.faults or typed.faults)[0]!r}")
    return _code(fast)


def _code(outcome: Outcome) -> str:
    if [outcome.values[n] for n in (0, 1, 3, 4)] != _expected():
        raise FindingError(f"a neighbour was disturbed: {list(outcome.values)}")
    if outcome.failures.keys() - {2}:
        raise FindingError(f"a neighbour failed: {outcome.failures}")
    codec = outcome.headers[2].codec if 2 in outcome.headers else MSGPACK
    result = decode_result(outcome.values[2], codec)
    error = outcome.failures.get(2)
    if error is None or not isinstance(result, Failure):
        if error is not None or isinstance(result, Failure):
            raise FindingError(f"{error!r} is answered with {result}")
        return ACCEPTED
    check_error(error)
    if (result.code, result.message) != (error.code, error.message):
        raise FindingError(f"{error!r} is answered with {result}")
    return error.code


@cache
def _expected() -> list[bytes]:
    """The answers of the neighbours without a record between them."""
    return list(score(scorers()[1], NEIGHBOURS, now_ms=NOW_MS).values)


def seeds() -> list[bytes]:
    """Good requests to either model in either codec, and every row of the bad-input matrix."""
    good = []
    for model_id in ("plain", "ruled", "plain:1", "plain@canary", "ruled@champion"):
        for rows in INPUTS:
            for outputs in OUTPUTS:
                body = {"id": "r", "model_id": model_id, "input_data": rows} | ({"outputs": outputs} if outputs else {})
                good.append(pack_record(msgpack.packb(body), key=b"k"))
                if not isinstance(rows, dict) or "data" not in rows:
                    good.append(pack_record(msgspec.json.encode(body), JSON_HEADER))
    bad = [pack_record((poison.value or b"")[:30_000], poison.headers, b"k") for poison in POISON]
    return good + bad + [pack_record(NEIGHBOURS[0], key=b"x" * 254), pack_record(b"")]


def fresh(random: Random) -> bytes:
    """A request of any layout, redirected to one of the existing models."""
    if random.random() < 0.4:
        body = request_bytes(random, JSON).replace(b'"m', b'"plain', 1)
        return pack_record(body, JSON_HEADER)
    name = random.choice((b"\xa5plain", b"\xa5ruled"))
    return pack_record(request_bytes(random, MSGPACK).replace(b"\xa1m", name, 1))
