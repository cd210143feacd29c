"""CatBoost as a model format."""

from __future__ import annotations

from functools import partial
from typing import cast

from inferd.streams.inference.formats.catboost.library import EXTRA, library
from inferd.streams.inference.formats.catboost.model_file import BEGINS, NAME, CatBoostFile, read_model_file, sniff
from inferd.streams.inference.formats.catboost.runtime import CatBoostRuntime
from inferd.streams.inference.libraries import installed_version
from inferd.streams.inference.model_format import ModelFile, ModelFormat


def _load(content: bytes, file: ModelFile, threads: int) -> CatBoostRuntime:
    return CatBoostRuntime(content, cast(CatBoostFile, file), threads)


CATBOOST = ModelFormat(
    name=NAME,
    begins=BEGINS,
    sniff=sniff,
    read=read_model_file,
    load=_load,
    load_library=library,
    library_version=partial(installed_version, "CatBoost", EXTRA, "catboost"),
)
