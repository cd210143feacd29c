"""The texts of the demo's second act."""

from __future__ import annotations

from collections import Counter

import pytest

from inferd.daemon.demo import package_data, tickets
from inferd.schemas.errors import ServerError


def test_each_language_has_enough_texts_and_the_sets_are_disjoint() -> None:
    pytest.importorskip("chatterbot_corpus")
    train, held_out = tickets.load_tickets()
    counts = Counter(train.languages) + Counter(held_out.languages)
    assert len(counts) >= 15
    assert tickets.PER_LANGUAGE_MIN <= min(counts.values()) <= max(counts.values()) <= tickets.PER_LANGUAGE_MAX
    assert not set(train.texts) & set(held_out.texts)
    assert len(set(train.texts)) == len(train.texts) == len(train.languages)
    assert 3 < len(train) / len(held_out) < 5
    assert tickets.load_tickets() == (train, held_out)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_data, "find_spec", lambda _name: None)
    with pytest.raises(ServerError, match=r"inferd\[broker,demo\]"):
        tickets.load_tickets()
