"""LightGBM as a model format."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import cast

from inferd.streams.inference.formats.lightgbm.c_library import library
from inferd.streams.inference.formats.lightgbm.model_file import BEGINS, NAME, LightGBMFile, read_model_file, sniff
from inferd.streams.inference.formats.lightgbm.objectives import canonical, class_count
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from inferd.streams.inference.model_format import ModelFile, ModelFormat


@cache
def _library_version() -> str:
    return version("lightgbm")


def _load(content: bytes, file: ModelFile, threads: int) -> LightGBMRuntime:
    # LightGBM has one thread count per process, and by default starts a thread per core.
    library().cap_threads(threads)
    return LightGBMRuntime(content, file=cast(LightGBMFile, file), num_threads=threads)


LIGHTGBM = ModelFormat(
    name=NAME,
    begins=BEGINS,
    sniff=sniff,
    read=read_model_file,
    load=_load,
    load_library=library,
    library_version=_library_version,
    class_count=class_count,
    equal_zeros=True,
    canonical_objective=canonical,
)
