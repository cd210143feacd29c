"""How an alias resolves to the versions of its model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.models.aliases import (
    alias_label,
    alias_labels,
    check_no_shadow,
    check_shadow,
    main_version,
    missing_versions,
    replace_version,
    shares,
    versions_named,
)
from inferd.schemas.models.manifest_checks import check_target
from inferd.schemas.models.model import Alias, SplitShare

VERSIONS = st.integers(1, 6)
SPLITS = st.dictionaries(VERSIONS, st.floats(0.01, 100), min_size=1, max_size=5).map(
    lambda weights: Alias(split=[SplitShare(version, weight) for version, weight in weights.items()])
)
SHADOWED = st.builds(
    lambda alias, shadow: Alias(version=alias.version, split=alias.split, shadow=shadow),
    SPLITS | st.builds(Alias, version=VERSIONS),
    st.none() | st.lists(VERSIONS, unique=True, min_size=1),
)
SPLIT = Alias(split=[SplitShare(1, 9.0), SplitShare(2, 1.0)])


@given(SHADOWED, VERSIONS, VERSIONS)
def test_a_replaced_version_hands_its_share_over(alias: Alias, version: int, by: int) -> None:
    changed = check_target(replace_version(alias, version, by))
    before, after = shares(alias), shares(changed)
    if version != by:
        assert version not in versions_named(changed)
        assert after.get(by, 0.0) == pytest.approx(before.get(by, 0.0) + before.get(version, 0.0))
    others = after.keys() - {version, by}
    assert others == before.keys() - {version, by}
    assert {number: after[number] for number in others} == pytest.approx({number: before[number] for number in others})


@given(SHADOWED, st.sets(VERSIONS))
def test_versions_that_are_missing_are_those_that_answer_and_are_not_deployed(alias: Alias, there: set[int]) -> None:
    assert missing_versions(alias, there) == sorted(number for number in shares(alias) if number not in there)


def test_labels_of_aliases_in_the_list_of_versions() -> None:
    aliases = {"best": Alias(version=2), "champion": SPLIT, "next": Alias(version=1, shadow=[2])}
    assert alias_labels(aliases, 1) == ["champion (90 %)", "next"]
    assert alias_labels(aliases, 2) == ["best", "champion (10 %)", "next (shadow)"]
    assert alias_labels(aliases, 3) == []
    assert alias_label("a", Alias(split=[SplitShare(4, 2.0)]), 4) == "a"
    assert main_version(SPLIT) == 1


def test_shadow_versions_are_rejected_where_nothing_scores_them() -> None:
    check_no_shadow(SPLIT)
    with pytest.raises(InvalidValueError, match="shadow"):
        check_no_shadow(Alias(version=1, shadow=[2]))


def test_a_shadow_version_does_not_also_answer() -> None:
    check_shadow(Alias(version=1, shadow=[2, 3]))
    check_shadow(SPLIT)
    for alias in (Alias(version=2, shadow=[3, 2]), Alias(split=[SplitShare(1, 9), SplitShare(2, 1)], shadow=[2])):
        with pytest.raises(InvalidValueError, match="version 2 answers"):
            check_shadow(alias)
