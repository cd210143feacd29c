"""Cache values: decoded exactly as they were encoded, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.requests.request import OUTPUTS, Output
from inferd.streams.inference.cache.keys import KEY_BYTES
from inferd.streams.inference.cache.values import ValueLayout, expires_at_ms
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from tests.fixtures.lane import SumRuntime
from tests.unit.streams.inference.trained_models import KINDS, Trained

NOW, TTL = 1_000, 500
SUM = ValueLayout(SumRuntime(), ("prediction",))


def keys_of(count: int) -> list[bytes]:
    return [n.to_bytes(KEY_BYTES, "big") for n in range(count)]


def one_value(key: bytes = keys_of(1)[0], expires_at: int = NOW + TTL) -> bytes:
    (value,) = SUM.encode([key], {"prediction": np.array([1.5])}, expires_at)
    return value


@pytest.mark.parametrize("kind", KINDS)
def test_the_arrays_of_every_model_round_trip_exactly(trained: Callable[[str], Trained], kind: str) -> None:
    model = trained(kind)
    runtime = LightGBMRuntime(model.text)
    asked: tuple[Output, ...] = tuple(output for output in OUTPUTS if runtime.supports(output))
    rows = np.ascontiguousarray(model.rows[:20])
    for outputs in (asked, *[(each,) for each in asked]):
        arrays, layout, keys = runtime.predict(rows, outputs), ValueLayout(runtime, outputs), keys_of(20)
        assert layout.fits(arrays)
        values = layout.encode(keys, arrays, NOW + TTL)
        assert {len(value) for value in values} == {layout.n_bytes}
        order = np.random.default_rng(0).permutation(20)
        places, decoded, expired = layout.decode(
            [keys[n] for n in order], [values[n] if n % 3 else None for n in order], NOW, TTL
        )
        kept = [n for n in order if n % 3]
        assert ([order[place] for place in places], expired) == (kept, 0)
        for output in outputs:
            expected = arrays[output][kept]
            assert (decoded[output].dtype, decoded[output].shape) == (expected.dtype, expected.shape)
            assert decoded[output].tobytes() == expected.tobytes()
    runtime.close()


@pytest.mark.parametrize(
    ("expires_at", "found", "expired"),
    [(NOW - 1, 0, 1), (NOW, 0, 1), (NOW + 1, 1, 0), (NOW + TTL, 1, 0), (NOW + TTL + 1, 0, 1)],
)
def test_a_value_is_returned_until_it_expires_or_the_given_age(expires_at: int, found: int, expired: int) -> None:
    value = one_value(expires_at=expires_at)
    places, _, gone = SUM.decode(keys_of(1), [value], NOW, TTL)
    assert (len(places), gone) == (found, expired)
    assert expires_at_ms(value) == expires_at


def test_a_value_under_another_key_is_not_returned() -> None:
    first, second = keys_of(2)
    assert len(SUM.decode([second], [one_value(first)], NOW, TTL)[0]) == 0
    assert SUM.decode([first, second], [one_value(first), one_value(first)], NOW, TTL)[0].tolist() == [0]


@given(place=st.integers(0, len(one_value()) * 8 - 1))
def test_every_flipped_bit_is_detected(place: int) -> None:
    value = bytearray(one_value())
    value[place // 8] ^= 1 << place % 8
    assert len(SUM.decode(keys_of(1), [bytes(value)], NOW, TTL)[0]) == 0


@given(st.one_of(st.binary(max_size=64), st.binary(min_size=SUM.n_bytes, max_size=SUM.n_bytes)))
def test_foreign_bytes_are_not_a_value(foreign: bytes) -> None:
    places, arrays, expired = SUM.decode(keys_of(2), [foreign, one_value(keys_of(2)[1])], NOW, TTL)
    assert (places.tolist(), arrays["prediction"].tolist(), expired) == ([1], [1.5], 0)
    assert expires_at_ms(foreign) >= 0


def test_no_values_of_no_rows() -> None:
    places, arrays, expired = SUM.decode([], [], NOW, TTL)
    assert (len(places), arrays["prediction"].shape, expired) == (0, (0,), 0)
    assert SUM.encode([], {"prediction": np.empty(0)}, NOW) == []


def test_arrays_of_other_shapes_than_promised_do_not_fit() -> None:
    assert not SUM.fits({"prediction": np.zeros((2, 2))})
    assert not SUM.fits({"prediction": np.zeros(2, dtype=np.int32)})
