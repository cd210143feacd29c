"""Recognises files that inferd cannot serve as models, and says for each kind how to save the model instead."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO

_HEAD_BYTES = 65_536
_TEXT_BYTES = 2_048
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(dp0|\(lp0|\(i[a-z_]|ccopy_reg\n|c__main__\n|c[a-z_.]+\n[A-Za-z_]+\n")
_HTML = re.compile(rb"\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_PMML = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<PMML\b", re.DOTALL)
_XGBOOST_DUMP = re.compile(rb"\s*(?:booster\[0\]:|\[\s*\{\s*\"nodeid\")")
_TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"

SAVE_LIGHTGBM = "booster.save_model('model.txt') (of LGBMClassifier and LGBMRegressor: model.booster_.save_model)"
SAVE_XGBOOST = "model.save_model('model.ubj')"
SAVE_CATBOOST = "model.save_model('model.cbm')"
SAVE_SKLEARN = "import skops.io; skops.io.dump(model, 'model.skops')"
SAVE_ONNX = "export the model to ONNX (model.onnx)"
_UNPACK = "unpack it and deploy the model file inside"
_WRITERS = ((b"lightgbm", SAVE_LIGHTGBM), (b"xgboost", SAVE_XGBOOST), (b"catboost", SAVE_CATBOOST))
"""Modules that a pickle names, and how what it holds is saved as a model file."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A kind of file. `remedy` returns how to save the model instead, given the file's first bytes."""

    what: str
    matches: Callable[[bytes], bool]
    remedy: str | Callable[[bytes], str]


def foreign_file(content: bytes) -> str | None:
    """Describes `content` and the remedy, as the end of a sentence; None if the kind of file is unknown."""
    head = content[:_HEAD_BYTES]
    if head.startswith(b"PK\x03\x04"):
        return _of_names("a zip archive", _zip_names(content), _ZIPS)
    for kind in _KINDS:
        if kind.matches(head):
            return f"{kind.what}: {kind.remedy if isinstance(kind.remedy, str) else kind.remedy(head)}"
    return None


def foreign_folder(names: Iterable[str]) -> str:
    """Describes a folder that contains files of these names, and the remedy."""
    return _of_names("a folder", list(names), _FOLDERS)


def _of_names(otherwise: str, names: Sequence[str], table: Sequence[tuple[str, str, str]]) -> str:
    for pattern, what, remedy in table:
        if any(re.search(pattern, name) for name in names):
            return f"{what}: {remedy}"
    return f"{otherwise}: {_UNPACK if otherwise != 'a folder' else 'name the model file in it'}"


