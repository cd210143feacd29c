"""XGBoost as a model format."""

from __future__ import annotations

from functools import cache
from typing import cast

from inferd.streams.inference.formats.xgboost.c_library import EXTRA, library
from inferd.streams.inference.formats.xgboost.model_file import BEGINS, NAME, XGBoostFile, read_model_file, sniff
from inferd.streams.inference.formats.xgboost.objectives import class_count
from inferd.streams.inference.formats.xgboost.runtime import XGBoostRuntime
from inferd.streams.inference.libraries import installed_version, missing_library
from inferd.streams.inference.model_format import ModelFile, ModelFormat


@cache
def _library_version() -> str:
    found = installed_version("xgboost-cpu", "xgboost")
    if found is None:
        raise missing_library("XGBoost", EXTRA)
    return found


def _load(content: bytes, file: ModelFile, threads: int) -> XGBoostRuntime:
    return XGBoostRuntime(content, cast(XGBoostFile, file), threads)


XGBOOST = ModelFormat(
    name=NAME,
    begins=BEGINS,
    sniff=sniff,
    read=read_model_file,
    load=_load,
    load_library=library,
    library_version=_library_version,
    class_count=class_count,
)
