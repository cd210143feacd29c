"""scikit-learn as a model format."""

from __future__ import annotations

from typing import cast

from inferd.streams.inference.formats.sklearn.library import library, library_version
from inferd.streams.inference.formats.sklearn.model_file import BEGINS, NAME, SklearnFile, read_model_file, sniff
from inferd.streams.inference.formats.sklearn.runtime import SklearnRuntime
from inferd.streams.inference.model_format import ModelFile, ModelFormat


def _load(content: bytes, file: ModelFile, threads: int) -> SklearnRuntime:
    return SklearnRuntime(content, cast(SklearnFile, file), threads)


SKLEARN = ModelFormat(
    name=NAME,
    begins=BEGINS,
    sniff=sniff,
    read=read_model_file,
    load=_load,
    load_library=library,
    library_version=library_version,
)
