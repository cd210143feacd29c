"""Windows add up: merging is associative and commutative, loses no count, and survives the codec."""

from __future__ import annotations

import math
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.errors import MalformedError, TooLargeError
from inferd.schemas.monitoring import (
    LATENCY_BINS,
    LOG_BINS,
    WINDOW_BYTES_MAX,
    Features,
    FeatureStats,
    Predictions,
    WindowStats,
    decode_window,
    encode_window,
    latency_bin,
    latency_bound_ms,
    latency_quantile_ms,
    merge,
    merged,
)

COUNTS = st.integers(0, 1_000)
FEATURES = st.builds(
    Features,
    baseline=st.integers(0, 2),
    rows=COUNTS,
    by_name=st.dictionaries(
        st.sampled_from(["age", "plan"]),
        st.builds(
            FeatureStats, st.lists(COUNTS, max_size=3), missing=COUNTS, out_of_range=COUNTS, unknown=COUNTS
        ),
    ),
)  # fmt: skip
PREDICTIONS = st.builds(
    Predictions,
    scale=st.sampled_from(["log", "unit", None]),
    counts=st.dictionaries(st.integers(-LOG_BINS, LOG_BINS), COUNTS, max_size=4),
)
WINDOWS = st.builds(
    WindowStats,
    model_id=st.just("churn"),
    version=st.just(3),
    minute=st.integers(0, 3),
    alias=st.sampled_from([None, "champion", "eu"]),
    variant=st.sampled_from([None, "champion", "canary"]),
    alias_revision=st.sampled_from([None, 0, 1]),
    requests=COUNTS,
    rows=COUNTS,
    errors=st.dictionaries(st.sampled_from(["malformed", "internal"]), COUNTS),
    latency=st.dictionaries(st.integers(0, LATENCY_BINS - 1), COUNTS, max_size=4),
    predictions=PREDICTIONS,
    features=FEATURES,
    compared=COUNTS,
    differing=COUNTS,
)


@given(st.lists(WINDOWS, min_size=3, max_size=3))
def test_the_order_of_merging_does_not_matter(windows: list[WindowStats]) -> None:
    a, b, c = windows
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert len({encode_window(merge(merge(x, y), z)) for x, y, z in permutations(windows)}) == 1


@given(st.lists(WINDOWS, min_size=1))
def test_merging_loses_no_request(windows: list[WindowStats]) -> None:
    total = merged(windows)
    assert total is not None
    assert total.requests == sum(window.requests for window in windows)
    assert total.failed == sum(window.failed for window in windows)
    assert sum(total.latency.values()) == sum(sum(window.latency.values()) for window in windows)
    newest = [w.features for w in windows if w.features.baseline == total.features.baseline]
    assert total.features.rows == sum(features.rows for features in newest)
    assert total.features.baseline == max(w.features.baseline for w in windows)


@given(WINDOWS)
def test_a_window_is_the_same_after_the_codec(window: WindowStats) -> None:
    assert decode_window(encode_window(window)) == window


def test_windows_of_two_versions_do_not_add_up() -> None:
    first = WindowStats(model_id="churn", version=1, minute=0)
    with pytest.raises(ValueError, match="do not add up"):
        merge(first, msgspec.structs.replace(first, version=2))
    assert merged([]) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"garbage",
        msgspec.msgpack.encode({"model_id": "churn"}),
        msgspec.msgpack.encode({"model_id": "churn", "version": 0, "minute": 1}),
        msgspec.msgpack.encode({"model_id": "a/b", "version": 1, "minute": 1}),
        msgspec.msgpack.encode({"model_id": "churn", "version": 1, "minute": 1, "rows": -1}),
        msgspec.msgpack.encode({"model_id": "churn", "version": 1, "minute": 1, "latency": {LATENCY_BINS: 1}}),
    ],
)
def test_what_is_no_window_is_rejected(value: bytes | None) -> None:
    with pytest.raises(MalformedError, match="window"):
        decode_window(value)


def test_a_window_that_is_too_large_is_rejected() -> None:
    with pytest.raises(TooLargeError):
        decode_window(b"\xc4" * (WINDOW_BYTES_MAX + 1))


def test_fields_of_later_versions_are_ignored() -> None:
    value = msgspec.msgpack.encode({"model_id": "churn", "version": 1, "minute": 1, "added_later": [1]})
    assert decode_window(value) == WindowStats(model_id="churn", version=1, minute=1)


@given(st.floats(0, 1e6))
def test_a_latency_is_within_its_bin(ms: float) -> None:
    number = latency_bin(ms)
    assert ms <= latency_bound_ms(number) * (1 + 1e-12)
    assert number == 0 or ms > latency_bound_ms(number - 1) * (1 - 1e-12)


@given(st.lists(st.integers(4, 10**6), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_of_latencies_is_close(latencies: list[int], quantile: float) -> None:
    counts: dict[int, int] = {}
    for ms in latencies:
        counts[latency_bin(ms)] = counts.get(latency_bin(ms), 0) + 1
    exact = sorted(latencies)[math.ceil(quantile * len(latencies)) - 1]
    found = latency_quantile_ms(counts, quantile)
    assert found is not None
    assert exact * (1 - 1e-12) <= found <= exact * 2**0.25 * (1 + 1e-12)
    assert latency_quantile_ms({}, quantile) is None