def _zip_names(content: bytes) -> list[str]:
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def _starts(*beginnings: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(beginnings)


def _like(pattern: re.Pattern[bytes]) -> Callable[[bytes], bool]:
    return lambda head: pattern.match(head[:_TEXT_BYTES]) is not None


def _has(*words: bytes) -> Callable[[bytes], bool]:
    """Matches JSON or YAML whose first bytes contain all the words."""
    return lambda head: all(word in head[:_TEXT_BYTES] for word in words)


def _is_zlib(head: bytes) -> bool:
    return len(head) > 1 and head[0] == 0x78 and head[1] in (0x01, 0x5E, 0x9C, 0xDA)


def _save_unpickled(head: bytes) -> str:
    """How to save the object in a pickle, chosen by the modules that the pickle names."""
    for module, remedy in _WRITERS:
        if module in head:
            return f"load it where it was made, and save it with {remedy}"
    return f"load it where it was made, and save it with {SAVE_SKLEARN}, or {SAVE_ONNX}"


_ZIPS = (
    (r"(^|/)MLmodel$", "an MLflow model in a zip archive", _UNPACK),
    (r"(^|/)data\.pkl$|(^|/)constants\.pkl$", "a PyTorch file", f"{SAVE_ONNX} with torch.onnx.export"),
    (r"(^|/)model\.weights\.h5$", "a Keras file", SAVE_ONNX),
    (r"(^|/)saved_model\.pb$", "a TensorFlow model in a zip archive", SAVE_ONNX),
    (r"(^|/)model\.ini$", "an H2O MOJO", SAVE_ONNX),
    (r"\.npy$", "a NumPy archive", "deploy the model, not its data"),
)
_FOLDERS = (
    (
        r"^MLmodel$",
        "an MLflow model folder",
        "deploy the model file in it, such as model.ubj",
    ),
    (r"^saved_model\.pb$", "a TensorFlow SavedModel folder", SAVE_ONNX),
    (r"^metadata$", "a Spark ML folder", SAVE_ONNX),
)
_KINDS = (
    Foreign("empty", lambda head: not head, "save the model again"),
    Foreign("a PyTorch file", _starts(_TORCH_MAGIC), f"{SAVE_ONNX} with torch.onnx.export"),
    Foreign("a pickle (or joblib, or cloudpickle), which can run any code", _like(_PICKLE), _save_unpickled),
    Foreign("a LightGBM binary data set", _starts(b"______LightGBM_Binary_File_Token"), f"train, then {SAVE_LIGHTGBM}"),
    Foreign("an XGBoost binary DMatrix", _starts(b"\x01\xab\xff\xff"), f"train, then {SAVE_XGBOOST}"),
    Foreign(
        "an XGBoost model in the binary format that XGBoost 3.1 removed", _starts(b"binf", b"bs64\t"),
        f"load it with XGBoost below 3.1, then {SAVE_XGBOOST}",
    ),
    Foreign("LightGBM's Booster.dump_model", _has(b'"tree_info"', b'"name"'), f"save it with {SAVE_LIGHTGBM}"),
    Foreign("an XGBoost dump of trees", _like(_XGBOOST_DUMP), f"save it with {SAVE_XGBOOST}"),
    Foreign("a CatBoost model in JSON", _has(b'"features_info"'), f"save it with {SAVE_CATBOOST}"),
    Foreign("an MLflow MLmodel file", _has(b"flavors:", b"\n"), "deploy the model file next to it"),
    Foreign("PMML", _like(_PMML), f"save the model itself: {SAVE_ONNX}, or the file of its library"),
    Foreign("an HTML page", _like(_HTML), "the download returned an error or a login page; download it again"),
    Foreign("a Git LFS pointer", _starts(b"version https://git-lfs"), "fetch the file with git lfs pull"),
    Foreign("an HDF5 (Keras) file", _starts(b"\x89HDF\r\n\x1a\n"), SAVE_ONNX),
    Foreign("a TensorFlow Lite file", lambda head: head[4:8] == b"TFL3", SAVE_ONNX),
    Foreign("a TensorFlow SavedModel", _starts(b"\x08\x01\x12"), SAVE_ONNX),
    Foreign("a safetensors file", lambda head: head[8:10] == b'{"' and head[5:8] == b"\0\0\0", SAVE_ONNX),
    Foreign("a GGUF file", _starts(b"GGUF"), "inferd serves tabular models"),
    Foreign("gzip", _starts(b"\x1f\x8b"), f"gunzip it, or save a joblib file with {SAVE_SKLEARN}"),
    Foreign("compressed (xz, bzip2, zstd, lz4 or 7z)",
            _starts(b"\xfd7zXZ\0", b"BZh", b"(\xb5/\xfd", b"\x04\"M\x18", b"7z\xbc\xaf"), _UNPACK),
    Foreign("zlib, as joblib compresses", _is_zlib, f"load it where it was made, and save it with {SAVE_SKLEARN}"),
    Foreign("a file of data, not a model", _starts(b"PAR1", b"ARROW1", b"\x93NUMPY"), "deploy the model file"),
    Foreign("a compiled library", _starts(b"\x7fELF"), "deploy the model that it was made from"),
)  # fmt: skip
