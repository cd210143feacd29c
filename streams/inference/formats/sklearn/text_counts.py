"""Counts the tokens of texts as scikit-learn's vectorizers do, with the same bits and in less time.

scikit-learn counts the tokens of each text in a dictionary, in Python. Here the tokens of many texts are looked up in
one pass, and scipy adds up equal ones. Texts that need only lower case and a pattern skip the general analyzer. ASCII
texts do not need the usual pattern either.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from itertools import islice, repeat
from typing import Any

import numpy as np

_MODULE = "sklearn.feature_extraction.text"
_NAMES = ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer")
_TOKENS_TOGETHER = 100_000
"""Bounds the memory of a batch of long texts."""
_WORDS_COMPARED = 200
_USUAL_PATTERN = r"(?u)\b\w\w+\b"
_BLANKED = bytes(byte if chr(byte).isalnum() or chr(byte) == "_" else 32 for byte in range(128)).ljust(256)
"""Maps each byte of ASCII to itself if it is of a word, else to a space."""
_SAMPLES = (
    "", " ", "a", "The cat, the CAT and the Cat.", "don't re-do e.g. snake_case 3.14 x1 42", "two\nlines\tand\r\ntabs",
    "Straße STRASSE ſtraße ﬁne", "İstanbul ΣΑΣ ΌΣΟΣ ǅ", "ünïcode u\u0308ni\u0308code", "数据 数据库 データ ٣٤ ⅷ",
    "🙂 👩\u200d👩 zero\u200bwidth\u00a0space", "\x00\x1c\x85\ufeff\ud800 end",
    " ".join(f"ab{chr(code)}c{chr(code)}{chr(code)}de" for code in range(256)),
)  # fmt: skip


def count_faster(vectorizer: Any) -> None:
    """Makes a fitted vectorizer of scikit-learn count faster. It stays unchanged if it is of another type, or if any
    result for texts of its own vocabulary and for unusual ones would differ."""
    own = type(vectorizer)
    if own.__module__ != _MODULE or (faster := _faster_types().get(own)) is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            equal = _has_contiguous_indexes(vectorizer) and _counts_equally(vectorizer, faster)
        except Exception:  # noqa: BLE001  # it is then scikit-learn's to raise, for each batch
            equal = False
    if not equal:
        vectorizer.__class__ = own


def _counts_equally(vectorizer: Any, faster: type[Any]) -> bool:
    """Changes the type of a vectorizer; whether its results stay the same."""
    texts = [*_SAMPLES, *_texts_of(vectorizer)]
    expected = vectorizer.transform(texts)
    vectorizer.__class__ = faster
    return _is_same(vectorizer.transform(texts), expected)


def _analyzer(vectorizer: Any, own: type[Any]) -> Callable[[Any], list[str]]:
    """The function that splits a text into tokens. `own`: the vectorizer's type in scikit-learn."""
    analyze: Callable[[Any], list[str]] = own.build_analyzer(vectorizer)
    if not _splits_by_pattern(vectorizer):
        return analyze
    tokens: Callable[[str], list[str]] = vectorizer.build_tokenizer()
    lower, usual = bool(vectorizer.lowercase), vectorizer.token_pattern == _USUAL_PATTERN

    def tokens_of(text: Any) -> list[str]:
        if type(text) is not str:
            return analyze(text)
        if lower:
            text = text.lower()
        return _words(text) if usual and text.isascii() else tokens(text)

    return tokens_of


def _words(text: str) -> list[str]:
    """The matches of the usual pattern in an ASCII text: its words of at least two characters."""
    return [word for word in text.encode().translate(_BLANKED).decode().split() if len(word) > 1]


def _counted(vectorizer: Any, texts: Iterable[Any]) -> tuple[dict[str, int], Any]:
    """The vocabulary, and how often each of its words is in each text: sparse (texts, words)."""
    vocabulary, analyze = vectorizer.vocabulary_, vectorizer.build_analyzer()
    blocks: list[Any] = []
    tokens: list[str] = []
    ends = [0]
    for text in texts:
        tokens += analyze(text)
        ends.append(len(tokens))
        if len(tokens) >= _TOKENS_TOGETHER:
            blocks.append(_counts(vocabulary, tokens, ends))
            tokens, ends = [], [0]
    if len(ends) > 1 or not blocks:
        blocks.append(_counts(vocabulary, tokens, ends))
    counts = blocks[0] if len(blocks) == 1 else _sparse().vstack(blocks, format="csr")
    return vocabulary, counts.astype(vectorizer.dtype)


def _counts(vocabulary: dict[str, int], tokens: list[str], ends: list[int]) -> Any:
    """Counts the tokens of texts, intc; `ends`: 0, and the end of each text in `tokens`."""
    words = np.fromiter(map(vocabulary.get, tokens, repeat(-1)), np.int32, len(tokens))
    bounds = np.array(ends, np.int32)
    known = words >= 0
    if not known.all():
        bounds = np.concatenate(([0], known.cumsum(dtype=np.int32)), dtype=np.int32)[bounds]
        words = words[known]
    ones = np.ones(len(words), np.intc)
    counts = _sparse().csr_array((ones, words, bounds), shape=(len(ends) - 1, len(vocabulary)))
    counts.sum_duplicates()
    return counts


def _splits_by_pattern(vectorizer: Any) -> bool:
    """Whether the tokens of a text are the matches of `token_pattern`, apart from lowercasing."""
    changes = (vectorizer.preprocessor, vectorizer.tokenizer, vectorizer.stop_words)
    return (
        (vectorizer.input, vectorizer.analyzer) == ("content", "word")
        and all(change is None for change in changes)
        and not vectorizer.strip_accents
        and vectorizer.ngram_range[1] == 1
    )


def _has_contiguous_indexes(vectorizer: Any) -> bool:
    """Whether the indexes of the vocabulary are 0 to n - 1, or there is no vocabulary."""
    words = getattr(vectorizer, "vocabulary_", {})
    return type(words) is dict and sorted(words.values()) == list(range(len(words)))


def _texts_of(vectorizer: Any) -> list[str]:
    """Texts with words of the vocabulary, some of them several times."""
    words = list(islice(getattr(vectorizer, "vocabulary_", ()), _WORDS_COMPARED))
    return [" ".join(words), " ".join(reversed(words * 2)), " ".join(word.upper() for word in words[::3])]


def _is_same(matrix: Any, expected: Any) -> bool:
    if type(matrix) is not type(expected) or matrix.shape != expected.shape:
        return False
    parts = [(getattr(matrix, name), getattr(expected, name)) for name in ("data", "indices", "indptr")]
    return all(part.dtype == other.dtype and part.tobytes() == other.tobytes() for part, other in parts)


@cache
def _faster_types() -> dict[type[Any], type[Any]]:
    """For each vectorizer of scikit-learn, its subclass of the same name that counts faster."""
    module = import_module(_MODULE)
    return {own: _faster_type(own) for own in (getattr(module, name) for name in _NAMES)}


def _faster_type(own: type[Any]) -> type[Any]:
    overrides: dict[str, Any] = {"__module__": _MODULE, "build_analyzer": lambda self: _analyzer(self, own)}
    if (count := getattr(own, "_count_vocab", None)) is not None:

        def _count_vocab(self: Any, raw_documents: Iterable[Any], fixed_vocab: bool) -> Any:
            return _counted(self, raw_documents) if fixed_vocab else count(self, raw_documents, fixed_vocab)

        overrides[_count_vocab.__name__] = _count_vocab
    return type(own.__name__, (own,), overrides)


@cache
def _sparse() -> Any:
    return import_module("scipy.sparse")
