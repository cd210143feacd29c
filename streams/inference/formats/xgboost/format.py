"""XGBoost as a model format."""

from __future__ import annotations

from functools import partial
from typing import cast

from inferd.streams.inference.formats.xgboost.c_library import EXTRA, library
from inferd.streams.inference.formats.xgboost.model_file import BEGINS, NAME, XGBoostFile, read_model_file, sniff
from inferd.streams.inference.formats.xgboost.objectives import class_count
from inferd.streams.inference.formats.xgboost.runtime import XGBoostRuntime
from inferd.streams.inference.libraries import installed_version
from inferd.streams.inference.model_format import ModelFile, ModelFormat


def _load(content: bytes, file: ModelFile, threads: int) -> XGBoostRuntime:
    return XGBoostRuntime(content, cast(XGBoostFile, file), threads)


XGBOOST = ModelFormat(
    name=NAME,
    begins=BEGINS,
    sniff=sniff,
    read=read_model_file,
    load=_load,
    load_library=library,
    library_version=partial(installed_version, "XGBoost", EXTRA, "xgboost-cpu", "xgboost"),
    class_count=class_count,
)
