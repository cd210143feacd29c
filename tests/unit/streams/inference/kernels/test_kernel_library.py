"""When the library of the kernels is used, and the messages when it is not."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd.streams.inference import kernels as package
from inferd.streams.inference import kernels_fault, kernels_in_use, use_kernels
from inferd.streams.inference.kernels import UnavailableError, library_in

FOLDER = Path(package.__file__).parent
SOURCES = tuple(sorted(path.name for path in FOLDER.glob("*.c")))


@pytest.fixture(autouse=True)
def switch_restored() -> Iterator[None]:
    before = kernels_in_use()
    yield
    use_kernels(before)


def copy_of(tmp_path: Path) -> Path:
    for path in (*FOLDER.glob("*.c"), *FOLDER.glob("_kernels.*")):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path


def sign(folder: Path) -> None:
    for name in SOURCES:
        (folder / name).touch()
    names = (*SOURCES, "_kernels.so")
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "_kernels.sha256").write_text("".join(lines))


def fault_of(folder: Path) -> str:
    with pytest.raises(UnavailableError) as caught:
        library_in(folder)
    return str(caught.value)


def test_disabled_kernels_are_reported() -> None:
    use_kernels(False)
    assert kernels_fault() == "they are switched off"


def test_missing_kernels_are_reported(tmp_path: Path) -> None:
    assert fault_of(tmp_path) == "they were not built when inferd was installed"


@pytest.mark.parametrize("changed", SOURCES)
def test_kernels_of_another_source_are_not_used(tmp_path: Path, changed: str) -> None:
    (tmp_path / "_kernels.so").write_bytes(b"\x7fELF")
    sign(tmp_path)
    (tmp_path / changed).write_text("int g;")
    assert fault_of(tmp_path) == "they were built from another version of the source"


def test_a_library_of_another_machine_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "_kernels.so").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
    sign(tmp_path)
    assert fault_of(tmp_path).startswith("their library cannot be loaded: ")


def test_a_library_without_the_kernels_is_not_used(tmp_path: Path) -> None:
    shutil.copy(next(Path("/lib").rglob("libm.so.6")), tmp_path / "_kernels.so")
    sign(tmp_path)
    assert "inferd_tree_predict" in fault_of(tmp_path)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [("_kernels.sha256", "their files cannot be read: "), ("_kernels.so", "their library is damaged")],
)
@pytest.mark.usefixtures("built")
def test_damaged_kernels_are_not_used(tmp_path: Path, damage: str, fault: str) -> None:
    folder = copy_of(tmp_path)
    content = (folder / damage).read_bytes()
    (folder / damage).write_bytes(content[:100])
    assert fault_of(folder).startswith(fault)


def test_unreadable_digests_are_named(tmp_path: Path) -> None:
    (tmp_path / "_kernels.sha256").write_bytes(b"\xff\xfe")
    assert fault_of(tmp_path).startswith("their files cannot be read: ")
