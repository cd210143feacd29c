"""The build of the kernels: with a compiler it creates a library, without one it reports that."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
import hatch_build
from inferd.streams.inference.kernels import library_in

SOURCE = Path(__file__).parents[2] / "streams/inference/kernels/kernels.c"


@pytest.mark.timeout(600)  # the compiler is slow on a busy machine
@pytest.mark.skipif(not hatch_build.compilers(), reason="there is no C compiler")
def test_the_built_library_is_loaded(tmp_path: Path) -> None:
    built, folder = tmp_path / "built", tmp_path / "folder"
    built.mkdir()
    folder.mkdir()
    hatch_build.build(SOURCE, built)
    for source in SOURCE.parent.glob("*.c"):
        shutil.copy(source, folder / source.name)
    hatch_build.place(built, folder)
    assert library_in(folder).version in (0, 1, 2)


def test_a_missing_compiler_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hatch_build, "compilers", list)
    with pytest.raises(hatch_build.BuildError, match="no C compiler"):
        hatch_build.build(SOURCE, tmp_path)


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = (sys.executable, "-c", "import sys; sys.exit('kernels.c:1: no such header')")
    monkeypatch.setattr(hatch_build, "compilers", lambda: [failing, ("/no/such/cc",)])
    with pytest.raises(hatch_build.BuildError, match=r"no such header; /no/such/cc"):
        hatch_build.build(SOURCE, tmp_path)
