"""Models in a directory: registered models are served, damaged files do not affect others, and invalid names are
rejected."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from inferd.schemas.errors import (
    InferenceError,
    InternalError,
    InvalidIdError,
    InvalidValueError,
    MalformedError,
    ModelNotFoundError,
    SchemaMismatchError,
    ServerError,
    TooLargeError,
    VersionNotFoundError,
)
from inferd.schemas.limits import Limits
from inferd.schemas.models.alias_history import revisions, target_of
from inferd.schemas.models.errors import AliasChangedError, NoEarlierTargetError, VersionInUseError
from inferd.schemas.models.model import Alias, AliasTarget, Manifest, SplitShare
from inferd.schemas.requests import ModelReference
from inferd.streams.inference.catalog import ServedModel
from inferd.streams.inference.loading import load_model
from inferd.streams.serving import directory_catalog
from inferd.streams.serving.model_manager import ModelManager
from tests.unit.streams.serving.conftest import SaveModel


def test_a_model_is_registered_tried_listed_and_loaded(manager: ModelManager, save_model: SaveModel) -> None:
    manifest = manager.register("churn", save_model(), postprocess={"labels": ["stays", "goes"]}, alias="champion")
    assert (manifest.model_id, manifest.version, manifest.objective) == ("churn", 1, "binary")
    assert manifest.postprocess is not None
    assert manifest.postprocess.labels == ["stays", "goes"]
    assert manifest.created_at is not None
    assert manager.list() == [manifest]
    assert [version.state for version in manager.catalog.versions()] == ["fetching"]
    assert manager.load("churn@champion").manifest == manifest
    assert [version.state for version in manager.catalog.versions()] == ["ready"]
    assert manager.load("churn") is manager.load("churn:1")
    assert {path.relative_to(manager.store).as_posix() for path in manager.store.rglob("*.*")} == {
        "default/churn/1/model.txt",
        "default/churn/1/manifest.json",
        "default/churn/aliases.json",
    }


def test_the_same_file_is_registered_once(served: ModelManager, save_model: SaveModel) -> None:
    (first,) = served.list()
    assert served.register("churn", save_model(), trial=False) == first
    assert served.register("churn:1", save_model().read_bytes(), trial=False) == first
    labelled = served.register("churn", save_model(), trial=False, postprocess={"labels": ["a", "b"]})
    assert labelled.version == 2
    with pytest.raises(InvalidValueError, match=r"churn:1 exists already.*omit the version"):
        served.register("churn:1", save_model(rounds=5), trial=False)
    assert served.register("churn", save_model(rounds=5), trial=False, version=7).version == 7


def test_references_resolve_as_on_the_wire(served: ModelManager, save_model: SaveModel) -> None:
    served.register("churn", save_model(rounds=5), trial=False)
    assert served.load("churn").manifest.version == 2
    served.set_alias("churn", "champion", 1)
    assert served.load("churn").manifest.version == 1
    assert served.load("churn:2").manifest.version == 2
    served.set_alias("churn", "canary", Alias(split=[SplitShare(1, 1.0), SplitShare(2, 1.0)]))
    found = {served.load("churn@canary", routing_key=b"%d" % n).manifest.version for n in range(64)}
    assert found == {1, 2}
    with pytest.raises(VersionNotFoundError, match=r"no (other )?version 9"):
        served.load("churn:9")
    with pytest.raises(VersionNotFoundError, match="no alias 'gone'"):
        served.load("churn@gone")
    with pytest.raises(VersionNotFoundError, match=r"no (other )?version 9"):
        served.set_alias("churn", "champion", 9)


def test_errors_for_missing_versions_list_the_existing_ones(served: ModelManager) -> None:
    with pytest.raises(ModelNotFoundError, match=r"has no model 'fraud' \(it has churn\): register it"):
        served.load("fraud")
    with pytest.raises(ModelNotFoundError, match="it has none yet"):
        ModelManager(served.store, "acme").load("churn")


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../x", "", "a\0b", "é", "a" * 65, "~new-x"])
def test_no_path_is_made_from_an_unchecked_name(manager: ModelManager, save_model: SaveModel, name: str) -> None:
    for call in (
        lambda: manager.register(name, save_model(), trial=False),
        lambda: manager.load(name),
        lambda: manager.remove(name),
        lambda: manager.set_alias(name, "champion", 1),
    ):
        with pytest.raises(InvalidIdError):
            call()
    assert not manager.store.exists()


@pytest.mark.parametrize("tenant", ["..", "a/b", "", "A", "a.b"])
def test_no_path_is_made_from_an_unchecked_tenant(tmp_path: Path, tenant: str) -> None:
    with pytest.raises(InvalidIdError, match="tenant_id"):
        ModelManager(tmp_path, tenant)


def test_another_process_s_models_are_seen_at_the_next_use(served: ModelManager, save_model: SaveModel) -> None:
    served.load("churn")
    other = ModelManager(served.store)
    other.register("churn", save_model(rounds=5), trial=False, alias="champion")
    other.register("fraud", save_model(), trial=False)
    assert served.load("churn").manifest.version == 2
    assert served.load("fraud").manifest.version == 1
    assert other.remove("churn@champion") == ["churn@champion"]
    assert other.remove("churn:2") == ["churn/2"]
    assert other.remove("fraud") == ["fraud/1"]
    assert served.load("churn").manifest.version == 1
    assert [manifest.model_id for manifest in served.list()] == ["churn"]
    with pytest.raises(VersionNotFoundError):
        served.remove("churn:2")


def targets(manager: ModelManager) -> dict[str, AliasTarget]:
    return {name: target_of(alias) for name, alias in manager.catalog.aliases("churn").items()}


def test_aliases_have_a_history_and_are_rolled_back_and_promoted(served: ModelManager, save_model: SaveModel) -> None:
    served.register("churn", save_model(rounds=5), trial=False)
    for version in (1, 2, 2):
        served.set_alias("churn", "champion", version, changed_by="ana")
    with pytest.raises(AliasChangedError, match="revision 2, not 1"):
        served.set_alias("churn", "champion", 1, revision=1)
    assert [each.version for each in revisions(served.catalog.aliases("churn")["champion"])] == [2, 1]
    back = served.rollback_alias("churn", "champion")
    assert (back.version, back.revision, back.restores) == (1, 3, 1)
    with pytest.raises(NoEarlierTargetError):
        served.rollback_alias("churn", "champion")
    served.set_alias("churn", "next", 2)
    assert served.promote_alias("churn", "next", "champion", revision=3).version == 2
    with pytest.raises(VersionNotFoundError, match="no alias 'other'"):
        served.promote_alias("churn", "other", "champion")
    assert ModelManager(served.store).catalog.resolve(ModelReference.parse("churn")).manifest.version == 2


def test_a_version_that_an_alias_leads_to_is_removed_with_its_alias_moved(
    served: ModelManager, save_model: SaveModel
) -> None:
    served.register("churn", save_model(rounds=5), trial=False, alias="champion")
    split = Alias(split=[SplitShare(1, 3.0), SplitShare(2, 1.0)])
    served.set_alias("churn", "split", split)
    with pytest.raises(VersionInUseError, match=r"churn@champion points at version 2.*\[1\]"):
        served.remove("churn:2")
    for nowhere in (2, 3):
        with pytest.raises(VersionNotFoundError, match=str(nowhere)):
            served.remove("churn:2", move_aliases_to=nowhere)
    for reference in ("churn@champion", "churn"):
        with pytest.raises(InvalidValueError, match="name:version"):
            served.remove(reference, move_aliases_to=1)
    assert targets(served) == {"champion": AliasTarget(version=2), "split": target_of(split)}
    assert served.remove("churn:2", move_aliases_to=1) == ["churn/2"]
    assert targets(served) == {"champion": AliasTarget(version=1), "split": AliasTarget(version=1)}
    assert served.load("churn").manifest.version == 1


def test_a_file_that_is_not_a_model_is_rejected_at_registration(manager: ModelManager, tmp_path: Path) -> None:
    (path := tmp_path / "model.txt").write_text("hello")
    with pytest.raises(MalformedError, match="does not begin with the line 'tree'"):
        manager.register("churn", path)
    with pytest.raises(InvalidValueError, match=r"none\.txt: No such file.*save_model"):
        manager.register("churn", tmp_path / "none.txt")
    assert manager.list() == []


def test_the_content_of_the_manifest_is_checked(manager: ModelManager, save_model: SaveModel) -> None:
    for fields, error in (
        ({"postprocess": {"labels": ["one"]}}, SchemaMismatchError),
        ({"objective": "regression"}, SchemaMismatchError),
        ({"colour": "red"}, MalformedError),
        ({"version": "two"}, InvalidValueError),
        ({"version": 0}, InvalidValueError),
        ({"cache": {"ttl_s": -1, "max_entries": 1}}, InferenceError),
    ):
        with pytest.raises(error):
            manager.register("churn", save_model(), trial=False, **fields)
    with pytest.raises(InvalidIdError, match="alias=…"):
        manager.register("churn@champion", save_model())
    assert manager.list() == []


def test_a_broken_version_leaves_the_one_before_serving(
    served: ModelManager, save_model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.register("churn", save_model(rounds=5), trial=False)
    broken = served.store / "default" / "churn" / "2" / "model.txt"
    broken.write_bytes(broken.read_bytes().replace(b"Tree=1", b"Tree=9", 1))
    assert served.load("churn").manifest.version == 1
    with pytest.raises(MalformedError, match=r"churn:2 cannot be loaded: .*register another version"):
        served.load("churn:2")
    monkeypatch.setattr(directory_catalog, "try_model", lambda *_: pytest.fail("it must not be retried"))
    with pytest.raises(MalformedError):
        served.load("churn:2")
    assert served.load("churn").manifest.version == 1
    assert [version.state for version in served.catalog.versions()] == ["ready", "failed"]


def test_other_bytes_than_the_manifest_s_do_not_serve(served: ModelManager, save_model: SaveModel) -> None:
    (served.store / "default" / "churn" / "1" / "model.txt").write_bytes(save_model(rounds=5).read_bytes())
    with pytest.raises(SchemaMismatchError, match="sha256"):
        served.load("churn")
    (served.store / "default" / "churn" / "1" / "model.txt").unlink()
    again = ModelManager(served.store)
    with pytest.raises(InternalError, match="No such file"):
        again.load("churn")


@pytest.mark.parametrize("content", [b"", b"{", b'{"model_id": "other"}', b"\xff"])
def test_a_damaged_manifest_only_hides_its_own_version(served: ModelManager, content: bytes) -> None:
    (folder := served.store / "default" / "churn" / "2").mkdir()
    (folder / "manifest.json").write_bytes(content)
    (served.store / "default" / "churn" / "aliases.json").write_bytes(content)
    assert [manifest.version for manifest in served.list()] == [1]
    assert served.load("churn").manifest.version == 1


def test_a_store_that_is_a_file_is_rejected(tmp_path: Path, save_model: SaveModel) -> None:
    (path := tmp_path / "store").write_text("")
    with pytest.raises(ServerError, match="expected a directory for models"):
        ModelManager(path)
    late = ModelManager(tmp_path / "late")
    late.store.write_text("")
    with pytest.raises(ServerError, match="use a directory that this user may write"):
        late.register("churn", save_model(), trial=False)


def test_many_threads_load_a_model_once(served: ModelManager, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Path] = []

    def load(path: Path, manifest: Manifest, threads: int, limits: Limits) -> ServedModel:
        loads.append(path)
        return load_model(path, manifest, threads, limits)

    monkeypatch.setattr(directory_catalog, "load_model", load)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(served.load("churn"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({id(model) for model in found}) == 1
    assert (len(found), len(loads)) == (8, 1)


def test_many_processes_register_versions_of_their_own(manager: ModelManager, save_model: SaveModel) -> None:
    managers = [ModelManager(manager.store) for _ in range(4)]
    paths = [save_model(rounds=rounds) for rounds in range(2, 6)]
    threads = [
        threading.Thread(target=each.register, args=("churn", path), kwargs={"trial": False})
        for each, path in zip(managers, paths, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(manifest.version for manifest in manager.list()) == [1, 2, 3, 4]
    assert len({manifest.sha256 for manifest in manager.list()}) == 4


def test_an_invalid_manifest_leaves_no_files(tmp_path: Path, save_model: SaveModel) -> None:
    manager = ModelManager(tmp_path / "store", limits=Limits(manifest_bytes_max=200))
    with pytest.raises(TooLargeError, match="200 are allowed"):
        manager.register("churn", save_model())
    assert not (tmp_path / "store").exists()


def test_directories_are_private(tmp_path: Path, save_model: SaveModel) -> None:
    manager = ModelManager(tmp_path / "store")
    manager.register("churn", save_model(), trial=False)
    assert [path.stat().st_mode & 0o777 for path in (manager.store, manager.store / "default")] == [0o700] * 2
