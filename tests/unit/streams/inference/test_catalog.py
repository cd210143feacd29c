"""The catalog of one tenant: the version that a reference resolves to, and the errors of references without one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.errors import (
    InferenceError,
    ModelNotFoundError,
    ModelNotReadyError,
    VersionNotFoundError,
)
from inferd.schemas.models.model import Alias, SplitShare
from inferd.schemas.requests.request import ModelReference
from inferd.streams.inference.catalog import ModelCatalog, ServedModel, Version
from tests.fixtures.lane import sum_model

NAMES, NUMBERS, ALIASES = ("a", "b"), (1, 2, 3), ("champion", "canary")


def served(version: int, name: str = "m") -> ServedModel:
    model = sum_model(version)
    manifest = msgspec.structs.replace(model.manifest, model_id=name)
    return ServedModel(manifest, model.runtime, model.features, model.postprocessor)


def ready(version: int, name: str = "m") -> Version:
    model = served(version, name)
    return Version(model.manifest, "ready", None, model)


def waiting(version: int, state: Any = "fetching", reason: str | None = None) -> Version:
    return Version(served(version).manifest, state, reason)


def catalog_of(*versions: Version, **aliases: Alias) -> ModelCatalog:
    catalog = ModelCatalog()
    for version in versions:
        catalog.put(version)
    for alias, target in aliases.items():
        catalog.put_alias("m", alias, target)
    return catalog


def number(catalog: ModelCatalog, reference: str, key: bytes = b"") -> int:
    return catalog.resolve(ModelReference.parse(reference), key).manifest.version


def split(**weights: float) -> Alias:
    """`split(v1=9, v2=1)`"""
    return Alias(split=[SplitShare(int(name[1:]), weight) for name, weight in weights.items()])


# Resolved references


def test_a_bare_name_is_the_newest_version() -> None:
    assert number(catalog_of(ready(2), ready(10), ready(9)), "m") == 10


def test_a_bare_name_is_the_champion_if_there_is_one() -> None:
    assert number(catalog_of(ready(1), ready(2), champion=Alias(1)), "m") == 1


def test_a_bare_name_passes_over_versions_that_do_not_serve() -> None:
    assert number(catalog_of(ready(1), waiting(2), waiting(3, "failed", "it is bad")), "m") == 1


def test_a_version_that_is_named() -> None:
    assert number(catalog_of(ready(1), ready(2), champion=Alias(2)), "m:1") == 1


def test_an_alias_that_is_named() -> None:
    assert number(catalog_of(ready(1), ready(2), canary=Alias(1)), "m@canary") == 1


def test_a_version_continues_to_serve_while_its_replacement_is_prepared() -> None:
    old, catalog = ready(1), ModelCatalog()
    catalog.put(old)
    new = msgspec.structs.replace(old.manifest, sha256="f" * 64)
    for state in ("fetching", "trying", "failed"):
        catalog.put(Version(new, state, "why", old.served))
        assert catalog.resolve(ModelReference("m", 1)) is old.served
        assert catalog.resolve(ModelReference("m")) is old.served


def test_the_champion_is_chosen_again_after_its_alias_is_removed() -> None:
    catalog = catalog_of(ready(1), ready(2), champion=Alias(1))
    catalog.put_alias("m", "champion", None)
    assert number(catalog, "m") == 2


# Unresolved references


@pytest.mark.parametrize(
    ("reference", "error", "text"),
    [
        ("other", ModelNotFoundError, "there is no model 'other'; `inferd models list` shows what there is"),
        ("other:1", ModelNotFoundError, "there is no model 'other'"),
        ("other@canary", ModelNotFoundError, "there is no model 'other'"),
        ("m:9", VersionNotFoundError, "model 'm' has no version 9"),
        ("m@nobody", VersionNotFoundError, "model 'm' has no alias 'nobody'"),
        ("m@champion", VersionNotFoundError, "model 'm' has no alias 'champion'"),
        ("m@gone", VersionNotFoundError, "model 'm' has no version 7"),
        ("m:2", ModelNotReadyError, "m:2 is fetching: 3 of 9 bytes are here"),
        ("m:3", ModelNotReadyError, "m:3 is failed: it aborted"),
        ("m:4", ModelNotReadyError, "m:4 is trying"),
        ("m@next", ModelNotReadyError, "m:4 is trying"),
    ],
)
def test_references_that_lead_nowhere(reference: str, error: type[InferenceError], text: str) -> None:
    catalog = catalog_of(
        ready(1), waiting(2, "fetching", "3 of 9 bytes are here"), waiting(3, "failed", "it aborted"),
        waiting(4, "trying"), gone=Alias(7), next=Alias(4),
    )  # fmt: skip
    with pytest.raises(error) as caught:
        number(catalog, reference)
    assert caught.value.message.startswith(text)


def test_the_error_of_an_unready_model_has_the_state_of_its_newest_version() -> None:
    with pytest.raises(ModelNotReadyError, match="no version of 'm' is ready; 2 is trying: a moment"):
        number(catalog_of(waiting(1, "failed", "bad"), waiting(2, "trying", "a moment")), "m")


# Splits

SHARES = st.dictionaries(st.integers(1, 50), st.floats(1e-3, 1e3), min_size=1, max_size=5)


@given(SHARES, st.binary(max_size=40))
def test_a_key_always_leads_to_the_same_version(weights: dict[int, float], key: bytes) -> None:
    shares = [SplitShare(version, weight) for version, weight in weights.items()]
    one, other = (catalog_of(*map(ready, weights), champion=Alias(split=shares)) for _ in range(2))
    assert number(one, "m", key) == number(other, "m@champion", key)


@given(SHARES)
def test_shares_answer_in_proportion_to_their_weights(weights: dict[int, float]) -> None:
    shares = [SplitShare(version, weight) for version, weight in weights.items()]
    catalog, n = catalog_of(*map(ready, weights), champion=Alias(split=shares)), 2_000
    answered = Counter(number(catalog, "m", b"key-%d" % k) for k in range(n))
    for version, weight in weights.items():
        share = weight / sum(weights.values())
        assert abs(answered[version] - n * share) <= 5 * math.sqrt(n * share * (1 - share)) + 1


@pytest.mark.parametrize("weights", [{"v1": 1e-300, "v2": 1e300}, {"v1": 5e-324, "v2": 5e-324}])
def test_shares_of_any_size_lead_somewhere(weights: dict[str, float]) -> None:
    catalog = catalog_of(ready(1), ready(2), champion=split(**weights))
    assert {number(catalog, "m", b"%d" % k) for k in range(100)} <= {1, 2}


def test_an_unready_share_is_an_error_only_for_its_own_keys() -> None:
    catalog = catalog_of(ready(1), waiting(2), champion=split(v1=1, v2=1))
    ends = Counter[str]()
    for k in range(200):
        try:
            ends[str(number(catalog, "m", b"%d" % k))] += 1
        except ModelNotReadyError as error:
            ends[error.message] += 1
    assert set(ends) == {"1", "m:2 is fetching"}


def test_whether_the_request_decides_over_the_version() -> None:
    catalog = catalog_of(ready(1), ready(2), canary=split(v1=1, v2=1), old=Alias(1))
    texts = {"m": False, "m:1": False, "m@canary": True, "m@old": False, "m@nobody": False, "other": False}
    assert {text: catalog.splits(ModelReference.parse(text)) for text in texts} == texts
    catalog.put_alias("m", "champion", split(v1=1, v2=1))
    assert catalog.splits(ModelReference("m"))


# Listing


def test_versions_are_listed_by_name_and_number() -> None:
    catalog = catalog_of(ready(2, "z"), ready(10, "b"), ready(9, "b"))
    assert [(v.manifest.model_id, v.manifest.version) for v in catalog.versions()] == [("b", 9), ("b", 10), ("z", 2)]


def test_a_put_returns_the_replaced_version() -> None:
    catalog, first = ModelCatalog(), ready(1)
    assert catalog.put(first) is None
    assert catalog.put(ready(1)) is first


def test_another_state_keeps_the_served_model() -> None:
    catalog = catalog_of(version := ready(1))
    changed = catalog.set_state(version, "failed", "its successor is bad")
    assert (changed.state, changed.reason, changed.served) == ("failed", "its successor is bad", version.served)
    assert catalog.version("m", 1) is changed


def test_a_removed_version_is_not_found_and_the_last_one_takes_the_model_with_it() -> None:
    catalog = catalog_of(one := ready(1), ready(2))
    assert catalog.remove("m", 1) is one
    assert catalog.remove("m", 1) is None
    with pytest.raises(VersionNotFoundError):
        number(catalog, "m:1")
    assert number(catalog, "m") == 2
    catalog.remove("m", 2)
    with pytest.raises(ModelNotFoundError):
        number(catalog, "m:2")
    assert catalog.remove("never", 1) is None


def test_an_alias_outlives_its_version_and_the_other_way_round() -> None:
    catalog = catalog_of(ready(1), champion=Alias(1))
    catalog.remove("m", 1)
    catalog.put(ready(2))
    with pytest.raises(VersionNotFoundError, match="no version 1"):
        number(catalog, "m")
    catalog.put(ready(1))
    assert number(catalog, "m") == 1


def test_aliases_of_a_version_are_those_that_lead_to_it() -> None:
    catalog = catalog_of(ready(1), ready(2), champion=Alias(1), canary=split(v1=9, v2=1), shadowed=Alias(1, shadow=[2]))
    assert catalog.aliases_of("m", 1) == ("canary", "champion", "shadowed")
    assert catalog.aliases_of("m", 2) == ("canary",), "a shadow does not answer"
    assert catalog.aliases_of("m", 3) == catalog.aliases_of("other", 1) == ()


def test_every_change_is_a_revision() -> None:
    catalog, seen = ModelCatalog(), [0]
    changes: tuple[Callable[[], object], ...] = (
        lambda: catalog.put(ready(1)),
        lambda: catalog.set_state(ready(1), "failed", "bad"),
        lambda: catalog.put_alias("m", "champion", Alias(1)),
        lambda: catalog.put_alias("m", "champion", None),
        lambda: catalog.remove("m", 1),
    )
    for change in changes:
        change()
        seen.append(catalog.revision)
    assert seen == sorted(set(seen))


def test_catalogs_of_two_tenants_are_independent() -> None:
    ours, theirs = catalog_of(ready(1), champion=Alias(1)), ModelCatalog()
    with pytest.raises(ModelNotFoundError):
        number(theirs, "m")
    theirs.put(ready(2))
    theirs.put_alias("m", "canary", Alias(2))
    assert (number(ours, "m"), number(theirs, "m")) == (1, 2)
    assert ours.aliases_of("m", 2) == ()
    theirs.remove("m", 2)
    assert number(ours, "m") == 1


# Against a simple model


@dataclass
class Plain:
    """The same, in two dictionaries that are looked through."""

    versions: dict[tuple[str, int], bool] = field(default_factory=dict)
    aliases: dict[tuple[str, str], int] = field(default_factory=dict)

    def resolve(self, name: str, version: int | None, alias: str | None) -> int | str:
        there = {n: serves for (owner, n), serves in self.versions.items() if owner == name}
        if not there:
            return "model_not_found"
        if version is None:
            version = self.aliases.get((name, alias or "champion"))
            if version is None and alias is not None:
                return "version_not_found"
        if version is None:
            return max((n for n, serves in there.items() if serves), default="model_not_ready")
        if version not in there:
            return "version_not_found"
        return version if there[version] else "model_not_ready"


VERSION = st.tuples(st.sampled_from(NAMES), st.sampled_from(NUMBERS))
ALIAS = st.tuples(st.sampled_from(NAMES), st.sampled_from(ALIASES))
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), VERSION, st.booleans()),
        st.tuples(st.just("remove"), VERSION, st.none()),
        st.tuples(st.just("point"), ALIAS, st.sampled_from(NUMBERS)),
        st.tuples(st.just("take away"), ALIAS, st.none()),
    ),
    max_size=20,
)


def change_both(catalog: ModelCatalog, plain: Plain, change: Any) -> None:
    match change:
        case ("put", (name, version), serves):
            model = served(version, name)
            catalog.put(Version(model.manifest, "ready" if serves else "fetching", None, model if serves else None))
            plain.versions[name, version] = serves
        case ("remove", (name, version), _):
            catalog.remove(name, version)
            plain.versions.pop((name, version), None)
        case (_, (name, alias), version):
            catalog.put_alias(name, alias, None if version is None else Alias(version))
            plain.aliases.pop((name, alias), None)
            if version is not None:
                plain.aliases[name, alias] = version


@given(CHANGES)
def test_it_resolves_like_a_plain_search(changes: list[Any]) -> None:
    catalog, plain = ModelCatalog(), Plain()
    for change in changes:
        change_both(catalog, plain, change)
    for name in NAMES:
        for version, alias in [(None, None), *((n, None) for n in NUMBERS), *((None, a) for a in ALIASES)]:
            try:
                found: int | str = catalog.resolve(ModelReference(name, version, alias)).manifest.version
            except InferenceError as error:
                found = error.code
            assert found == plain.resolve(name, version, alias)
