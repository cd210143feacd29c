"""Vectorizers that count faster against scikit-learn's own, bit for bit."""

from __future__ import annotations

import copy
import re
import warnings
from collections import UserDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer

from inferd.streams.inference.formats.sklearn import text_counts
from inferd.streams.inference.formats.sklearn.text_counts import count_faster
from tests.unit.streams.inference.formats.sklearn.sklearn_models import WORDS, texts

SETTINGS: dict[str, Any] = {
    "plain": TfidfVectorizer(),
    "counts": CountVectorizer(),
    "case": TfidfVectorizer(lowercase=False),
    "binary": CountVectorizer(binary=True, dtype=np.float32),
    "float32": TfidfVectorizer(dtype=np.float32, sublinear_tf=True, norm="l1"),
    "pairs": TfidfVectorizer(ngram_range=(1, 2)),
    "only pairs": CountVectorizer(ngram_range=(2, 2)),
    "frequent": TfidfVectorizer(min_df=2, max_df=0.9),
    "few": TfidfVectorizer(max_features=5),
    "stop words": TfidfVectorizer(stop_words="english"),
    "own stop words": CountVectorizer(stop_words=["refund", "crash"]),
    "accents": TfidfVectorizer(strip_accents="unicode"),
    "own vocabulary": CountVectorizer(vocabulary=["refund", "login", "crash report", "ΣΑΣ"], ngram_range=(1, 2)),
    "a pattern": TfidfVectorizer(token_pattern=r"(?u)\S+"),
    "a group": TfidfVectorizer(token_pattern=r"(?u)(\w)\w*"),
    "characters": TfidfVectorizer(analyzer="char", ngram_range=(1, 3)),
    "characters of words": CountVectorizer(analyzer="char_wb", ngram_range=(2, 4)),
    "hashes": HashingVectorizer(n_features=64),
    "hashed pairs": HashingVectorizer(ngram_range=(1, 2), alternate_sign=False),
}
TEXTS = st.lists(
    st.text(max_size=40)
    | st.text(st.characters(max_codepoint=127), max_size=40)
    | st.lists(st.sampled_from([*WORDS, "REFUND", "a", "."]), max_size=12).map(" ".join),
    min_size=1,
    max_size=8,
)


def fitted(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return copy.deepcopy(SETTINGS[name]).fit([*texts(), "ΣΑΣ İstanbul"])


def is_faster(vectorizer: Any) -> bool:
    return type(vectorizer) not in (CountVectorizer, HashingVectorizer, TfidfVectorizer)


def check_equal(faster: Any, own: Any, documents: Any) -> None:
    matrix, expected = faster.transform(documents), own.transform(documents)
    assert type(matrix) is type(expected)
    assert matrix.shape == expected.shape
    for part in ("data", "indices", "indptr"):
        values, others = getattr(matrix, part), getattr(expected, part)
        assert (values.dtype, values.tolist()) == (others.dtype, others.tolist()), part
        assert values.tobytes() == others.tobytes()


@pytest.fixture(scope="module", params=SETTINGS)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A vectorizer that counts faster, and scikit-learn's own."""
    faster, own = fitted(request.param), fitted(request.param)
    count_faster(faster)
    assert is_faster(faster)
    return faster, own


@settings(deadline=None, max_examples=60)
@given(documents=TEXTS)
def test_every_text_has_the_same_bits(pair: tuple[Any, Any], documents: list[str]) -> None:
    check_equal(*pair, documents)


def test_every_short_ascii_text(pair: tuple[Any, Any]) -> None:
    ascii_characters = [chr(code) for code in range(128)]
    check_equal(*pair, [f"x{a}{b}y" for a in ascii_characters for b in ascii_characters])


def test_iterators_arrays_and_bytes(pair: tuple[Any, Any]) -> None:
    faster, own = pair
    documents = [*texts(1), "", "refund refund refund"]
    check_equal(faster, own, np.array(documents, object))
    check_equal(faster, own, [np.str_("Refund crash"), b"login invoice"])
    assert (faster.transform(iter(documents)) != own.transform(documents)).nnz == 0
    for wrong in (np.nan, None, 1):
        with pytest.raises((ValueError, AttributeError, TypeError)) as expected:
            own.transform([wrong])
        with pytest.raises(expected.type, match=re.escape(str(expected.value))):
            faster.transform([wrong])


@pytest.mark.parametrize("tokens_together", [1, 3, 7, 50])
@pytest.mark.parametrize("name", ["plain", "binary", "characters"])
def test_texts_in_several_parts(name: str, tokens_together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_counts, "_TOKENS_TOGETHER", tokens_together)
    faster, own = fitted(name), fitted(name)
    count_faster(faster)
    check_equal(faster, own, [*texts(1, 20), "", "unknown", "refund"])


def test_a_vectorizer_can_still_be_fitted_and_copied() -> None:
    faster, own = fitted("plain"), fitted("plain")
    count_faster(faster)
    assert faster.get_params() == own.get_params()
    assert (faster.fit_transform(texts(2)) != own.fit_transform(texts(2))).nnz == 0
    check_equal(copy.deepcopy(faster), own, texts(3))


class _Subclass(TfidfVectorizer):  # type: ignore[misc]
    """A type of someone else."""


@pytest.mark.parametrize(
    ("state", "value"),
    [
        ("vocabulary_", {"refund": 0, "crash": 2}),
        ("vocabulary_", {"refund": 0, "crash": 0}),
        ("vocabulary_", {"refund": 0, "crash": "1"}),
        ("vocabulary_", UserDict({"refund": 0, "crash": 1})),
        ("__class__", _Subclass),
    ],
)
def test_unusual_vectorizers_stay_unchanged(state: str, value: Any) -> None:
    vectorizer = CountVectorizer().fit(["refund crash"]) if state == "vocabulary_" else fitted("plain")
    setattr(vectorizer, state, value)
    before = type(vectorizer)
    count_faster(vectorizer)
    assert type(vectorizer) is before


@pytest.mark.parametrize("fault", [ValueError("of another version"), None])
def test_a_vectorizer_whose_counts_would_differ_stays_unchanged(
    fault: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = text_counts._counts

    def _one_more(*arguments: Any) -> Any:
        if fault is not None:
            raise fault
        counts = count(*arguments)
        counts.data += 1
        return counts

    monkeypatch.setattr(text_counts, "_counts", _one_more)
    vectorizer = fitted("plain")
    count_faster(vectorizer)
    assert type(vectorizer) is TfidfVectorizer
    check_equal(vectorizer, fitted("plain"), texts(1))


def test_a_vectorizer_that_raises_stays_unchanged() -> None:
    vectorizer = TfidfVectorizer()
    count_faster(vectorizer)
    assert type(vectorizer) is TfidfVectorizer
