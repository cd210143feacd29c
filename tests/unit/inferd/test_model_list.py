"""The list of models built from a tenant's model records."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from inferd.errors import VersionExistsError
from inferd.models.model_list import (
    COLLECTING_MS,
    GRACE_MS,
    ModelList,
    aliases_to_move,
    check_alias_target,
    check_deployable,
    check_unchanged,
    keys_to_remove,
)
from inferd.schemas.codecs import JSON
from inferd.schemas.errors import (
    InvalidIdError,
    InvalidValueError,
    TooLargeError,
    VersionNotFoundError,
)
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models.codec import encode_alias, encode_manifest
from inferd.schemas.models.errors import VersionInUseError
from inferd.schemas.models.model import (
    Alias,
    AliasKey,
    AliasTarget,
    ClaimKey,
    Feature,
    LeaseKey,
    Manifest,
    SplitShare,
    VersionKey,
)
from inferd.schemas.requests.request import ModelReference

MODEL = b"a model"
REFERENCE = ModelReference.parse


def manifest(version: int = 1, name: str = "churn", model: bytes = MODEL) -> Manifest:
    return Manifest(name, version, "lightgbm", hashlib.sha256(model).hexdigest(), len(model), [Feature("age")])


def model_list(*manifests: Manifest) -> ModelList:
    models = ModelList()
    for one in manifests:
        models.apply(f"{one.model_id}/{one.version}".encode(), encode_manifest(one))
    return models


def test_the_last_record_of_a_key_wins() -> None:
    models = model_list(manifest(1), manifest(2), manifest(1, model=b"another"))
    models.apply(b"churn@champion", encode_alias(Alias(version=1)))
    assert [m.sha256 for m in models.versions_of("churn")] == [
        hashlib.sha256(b"another").hexdigest(),
        hashlib.sha256(MODEL).hexdigest(),
    ]
    assert models.aliases_of("churn") == {"champion": Alias(version=1)}
    models.apply(b"churn/1", None)
    models.apply(b"churn@champion", None)
    assert list(models.versions) == [VersionKey("churn", 2)]
    assert models.aliases == {}


def test_a_manifest_in_json_is_decoded() -> None:
    models = ModelList()
    models.apply(b"churn/1", encode_manifest(manifest(), codec=JSON), JSON)
    assert models.versions_of("churn") == [manifest()]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"churn/1", b"\xc1"),
        (b"churn/1", encode_manifest(manifest(2))),
        (b"\xff\xfe", b""),
        (None, b""),
        (b"churn@champion", b"\x80"),
    ],
)
def test_an_undecodable_record_is_named_and_affects_no_other(key: bytes | None, value: bytes) -> None:
    models = model_list(manifest(7))
    models.apply(key, value)
    assert list(models.versions) == [VersionKey("churn", 7)]
    (reason,) = models.unreadable.values()
    assert reason


def test_a_replaced_undecodable_record_has_no_effect() -> None:
    models = ModelList()
    models.apply(b"churn/1", b"\xc1")
    models.apply(b"churn/1", encode_manifest(manifest()))
    assert (models.unreadable, len(models.versions)) == ({}, 1)


def test_version_numbers_are_not_reused() -> None:
    models = model_list(manifest(1), manifest(4))
    models.apply(b"churn/4", None)
    assert models.next_version("churn") == 5
    assert models.next_version("new") == 1


def test_resolution_of_references() -> None:
    models = model_list(manifest(2))
    models.apply(b"churn@champion", encode_alias(Alias(version=2)))
    for text, there in {
        "churn": True,
        "churn:2": True,
        "churn:1": False,
        "churn@champion": True,
        "churn@best": False,
        "x": False,
    }.items():
        assert models.has(REFERENCE(text)) is there, text
    models.apply(b"churn/2", None)
    assert not models.has(REFERENCE("churn"))


def test_bytes_must_match_the_manifest() -> None:
    check_deployable(ModelList(), MODEL, manifest(), DEFAULT_LIMITS)
    with pytest.raises(InvalidValueError, match="other bytes"):
        check_deployable(ModelList(), b"A model", manifest(), DEFAULT_LIMITS)
    with pytest.raises(TooLargeError):
        check_deployable(ModelList(), MODEL, manifest(), Limits(artifact_bytes_max=3))
    with pytest.raises(InvalidIdError):
        check_deployable(ModelList(), MODEL, manifest(name="no/name"), DEFAULT_LIMITS)


def test_a_version_can_be_redeployed_but_not_changed() -> None:
    models = model_list(manifest())
    check_deployable(models, MODEL, manifest(), DEFAULT_LIMITS)
    with pytest.raises(VersionExistsError, match="version 2"):
        check_deployable(models, b"other", manifest(model=b"other"), DEFAULT_LIMITS)


def test_the_first_claim_of_a_version_decides_its_content_for_ever() -> None:
    models = ModelList()
    first, second = (ClaimKey("churn", 1, digit * 32) for digit in "ba")
    models.apply(str(first).encode(), encode_manifest(manifest()))
    models.apply(str(second).encode(), encode_manifest(manifest(model=b"other")))
    models.apply(b"churn/1", encode_manifest(manifest(model=b"other")))
    assert models.versions_of("churn") == [manifest()], "another program's record changes nothing"
    models.apply(b"churn/1", None)
    models.apply(str(second).encode(), None)
    assert models.content(VersionKey("churn", 1)) == manifest()
    assert check_unchanged(models, msgspec.structs.replace(manifest(), created_at="2030-01-01T00:00:00Z")) == manifest()
    with pytest.raises(VersionExistsError, match="deploy as version 2"):
        check_unchanged(models, manifest(model=b"other"))


def test_an_artifact_is_collected_once_no_version_and_no_young_lease_needs_it() -> None:
    models, sha256 = model_list(manifest(1)), manifest().sha256
    lease, mark = LeaseKey.new(sha256), LeaseKey.new(sha256, collecting=True)
    models.apply(str(lease).encode(), encode_manifest(manifest()), written_ms=1_000)
    models.apply(str(mark).encode(), encode_manifest(manifest()), written_ms=GRACE_MS)
    late = GRACE_MS + 2_000
    assert not models.collectable(sha256, late, mark), "a version needs it"
    models.apply(b"churn/1", None)
    assert not models.collectable(sha256, GRACE_MS, mark), "the lease is young"
    assert not models.collectable(sha256, late), "another client is collecting"
    assert models.collectable(sha256, late, mark)
    assert models.is_collecting(sha256, late)
    assert not models.is_collecting(sha256, GRACE_MS + COLLECTING_MS)


def test_aliases_are_removed_before_their_versions() -> None:
    models = model_list(manifest(1))
    models.apply(b"churn@champion", encode_alias(Alias(version=1)))
    keys = keys_to_remove(models, REFERENCE("churn"), everything=True)
    assert [str(key) for key in keys] == ["churn@champion", "churn/1"]


CHAMPION, SPLIT = AliasKey("churn", "champion"), AliasKey("churn", "split")


def with_aliases(*manifests: Manifest) -> ModelList:
    models = model_list(*manifests, manifest(2, "other"))
    models.apply(b"churn@champion", encode_alias(Alias(version=2)))
    models.apply(b"churn@split", encode_alias(Alias(split=[SplitShare(1, 1.0), SplitShare(2, 3.0)])))
    models.apply(b"other@champion", encode_alias(Alias(version=2)))
    return models


def test_a_version_with_an_alias_is_not_removed() -> None:
    models = with_aliases(manifest(1), manifest(2), manifest(3))
    with pytest.raises(VersionInUseError, match=r"churn@champion points at version 2.*\[1, 3\]"):
        aliases_to_move(models, keys_to_remove(models, REFERENCE("churn:2"), everything=False), None)
    for harmless in ("churn:3", "churn@champion"):
        assert aliases_to_move(models, keys_to_remove(models, REFERENCE(harmless), everything=False), None) == {}
    assert aliases_to_move(models, keys_to_remove(models, REFERENCE("churn"), everything=True), None) == {}


def test_aliases_move_in_the_same_step() -> None:
    models = with_aliases(manifest(1), manifest(2), manifest(3))
    removed = keys_to_remove(models, REFERENCE("churn:2"), everything=False)
    assert aliases_to_move(models, removed, 3) == {
        CHAMPION: AliasTarget(version=3),
        SPLIT: AliasTarget(split=[SplitShare(1, 1.0), SplitShare(3, 3.0)]),
    }
    assert aliases_to_move(models, removed, 1) == {CHAMPION: AliasTarget(version=1), SPLIT: AliasTarget(version=1)}
    for nowhere in (2, 4):
        with pytest.raises(VersionNotFoundError, match=str(nowhere)):
            aliases_to_move(models, removed, nowhere)
    for reference, everything in (("churn@champion", False), ("churn", True)):
        with pytest.raises(InvalidValueError, match="name:version"):
            aliases_to_move(models, keys_to_remove(models, REFERENCE(reference), everything=everything), 1)


def test_dangling_aliases_are_listed() -> None:
    models = with_aliases(manifest(1), manifest(2))
    assert models.dangling() == {}
    models.apply(b"churn/2", None)
    assert models.dangling() == {CHAMPION: [2], SPLIT: [2]}


def test_an_alias_has_shadow_versions_that_exist_and_do_not_answer() -> None:
    models = with_aliases(manifest(1), manifest(2))
    check_alias_target(models, CHAMPION, Alias(version=1, shadow=[2]))
    with pytest.raises(VersionNotFoundError, match="version 3"):
        check_alias_target(models, CHAMPION, Alias(version=1, shadow=[2, 3]))
    with pytest.raises(InvalidValueError, match="shadow"):
        check_alias_target(models, CHAMPION, Alias(version=1, shadow=[1]))
