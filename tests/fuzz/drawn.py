"""Inputs drawn by hypothesis: values of every type, under the field names of the wire format, and plain bytes."""

from __future__ import annotations

from random import Random
from typing import Any

import msgpack
import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.child import Run
from tests.fuzz.frames import pack_record
from tests.fuzz.target import Target
from tests.unit.schemas import sample_records

ROUND = 2_000
NAMES = (
    "id",
    "model_id",
    "input_data",
    "outputs",
    "dtype",
    "shape",
    "data",
    "error",
    *msgspec.to_builtins(sample_records.MANIFEST),
    *msgspec.to_builtins(sample_records.ALIAS),
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=20))
names = st.one_of(st.sampled_from(NAMES), st.text(max_size=5))
values: Any = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5), max_leaves=12
)
maps = st.dictionaries(st.sampled_from(NAMES), values, max_size=8)
headers = st.lists(st.tuples(st.sampled_from(("content-type", "deadline", "x")), st.binary(max_size=12)), max_size=3)


def _json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except ValueError:  # an integer that the JSON encoder rejects
        return b"null"


packed = (maps | values).map(msgpack.packb)
written = (maps | values).map(_json)
STRATEGIES: dict[str, Any] = {
    "msgpack": packed | st.binary(max_size=200),
    "json": written | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    "record": st.builds(pack_record, packed | written, headers, st.none() | st.binary(max_size=20)) | st.binary(),
    "lines": st.lists(st.from_regex(rb"[a-z_]{1,12}=[-0-9. e]{0,20}", fullmatch=True), max_size=20).map(b"\n".join),
    "bytes": st.binary(max_size=200),
}


def draw(target: Target, run: Run, random: Random) -> None:
    """Draws examples in rounds until the run is over."""
    while not run.over():
        _round(target, run, random.getrandbits(32))


def _round(target: Target, run: Run, number: int) -> None:
    @seed(number)
    @settings(
        max_examples=ROUND,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(STRATEGIES[target.shape])
    def examine(data: bytes) -> None:
        if run.over():
            run.finish()  # hypothesis would draw the rest of the round
        run(data)

    examine()
